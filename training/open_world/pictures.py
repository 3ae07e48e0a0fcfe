"""Pictures of the open world: rows, pairs, crowds and single drawings of what the vocabulary names, and the drawn
world's own pictures; each with a prompt that is true of it."""

import numpy as np
from PIL import Image

from ..world import pictures as drawn_world
from .material import STYLES, load
from .vocabulary import PICTURES, article, one_and_many, one_of


STYLE_CHANCES = (0.4, 0.35, 0.25)
# A picture that the drawn world draws too is drawn by it most of the time, and is drawn more often.
DRAWN_WEIGHT, DRAWN_CHANCE = 4.0, 0.75
LAYOUTS = {"one": 0.2, "row": 0.49, "crowd": 0.06, "pair": 0.13, "turns": 0.12}
# For each ground: its chance and its gray levels.
GROUNDS = {"black": (0.66, (0, 6)), "white": (0.2, (235, 255)), "dark": (0.14, (20, 60))}
MEDIA = {
    "icon": ("an icon of", "a pictogram of", "a line drawing of", "a silhouette of", "a black and white drawing of"),
    "flat": ("a flat illustration of", "a poster of", "a paper cut of"),
    "emoji": ("a cartoon of", "an emoji of", "a shaded drawing of"),
}
ANY_MEDIUM = ("a picture of", "a drawing of", "a painting of", "an illustration of")
GROUND_WORDS = {
    "black": ("black background", "on black", "on a black background"),
    "white": ("white background", "on white", "on a white background"),
    "dark": ("dark background", "gray background", "on gray"),
}
PLACES = {
    "left": ("on the left", "at the left"),
    "center": ("in the center", "in the middle"),
    "right": ("on the right", "at the right"),
}
NUMBERS = drawn_world.NUMBERS
TINTS = (
    drawn_world.RED,
    drawn_world.ORANGE,
    drawn_world.YELLOW,
    drawn_world.GREEN,
    drawn_world.BLUE,
    drawn_world.VIOLET,
    drawn_world.PINK,
)


def draw_picture(
    name: str, generator: np.random.Generator, height: int = 128, width: int = 512, colored: bool = False
) -> tuple[np.ndarray, dict]:
    """
    Draws a picture.

    Args:
        name (`str`): One of the vocabulary's pictures.
        generator (`np.random.Generator`): The only source of randomness.
        height (`int`), width (`int`): Pixels of the picture.
        colored (`bool`): Whether to draw the picture of the same generator in colour, whose channels' mean is the
            gray one, up to rounding.

    Returns:
        `tuple[np.ndarray, dict]`: Gray levels `(height, width)`, or colours `(height, width, 3)`, as uint8, and what
        is true of them: `drawn` (the drawn world's subject and its attributes) or `layout`, `count`, `size`, `place`,
        `style`, `ground` and, where there are two kinds of things, `other`; `centers` are the columns where something
        stands, as shares of the width.
    """
    entry = PICTURES[name]
    if "drawn" in entry and ("icons" not in entry or generator.random() < DRAWN_CHANCE):
        picture, attributes = drawn_world.draw_picture(entry["drawn"], generator, height, width, colored)
        return np.asarray(picture), {"drawn": entry["drawn"], **attributes}
    layout = _pick(generator, list(LAYOUTS), list(LAYOUTS.values()))
    names = [name]
    if layout in ("pair", "turns"):
        names.append(_pick(generator, [each for each in ICONIC if each != name]))
    style = _pick(generator, STYLES, STYLE_CHANCES)
    boxes, attributes = _arrange(layout, generator, width / height)
    ground = _pick(generator, list(GROUNDS), [chance for chance, _ in GROUNDS.values()])
    level = generator.uniform(*GROUNDS[ground][1])
    canvas = np.full((height, width), level, np.float32)
    tints = np.ones((height, width, 3), np.float32)
    tone = generator.uniform(0.72, 1.0)
    things = [_thing(each, style, generator) for each in names]
    for i, (x, y, size) in enumerate(boxes):
        _paste(canvas, tints, things[i % len(things)], (x * height, y * height, size * height), ground, tone)
    attributes |= {"layout": layout, "style": style, "ground": ground, "tone": "bright" if tone > 0.86 else "soft"}
    attributes["centers"] = [round(x * height / width, 3) for x, _, _ in boxes]
    if len(names) > 1:
        attributes["other"] = names[1]
    if colored:
        canvas = drawn_world.fitting(canvas[..., None] * tints)
    return canvas.round().clip(0, 255).astype(np.uint8), attributes


