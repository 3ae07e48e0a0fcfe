"""A drawn world of gray pictures and true prompts about them, made from nothing but a random generator.

Every part of a drawing is filled with a named material; a palette alone decides how a material looks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw


SUBJECTS: tuple[str, ...] = (
    "castle",
    "kitten",
    "dog",
    "corgi",
    "train",
    "tiger",
    "garden",
    "race",
    "pond",
    "horse",
)

Point = tuple[float, float]
Points = Sequence[Point] | np.ndarray
Drawer = Callable[["Brush", np.random.Generator], None]

OVERSAMPLING = 2
CIRCLE = np.exp(2j * np.pi * np.arange(28) / 28)

# How far each material stands from the ground (0) towards the tone of the object (1).
MATERIALS: dict[str, float] = {
    "stone": 1.0,
    "roof": 0.62,
    "window": -0.25,
    "fur": 1.0,
    "inner ear": 0.5,
    "floppy ear": 0.6,
    "patch": 0.66,
    "white fur": 1.3,
    "eye": -0.3,
    "glint": 1.3,
    "nose": -0.2,
    "whisker": 1.3,
    "tongue": 0.7,
    "stripe": -0.15,
    "mane": 0.55,
    "leather": 0.2,
    "metal": 1.0,
    "trim": 0.68,
    "wheel": 0.85,
    "hub": 0.15,
    "rail": 0.8,
    "smoke": 0.5,
    "paint": 1.0,
    "tire": 0.6,
    "helmet": 1.3,
    "road": 0.3,
    "check": 1.1,
    "speed": 0.65,
    "petal": 1.0,
    "back petal": 0.75,
    "pollen": 0.35,
    "stem": 0.6,
    "leaf": 0.62,
    "grass": 0.4,
    "bird": 1.0,
    "pad": 0.6,
    "vein": 0.4,
    "water": 0.3,
}

Tint = tuple[float, float, float]

# Shares of red, green and blue with a mean of one: what a material is in colour, whatever its gray level.
PLAIN: Tint = (1.0, 1.0, 1.0)
GREEN, BLUE, RED = (0.55, 1.75, 0.7), (0.5, 0.95, 1.55), (1.95, 0.5, 0.55)
YELLOW, ORANGE, PINK, VIOLET = (1.45, 1.3, 0.25), (1.65, 0.95, 0.4), (1.6, 0.6, 0.8), (1.2, 0.5, 1.3)
BROWN, SAND = (1.4, 0.95, 0.65), (1.2, 1.02, 0.78)
TINTS: dict[str, Tint] = {
    "stone": SAND,
    "roof": RED,
    "window": YELLOW,
    "inner ear": PINK,
    "floppy ear": BROWN,
    "patch": BROWN,
    "tongue": PINK,
    "nose": PINK,
    "mane": BROWN,
    "leather": BROWN,
    "trim": YELLOW,
    "pollen": YELLOW,
    "stem": GREEN,
    "leaf": GREEN,
    "grass": GREEN,
    "pad": GREEN,
    "vein": GREEN,
    "water": BLUE,
}
# Differences between drawings: by subject and material the tints to choose from.
CHOSEN_TINTS: dict[tuple[str, str], tuple[Tint, ...]] = {
    ("kitten", "fur"): (ORANGE, SAND, BROWN),
    ("dog", "fur"): (BROWN, SAND),
    ("corgi", "fur"): (ORANGE,),
    ("tiger", "fur"): (ORANGE,),
    ("horse", "fur"): (BROWN, SAND),
    ("train", "metal"): (RED, GREEN, BLUE),
    ("race", "paint"): (RED, BLUE, YELLOW, GREEN),
    ("garden", "petal"): (RED, YELLOW, PINK, VIOLET),
    ("pond", "petal"): (PINK, PLAIN, VIOLET),
}
GROUND_TINTS: dict[str, Tint] = {"pond": BLUE, "castle": BLUE, "garden": BLUE, "train": BLUE}

# For each background: its chance, its levels, and the levels an object may have on it.
GROUNDS: dict[str, tuple[float, Point, Point]] = {
    "black": (0.6, (0, 8), (105, 252)),
    "dark": (0.22, (22, 52), (140, 252)),
    "gray": (0.09, (70, 110), (196, 254)),
    "light": (0.09, (205, 242), (45, 118)),
}

STYLES: dict[str, float] = {"painting": 0.7, "drawing": 0.12, "sketch": 0.06, "lithograph": 0.12}
FILL_STRENGTH: dict[str, float] = {"painting": 1.0, "drawing": 0.55, "sketch": 0.38, "lithograph": 1.0}


@dataclass
class Brush:
    """Draws one object in its own coordinates: y from 0 (top) to 1 (bottom), x around 0, both times `scale` pixels."""

    draw: ImageDraw.ImageDraw
    palette: Mapping[str, int | tuple[int, ...]]
    center: complex
    scale: float
    stretch: float = 1.0
    turn: complex = 1.0
    outlined: bool = False

    def place(self, points: Points) -> list[float]:
        """Canvas coordinates, x and y in turn, of local points (a list of pairs or a complex array)."""
        local = points if isinstance(points, np.ndarray) else np.array(points) @ (1, 1j)
        placed = (local.real * self.stretch + 1j * (local.imag - 0.5)) * self.turn * self.scale + self.center
        return placed.view(float).tolist()

    def polygon(self, material: str, points: Points) -> None:
        """Fill the polygon through the local points, with its outline if the style has outlines."""
        placed = self.place(points)
        self.draw.polygon(placed, fill=self.palette[material])
        if self.outlined:
            width = max(2, round(self.scale * 0.018))
            self.draw.line(placed + placed[:2], fill=self.palette["outline"], width=width)

    def blob(self, material: str, points: Points) -> None:
        """Fill the polygon through the local points with its corners rounded off."""
        self.polygon(material, _rounded(np.array(points) @ (1, 1j)))

    def ellipse(
        self, material: str, x: float, y: float, half_width: float, half_height: float, tilt: float = 0
    ) -> None:
        """Fill an ellipse around (x, y), turned by `tilt` radians."""
        shape = CIRCLE.real * half_width + 1j * CIRCLE.imag * half_height
        self.polygon(material, shape * complex(math.cos(tilt), math.sin(tilt)) + complex(x, y))

    def box(self, material: str, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a rectangle."""
        self.polygon(material, [(left, top), (right, top), (right, bottom), (left, bottom)])

    def petal(self, material: str, x: float, y: float, length: float, breadth: float, angle: float) -> None:
        """Fill a lens with two pointed ends that leaves (x, y) in the direction `angle` (radians)."""
        along = np.array([0, 0.25, 0.55, 0.8, 1, 0.8, 0.55, 0.25]) * length
        across = np.array([0, 0.8, 1, 0.6, 0, -0.6, -1, -0.8]) * breadth / 2
        self.polygon(material, (along + 1j * across) * complex(math.cos(angle), math.sin(angle)) + complex(x, y))

    def line(self, material: str, points: Points, width: float) -> None:
        """Draw a line through the local points, `width` in local units."""
        pixels = max(2, round(width * self.scale))
        self.draw.line(self.place(points), fill=self.palette[material], width=pixels, joint="curve")


