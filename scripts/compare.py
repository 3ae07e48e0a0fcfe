"""
Repeats the comparison of the paper on the embedded checkpoint: the image side alone, the audio side alone, imprint,
SDS, and the averaging of noise, over pairs of prompts and seeds, judged by CLIP and CLAP. A stopped run goes on.
"""

import argparse
import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from diffusers import DiffusionPipeline

from images_that_sound.pipelines import (
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
    ImagesThatSoundSDSPipeline,
)
from images_that_sound.scripts import generate, imprint
from images_that_sound.scripts.evaluate import evaluate, write_csv
from images_that_sound.scripts.evaluate import parse_args as parse_evaluate_args
from images_that_sound.scripts.presets import MATCHED, WORLD_PROMPTS
from images_that_sound.scripts.samples import read_picture, write_json
from images_that_sound.scripts.sampling import (
    add_device_arguments,
    add_process_arguments,
    all_seeds,
    load_pipeline,
    make_samples,
    new_accelerator,
    own_share,
    run,
    with_checkpoint_defaults,
)
from images_that_sound.scripts.scoring import load_scorer


# Each method's pipeline and arguments of its call.
METHODS = {
    "image": (ImagesThatSoundPipeline, {"audio_weight": 0.0, "image_guidance_start": 0.0}),
    "audio": (ImagesThatSoundPipeline, {"audio_weight": 1.0}),
    "imprint": (ImagesThatSoundImprintPipeline, {}),
    "sds": (
        ImagesThatSoundSDSPipeline,
        {
            "image_start_step": 60,
            "learning_rate": 2e-3,
            "canvas_kwargs": {"hidden_size": 64, "num_frequencies": 64},
        },
    ),
    "ours": (ImagesThatSoundPipeline, {}),
}
SCORES = ("clip", "clap")


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound compare", description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="Default: all.")
    parser.add_argument(
        "--pairs", nargs="+", default=["all"], help="all 100, matched (the 10 that belong), or such as castle-bell."
    )
    parser.add_argument("--num_samples", type=int, default=2, help="Seeds of each pair. Default: %(default)s.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_sds_iterations", type=int, default=600, help="Default: %(default)s.")
    parser.add_argument("--output_dir", default="comparison")
    add_process_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    args.num_images_per_prompt, args.video, args.device_map = args.num_samples, False, None
    args.model, args.audio_model = "embedded", None
    return args


def pairs_of(args: argparse.Namespace) -> list[tuple[str, str]]:
    everything = {f"{p}-{s}": (p, s) for p in WORLD_PROMPTS["picture"] for s in WORLD_PROMPTS["sound"]}
    if args.pairs == ["all"]:
        return list(everything.values())
    if args.pairs == ["matched"]:
        return list(MATCHED.items())
    for name in args.pairs:
        if name not in everything:
            raise ValueError(f"`pairs` has to be all, matched, or among {sorted(everything)}, but names {name!r}.")
    return [everything[name] for name in args.pairs]


def make(
    args: argparse.Namespace, method: str, pipe: DiffusionPipeline, pairs: list[tuple[str, str]]
) -> Iterator[Path]:
    """The samples of one method that are missing."""
    own = METHODS[method][1]
    if method == "sds":
        own = {**own, "num_iterations": args.num_sds_iterations}
    pipe.set_progress_bar_config(disable=True)
    pictures_of = imprint.pictures_of if method == "imprint" else generate.pictures_of
    for picture, sound in pairs:
        prompts = {"prompt": WORLD_PROMPTS["picture"][picture], "audio_prompt": WORLD_PROMPTS["sound"][sound]}
        arguments = with_checkpoint_defaults({**prompts, **own}, pipe)
        place = argparse.Namespace(**{**vars(args), "output_dir": str(folder_of(args, method, picture, sound))})
        if method == "sds":
            place.num_images_per_prompt = 1
        yield from make_samples(place, pipe, arguments, arguments, pictures_of, all_seeds(args))


def folder_of(args: argparse.Namespace, method: str, picture: str, sound: str) -> Path:
    return Path(args.output_dir) / method / f"{picture}-{sound}"


def compare(args: argparse.Namespace) -> Iterator[str]:
    """Makes what is missing, evaluates each method that has samples; yields the lines of a table."""
    accelerator = new_accelerator(args)
    pairs = own_share(accelerator, pairs_of(args))
    pipeline_of = cache(partial(load_pipeline, args))
    for method in args.methods:
        for path in make(args, method, pipeline_of(METHODS[method][0]), pairs):
            yield str(path)
    accelerator.wait_for_everyone()
    rows, scorer = [], None
    for method in METHODS:
        folder = Path(args.output_dir) / method
        if folder.exists():
            # The embedded checkpoint has no vocoder: its sounds are Griffin-Lim's already.
            arguments = ["--sample_dir", str(folder), "--device", args.device, "--no-griffin_lim"]
            evaluate_args = parse_evaluate_args([*arguments, "--clip_model", "embedded", "--clap_model", "embedded"])
            scorer = scorer or load_scorer(evaluate_args)
            yield from evaluate(evaluate_args, scorer)
            overall = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))[-1]
            rows.append({"method": method, **{k: v for k, v in overall.items() if not k.endswith("prompt")}})
    if accelerator.is_main_process:
        write_json(Path(args.output_dir) / "comparison.json", rows)
        write_csv(Path(args.output_dir) / "comparison.csv", rows)
        figure(args).save(Path(args.output_dir) / "comparison.png")
        yield f"{'method':<10} {'n':>5}" + "".join(f" {name:>19}" for name in SCORES)
        for row in rows:
            cells = "".join(f" {row[name]:>10.3f} ± {row[name + '_interval']:>6.3f}" for name in SCORES)
            yield f"{row['method']:<10} {row['num_samples']:>5}{cells}"


def figure(args: argparse.Namespace) -> PIL.Image.Image:
    """The first sample of each pair that belongs together, by each method that has samples."""
    font, width, height, line = PIL.ImageFont.load_default(size=15), 384, 96, 22
    methods = [method for method in METHODS if (Path(args.output_dir) / method).exists()]
    sheet = PIL.Image.new("RGB", (len(methods) * (width + 4), line + len(MATCHED) * (height + line)))
    pen = PIL.ImageDraw.Draw(sheet)
    for column, method in enumerate(methods):
        pen.text((column * (width + 4) + 4, 2), method, font=font, fill="white")
        for row, (picture, sound) in enumerate(MATCHED.items()):
            left, top = column * (width + 4), line + row * (height + line)
            pen.text((left + 4, top + 2), f"{picture}, {sound}", font=font, fill="gray")
            samples = sorted(folder_of(args, method, picture, sound).glob("seed-*/image.png"))
            if samples:
                sheet.paste(read_picture(samples[0]).convert("RGB").resize((width, height)), (left, top + line))
    return sheet


def main(input_args: list[str] | None = None) -> None:
    run(lambda: compare(parse_args(input_args)))


if __name__ == "__main__":
    main()
