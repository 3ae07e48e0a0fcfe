"""The open world's drawings in colour, as `training.colorization` takes a world."""

import numpy as np
from PIL import Image

from .material import load
from .pictures import FILLED, SQUARE, describe_picture
from .vocabulary import PICTURES


KINDS = {"picture": list(PICTURES)}


def flat_key(name: str) -> str:
    """The key of the coloured drawing of a thing."""
    return next(key for icon in PICTURES[name]["icons"] if (key := f"flat/{icon}") in load("drawings"))


def draw(kind: str, seed: int, index: int) -> tuple[np.ndarray, str, dict]:
    """
    A drawing `(256, 256, 3)` as uint8 on black, as large as fits into 0.9 of its square or down to half of that, or
    mirrored; its name, and no attributes. Names come in turn.
    """
    generator = np.random.default_rng([seed, index])
    name = KINDS["picture"][index % len(KINDS["picture"])]
    drawing = Image.fromarray(load("drawings")[flat_key(name)].transpose(1, 2, 0))
    drawing = drawing.crop(drawing.getbbox())
    if generator.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = FILLED * SQUARE / max(drawing.size) * generator.choice((1.0, generator.uniform(0.5, 1.0)))
    drawing = drawing.resize([max(1, round(side * scale)) for side in drawing.size])
    canvas = Image.new("RGB", (SQUARE, SQUARE))
    place = tuple((SQUARE - side) // 2 for side in drawing.size)
    canvas.paste(drawing, place, drawing)
    return np.asarray(canvas), name, {}


def describe(kind: str, label: dict, generator: np.random.Generator) -> str:
    """A prompt for a drawing, worded anew at every call."""
    return describe_picture(label["name"], generator)
