"""Paints pictures into spectrograms, the baseline: made ones or one's own, each with its sound, video and settings."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from images_that_sound.pipelines import ImagesThatSoundImprintPipeline
from images_that_sound.scripts.presets import IMPRINT_PRESETS
from images_that_sound.scripts.samples import read_audio, read_picture
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
    "image": (str, "A picture to paint, instead of --prompt."),
    "audio": (str, "A sound to paint into, instead of --audio_prompt."),
    "negative_prompt": (str, "What not to see."),
    "negative_audio_prompt": (str, "What not to hear."),
    "magnitude_ratio": (float, "How strongly the picture is painted, 0 to 1."),
    "height": (int, "Pixels; the checkpoint's number of mel bins."),
    "width": (int, "Pixels, a multiple of 8; the sound lasts 0.01 s per column."),
    "audio_length_in_s": (float, "Length of the sound in seconds, instead of --width."),
    "num_inference_steps": (int, "Denoising steps of the picture."),
    "num_audio_inference_steps": (int, "Denoising steps of the spectrogram."),
    "guidance_scale": (float, "Guidance of the image side."),
    "audio_guidance_scale": (float, "Guidance of the audio side."),
    "crop_right": (int, "Columns cut from the right end."),
    "eta": (float, "Share of fresh noise, for schedulers that take it."),
    "cross_attention_kwargs": (json.loads, "JSON for the attention processors."),
}


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound imprint", description=__doc__)
    add_arguments(parser, IMPRINT_PRESETS, CALL_ARGUMENTS)
    add_process_arguments(parser)
    parser.add_argument(
        "--invert_image",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="Whether dark parts of the picture take sound away, else bright ones. Default: yes.",
    )
    args = parser.parse_args(input_args)
    fill_in(args, IMPRINT_PRESETS, magnitude_ratio=0.5, invert_image=True, eta=0.0)
    return args


def pictures_of(output: object, row: int) -> dict:
    """What of a call's output `write_sample` takes as a sample's pictures: to see is what is heard."""
    spectrogram = output.spectrograms[row]
    return {"picture": spectrogram, "spectrogram": spectrogram, "others": {"painted": output.images[row]}}


def imprint(args: argparse.Namespace) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    check_args(args)
    accelerator = new_accelerator(args)
    pipe = load_pipeline(args, ImagesThatSoundImprintPipeline)
    names = ["prompt", "audio_prompt", "invert_image", *CALL_ARGUMENTS]
    settings = with_checkpoint_defaults({name: getattr(args, name) for name in names}, pipe)
    arguments = dict(settings)
    if args.image is not None:
        arguments["image"] = read_picture(args.image)
    if args.audio is not None:
        arguments["audio"] = read_audio(args.audio, pipe.sampling_rate)

    seeds = own_share(accelerator, all_seeds(args))
    yield from make_samples(args, pipe, arguments, settings, pictures_of, seeds)
    report_samples(accelerator, [sample_folder(args, seed) for seed in all_seeds(args)])


def main(input_args: list[str] | None = None) -> None:
    run(lambda: imprint(parse_args(input_args)))


if __name__ == "__main__":
    main()
