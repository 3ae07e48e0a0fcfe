"""Pictures as canvases, canvases as pictures, and how close a sound's canvas is to another."""

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from ...pipelines import MelSpectrogram, unfold_canvas
from .samples import read_settings


DECIBELS = 20 / np.log(10)


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


def picture_of(canvas: torch.Tensor) -> PIL.Image.Image:
    """A canvas `(M, T)` in 0..1 as a gray picture."""
    return PIL.Image.fromarray(canvas.mul(255).round().byte().cpu().numpy())


def heard_canvas(
    canvas: torch.Tensor, audio: torch.Tensor, mel: MelSpectrogram
) -> tuple[torch.Tensor, dict[str, float]]:
    """The own canvas `(1, M, T)` in 0..1 of a sound `(N,)`, and how close it is to the given one, `(1, 1, M, T)`."""
    heard = mel.log_mel_to_canvas(mel.audio_to_log_mel(audio))
    columns = min(heard.shape[-1], canvas.shape[-1])
    heard, canvas = heard[..., :columns], canvas[0, ..., :columns]
    distance = (mel.canvas_to_log_mel(heard) - mel.canvas_to_log_mel(canvas)).abs().mean()
    correlation = torch.corrcoef(torch.stack([heard.flatten(), canvas.flatten()]))[0, 1]
    return heard, {"correlation": float(correlation), "log_mel_distance_in_db": float(distance) * DECIBELS}


def sheet_of(canvases: dict[str, torch.Tensor]) -> PIL.Image.Image:
    """Canvases `(1, M, T)` under each other, each with its name above it."""
    font, line = PIL.ImageFont.load_default(size=16), 24
    _, rows, columns = next(iter(canvases.values())).shape
    sheet = PIL.Image.new("L", (max(columns, 360), len(canvases) * (rows + line)))
    pen = PIL.ImageDraw.Draw(sheet)
    for i, (name, canvas) in enumerate(canvases.items()):
        top = i * (rows + line)
        pen.text((4, top + 2), name, font=font, fill=255)
        sheet.paste(picture_of(canvas[0]), (0, top + line))
    return sheet
