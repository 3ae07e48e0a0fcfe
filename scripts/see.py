"""Shows any sound as a canvas: black is silence, low frequencies are at the bottom, a column is a hop of the sound."""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from images_that_sound.scripts.play import constants_of
from images_that_sound.scripts.samples import check_writable, read_audio, write_picture
from images_that_sound.scripts.sampling import run


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound see", description=__doc__)
    parser.add_argument("sound", help="A sound that libsndfile reads; peak-normalised, channels averaged, resampled.")
    parser.add_argument("--params_from", help="A file made here whose spectrogram constants to use.")
    parser.add_argument("--output", help="PNG file. Default: the sound's name with .png.")
    return parser.parse_args(input_args)


def see(args: argparse.Namespace) -> Iterator[Path]:
    output = Path(args.output or Path(args.sound).with_suffix(".png"))
    if output.suffix.lower() != ".png":
        raise ValueError(f"`output` has to end in .png, but is {output}.")
    check_writable(output.parent)
    mel, settings = constants_of(args.params_from or args.sound)
    if args.params_from and not settings:
        raise ValueError(f"`params_from` has to be a file with settings, but {args.params_from} holds none.")
    audio = read_audio(args.sound, mel.sampling_rate)
    canvas = mel.audio_to_canvas(torch.from_numpy(audio))[0].mul(255).round().byte().numpy()
    temporary = output.with_name(f".{output.name}.part.png")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_picture(
        temporary, PIL.Image.fromarray(np.ascontiguousarray(canvas)), json.dumps({"spectrogram": mel.to_dict()})
    )
    os.replace(temporary, output)
    yield output


def main(input_args: list[str] | None = None) -> None:
    run(lambda: see(parse_args(input_args)))


if __name__ == "__main__":
    main()
