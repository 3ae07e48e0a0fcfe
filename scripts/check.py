"""Is the sound really the picture? Compares a sample's canvas with spectrograms of its sound and of rebuilt ones."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from images_that_sound.pipelines import MelSpectrogram, load_vocoder
from images_that_sound.scripts.play import canvas_of
from images_that_sound.scripts.samples import find_samples, read_audio, read_picture, sample_settings, write_json
from images_that_sound.scripts.sampling import run


DECIBELS = 20 / np.log(10)


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound check", description=__doc__)
    parser.add_argument(
        "--sample_dir", required=True, help="Every sample at or below it gets check.png and check.json."
    )
    parser.add_argument("--vocoder", help="Repo or folder of the vocoder. Default: that of the sample's audio model.")
    return parser.parse_args(input_args)


def sounds_of(
    folder: Path, canvas: torch.Tensor, mel: MelSpectrogram, vocoder: torch.nn.Module | None
) -> dict[str, torch.Tensor]:
    """The saved waveform and those rebuilt from the canvas `(1, 1, M, T)`, each of shape `(N,)`."""
    log_mel = mel.canvas_to_log_mel(canvas)
    sounds = {"saved sound": torch.from_numpy(read_audio(folder / "audio.wav", mel.sampling_rate))}
    if vocoder is not None:
        rebuilt = mel.canvas_to_audio(canvas, vocoder)
        sounds["vocoder"] = rebuilt[0]
        sounds["magnitude with the vocoder's phase"] = mel.griffin_lim(log_mel, 0, phases_of=rebuilt)[0]
    sounds["Griffin-Lim"] = mel.griffin_lim(log_mel)[0]
    return sounds


def compare(canvas: torch.Tensor, audio: torch.Tensor, mel: MelSpectrogram) -> tuple[torch.Tensor, dict[str, float]]:
    """The sound's own canvas `(1, M, T)` in 0..1, and how close it is to the given one."""
    log_mel = mel.audio_to_log_mel(audio)
    heard = mel.log_mel_to_canvas(log_mel)
    columns = min(heard.shape[-1], canvas.shape[-1])
    heard, canvas = heard[..., :columns], canvas[0, ..., :columns]
    distance = (mel.canvas_to_log_mel(heard) - mel.canvas_to_log_mel(canvas)).abs().mean()
    correlation = torch.corrcoef(torch.stack([heard.flatten(), canvas.flatten()]))[0, 1]
    return heard, {"correlation": float(correlation), "log_mel_distance_in_db": float(distance) * DECIBELS}


def panels(pictures: dict[str, torch.Tensor]) -> PIL.Image.Image:
    """Canvases `(1, M, T)` under each other, each with its name above it."""
    font, line = PIL.ImageFont.load_default(size=16), 24
    _, rows, columns = next(iter(pictures.values())).shape
    sheet = PIL.Image.new("L", (max(columns, 360), len(pictures) * (rows + line)))
    draw = PIL.ImageDraw.Draw(sheet)
    for i, (name, canvas) in enumerate(pictures.items()):
        top = i * (rows + line)
        draw.text((4, top + 2), name, font=font, fill=255)
        sheet.paste(PIL.Image.fromarray(canvas[0].mul(255).round().byte().numpy()), (0, top + line))
    return sheet


@torch.no_grad()
def check(args: argparse.Namespace) -> Iterator[str]:
    """Checks all samples; yields the lines of a table."""
    vocoders: dict[str, torch.nn.Module] = {}
    yield f"{'sample':<20} {'sound':<36} {'correlation':>11} {'distance in dB':>15}"
    for folder in find_samples(args.sample_dir):
        settings = sample_settings(folder)
        mel = MelSpectrogram.from_dict(settings.get("spectrogram", {}))
        source = args.vocoder or settings.get("audio_model")
        if source is not None and source not in vocoders:
            vocoders[source] = load_vocoder(source)
        canvas = canvas_of(read_picture(folder / "spectrogram.png"), mel)
        numbers, pictures = {}, {"picture": canvas[0]}
        for name, audio in sounds_of(folder, canvas, mel, vocoders.get(source)).items():
            pictures[name], numbers[name] = compare(canvas, audio, mel)
            yield f"{folder.name:<20} {name:<36} {numbers[name]['correlation']:>11.3f} " + (
                f"{numbers[name]['log_mel_distance_in_db']:>15.1f}"
            )
        panels(pictures).save(folder / ".check.part.png")
        os.replace(folder / ".check.part.png", folder / "check.png")
        write_json(folder / "check.json", numbers)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: check(parse_args(input_args)))


if __name__ == "__main__":
    main()
