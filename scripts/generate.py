"""Makes images that sound: pictures whose spectrogram is played, each with its sound, a video and its settings."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.presets import GENERATE_PRESETS
from images_that_sound.scripts.sampling import (
    add_arguments,
    add_process_arguments,
    all_seeds,
    check_args,
    fill_in,
    load_pipeline,
    make_samples,
    new_accelerator,
    own_share,
    report_samples,
    run,
    sample_folder,
    with_checkpoint_defaults,
)


CALL_ARGUMENTS = {
    "negative_prompt": (str, "What not to see."),
    "negative_audio_prompt": (str, "What not to hear."),
    "height": (int, "Pixels; the checkpoint's number of mel bins, twice that for the folded layout."),
    "width": (int, "Pixels, a multiple of 8; the sound lasts 0.01 s per column."),
    "audio_length_in_s": (float, "Length of the sound in seconds, instead of --width."),
    "num_inference_steps": (int, "Denoising steps."),
    "guidance_scale": (float, "Guidance of the image side."),
    "audio_guidance_scale": (float, "Guidance of the audio side."),
    "image_guidance_start": (float, "Fraction of the steps before which the image side is silent."),
    "audio_guidance_start": (float, "Fraction of the steps before which the audio side is silent."),
    "image_guidance_end": (float, "Fraction of the steps from which the image side is silent."),
    "audio_guidance_end": (float, "Fraction of the steps from which the audio side is silent."),
    "crop_right": (int, "Columns cut from the right end."),
    "eta": (float, "Share of fresh noise, for schedulers that take it."),
    "cross_attention_kwargs": (json.loads, "JSON for the attention processors."),
}


def new_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The arguments of a command that makes samples by [`ImagesThatSoundPipeline`]."""
    parser = argparse.ArgumentParser(prog=f"images-that-sound {command}", description=description)
    add_arguments(parser, GENERATE_PRESETS, CALL_ARGUMENTS)
    add_process_arguments(parser)
    parser.add_argument("--audio_weight", type=float, nargs="+", help="The audio side's weight, one or one per step.")
    parser.add_argument("--canvas_layout", choices=("strip", "folded"), help="Default: strip.")
    return parser


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fills in what was not given."""
    fill_in(args, GENERATE_PRESETS, canvas_layout="strip", eta=0.0)
    if isinstance(args.audio_weight, list) and len(args.audio_weight) == 1:
        args.audio_weight = args.audio_weight[0]
    return args


def call_arguments(args: argparse.Namespace, pipe: ImagesThatSoundPipeline) -> dict:
    """Arguments of the call that are the same for all samples."""
    names = ["prompt", "audio_prompt", "audio_weight", "canvas_layout", *CALL_ARGUMENTS]
    return with_checkpoint_defaults({name: getattr(args, name) for name in names}, pipe)


def pictures_of(output: object, row: int) -> dict:
    """What of a call's output `write_sample` takes as a sample's pictures."""
    return {"picture": output.images[row], "spectrogram": output.spectrograms[row]}


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    return complete(new_parser("generate", __doc__).parse_args(input_args))


def generate(args: argparse.Namespace) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    check_args(args)
    accelerator = new_accelerator(args)
    pipe = load_pipeline(args, ImagesThatSoundPipeline)
    arguments = call_arguments(args, pipe)
    seeds = own_share(accelerator, all_seeds(args))
    yield from make_samples(args, pipe, arguments, arguments, pictures_of, seeds)
    report_samples(accelerator, [sample_folder(args, seed) for seed in all_seeds(args)])


def main(input_args: list[str] | None = None) -> None:
    run(lambda: generate(parse_args(input_args)))


if __name__ == "__main__":
    main()
