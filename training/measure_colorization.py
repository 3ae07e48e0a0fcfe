"""
Measures the embedded colorization on held-out drawings: how often a pixel that is coloured in the drawing comes out in
that colour, and how close the mean over channels stays to the gray drawing. Writes numbers and a sheet to look at.
"""

import argparse
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from images_that_sound.pipelines import FactorizedColorizationPipeline
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import SHIPPED
from images_that_sound.selection import mean_and_interval

from .colorization import describe
from .world import HEIGHT, SUBJECTS, WIDTH, draw_picture


# Drawings of this seed are used nowhere else.
SEED = 106
# Degrees of hue within which a colour counts as the drawing's, and the least saturation that counts as a colour.
HUE_TOLERANCE, LEAST_SATURATION = 30, 0.25
GREEN = (80, 170)


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded-colorization")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="Default: %(default)s.")
    parser.add_argument("--num_drawings", type=int, default=5, help="Drawings of each of the ten subjects.")
    parser.add_argument("--output", required=True, help="JSON file for the numbers.")
    parser.add_argument("--contact_sheet", help="PNG file: drawing in gray, coloured, and in its own colours.")
    return parser.parse_args(input_args)


def hue_and_saturation(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue in degrees and chroma in 0..1, both (H, W), of a picture (H, W, 3) in 0..255."""
    hsv = np.asarray(PIL.Image.fromarray(picture).convert("HSV"), np.float32)
    return hsv[..., 0] * 360 / 255, hsv[..., 1] * hsv[..., 2] / 255**2


def right_colours(made: np.ndarray, drawn: np.ndarray) -> dict[str, tuple[int, int]]:
    """How many pixels that are coloured in the drawing come out so, of how many; and of the green ones."""
    (made_hue, made_chroma), (hue, chroma) = hue_and_saturation(made), hue_and_saturation(drawn)
    distance = np.abs((made_hue - hue + 180) % 360 - 180)
    right = (distance <= HUE_TOLERANCE) & (made_chroma >= 0.3 * chroma)
    coloured = chroma >= LEAST_SATURATION
    green = coloured & (hue >= GREEN[0]) & (hue <= GREEN[1])
    return {name: (int(right[mask].sum()), int(mask.sum())) for name, mask in (("all", coloured), ("green", green))}


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    pipe = FactorizedColorizationPipeline.from_pretrained(
        SHIPPED.get(args.model, args.model), dtype=getattr(torch, args.dtype)
    )
    pipe.set_progress_bar_config(disable=True)
    shares: dict[str, list[float]] = {subject: [] for subject in (*SUBJECTS, "green")}
    errors, rows = [], []
    for subject in SUBJECTS:
        for index in range(args.num_drawings):
            key = [SEED, SUBJECTS.index(subject), index]
            drawn, attributes = draw_picture(subject, np.random.default_rng(key), HEIGHT, WIDTH, colored=True)
            drawn = np.asarray(drawn)
            gray = PIL.Image.fromarray(drawn.mean(axis=2).round().astype(np.uint8))
            prompt = describe({"name": subject, "attributes": attributes}, True, np.random.default_rng(key))
            output = pipe(gray, prompt, generator=torch.Generator().manual_seed(index))
            made = np.asarray(output.images[0])
            errors.append(output.gray_errors[0])
            counts = right_colours(made, drawn)
            for name, (right, total) in ((subject, counts["all"]), ("green", counts["green"])):
                if total >= 200:
                    shares[name].append(right / total)
            if index == 0:
                rows.append(np.concatenate([np.repeat(np.asarray(gray)[..., None], 3, axis=2), made, drawn], axis=1))
        print(f"{subject}: {np.mean(shares[subject]):.0%} of coloured pixels", flush=True)
    report = {
        name: dict(zip(("share", "interval"), mean_and_interval(values)), drawings=len(values))
        for name, values in {**shares, "all": [v for s in SUBJECTS for v in shares[s]]}.items()
        if values
    }
    report["gray_error"] = dict(zip(("mean", "interval"), mean_and_interval(errors)), drawings=len(errors))
    write_json(Path(args.output), report)
    print(report)
    if args.contact_sheet:
        PIL.Image.fromarray(np.concatenate(rows)).save(args.contact_sheet)


if __name__ == "__main__":
    main()