def choose_picture(generator: np.random.Generator) -> str:
    """A name of the vocabulary by chance."""
    return _pick(generator, list(PICTURES), [DRAWN_WEIGHT if "drawn" in entry else 1 for entry in PICTURES.values()])


ICONIC = [name for name, entry in PICTURES.items() if "icons" in entry]


def _pick(generator: np.random.Generator, choices: list | tuple, chances: list | tuple | None = None) -> str:
    if chances is None:
        return choices[int(generator.integers(len(choices)))]
    edges = np.cumsum(chances)
    return choices[min(int(np.searchsorted(edges, generator.random() * edges[-1], "right")), len(choices) - 1)]


def _arrange(layout: str, generator: np.random.Generator, breadth: float) -> tuple[list[tuple], dict]:
    """Boxes (x, y, size) in units of the height, left to right, and what is true of them."""
    if layout == "one":
        size = generator.uniform(0.62, 1.0)
        place = _pick(generator, tuple(PLACES))
        low, high = {"left": (size / 2, 1.1), "center": (breadth / 2 - 0.4, breadth / 2 + 0.4)}.get(
            place, (breadth - 1.1, breadth - size / 2)
        )
        boxes = [(generator.uniform(low, high), _row_height(generator, size), size)]
        return boxes, {"count": 1, "place": place, "size": _size_word(size)}
    if layout == "crowd":
        count, size = int(generator.integers(8, 15)), generator.uniform(0.38, 0.48)
        columns = -(-count // 2)
        step = breadth / columns
        boxes = [
            (
                (i // 2 + 0.5 + generator.uniform(-0.08, 0.08)) * step,
                0.26 + 0.48 * (i % 2) + generator.uniform(-0.02, 0.02),
                min(size, step),
            )
            for i in range(count)
        ]
        return boxes, {"count": count, "size": "small"}
    counts = {"row": (2, 3, 4, 4, 5, 5, 6), "pair": (2,), "turns": (4, 4, 5, 6)}[layout]
    count = _pick(generator, counts)
    size = min(generator.uniform(0.58, 1.0), breadth / count)
    spread = generator.uniform(size, breadth / count)
    start = generator.uniform(0, breadth - spread * count)
    y = _row_height(generator, size)
    boxes = [
        (start + (i + 0.5) * spread, float(np.clip(y + generator.uniform(-0.04, 0.04), size / 2, 1 - size / 2)), size)
        for i in range(count)
    ]
    return boxes, {"count": count, "size": _size_word(size)}


def _row_height(generator: np.random.Generator, size: float) -> float:
    """The middle of a thing: mostly near the middle of the canvas."""
    return float(np.clip(0.5 + generator.normal() * 0.08, size / 2, 1 - size / 2))


def _size_word(size: float) -> str:
    return "large" if size > 0.82 else "small" if size < 0.68 else "medium"


def _thing(name: str, style: str, generator: np.random.Generator) -> np.ndarray:
    """
    Gray level, alpha and the shares of red, green and blue (5, S, S) as float32 of a drawing of `name`, in another
    style where it has none. What is drawn in black and white gets a tint of its own.
    """
    drawings = load("drawings")
    icon = _pick(generator, PICTURES[name]["icons"])
    key = next(f"{each}/{icon}" for each in (style, *STYLES) if f"{each}/{icon}" in drawings)
    *colors, alpha = drawings[key].astype(np.float32) / 255
    gray = Image.fromarray(np.ascontiguousarray(drawings[key][:3].transpose(1, 2, 0))).convert("L")
    level = np.asarray(gray, dtype=np.float32) / 255
    seen = level[alpha > 0.5]
    low, high = np.quantile(seen, (0.02, 0.98)) if seen.size else (0.0, 1.0)
    # The darkest parts of a drawing in tones still stand out from black, its brightest are white.
    stretched = 1.0 if high - low < 0.15 else np.clip((level - low) / (high - low), 0, 1)
    shares = (np.stack(colors) + 0.02) / (np.mean(colors, axis=0) + 0.02)
    if key.startswith("icon/"):
        shares *= np.array(_pick(generator.spawn(1)[0], TINTS), np.float32)[:, None, None]
    return np.stack([np.broadcast_to(0.25 + 0.75 * stretched, alpha.shape), alpha, *shares])


def _paste(
    canvas: np.ndarray,
    tints: np.ndarray,
    thing: np.ndarray,
    box: tuple[float, float, float],
    ground: str,
    tone: float,
) -> None:
    """Lays a thing onto the canvas and its tints around (x, y), all in pixels; on a white ground in reverse."""
    x, y, size = box
    pixels = max(8, round(size))
    planes = np.stack(
        [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((pixels, pixels), Image.Resampling.BOX))
            for plane in thing
        ]
    )
    left, top = round(x - pixels / 2), round(y - pixels / 2)
    rows, columns = slice(max(top, 0), top + pixels), slice(max(left, 0), left + pixels)
    under = canvas[rows, columns]
    first_row, first_column = rows.start - top, columns.start - left
    level, alpha, *shares = planes[
        :, first_row : first_row + under.shape[0], first_column : first_column + under.shape[1]
    ]
    gray = 255 * tone * level if ground != "white" else 255 * (1 - tone * level)
    under += (gray - under) * alpha
    tints[rows, columns] += (np.stack(shares, axis=-1) - tints[rows, columns]) * alpha[..., None]


# -------------------- Words --------------------


def describe_picture(name: str, attributes: dict, generator: np.random.Generator, whole: bool = True) -> str:
    """
    A prompt that is true of a picture with these `attributes`, worded anew at every call; where not `whole`, also of
    any part of it that shows something.
    """
    if "drawn" in attributes:
        return drawn_world.describe_picture(attributes["drawn"], attributes, generator)
    words = _many(name, attributes, generator, whole) if "other" not in attributes else ""
    if "other" in attributes:
        words = _both(name, attributes, generator, whole)
    medium = _pick(
        generator, ("", _pick(generator, ANY_MEDIUM), _pick(generator, MEDIA[attributes["style"]])), (0.42, 0.33, 0.25)
    )
    words = f"{medium} {words}".strip()
    endings = [
        ("grayscale", 0.35),
        (_pick(generator, GROUND_WORDS[attributes["ground"]]), 0.3),
        (attributes["tone"] + " tones", 0.05),
    ]
    return ", ".join([words, *(ending for ending, chance in endings if generator.random() < chance)])


def _word(name: str, generator: np.random.Generator) -> tuple[str, str]:
    words = PICTURES[name]["words"]
    return one_and_many(words[0] if generator.random() < 0.5 else _pick(generator, words))


def _sized(word: str, attributes: dict, generator: np.random.Generator) -> str:
    size = attributes["size"]
    if size == "medium" or generator.random() > 0.25:
        return word
    return f"{_pick(generator, {'small': ('small', 'little'), 'large': ('large', 'big')}[size])} {word}"


def _many(name: str, attributes: dict, generator: np.random.Generator, whole: bool) -> str:
    """One kind of thing: "a dragon on the left", "three small owls", "a row of cats"."""
    one, many = _word(name, generator)
    count = attributes["count"]
    if count == 1 or (not whole and generator.random() < 0.5):
        sized = _sized(one, attributes, generator)
        wordings = (article(sized) if one != many else sized, sized, f"a single {sized}")
        words = _pick(generator, wordings, (0.6, 0.3, 0.1 if whole and one != many else 0.0))
        if whole and generator.random() < 0.4:
            words += " " + _pick(generator, PLACES[attributes["place"]])
        return words
    many = _sized(many, attributes, generator)
    if one == many:
        return many
    wordings = [many]
    if whole:
        wordings += [f"many {many}" if count > 5 else f"several {many}"]
        wordings += [f"a row of {many}" if attributes["layout"] == "row" else f"a crowd of {many}"]
        wordings += [f"{NUMBERS[count]} {many}"] * 2 if count < 7 else []
    return _pick(generator, wordings)


def _both(name: str, attributes: dict, generator: np.random.Generator, whole: bool) -> str:
    """Two kinds of things: "a cat and a dragon", "owls and guitars in turns"."""
    (one, many), (other, others) = _word(name, generator), _word(attributes["other"], generator)
    if attributes["layout"] == "turns":
        return f"{many} and {others}" + _pick(generator, ("", " in turns", " side by side"))
    one, other = one_of(one, many), one_of(other, others)
    if generator.random() < 0.2:
        return f"{one} on the left and {other} on the right"
    return f"{one} {_pick(generator, ('and', 'next to', 'with', 'beside'), (0.6, 0.15, 0.15, 0.1))} {other}"
