"""
Pictures of the open world: white drawings on black, each filling its square, and wild squares, which hold anything at
any place and size.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .material import load
from .vocabulary import PICTURES, one_and_many, one_of


SQUARE = 256
FILLED = 0.9
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&?!"
WILD = "wild"
WILD_WORDS = ("a picture", "a drawing", "a sketch", "an image", "a doodle", "drawings", "an abstract drawing")
MEDIA = (
    *("a painting", "a picture", "a drawing", "an illustration", "an icon", "a line drawing", "a silhouette"),
    *("a black and white drawing", "a pictogram", "an image", "a sketch"),
)


def icon_key(name: str) -> str | None:
    """The key of the one drawing of a thing, or None for one that has none."""
    keys = (f"icon/{icon}" for icon in PICTURES[name].get("icons", ()))
    return next((key for key in keys if key in load("drawings")), None)


def names() -> list[str]:
    """Names of everything that has a drawing."""
    return [name for name in PICTURES if icon_key(name)]


def draw_picture(name: str) -> np.ndarray:
    """The drawing of a thing `(256, 256)` as uint8, white on black, as large as fits into 0.9 of its square."""
    return _centred(_gray(icon_key(name)))


def draw_wild(generator: np.random.Generator) -> np.ndarray:
    """A square `(256, 256)` as uint8 with drawings, strokes or letters at any place, size and brightness."""
    canvas = Image.new("L", (SQUARE, SQUARE))
    for _ in range(int(generator.integers(1, 4))):
        kind = generator.choice(("drawing", "drawing", "strokes", "letters"))
        brightness = int(generator.integers(140, 256))
        if kind == "drawing":
            _lay_drawing(canvas, generator, brightness)
        elif kind == "strokes":
            _lay_strokes(canvas, generator, brightness)
        else:
            _lay_letters(canvas, generator, brightness)
    return np.asarray(canvas)


def _gray(key: str) -> np.ndarray:
    """Gray levels of a drawing on black (S, S) as uint8; for those in colours the darkest part is still visible."""
    *colors, alpha = load("drawings")[key].astype(np.float32) / 255
    if key.startswith("icon/"):
        return (255 * alpha).astype(np.uint8)
    level = np.tensordot((0.299, 0.587, 0.114), colors, axes=1)
    return (255 * alpha * (0.2 + 0.8 * level)).astype(np.uint8)


def _centred(drawing: np.ndarray) -> np.ndarray:
    rows, columns = np.where(drawing > 20)
    drawing = drawing[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = FILLED * SQUARE / max(drawing.shape)
    resized = Image.fromarray(drawing).resize([max(1, round(side * scale)) for side in drawing.shape[::-1]])
    canvas = Image.new("L", (SQUARE, SQUARE))
    canvas.paste(resized, ((SQUARE - resized.width) // 2, (SQUARE - resized.height) // 2))
    return np.asarray(canvas)


def _lay_drawing(canvas: Image.Image, generator: np.random.Generator, brightness: int) -> None:
    keys = list(load("drawings"))
    drawing = Image.fromarray(_gray(keys[int(generator.integers(len(keys)))]))
    size = int(generator.integers(48, 240))
    drawing = drawing.resize((size, size)).rotate(generator.uniform(-25, 25))
    place = tuple(int(each) for each in generator.integers(-size // 4, SQUARE - 3 * size // 4, 2))
    canvas.paste(brightness, place, drawing)


def _lay_strokes(canvas: Image.Image, generator: np.random.Generator, brightness: int) -> None:
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(generator.integers(1, 5))):
        points = generator.uniform(0, SQUARE, 2) + np.cumsum(generator.normal(0, 30, (12, 2)), axis=0)
        pen.line([tuple(point) for point in points], brightness, int(generator.integers(3, 14)), joint="curve")


def _lay_letters(canvas: Image.Image, generator: np.random.Generator, brightness: int) -> None:
    text = "".join(generator.choice(list(LETTERS), int(generator.integers(1, 5))))
    font = ImageFont.load_default(int(generator.integers(40, 160)))
    ImageDraw.Draw(canvas).text(tuple(generator.uniform(0, SQUARE / 2, 2)), text, brightness, font)


# -------------------- Words --------------------


def describe_picture(name: str, generator: np.random.Generator) -> str:
    """A prompt for the drawing of a thing, or for "wild", worded anew at every call."""
    if name == WILD:
        return _with_ending(str(generator.choice(WILD_WORDS)), generator)
    words = PICTURES[name]["words"]
    one, many = one_and_many(words[0] if generator.random() < 0.5 else str(generator.choice(words)))
    wordings = (one_of(one, many), many, one, f"several {many}", f"the {one}")
    words = str(generator.choice(wordings, p=(0.4, 0.3, 0.18, 0.06, 0.06)))
    if generator.random() < 0.5:
        words = f"{generator.choice(MEDIA)} of {words}"
    return _with_ending(words, generator)


def _with_ending(words: str, generator: np.random.Generator) -> str:
    endings = (("grayscale", 0.25), ("black background", 0.2))
    return ", ".join([words, *(ending for ending, chance in endings if generator.random() < chance)])