@dataclass
class Canvas:
    """A picture in the making: its image, oversampled, and how everything on it is to look."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    background: str
    ground: int
    tone: int
    style: str
    tints: Mapping[str, Tint] | None = None

    def brush(
        self,
        x: float,
        y: float,
        size: float,
        stretch: float = 1.0,
        tilt: float = 0.0,
        shade: float = 1.0,
    ) -> Brush:
        """A brush for an object of height `size` around (x, y), all in units of the canvas height."""
        unit = self.image.height
        palette = _gray_palette(self.ground, self.tone * shade, FILL_STRENGTH[self.style])
        if self.tints is not None:
            palette = {name: _tinted(level, self.tints.get(name, PLAIN)) for name, level in palette.items()}
        turn = complex(math.cos(tilt), math.sin(tilt))
        outlined = self.style in ("drawing", "sketch")
        return Brush(self.draw, palette, complex(x, y) * unit, size * unit, stretch, turn, outlined)

    @property
    def breadth(self) -> float:
        """Width of the canvas in units of its height."""
        return self.image.width / self.image.height


def draw_picture(
    subject: str, generator: np.random.Generator, height: int = 128, width: int = 512, colored: bool = False
) -> tuple[Image.Image, dict]:
    """Draw a picture of one of `SUBJECTS`.

    Returns the picture (mode "L", or "RGB" if `colored`, whose channels' mean is the gray picture of the same
    generator, up to rounding; `width` x `height`) and its attributes: `count`, `size`, `tone`, `background`,
    `style` and what else is true of this subject, as `describe_picture` needs them.
    """
    if subject not in SUBJECTS:
        raise ValueError(f"`subject` is {subject!r}, but must be one of {', '.join(map(repr, SUBJECTS))}.")
    canvas = _empty_canvas(subject, generator, height, width, colored)
    attributes = SCENES[subject](canvas, generator)
    attributes |= {"background": canvas.background, "style": canvas.style, "tone": _tone_word(canvas)}
    return _finished(canvas, generator), attributes


def _empty_canvas(subject: str, generator: np.random.Generator, height: int, width: int, colored: bool) -> Canvas:
    tints = _choose_tints(subject, generator.spawn(1)[0]) if colored else None
    background = _pick(generator, list(GROUNDS), [chance for chance, _, _ in GROUNDS.values()])
    _, grounds, tones = GROUNDS[background]
    ground, tone = round(generator.uniform(*grounds)), round(generator.uniform(*tones))
    style = _pick(generator, list(STYLES), list(STYLES.values()))
    if subject == "pond" and generator.random() < 0.25:
        style = "lithograph"
    if style in ("drawing", "sketch") and background != "light":
        tone = max(tone, 190)
    fill = ground if tints is None else _tinted(ground, tints["ground"])
    image = Image.new("L" if tints is None else "RGB", (width * OVERSAMPLING, height * OVERSAMPLING), fill)
    return Canvas(image, ImageDraw.Draw(image), background, ground, tone, style, tints)


def _choose_tints(subject: str, generator: np.random.Generator) -> dict[str, Tint]:
    """The tint of each material and of the ground; all draws of `generator` are its own."""
    tints = {**TINTS, "ground": GROUND_TINTS.get(subject, PLAIN)}
    for (owner, material), choices in CHOSEN_TINTS.items():
        if owner == subject:
            tints[material] = choices[int(generator.integers(len(choices)))]
    if "petal" in tints:
        tints["back petal"] = tints["petal"]
    return tints


def _tinted(level: int, tint: Tint) -> tuple[int, ...]:
    """Red, green and blue around a gray level, as far from it as fits into 0..255."""
    colors = [level * share for share in tint]
    fitting = min(1.0, (255 - level) / max(max(colors) - level, 1e-6))
    return tuple(round(level + fitting * (color - level)) for color in colors)


def _gray_palette(ground: int, tone: float, strength: float) -> dict[str, int]:
    """Gray levels of all materials; on a ground lighter than the object, dark parts stay darker than bright ones."""
    tone = min(tone, 255)

    def level(share: float) -> int:
        if tone > ground:
            return round(min(max(ground + (tone - ground) * share * (strength if share > 0 else 1), 0), 255))
        return round(ground + (tone * (0.3 + 0.75 * share) - ground) * strength)

    return {material: level(share) for material, share in MATERIALS.items()} | {"outline": round(tone)}


def _tone_word(canvas: Canvas) -> str:
    if canvas.background == "light":
        return "dark"
    return "bright" if canvas.tone >= 222 else "pale" if canvas.tone >= 175 else "dim" if canvas.tone < 140 else "gray"


def _finished(canvas: Canvas, generator: np.random.Generator) -> Image.Image:
    """The canvas at its final size, shaded in its style; the ground stays even."""
    image = np.asarray(canvas.image.reduce(OVERSAMPLING), dtype=np.float32)
    shape = image.shape[:2]
    shading = _gradient(shape, generator)
    if canvas.style == "lithograph":
        shading = shading * _hatch(shape, generator)
        shading += 0.12 * generator.standard_normal(shape, dtype=np.float32)
    if canvas.background == "light":
        shading = 0.55 + 0.45 * shading
    ground: int | np.ndarray = canvas.ground
    if canvas.tints is not None:
        ground, shading = np.array(_tinted(canvas.ground, canvas.tints["ground"])), shading[..., None]
    image = ground + (image - ground) * shading
    if canvas.tints is not None:
        image = fitting(image)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def fitting(image: np.ndarray) -> np.ndarray:
    """Colours (height, width, 3) drawn towards their mean until they fit into 0..255, which the mean is clipped to."""
    gray = np.clip(image.mean(axis=2, keepdims=True), 0, 255)
    chroma = image - image.mean(axis=2, keepdims=True)
    highest, lowest = chroma.max(axis=2, keepdims=True), chroma.min(axis=2, keepdims=True)
    share = np.minimum((255 - gray) / np.maximum(highest, 1e-3), gray / np.maximum(-lowest, 1e-3))
    return gray + np.minimum(share, 1) * chroma


def _gradient(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Soft light and shade, 0.78 to 1.12, (height, width)."""
    height, width = shape
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(generator.uniform(-0.12, 0.08))
    waves = np.linspace(0, 2 * np.pi * generator.uniform(0.3, 3), width, dtype=np.float32)
    columns = np.sin(waves + np.float32(generator.uniform(0, 6.3))) * np.float32(generator.uniform(0, 0.08))
    return 0.97 + rows + columns


