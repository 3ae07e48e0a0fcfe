"""
Measures the pipeline that `training.open_pipeline` puts together: canvases of random pairs, one seed each, what its
CLIP and CLAP name of them among all names, and the seconds of a call and its parts beside the checkpoint that ships.
Writes pipeline.json and pipeline.png.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.selection import CLAPScore, CLIPScore

from .judges import share
from .measure_unets import PROMPT_SEED, chosen
from .open_world.squares import Squares, describe, make_squares


PAIR = ("a castle", "church bells ringing")


def seconds(pipe: ImagesThatSoundPipeline, rounds: int = 3) -> dict[str, float]:
    """The least seconds of a call, and of decoding and playing in it."""
    times = {"call": [], "decoding": [], "playing": []}
    for seed in range(rounds):
        start = time.perf_counter()
        pipe(*PAIR, generator=torch.Generator().manual_seed(seed))
        times["call"].append(time.perf_counter() - start)
        latents = pipe(*PAIR, generator=torch.Generator().manual_seed(seed), output_type="latent").images
        start = time.perf_counter()
        _, spectrograms, _ = pipe.decode(latents, pipe.resolve_windows(pipe.resolve_size()))
        both = time.perf_counter() - start
        start = time.perf_counter()
        pipe.play(spectrograms)
        times["playing"].append(time.perf_counter() - start)
        times["decoding"].append(both - times["playing"][-1])
    return {name: round(min(each), 2) for name, each in times.items()}


def prompts_by_name(data: dict[str, Squares]) -> dict[str, dict[str, str]]:
    """For each kind a prompt for each name."""
    numbers = np.random.default_rng(PROMPT_SEED)
    return {
        kind: {label["name"]: describe(kind, label, numbers) for label in reversed(data[kind].labels)} for kind in data
    }


def tops(
    score: CLIPScore | CLAPScore, embeddings: torch.Tensor, known: dict[str, str], picks: tuple[list[str], list[str]]
) -> dict[int, torch.Tensor]:
    """Whether the prompts of results are nearest, or among the nearest five, of all names' prompts."""
    names, right = list(known), []
    for embedding, name, prompt in zip(embeddings, *picks):
        read = score.embed_prompts([*({**known, name: prompt}[each] for each in names)])
        right.append((embedding @ read.T).topk(5).indices == names.index(name))
    right = torch.stack(right)
    return {top: right[:, :top].any(dim=1) for top in (1, 5)}


def draw_sheet(images: torch.Tensor, picks: dict, file: Path) -> None:
    """Canvases (N, 3, H, W) in 0..1 in two columns, with their names."""
    tiles = []
    for image, picture, sound in zip(images[:24], picks["picture"][0], picks["sound"][0]):
        tile = PIL.Image.fromarray(image.mul(255).byte().permute(1, 2, 0).cpu().numpy()).resize((768, 192))
        framed = PIL.Image.new("RGB", (776, 212))
        framed.paste(tile, (4, 16))
        PIL.ImageDraw.Draw(framed).text((6, 2), f"{picture} + {sound}", "white")
        tiles.append(framed)
    sheet = PIL.Image.new("RGB", (2 * 776, 212 * -(-len(tiles) // 2)))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (776 * (index % 2), 212 * (index // 2)))
    sheet.save(file)


def main(input_args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="Folder of the pipeline.")
    parser.add_argument("--work_dir", type=Path, default="outputs/open_world", help="Keeps the squares.")
    parser.add_argument("--output", type=Path, default="training/checkpoints", help="For pipeline.json and .png.")
    parser.add_argument("--num_samples", type=int, default=12)
    args = parser.parse_args(input_args)
    pipe = ImagesThatSoundPipeline.from_pretrained(args.model)
    shipped = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    for each in (pipe, shipped):
        each.set_progress_bar_config(disable=True)
    report = {"seconds": seconds(pipe), "seconds of the checkpoint that ships": seconds(shipped)}
    print(json.dumps(report), flush=True)
    data = make_squares(args.work_dir, 1000, ("picture", "sound"))
    picks, images, sounds = chosen(data, args.num_samples), [], []
    for seed, pair in enumerate(zip(*(picks[kind][1] for kind in picks))):
        output = pipe(*pair, generator=torch.Generator().manual_seed(seed), output_type="pt")
        images.append(output.images)
        sounds.append(np.asarray(output.audios))
    images, sounds, known = torch.cat(images), np.concatenate(sounds), prompts_by_name(data)
    draw_sheet(images, picks, args.output / "pipeline.png")
    report["sounds"] = {"seconds": sounds.shape[1] / pipe.sampling_rate, "rms": float(np.sqrt((sounds**2).mean()))}
    clip = CLIPScore.from_pretrained(args.model, subfolder="clip", dtype=torch.float32)
    clap = CLAPScore.from_pretrained(args.model, subfolder="clap", dtype=torch.float32)
    found = {
        "picture": tops(clip, clip.embed_canvases(images).mean(dim=1), known["picture"], picks["picture"]),
        "sound": tops(clap, clap.embed_audios(sounds, pipe.sampling_rate), known["sound"], picks["sound"]),
    }
    found["both"] = {top: found["picture"][top] & found["sound"][top] for top in (1, 5)}
    for kind, each in found.items():
        report |= {f"{kind} top {top}": share(int(right.sum()), len(right)) for top, right in each.items()}
    write_json(args.output / "pipeline.json", report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
