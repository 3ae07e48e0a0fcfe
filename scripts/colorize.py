"""Colours the pictures of samples made here, several tries each, with videos of colours above spectrogram."""

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import soundfile
import torch

from images_that_sound.pipelines import FactorizedColorizationPipeline
from images_that_sound.scripts.presets import COLORIZE_PRESETS
from images_that_sound.scripts.samples import captions_of, find_samples, read_picture, sample_settings, write_picture
from images_that_sound.scripts.sampling import add_device_arguments, on_device, read_pipeline, run
from images_that_sound.scripts.video import write_video


CALL_ARGUMENTS = {
    "negative_prompt": (str, None, "What not to see."),
    "num_inference_steps": (int, 30, "Denoising steps of each stage."),
    "guidance_scale": (float, 10.0, "Guidance."),
    "start_diffusion_step": (int, 7, "Step at which stage I starts from the gray picture."),
    "noise_level": (int, 50, "Noise that stage II finds on the picture of stage I."),
}
WORDS_OF_GRAY = re.compile(
    r"^an? (painting|drawing|sketch|picture|lithograph) of |,? (grayscale|lithograph style|\w+ background)\b", re.I
)


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound colorize", description=__doc__)
    parser.add_argument("--sample_dir", required=True, help="Every sample at or below it is coloured.")
    parser.add_argument("--prompt", help="Default: 'a colorful photo of' what the sample's prompt names.")
    parser.add_argument("--example", choices=COLORIZE_PRESETS, help="The prompt of a published example.")
    for name, (kind, default, text) in CALL_ARGUMENTS.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} Default: %(default)s.")
    parser.add_argument("--exact_gray", action="store_true", help="Impose the gray picture on the result.")
    parser.add_argument("--num_images_per_prompt", type=int, default=4, help="Tries for each. Default: %(default)s.")
    parser.add_argument("--seed", type=int, default=0, help="Try i has seed + i. Default: %(default)s.")
    parser.add_argument(
        "--model",
        help="Stage I, or both. Default: DeepFloyd/IF-I-M-v1.0; for samples of the embedded checkpoint,"
        " embedded-colorization, which knows its world only.",
    )
    parser.add_argument("--super_resolution_model", help="Stage II. Default for DeepFloyd's stage I: its stage II.")
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    if args.prompt is not None and args.example is not None:
        raise ValueError("`--prompt` and `--example` exclude each other.")
    if args.example is not None:
        args.prompt = COLORIZE_PRESETS[args.example]["prompt"]
    return args


def fill_in_models(args: argparse.Namespace, samples: list[dict]) -> None:
    if args.model is None:
        embedded = all(sample.get("model") == "embedded" for sample in samples)
        args.model = "embedded-colorization" if embedded else "DeepFloyd/IF-I-M-v1.0"
    if args.super_resolution_model is None and args.model.startswith("DeepFloyd/IF-I-"):
        args.super_resolution_model = "DeepFloyd/IF-II-M-v1.0"


def load_colorization(args: argparse.Namespace) -> FactorizedColorizationPipeline:
    pipe = read_pipeline(args, FactorizedColorizationPipeline)
    if args.super_resolution_model is not None:
        pipe.load_super_resolution(args.super_resolution_model)
    return on_device(args, pipe)


def colourful(prompt: str) -> str:
    """The prompt of a gray picture, for a colour one."""
    return f"a colorful photo of {WORDS_OF_GRAY.sub('', prompt).strip()}"


def pending_seeds(args: argparse.Namespace, folder: Path, settings: dict) -> list[int]:
    """Seeds of tries that are not there yet. Raises `ValueError` for one that is there with other settings."""
    pending = []
    for seed in range(args.seed, args.seed + args.num_images_per_prompt):
        file = folder / f"color-{seed:06d}.json"
        if not file.exists():
            pending.append(seed)
        elif {**json.loads(file.read_text(encoding="utf-8")), **settings} != json.loads(file.read_text("utf-8")):
            raise ValueError(f"`sample_dir` holds {file}, made with other settings. Move it away.")
    return pending


def write_try(
    folder: Path, name: str, picture: PIL.Image.Image, audio: np.ndarray, sampling_rate: int, sample: dict, made: dict
) -> None:
    """The colour picture, the video, and last the settings, which say that the try is complete."""
    text = json.dumps({**sample, "color": made})
    write_picture(folder / f".{name}.part.png", picture, text)
    captions = [*captions_of(sample), f"colors: {made['prompt']}"]
    panels = [(picture, 2 if sample.get("canvas_layout") == "folded" else 1)]
    panels.append((read_picture(folder / "spectrogram.png"), 1))
    write_video(folder / f".{name}.part.mp4", panels, audio, sampling_rate, captions, text)
    (folder / f".{name}.part.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    for suffix in (".png", ".mp4", ".json"):
        os.replace(folder / f".{name}.part{suffix}", folder / f"{name}{suffix}")


def colorize(args: argparse.Namespace) -> Iterator[Path]:
    """Makes the tries that are missing; yields each colour picture as it appears."""
    if args.num_images_per_prompt < 1:
        raise ValueError(f"`num_images_per_prompt` has to be a positive integer, but is {args.num_images_per_prompt}.")
    folders = find_samples(args.sample_dir)
    samples = [sample_settings(folder) for folder in folders]
    fill_in_models(args, samples)
    pipe = load_colorization(args)
    for folder, sample in zip(folders, samples):
        yield from make_tries(args, pipe, folder, sample)


def make_tries(
    args: argparse.Namespace, pipe: FactorizedColorizationPipeline, folder: Path, sample: dict
) -> Iterator[Path]:
    """Makes the tries of one sample that are missing; `sample` is what made it."""
    arguments = {name: getattr(args, name) for name in ("exact_gray", *CALL_ARGUMENTS)}
    arguments["prompt"] = args.prompt or colourful(sample.get("prompt") or "a picture")
    settings = {**arguments, "model": args.model, "super_resolution_model": args.super_resolution_model}
    seeds = pending_seeds(args, folder, settings)
    if not seeds:
        return
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    gray = read_picture(folder / "image.png")
    output = pipe(gray, **arguments, num_images_per_prompt=len(seeds), generator=generators)
    audio, sampling_rate = soundfile.read(folder / "audio.wav", dtype="float32")
    for seed, picture, gray_error in zip(seeds, output.images, output.gray_errors):
        made = {**settings, "seed": seed, "gray_error": gray_error}
        name = f"color-{seed:06d}"
        write_try(folder, name, picture, audio, sampling_rate, sample, made)
        yield folder / f"{name}.png"


def main(input_args: list[str] | None = None) -> None:
    run(lambda: colorize(parse_args(input_args)))


if __name__ == "__main__":
    main()
