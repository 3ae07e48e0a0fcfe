"""The world of the embedded checkpoints: pictures that are drawn and sounds that are synthesised, all seeded."""

import numpy as np
import torch

from images_that_sound.pipelines import MelSpectrogram

from .pictures import SUBJECTS, describe_picture, draw_picture
from .sounds import SOUNDS, describe_sound, make_sound


__all__ = [
    "HEIGHT",
    "KINDS",
    "SOUNDS",
    "SPECTROGRAM",
    "SUBJECTS",
    "WIDTH",
    "describe",
    "describe_picture",
    "describe_sound",
    "draw",
    "draw_picture",
    "draw_waveform",
    "make_sound",
]

HEIGHT, WIDTH = 128, 512
# A fifth of the rounds that Auffusion's canvases take, on magnitudes that are closer to the canvas.
SPECTROGRAM = MelSpectrogram(num_mel_bins=HEIGHT, inverse_filter_iterations=20, griffin_lim_iterations=12)
KINDS = {"picture": SUBJECTS, "sound": SOUNDS}


def draw(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """
    One training draw: canvas of shape (H, W), or (H, W, 3) for a "colored" one, as uint8, the name of what it shows,
    and the drawing's attributes. A colored picture is the picture of the same numbers in colour.
    """
    generator = np.random.default_rng([seed, {"picture": 0, "sound": 1, "colored": 0}[kind], index])
    if kind == "sound":
        audio, name, attributes = draw_waveform(generator)
        canvas = SPECTROGRAM.audio_to_canvas(torch.from_numpy(audio))[0]
        return canvas.mul(255).round().byte().numpy(), name, attributes
    name = str(generator.choice(SUBJECTS))
    picture, attributes = draw_picture(name, generator, HEIGHT, WIDTH, colored=kind == "colored")
    return np.asarray(picture), name, attributes


def draw_waveform(generator: np.random.Generator) -> tuple[np.ndarray, str, dict]:
    """A sound as waveform of shape (N,), the name of what it is, and its attributes."""
    name = str(generator.choice(SOUNDS))
    length_in_s = WIDTH / SPECTROGRAM.columns_per_second
    audio, attributes = make_sound(name, generator, length_in_s, SPECTROGRAM.sampling_rate)
    return audio, name, attributes


def describe(kind: str, label: dict, generator: np.random.Generator) -> str:
    """A prompt for a labelled draw, worded anew at every call."""
    words = describe_picture if kind == "picture" else describe_sound
    return words(label["name"], label["attributes"], generator)
