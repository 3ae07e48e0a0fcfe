"""Plays any picture as a spectrogram: one made here with the constants inside it, any other with Auffusion's."""

import argparse
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from images_that_sound.pipelines import MelSpectrogram, audio_problems, load_vocoder, unfold_canvas
from images_that_sound.scripts.samples import check_writable, read_picture, read_settings, write_audio
from images_that_sound.scripts.sampling import run


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound play", description=__doc__)
    parser.add_argument("picture", help="A picture; resized to the number of mel bins where it has no settings.")
    parser.add_argument(
        "--vocoder", help="Repo or folder such as Auffusion's whose vocoder plays. Default: Griffin-Lim."
    )
    parser.add_argument("--output", help="WAV file. Default: the picture's name with .wav.")
    return parser.parse_args(input_args)


def constants_of(path: str | Path) -> tuple[MelSpectrogram, dict]:
    """The spectrogram's constants and the settings inside a file made here; defaults and nothing for any other."""
    try:
        settings = read_settings(path)
    except ValueError:
        return MelSpectrogram(), {}
    return MelSpectrogram.from_dict(settings.get("spectrogram", {})), settings


def canvas_of(picture: PIL.Image.Image, mel: MelSpectrogram, folded: bool = False) -> torch.Tensor:
    """A picture as canvas `(1, 1, M, T)` in 0..1: unfolded, or resized to M rows where it has another height."""
    gray = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).mean(dim=-1)[None, None]
    if folded and picture.height == 2 * mel.num_mel_bins:
        return unfold_canvas(gray)
    if picture.height == mel.num_mel_bins:
        return gray
    columns = max(round(picture.width * mel.num_mel_bins / picture.height), 1)
    size = (mel.num_mel_bins, columns)
    return torch.nn.functional.interpolate(gray, size, mode="bilinear", antialias=True)


def play(args: argparse.Namespace) -> Iterator[Path]:
    output = Path(args.output or Path(args.picture).with_suffix(".wav"))
    if output.suffix.lower() != ".wav":
        raise ValueError(f"`output` has to end in .wav, but is {output}.")
    check_writable(output.parent)
    picture = read_picture(args.picture)
    mel, settings = constants_of(args.picture)
    canvas = canvas_of(picture, mel, settings.get("canvas_layout") == "folded")
    least = math.ceil((mel.n_fft - mel.hop_length) / 2 / mel.hop_length) + 1
    if canvas.shape[-1] < least:
        raise ValueError(
            f"`picture` has to be at least {least} columns wide to be played, but has {canvas.shape[-1]}."
        )
    with torch.no_grad():
        vocoder = None if args.vocoder is None else load_vocoder(args.vocoder)
        audio = mel.canvas_to_audio(canvas, vocoder)[0].numpy()
    for problem in audio_problems(audio):
        print(f"warning: {problem}", flush=True)
    temporary = output.with_name(f".{output.name}.part.wav")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_audio(temporary, audio, mel.sampling_rate, json.dumps({**settings, "spectrogram": mel.to_dict()}))
    os.replace(temporary, output)
    yield output


def main(input_args: list[str] | None = None) -> None:
    run(lambda: play(parse_args(input_args)))


if __name__ == "__main__":
    main()
