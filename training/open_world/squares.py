"""All squares that the trainings learn from, drawn once and kept on disk."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts.common.files import written

from .pictures import WILD, describe_picture, draw_picture, draw_wild, names
from .sounds import VARIANTS, describe_sound, make_sound
from .vocabulary import SOUNDS


SPECTROGRAM = MelSpectrogram()
KINDS = ("picture", WILD, "sound", "fresh sound")


class Squares(NamedTuple):
    """Squares of one kind: pixels (N, 256, 256) as uint8, and for each its name and what is true of it."""

    pixels: np.ndarray
    labels: list[dict]


def sound_square(name: str, variant: int) -> tuple[np.ndarray, dict]:
    """The spectrogram `(256, 256)` of a sound's variant as uint8, and what is true of it."""
    audio, attributes = make_sound(name, variant)
    canvas = SPECTROGRAM.audio_to_canvas(torch.from_numpy(audio))[0]
    return canvas.mul(255).round().byte().numpy(), attributes


def _sounds(variants: list[tuple[str, int]]) -> Squares:
    squares = [sound_square(*each) for each in variants]
    labels = [{"name": name, "attributes": squares[i][1]} for i, (name, _) in enumerate(variants)]
    return Squares(np.stack([pixels for pixels, _ in squares]), labels)


def _draw(kind: str, num_draws: int) -> Squares:
    if kind == "picture":
        return Squares(np.stack([draw_picture(name) for name in names()]), [{"name": name} for name in names()])
    if kind == WILD:
        squares = [draw_wild(np.random.default_rng(index)) for index in range(num_draws)]
        return Squares(np.stack(squares), [{"name": WILD}] * len(squares))
    if kind == "sound":
        return _sounds([(name, variant) for name in SOUNDS for variant in range(VARIANTS)])
    fresh = [(name, VARIANTS + i) for i in range(-(-num_draws // len(SOUNDS))) for name in SOUNDS]
    return _sounds(fresh[:num_draws])


def make_squares(folder: Path, num_draws: int, kinds: tuple[str, ...] = KINDS) -> dict[str, Squares]:
    """
    Draws what is missing in a folder: "picture" and "sound", which the UNets learn, and `num_draws` each of "wild" and
    "fresh sound", which keep the VAE general.
    """
    squares = {}
    for kind in kinds:
        file = folder / f"squares-{kind.replace(' ', '-')}.npz"
        if not file.exists():
            pixels, labels = _draw(kind, num_draws)
            with written(file) as partial:
                np.savez_compressed(partial, pixels=pixels, labels=np.array(json.dumps(labels)))
        with np.load(file, allow_pickle=False) as arrays:
            squares[kind] = Squares(arrays["pixels"], json.loads(str(arrays["labels"])))
    return squares


def describe(kind: str, label: dict, numbers: np.random.Generator) -> str:
    """A prompt for a label of "picture", "wild" or a sound, worded anew at every call."""
    if "sound" in kind:
        return describe_sound(label["name"], label["attributes"], numbers)
    return describe_picture(label["name"], numbers)
