"""Pictures as canvases, canvases as pictures, and how close a sound's canvas is to another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from ...pipelines import MelSpectrogram, find_spectrogram, unfold_canvas
from .samples import read_settings
from .video import seen_at_once


DECIBELS = 20 / np.log(10)
# Where a logarithmic scale begins that would begin at 0 Hz: the lowest tone that people hear.
LOWEST_TONE = 20.0
# Five and a half minutes, and what Griffin-Lim makes of it takes two gigabytes.
MAX_COLUMNS = 2**15


def constants_of(path: str | Path, spectrogram: str | dict | None = None) -> tuple[MelSpectrogram, dict]:
    """
    The spectrogram's constants, those that are given or else those inside a file made here, and the settings in it;
    defaults and nothing for any other.
    """
    try:
        settings = read_settings(path)
    except ValueError:
        settings = {}
    return find_spectrogram(spectrogram or settings.get("spectrogram", {})), settings


def on_scale(mel: MelSpectrogram, frequency_scale: str) -> MelSpectrogram:
    """The same canvas with its rows on another scale: as they are for "mel", "linear" or "logarithmic"."""
    if frequency_scale == "mel":
        return mel
    lowest = max(mel.min_frequency, LOWEST_TONE) if frequency_scale == "logarithmic" else mel.min_frequency
    # If rows are closer than the transform tells apart, only nonnegative magnitudes make sense.
    return replace(
        mel,
        frequency_scale=frequency_scale,
        filter_norm="slaney",
        min_frequency=lowest,
        inverse_filter_iterations=mel.inverse_filter_iterations or 20,
    )


def canvas_of(picture: PIL.Image.Image, mel: MelSpectrogram, folded: bool = False) -> torch.Tensor:
    """
    A picture as canvas `(1, 1, M, T)` in 0..1: unfolded, or resized to M rows if it has another height. Raises
    `ValueError` for a sound that would be longer than any honest one.
    """
    folded = folded and picture.height == 2 * mel.num_mel_bins
    columns = picture.width * (2 if folded else mel.num_mel_bins / picture.height)
    if columns > MAX_COLUMNS:
        raise ValueError(
            f"The picture has to be at most {MAX_COLUMNS} columns wide if it has {mel.num_mel_bins} rows, but has"
            f" {columns:.0f}."
        )
    gray = np.asarray(picture.convert("RGB")).mean(axis=-1, dtype=np.float32) / 255
    gray = torch.from_numpy(gray)[None, None]
    if folded:
        return unfold_canvas(gray)
    if picture.height == mel.num_mel_bins:
        return gray
    size = (mel.num_mel_bins, max(round(columns), 1))
    return torch.nn.functional.interpolate(gray, size, mode="bilinear", antialias=True)


def lasting(canvas: torch.Tensor, audio_length_in_s: float, mel: MelSpectrogram) -> torch.Tensor:
    """A canvas `(1, 1, M, T)` stretched to so many seconds. Raises `ValueError` for too few or too many."""
    least, most = mel.min_columns / mel.columns_per_second, MAX_COLUMNS / mel.columns_per_second
    if not least <= audio_length_in_s <= most:
        raise ValueError(f"`audio_length_in_s` has to be in {least:.2f}..{most:.0f}, but is {audio_length_in_s}.")
    size = (mel.num_mel_bins, round(audio_length_in_s * mel.columns_per_second))
    return torch.nn.functional.interpolate(canvas, size, mode="bilinear", antialias=True)


def picture_of(canvas: torch.Tensor) -> PIL.Image.Image:
    """A canvas `(M, T)` in 0..1 as a gray picture."""
    return PIL.Image.fromarray(canvas.mul(255).round().byte().cpu().numpy())


def heard_canvas(
    canvas: torch.Tensor, audio: torch.Tensor, mel: MelSpectrogram
) -> tuple[torch.Tensor, dict[str, float]]:
    """The canvas `(1, M, T)` in 0..1 of a sound `(N,)`, and how close it is to the given one, `(1, 1, M, T)`."""
    heard = mel.log_mel_to_canvas(mel.audio_to_log_mel(audio))
    columns = min(heard.shape[-1], canvas.shape[-1])
    # Drawn again, since some canvases show the share of the greatest magnitude, whatever that is.
    canvas = mel.log_mel_to_canvas(mel.canvas_to_log_mel(canvas[0, ..., :columns]))
    heard = heard[..., :columns]
    distance = (mel.canvas_to_log_mel(heard) - mel.canvas_to_log_mel(canvas)).abs().mean()
    correlation = torch.corrcoef(torch.stack([heard.flatten(), canvas.flatten()]))[0, 1]
    return heard, {"correlation": float(correlation), "log_mel_distance_in_db": float(distance) * DECIBELS}


def sheet_of(canvases: dict[str, torch.Tensor]) -> PIL.Image.Image:
    """Canvases `(1, M, T)` under each other, each with its name above it; long ones ten seconds after ten seconds."""
    font, line = PIL.ImageFont.load_default(size=16), 24
    _, rows, columns = next(iter(canvases.values())).shape
    part = min(columns, seen_at_once(rows))
    pieces = [
        (name if first == 0 else "", canvas[0, :, first : first + part])
        for first in range(0, columns, part)
        for name, canvas in canvases.items()
    ]
    sheet = PIL.Image.new("L", (max(part, 360), len(pieces) * (rows + line)))
    pen = PIL.ImageDraw.Draw(sheet)
    for i, (name, canvas) in enumerate(pieces):
        top = i * (rows + line)
        pen.text((4, top + 2), name, font=font, fill=255)
        sheet.paste(picture_of(canvas), (0, top + line))
    return sheet
