"""
The open world: several hundred pictures and a hundred sounds with the words that people use for them, beside the drawn
world's own. `python -m training.open_world` fetches and renders its material once.
"""

import numpy as np
import torch

from ..world import HEIGHT, SPECTROGRAM, WIDTH
from .pictures import choose_picture, describe_picture, draw_picture
from .sounds import choose_sound, describe_sound, make_sound
from .vocabulary import PICTURES, SOUNDS


__all__ = ["HEIGHT", "KINDS", "SPECTROGRAM", "WIDTH", "describe", "draw", "draw_waveform"]

KINDS = {"picture": tuple(PICTURES), "sound": tuple(SOUNDS)}


def draw(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """
    One training draw: canvas `(H, W)`, or `(H, W, 3)` for a "colored" one, as uint8, the name of what it shows, and
    its attributes. A colored picture is the picture of the same numbers in colour.
    """
    generator = np.random.default_rng([seed, {"picture": 10, "sound": 11, "colored": 10}[kind], index])
    if kind == "sound":
        audio, name, attributes = draw_waveform(generator)
        canvas = SPECTROGRAM.audio_to_canvas(torch.from_numpy(audio))[0]
        return canvas.mul(255).round().byte().numpy(), name, attributes
    name = choose_picture(generator)
    picture, attributes = draw_picture(name, generator, HEIGHT, WIDTH, colored=kind == "colored")
    return picture, name, attributes


def draw_waveform(generator: np.random.Generator) -> tuple[np.ndarray, str, dict]:
    """A sound as waveform of shape (N,), the name of what it is, and its attributes."""
    name = choose_sound(generator)
    audio, attributes = make_sound(name, generator, WIDTH / SPECTROGRAM.columns_per_second)
    return audio, name, attributes


def describe(kind: str, label: dict, generator: np.random.Generator) -> str:
    """A prompt for a labelled draw, worded anew at every call."""
    words = describe_picture if kind == "picture" else describe_sound
    return words(label["name"], label["attributes"], generator)