def _hatch(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Slanting strokes between about 0.6 and 1, (height, width)."""
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)
    angle, period = generator.uniform(0.5, 2.6), generator.uniform(3.5, 6.5) * max(1, shape[0] / 256)
    phase = (rows * np.float32(math.cos(angle)) + columns * np.float32(math.sin(angle))) * np.float32(6.283 / period)
    return 1 - np.float32(generator.uniform(0.1, 0.2)) * (1 + np.sin(phase))


def _pick(generator: np.random.Generator, choices: Sequence[str], chances: Sequence[float] | None = None) -> str:
    """One of the choices, with the given chances or with equal ones."""
    total = generator.random() * (sum(chances) if chances else len(choices))
    for choice, chance in zip(choices, chances or [1] * len(choices), strict=True):
        total -= chance
        if total < 0:
            return choice
    return choices[-1]


def _rounded(corners: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Cut the corners of a closed polygon, complex (n) to complex (n * 2 ** rounds)."""
    for _ in range(rounds):
        following = np.roll(corners, -1)
        corners = np.stack([0.78 * corners + 0.22 * following, 0.22 * corners + 0.78 * following], 1).ravel()
    return corners


def _size_word(size: float) -> str:
    return "small" if size < 0.42 else "large" if size > 0.7 else "medium"


def _scatter(
    canvas: Canvas,
    generator: np.random.Generator,
    drawer: Drawer,
    aspect: float,
    sizes: Point = (0.3, 0.97),
    standing: bool = False,
    least: int = 1,
    most: int = 7,
    tilt: float = 0.1,
) -> dict:
    """Place copies of an object of width `aspect` (times its height) in one row or two, and say what was placed."""
    size = min(sizes[0] + (sizes[1] - sizes[0]) * generator.beta(2.2, 1.0), canvas.breadth / aspect * 0.96)
    rows = 2 if size < 0.44 and not standing and generator.random() < 0.5 else 1
    fitting = max(1, int(canvas.breadth / (size * aspect * 1.04)))
    per_row = min(fitting, most // rows)
    if generator.random() < 0.4:
        per_row = int(generator.integers(min(least, per_row), per_row + 1))
    lowest = generator.uniform(0, 0.04) if standing else generator.uniform(0, max(0, 1 / rows - size))
    turned = generator.random() < 0.5
    for row in range(rows):
        y = (1 - lowest - size / 2) if rows == 1 else (row + 0.5) / rows
        _place_row(canvas, generator, drawer, (y, size, size * aspect), per_row, turned, tilt)
    return {"count": per_row * rows, "size": _size_word(size)}


def _place_row(
    canvas: Canvas,
    generator: np.random.Generator,
    drawer: Drawer,
    measures: tuple[float, float, float],
    count: int,
    turned: bool,
    tilt: float,
) -> None:
    """Draw `count` objects of middle line, height and width `measures` from left to right."""
    y, size, breadth = measures
    pitch = breadth + generator.beta(1.2, 1) * (canvas.breadth - count * breadth) / count
    start = generator.uniform(0, max(0.0, canvas.breadth - count * pitch))
    stretch = generator.uniform(0.92, 1.05)
    for index in range(count):
        own_size = size * generator.uniform(0.86, 1)
        x = start + (index + 0.5) * pitch + generator.uniform(-0.5, 0.5) * max(0.0, pitch - breadth) * 0.6
        mirror = -1 if turned != (generator.random() < 0.12) else 1
        foot = y + (size - own_size) / 2
        lean, shade = generator.uniform(-tilt, tilt), generator.uniform(0.92, 1.05)
        drawer(canvas.brush(x, foot, own_size, stretch * mirror, lean, shade), generator)


def _floor(canvas: Canvas, material: str, top: float) -> None:
    """Fill the canvas from `top` (share of the height) down, without an outline."""
    brush = canvas.brush(0, 0.5, 1)
    brush.draw.rectangle(
        (0, round(top * canvas.image.height), canvas.image.width, canvas.image.height), fill=brush.palette[material]
    )


def _castle(brush: Brush, generator: np.random.Generator) -> None:
    towers = int(generator.integers(2, 5))
    pointed = generator.random() < 0.7
    _battlements(brush, -0.5, 0.5, generator.uniform(0.5, 0.68), 9)
    tallest = generator.integers(towers)
    for index in range(towers):
        x = -0.43 + 0.86 * index / (towers - 1)
        top = 0.0 if index == tallest else generator.uniform(0.08, 0.3)
        _tower(brush, x, top, generator.uniform(0.095, 0.13), pointed != (generator.random() < 0.15))
    brush.ellipse("window", 0, 0.86, 0.075, 0.1)
    brush.box("window", -0.075, 0.86, 0.075, 1)


def _tower(brush: Brush, x: float, top: float, half: float, pointed: bool) -> None:
    if pointed:
        brush.box("stone", x - half, top + 0.27, x + half, 1)
        brush.polygon("roof", [(x, top), (x + half * 1.4, top + 0.29), (x - half * 1.4, top + 0.29)])
    else:
        _battlements(brush, x - half * 1.15, x + half * 1.15, top + 0.06, 5)
    for y in (0.4, 0.6, 0.8):
        if y > top + 0.3 or not pointed:
            brush.box("window", x - half * 0.3, y - 0.06, x + half * 0.3, y + 0.03)


def _battlements(brush: Brush, left: float, right: float, top: float, teeth: int) -> None:
    edges = np.linspace(left, right, teeth + 1)
    points: list[Point] = [(left, 1)]
    for index in range(teeth):
        y = top + (0.06 if index % 2 else 0)
        points += [(edges[index], y), (edges[index + 1], y)]
    brush.polygon("stone", [*points, (right, 1)])


def _face(brush: Brush, eye_x: float, eye_y: float, eye: float) -> None:
    """Two big dark eyes with a glint."""
    for side in (-1, 1):
        brush.ellipse("eye", side * eye_x, eye_y, eye, eye * 1.15)
        brush.ellipse("glint", side * eye_x + eye * 0.3, eye_y - eye * 0.4, eye * 0.3, eye * 0.3)


def _mouth(brush: Brush, y: float, breadth: float) -> None:
    brush.polygon("nose", [(-breadth, y), (breadth, y), (0, y + breadth * 1.1)])
    low = y + breadth * 2
    brush.line("nose", [(-breadth * 1.4, low), (0, y + breadth), (breadth * 1.4, low)], 0.018)


def _furry(breadth: float, height: float, generator: np.random.Generator, depth: float = 0.07) -> np.ndarray:
    """A ragged ellipse, complex (44)."""
    angles = np.linspace(0, 2 * np.pi, 45)[:-1] + generator.uniform(0, 0.3)
    radius = 1 + depth * np.where(np.arange(44) % 2, 1, -1)
    return radius * (np.cos(angles) * breadth + 1j * np.sin(angles) * height)


def _kitten(brush: Brush, generator: np.random.Generator) -> None:
    tip = generator.uniform(0.32, 0.42)
    for side in (-1, 1):
        brush.polygon("fur", [(side * 0.46, 0.6), (side * tip, 0), (side * 0.05, 0.3)])
        brush.polygon("inner ear", [(side * 0.37, 0.42), (side * tip * 0.95, 0.1), (side * 0.15, 0.3)])
    brush.polygon("fur", _furry(0.45, 0.36, generator) + 0.62j)
    for side in (-1, 1):
        brush.ellipse("white fur", side * 0.08, 0.79, 0.1, 0.08)
    _face(brush, 0.19, 0.58, generator.uniform(0.085, 0.115))
    _mouth(brush, 0.7, 0.045)
    for side in (-1, 1):
        for slope in (-0.06, 0.0, 0.06):
            brush.line("whisker", [(side * 0.2, 0.77 + slope * 0.4), (side * 0.58, 0.76 + slope * 1.8)], 0.016)


def _dog(brush: Brush, generator: np.random.Generator) -> None:
    brush.ellipse("fur", 0, 0.44, 0.37, 0.42)
    brush.ellipse("fur", 0, 0.68, 0.27, 0.3)
    if generator.random() < 0.5:
        brush.ellipse("patch", 0.17, 0.38, 0.15, 0.17)
    low = generator.uniform(0.82, 0.95)
    for side in (-1, 1):
        ear = [
            (0.17, 0.05),
            (0.4, 0.08),
            (0.54, 0.35),
            (0.6, low - 0.1),
            (0.48, low),
            (0.36, low - 0.12),
            (0.33, 0.35),
        ]
        brush.blob("floppy ear", [(side * x, y) for x, y in ear])
    if generator.random() < 0.5:
        brush.ellipse("tongue", 0, 0.9, 0.085, 0.12)
    brush.ellipse("white fur", 0, 0.7, 0.21, 0.17)
    _face(brush, 0.16, 0.4, generator.uniform(0.06, 0.085))
    brush.ellipse("nose", 0, 0.61, 0.1, 0.065)
    brush.line("nose", [(-0.12, 0.77), (0, 0.8), (0.12, 0.77), (0, 0.8), (0, 0.64)], 0.022)


def _corgi(brush: Brush, generator: np.random.Generator) -> None:
    step = generator.uniform(-0.05, 0.05)
    for x in (-0.5 - step, -0.33 + step, 0.2 - step, 0.38 + step):
        brush.box("fur", x - 0.06, 0.74, x + 0.06, 0.97)
        brush.ellipse("white fur", x + 0.02, 0.96, 0.085, 0.045)
    brush.ellipse("fur", -0.66, 0.5, 0.1, 0.06, 0.7)
    brush.blob("fur", [(-0.68, 0.48), (-0.4, 0.4), (0.3, 0.4), (0.52, 0.4), (0.5, 0.8), (0.2, 0.86), (-0.6, 0.84)])
    brush.blob("fur", [(0.15, 0.45), (0.3, 0.2), (0.6, 0.2), (0.62, 0.6), (0.45, 0.75)])
    brush.blob("white fur", [(0.28, 0.5), (0.6, 0.46), (0.56, 0.72), (0.42, 0.86), (0.3, 0.7)])
    for x, lean in ((0.3, -0.07), (0.5, 0.04)):
        brush.polygon("fur", [(x - 0.1, 0.26), (x + lean, 0), (x + 0.11, 0.24)])
        brush.polygon("inner ear", [(x - 0.045, 0.24), (x + lean, 0.07), (x + 0.06, 0.23)])
    brush.ellipse("fur", 0.44, 0.34, 0.21, 0.16)
    brush.blob("white fur", [(0.5, 0.32), (0.66, 0.33), (0.76, 0.38), (0.74, 0.46), (0.5, 0.48)])
    brush.ellipse("eye", 0.5, 0.29, 0.033, 0.038)
    brush.ellipse("nose", 0.74, 0.37, 0.04, 0.035)


def _tiger_face(brush: Brush, generator: np.random.Generator) -> None:
    for side in (-1, 1):
        brush.ellipse("fur", side * 0.34, 0.16, 0.15, 0.15)
        brush.ellipse("stripe", side * 0.34, 0.16, 0.08, 0.08)
    brush.polygon("fur", _furry(0.49, 0.43, generator, 0.03) + 0.55j)
    reach = generator.uniform(0.2, 0.28)
    for side in (-1, 1):
        for y, slope in ((0.4, 0.06), (0.56, 0.01), (0.72, -0.05)):
            inner = (side * (0.5 - reach), y + slope)
            brush.polygon("stripe", [(side * 0.5, y - 0.055), inner, (side * 0.5, y + 0.055)])
        brush.petal("stripe", side * 0.14, 0.13, 0.19, 0.07, math.pi / 2 + side * 0.25)
        brush.ellipse("white fur", side * 0.1, 0.77, 0.13, 0.1)
    brush.petal("stripe", 0, 0.11, 0.28, 0.08, math.pi / 2)
    _face(brush, 0.18, 0.47, 0.06)
    _mouth(brush, 0.65, 0.075)


def _tiger_walking(brush: Brush, generator: np.random.Generator) -> None:
    step = generator.uniform(0.02, 0.1)
    brush.line("fur", [(-0.62, 0.35), (-0.82, 0.3), (-0.92, 0.12), (-0.82, 0.03)], 0.07)
    for x, foot in ((-0.5, step), (-0.36, -step), (0.28, -step), (0.42, step)):
        brush.polygon("fur", [(x - 0.1, 0.5), (x + 0.1, 0.5), (x + foot + 0.07, 1), (x + foot - 0.06, 1)])
        for y in (0.72, 0.84):
            brush.box("stripe", x + foot - 0.06, y, x + foot + 0.05, y + 0.04)
    brush.blob("fur", [(-0.7, 0.25), (-0.3, 0.2), (0.2, 0.22), (0.55, 0.18), (0.6, 0.55), (0.2, 0.72), (-0.66, 0.68)])
    for x in np.arange(-0.56, 0.42, 0.14) + generator.uniform(-0.02, 0.02):
        length = generator.uniform(0.3, 0.42)
        brush.petal("stripe", x, 0.2, length, 0.075, math.pi / 2 + generator.uniform(-0.15, 0.15))
    _tiger_side_head(brush)


def _tiger_side_head(brush: Brush) -> None:
    brush.ellipse("fur", 0.52, 0.07, 0.075, 0.075)
    brush.ellipse("fur", 0.64, 0.25, 0.2, 0.2)
    brush.ellipse("stripe", 0.52, 0.07, 0.035, 0.035)
    brush.ellipse("white fur", 0.78, 0.32, 0.11, 0.085)
    for x, y, angle in ((0.62, 0.07, 1.6), (0.5, 0.25, 0.2), (0.52, 0.36, -0.2)):
        brush.petal("stripe", x, y, 0.14, 0.05, angle)
    brush.ellipse("eye", 0.72, 0.2, 0.03, 0.035)
    brush.ellipse("nose", 0.86, 0.27, 0.04, 0.03)


def _horse(brush: Brush, generator: np.random.Generator) -> None:
    brush.polygon("fur", [(0.0, 0.16), (0.08, 0.02), (0.12, 0.18)])
    brush.blob("fur", [(-0.06, 0.12), (0.12, 0.13), (0.26, 0.34), (0.42, 0.56), (0.52, 0.68), (0.5, 0.8), (0.38, 0.84),
                       (0.3, 0.78), (0.14, 0.64), (0.04, 0.64), (0.1, 0.85), (0.2, 1.02), (-0.52, 1.02),
                       (-0.42, 0.66), (-0.26, 0.3)])  # fmt: skip
    brush.polygon("fur", [(-0.06, 0.17), (-0.03, 0.0), (0.06, 0.16)])
    _mane(brush, generator.uniform(0.16, 0.26))
    brush.ellipse("eye", 0.13, 0.32, 0.035, 0.04)
    brush.ellipse("eye", 0.43, 0.69, 0.028, 0.02, 0.8)
    brush.line("eye", [(0.42, 0.8), (0.36, 0.76)], 0.02)
    if generator.random() < 0.4:
        brush.line("leather", [(0.19, 0.68), (0.37, 0.5)], 0.03)
        brush.line("leather", [(-0.04, 0.22), (0.08, 0.6), (0.28, 0.58)], 0.03)


def _mane(brush: Brush, length: float) -> None:
    """Locks from the forehead down the back of the neck."""
    for share in np.linspace(0, 1, 9):
        x, y = 0.02 - 0.44 * share**0.9, 0.12 + 0.66 * share
        brush.petal("mane", x + 0.05, y - 0.05, length, 0.12, math.pi * 0.76 - 0.15 * share)
    brush.petal("mane", 0.0, 0.1, 0.2, 0.08, 0.95)


def _train(brush: Brush, generator: np.random.Generator, carriages: int) -> None:
    """A locomotive whose front is at x = 0.75, and carriages behind it."""
    windows = int(generator.integers(3, 6))
    for index in range(carriages):
        _carriage(brush, -0.72 - 1.22 * index, windows)
    _locomotive(brush)


def _carriage(brush: Brush, right: float, windows: int) -> None:
    left = right - 1.14
    brush.line("rail", [(left - 0.1, 0.78), (right + 0.1, 0.78)], 0.04)
    brush.box("metal", left, 0.33, right, 0.8)
    brush.box("trim", left - 0.03, 0.28, right + 0.03, 0.36)
    for x in np.linspace(left, right, windows + 1)[:-1]:
        gap = 1.14 / windows
        brush.box("window", x + gap * 0.18, 0.43, x + gap * 0.82, 0.62)
    for x in (left + 0.2, left + 0.44, right - 0.44, right - 0.2):
        _wheel(brush, x, 0.11)


def _wheel(brush: Brush, x: float, radius: float) -> None:
    brush.ellipse("wheel", x, 0.98 - radius, radius, radius)
    brush.ellipse("hub", x, 0.98 - radius, radius * 0.45, radius * 0.45)


def _locomotive(brush: Brush) -> None:
    brush.polygon("trim", [(0.45, 0.72), (0.62, 0.72), (0.8, 0.97), (0.45, 0.97)])
    brush.polygon("metal", [(0.4, 0.4), (0.34, 0.12), (0.58, 0.12), (0.52, 0.4)])
    brush.ellipse("trim", 0.08, 0.39, 0.1, 0.09)
    brush.box("metal", -0.3, 0.38, 0.58, 0.78)
    brush.ellipse("metal", 0.58, 0.58, 0.07, 0.2)
    brush.box("metal", -0.66, 0.22, -0.22, 0.78)
    brush.box("trim", -0.72, 0.15, -0.16, 0.24)
    brush.box("window", -0.57, 0.3, -0.32, 0.48)
    for x in (-0.04, 0.26):
        brush.box("trim", x, 0.38, x + 0.035, 0.78)
    for x, radius in ((-0.44, 0.18), (-0.06, 0.18), (0.3, 0.14)):
        _wheel(brush, x, radius)


def _smoke(brush: Brush, generator: np.random.Generator) -> None:
    """Puffs that drift back from the chimney."""
    for index in range(6):
        radius = 0.07 + 0.022 * index
        y = -0.02 - 0.035 * index + generator.uniform(-0.04, 0.04)
        brush.ellipse("smoke", 0.42 - 0.26 * index, y, radius * 1.4, radius)


def _car(brush: Brush, generator: np.random.Generator) -> None:
    wheel = generator.uniform(0.24, 0.3)
    brush.box("trim", -1.0, 0.22, -0.9, 0.6)
    brush.polygon("paint", [(-1.22, 0.02), (-0.78, 0.1), (-0.78, 0.24), (-1.22, 0.22)])
    brush.polygon("paint", [(-1.08, 0.55), (-0.7, 0.4), (-0.3, 0.08), (-0.16, 0.08), (-0.14, 0.42), (0.28, 0.42),
                            (1.18, 0.68), (1.22, 0.82), (-0.95, 0.86), (-1.08, 0.8)])  # fmt: skip
    brush.ellipse("helmet", 0.03, 0.33, 0.13, 0.15)
    brush.box("eye", 0.05, 0.28, 0.16, 0.35)
    brush.box("trim", 0.98, 0.8, 1.3, 0.9)
    brush.ellipse("window", -0.22, 0.64, 0.14, 0.12)
    for x in (-0.74, 0.76):
        brush.ellipse("eye", x, 0.98 - wheel, wheel * 1.12, wheel * 1.12)
        brush.ellipse("tire", x, 0.98 - wheel, wheel, wheel)
        brush.ellipse("hub", x, 0.98 - wheel, wheel * 0.5, wheel * 0.5)
        brush.ellipse("helmet", x, 0.98 - wheel, wheel * 0.2, wheel * 0.2)


def _speeding_car(brush: Brush, generator: np.random.Generator) -> None:
    for y in (0.3, 0.5, 0.7):
        brush.line("speed", [(-1.3, y), (-1.3 - generator.uniform(0.3, 0.7), y)], 0.04)
    _car(brush, generator)


def _flower(brush: Brush, generator: np.random.Generator) -> None:
    """A flower whose head, leaves and stem fill the height."""
    kind, radius = generator.integers(4), generator.uniform(0.19, 0.27)
    bend = generator.uniform(-0.08, 0.08)
    brush.line("stem", [(0, 1.05), (bend * 0.4, 0.7), (bend, radius)], 0.035)
    for side in (-1, 1):
        y = generator.uniform(0.7, 0.9)
        brush.petal("leaf", bend * 0.3, y, 0.27, 0.11, math.pi / 2 - side * generator.uniform(1.9, 2.3))
    if kind == 0:
        _tulip(brush, bend, radius)
    elif kind == 1:
        _daisy(brush, bend, radius, int(generator.integers(9, 13)))
    else:
        _blossom(brush, bend, radius, int(generator.integers(5, 8)), generator.uniform(0, 1))


def _tulip(brush: Brush, x: float, radius: float) -> None:
    brush.petal("back petal", x, radius * 2.1, radius * 2.1, radius * 1.2, -math.pi / 2)
    for side in (-1, 1):
        brush.blob("petal", [(x, 2.2 * radius), (x + side * radius, 1.7 * radius), (x + side * radius, 0.05 * radius),
                             (x + side * 0.1 * radius, 1.3 * radius)])  # fmt: skip


def _daisy(brush: Brush, x: float, radius: float, petals: int) -> None:
    for index in range(petals):
        brush.petal("petal", x, radius, radius * 1.05, radius * 0.42, 2 * math.pi * index / petals)
    brush.ellipse("pollen", x, radius, radius * 0.32, radius * 0.32)


def _blossom(brush: Brush, x: float, radius: float, petals: int, phase: float) -> None:
    for index in range(petals):
        angle = 2 * math.pi * (index + phase) / petals
        out = radius * 0.6
        center = x + out * math.cos(angle), radius + out * math.sin(angle)
        brush.ellipse("petal", *center, radius * 0.44, radius * 1.3 / petals**0.7, angle)
    brush.ellipse("pollen", x, radius, radius * 0.3, radius * 0.3)


def _bird(brush: Brush, generator: np.random.Generator) -> None:
    lift = generator.uniform(0.1, 0.5)
    for side in (-1, 1):
        brush.polygon("bird", [(0, 0.8), (side * 0.45, lift * 0.5), (side, lift), (side * 0.5, lift * 0.5 + 0.28)])
    brush.ellipse("bird", 0, 0.7, 0.12, 0.22)


def _lily(brush: Brush, generator: np.random.Generator) -> None:
    """A flower on a pad with a notch, ripples around it, sometimes a small pad beside it."""
    for reach in (0.75, 0.95):
        _ripple(brush, reach)
    _pad(brush, generator.uniform(0.2, 1.2))
    if generator.random() < 0.3:
        brush.ellipse("pad", 0.55, 0.93, 0.2, 0.06)
    _lily_flower(brush, int(generator.integers(3, 5)))


def _ripple(brush: Brush, reach: float) -> None:
    """The lower part of a ring in the water."""
    angles = np.linspace(0.35, math.pi - 0.35, 12)
    brush.line("water", reach * (np.cos(angles) + 0.27j * np.sin(angles)) + 0.74j, 0.025)


def _pad(brush: Brush, direction: float) -> None:
    """A flat round leaf with a notch."""
    angles = np.linspace(direction + 0.22, direction + 2 * math.pi - 0.22, 28)
    rim = 0.62 * (np.cos(angles) + 0.36j * np.sin(angles))
    brush.polygon("pad", np.append(rim, 0) + 0.74j)
    for vein in rim[5:-4:6]:
        brush.line("vein", np.array([0.2 * vein, 0.85 * vein]) + 0.74j, 0.015)


def _lily_flower(brush: Brush, petals: int) -> None:
    """A fan of pointed petals, the outer ones first."""
    for material, length, count in (("back petal", 0.6, petals + 1), ("petal", 0.5, petals)):
        for side in np.linspace(1, -1, count * 2 - 1):
            angle = -math.pi / 2 + side * (1.4 if material == "back petal" else 1.05)
            brush.petal(material, 0, 0.68, length * (1 - 0.12 * abs(side)), 0.2, angle)
    for side in (-0.5, 0, 0.5):
        brush.petal("white fur", 0, 0.7, 0.38, 0.15, -math.pi / 2 + side)


def _castle_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    if generator.random() < 0.3:
        _floor(canvas, "grass", generator.uniform(0.86, 0.94))
    return _scatter(canvas, generator, _castle, 1.12, (0.4, 0.98), standing=True, tilt=0)


def _kitten_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    return _scatter(canvas, generator, _kitten, 1.1)


def _dog_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    return _scatter(canvas, generator, _dog, 1.15)


def _corgi_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    canvas.tone = min(canvas.tone, 200)  # leaves room for the white chest
    return _scatter(canvas, generator, _corgi, 1.55, (0.3, 0.92), tilt=0.03)


def _tiger_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    if generator.random() < 0.6:
        return _scatter(canvas, generator, _tiger_face, 1.08) | {"pose": "face"}
    return _scatter(canvas, generator, _tiger_walking, 1.85, (0.4, 0.97), tilt=0.02) | {"pose": "walking"}


def _horse_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    return _scatter(canvas, generator, _horse, 1.12, (0.38, 1.0), tilt=0.06)


def _train_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    """One long train, two behind one another, or two above one another."""
    arrangement = _pick(generator, ("one", "side by side", "stacked"), (0.4, 0.3, 0.3))
    if arrangement == "side by side" and canvas.breadth < 2:
        arrangement = "stacked"
    facing = 1 if generator.random() < 0.5 else -1
    smoking = generator.random() < 0.6
    tracks = [0.49, 0.98] if arrangement == "stacked" else [generator.uniform(0.86, 0.98)]
    size = generator.uniform(0.36, 0.45) if arrangement == "stacked" else generator.uniform(0.38, 0.72)
    for track in tracks:
        _railway(canvas, track)
        if arrangement == "side by side":
            size = min(size, canvas.breadth / 5.6)
            fronts, carriages = [canvas.breadth * share - 0.02 for share in (0.5, 1.0)], 1
        else:
            fronts, carriages = [canvas.breadth - generator.uniform(0, 0.6) * size], int(generator.integers(2, 9))
        for front in fronts:
            _run_train(canvas, generator, (front, track, size), facing, carriages, smoking)
    count = 1 if arrangement == "one" else 2
    return {"count": count, "size": _size_word(size), "smoke": smoking}


def _run_train(
    canvas: Canvas,
    generator: np.random.Generator,
    measures: tuple[float, float, float],
    facing: int,
    carriages: int,
    smoking: bool,
) -> None:
    """Draw a train whose front, track and height are `measures`; facing -1 turns the whole canvas round."""
    front, track, size = measures
    x = front - 0.82 * size
    x = x if facing == 1 else canvas.breadth - x
    brush = canvas.brush(x, track - size * 0.5, size, facing)
    if smoking:
        _smoke(brush, generator)
    _train(brush, generator, carriages)


def _railway(canvas: Canvas, track: float) -> None:
    brush = canvas.brush(0, 0.5, 1)
    for x in np.arange(0, canvas.breadth, 0.12):
        brush.line("trim", [(x, track + 0.012), (x + 0.06, track + 0.012)], 0.02)
    brush.line("rail", [(0, track), (canvas.breadth, track)], 0.016)


def _race_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    """Cars on a track, above or below a checkered strip."""
    checkered = generator.random() < 0.6
    speeding = generator.random() < 0.6
    if generator.random() < 0.4:
        _floor(canvas, "road", generator.uniform(0.6, 0.85))
    if checkered:
        _checkers(canvas, generator.uniform(0.04, 0.065), generator.random() < 0.5)
    drawer, aspect = (_speeding_car, 3.2) if speeding else (_car, 2.65)
    attributes = _scatter(canvas, generator, drawer, aspect, (0.24, 0.66), tilt=0.02)
    return attributes | {"checkered": checkered, "speed": speeding}


def _checkers(canvas: Canvas, side: float, high: bool) -> None:
    """Two rows of squares along the upper or the lower edge."""
    brush = canvas.brush(0, 0.5, 1)
    unit = canvas.image.height
    for row in range(2):
        top = (row * side if high else 1 - (2 - row) * side) * unit
        for x in np.arange(row * side, canvas.breadth, 2 * side) * unit:
            brush.draw.rectangle((x, top, x + side * unit - 1, top + side * unit - 1), fill=brush.palette["check"])


def _garden_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    birds = int(generator.integers(4, 9)) if generator.random() < 0.35 else int(generator.integers(0, 4))
    if generator.random() < 0.4:
        _floor(canvas, "grass", generator.uniform(0.84, 0.93))
    sizes = (0.4, 0.72) if birds > 3 else (0.45, 1.0)
    attributes = _scatter(canvas, generator, _flower, 0.56, sizes, standing=True, least=3, most=10, tilt=0.03)
    for x in (generator.permutation(8)[:birds] + 0.5) / 8 * canvas.breadth:
        y, size = generator.uniform(0.06, 0.26), generator.uniform(0.07, 0.12)
        _bird(canvas.brush(x, y, size, tilt=generator.uniform(-0.3, 0.3)), generator)
    return attributes | {"birds": birds}


def _pond_scene(canvas: Canvas, generator: np.random.Generator) -> dict:
    if generator.random() < 0.6:
        _waves(canvas, generator)
    return _scatter(canvas, generator, _lily, 1.5, (0.28, 0.9), least=2, most=10, tilt=0)


def _waves(canvas: Canvas, generator: np.random.Generator) -> None:
    """Short strokes all over the water."""
    brush = canvas.brush(0, 0.5, 1)
    for y in np.arange(0.08, 1, 0.12):
        x = generator.uniform(-0.3, 0.1)
        while x < canvas.breadth:
            length = generator.uniform(0.15, 0.4)
            brush.line("water", [(x, y), (x + length / 2, y + 0.012), (x + length, y)], 0.012)
            x += length + generator.uniform(0.1, 0.4)


SCENES: dict[str, Callable[[Canvas, np.random.Generator], dict]] = {
    "castle": _castle_scene,
    "kitten": _kitten_scene,
    "dog": _dog_scene,
    "corgi": _corgi_scene,
    "train": _train_scene,
    "tiger": _tiger_scene,
    "garden": _garden_scene,
    "race": _race_scene,
    "pond": _pond_scene,
    "horse": _horse_scene,
}


@dataclass(frozen=True)
class Nouns:
    """Names of a subject: alone, in number, as a whole, and in the wording of the method."""

    one: tuple[str, ...]
    many: tuple[str, ...]
    whole: tuple[str, ...]
    usual: str


NOUNS: dict[str, Nouns] = {
    "castle": Nouns(
        ("castle", "fortress", "castle with towers", "medieval castle"),
        ("castles", "fortresses", "medieval castles", "castles with towers"),
        ("castle towers", "stone towers", "towers and walls"),
        "castle towers",
    ),
    "kitten": Nouns(
        ("kitten", "cat", "furry kitten", "kitten face", "fluffy cat"),
        ("kittens", "cats", "furry kittens", "kitten faces", "fluffy cats"),
        (),
        "furry kittens",
    ),
    "dog": Nouns(
        ("dog", "puppy", "cute dog", "dog face", "dog with long ears"),
        ("dogs", "puppies", "cute dogs", "dog faces", "dogs with long ears"),
        (),
        "cute dogs",
    ),
    "corgi": Nouns(
        ("corgi", "corgi dog", "cute corgi", "corgi with short legs"),
        ("corgis", "corgi dogs", "cute corgis", "corgis with short legs"),
        (),
        "corgis",
    ),
    "train": Nouns(
        ("train", "steam train", "locomotive with carriages", "railway train"),
        ("trains", "steam trains", "locomotives with carriages", "railway trains"),
        (),
        "trains",
    ),
    "tiger": Nouns(
        ("tiger", "striped tiger", "big cat with stripes"), ("tigers", "striped tigers", "wild tigers"), (), "tigers"
    ),
    "garden": Nouns(
        ("flower", "blooming flower", "flower on a stem"),
        ("flowers", "blooming flowers", "garden flowers", "flowers on stems"),
        ("a blooming garden", "a flower garden", "a garden in bloom"),
        "a blooming garden",
    ),
    "race": Nouns(
        ("race car", "racing car", "fast race car", "formula car"),
        ("race cars", "racing cars", "fast race cars", "formula cars"),
        ("auto racing", "auto racing game", "a racing game"),
        "auto racing game",
    ),
    "pond": Nouns(
        ("water lily", "water lily on a pond", "water lily on its pad"),
        ("water lilies", "water lilies on a pond", "water lilies and lily pads"),
        ("a pond with water lilies", "a lily pond"),
        "a pond full of water lilies",
    ),
    "horse": Nouns(
        ("horse head", "horse", "head of a horse", "horse in profile"),
        ("horse heads", "horses", "heads of horses", "horses in profile"),
        (),
        "horse heads",
    ),
}

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
STYLE_ENDINGS: dict[str, tuple[str, ...]] = {
    "painting": ("painting style", "soft shading"),
    "drawing": ("outlined", "line drawing"),
    "sketch": ("outlined", "sketch style"),
    "lithograph": ("lithograph style", "lithograph"),
}


def describe_picture(subject: str, attributes: dict, generator: np.random.Generator) -> str:
    """A prompt that is true of a picture with these `attributes`, as `draw_picture` returned them."""
    many = attributes["count"] > (2 if subject == "pond" else 1) or subject in ("castle", "garden")
    if many and generator.random() < 0.4:
        words, chances = _usual_words(subject, attributes, generator), (0.9, 0.4, 0.0)
    else:
        words, chances = _free_words(subject, attributes, generator), (0.5, 0.3, 0.12)
    if subject == "pond" and words == NOUNS[subject].usual:
        chances = (0.9, 0.2, 0.65)
    return ", ".join([words, *_endings(attributes, generator, chances)])


def _usual_words(subject: str, attributes: dict, generator: np.random.Generator) -> str:
    """The wording of the method itself."""
    words = NOUNS[subject].usual
    if attributes.get("birds", 0) > 3 and generator.random() < 0.7:
        words += " with many birds"
    if subject == "pond" and generator.random() < 0.7:
        return words
    return f"a {attributes['style']} of {words}"


def _free_words(subject: str, attributes: dict, generator: np.random.Generator) -> str:
    """Any other wording: with or without the medium, number, size, tone and details."""
    nouns = NOUNS[subject]
    if nouns.whole and generator.random() < 0.35:
        words = _pick(generator, nouns.whole)
    else:
        words = _counted(subject, attributes, generator)
    words += _detail(attributes, generator)
    medium = _pick(generator, (f"a {attributes['style']} of ", "a picture of ", ""), (0.5, 0.2, 0.3))
    return medium + words


def _counted(subject: str, attributes: dict, generator: np.random.Generator) -> str:
    """A noun with some of its attributes: "three small furry kittens", "a bright castle"."""
    count = attributes["count"]
    noun = _pick(generator, NOUNS[subject].one if count == 1 else NOUNS[subject].many)
    words = [*_adjectives(attributes, generator), noun]
    if attributes.get("pose") and generator.random() < 0.3:
        words[-1] = _posed(attributes["pose"], count)
    if count == 1:
        first = _pick(generator, ("a", "a single", "one"), (0.6, 0.25, 0.15))
        article = "an" if first == "a" and words[0][0] in "aeiou" else first
        return " ".join([article, *words])
    if generator.random() < 0.4:
        words.insert(0, NUMBERS[count])
    elif count > 4 and generator.random() < 0.6:
        words.insert(0, "many")
    return " ".join(words)


def _adjectives(attributes: dict, generator: np.random.Generator) -> list[str]:
    words = []
    if attributes["size"] != "medium" and generator.random() < 0.3:
        words.append(attributes["size"])
    if generator.random() < 0.25:
        words.append(attributes["tone"])
    return words


def _posed(pose: str, count: int) -> str:
    noun = "tiger face" if pose == "face" else "walking tiger"
    return noun if count == 1 else f"{noun}s"


def _detail(attributes: dict, generator: np.random.Generator) -> str:
    """Something else to be seen, sometimes."""
    details = {
        "smoke": " with smoke",
        "checkered": " with a checkered strip",
        "speed": " at full speed",
    }
    seen = [words for name, words in details.items() if attributes.get(name)]
    birds = attributes.get("birds", 0)
    if birds:
        seen.append(" with many birds" if birds > 3 else " and a bird" if birds == 1 else " with a few birds")
    return _pick(generator, seen) if seen and generator.random() < 0.4 else ""


def _endings(attributes: dict, generator: np.random.Generator, chances: tuple[float, float, float]) -> list[str]:
    """Some of "grayscale", the background and the style, each with its chance."""
    endings = (
        "grayscale",
        f"{attributes['background']} background",
        _pick(generator, STYLE_ENDINGS[attributes["style"]]),
    )
    return [ending for ending, chance in zip(endings, chances, strict=True) if generator.random() < chance]
