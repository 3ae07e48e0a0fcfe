"""Captions of videos: a few lines, each letter in a font that has it."""

import unicodedata
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from .progress import tell


# Fonts of systems, for letters that Pillow's font lacks: European ones, East Asian ones, emoji.
SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf", "segoeui.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSerifCJK-Regular.ttc", "wqy-microhei.ttc"),
    *("wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleGothic.ttf"),
    *("msyh.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "unifont.otf"),
    *("NotoEmoji-Regular.ttf", "Symbola.ttf", "Symbola_hint.ttf", "seguiemj.ttf", "seguisym.ttf"),
)
# Bounds of a text that a file holds, and of a caption.
MOST_LETTERS, MOST_LINES = 500, 3
# No font has this one: it is drawn as what is missing.
MISSING = "\U0010fffe"


# A letter with its font.
Letter = tuple[str, PIL.ImageFont.FreeTypeFont]


def draw_captions(captions: list[str], width: int, size: int = 22) -> PIL.Image.Image:
    """
    Captions in white on black, each wrapped to at most three lines. Letters that no font of this machine has are told.

    Args:
        captions (`list[str]`): Texts of any length and script.
        width (`int`): Pixels of the picture.
        size (`int`, defaults to 22): Size of the font in pixels.

    Returns:
        `PIL.Image.Image`: RGB, as high as the lines are.
    """
    lines = []
    for caption in captions:
        lines += _wrapped(_letters(" ".join(caption[:MOST_LETTERS].split()), size), width - size)
    step = round(1.36 * size)
    picture = PIL.Image.new("RGB", (width, step * len(lines) + round(0.55 * size) if lines else 0))
    pen = PIL.ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        left = size // 2
        # Letters of one font stand on one line, and are drawn together.
        for font, run in groupby(line, key=itemgetter(1)):
            text = "".join(letter for letter, _ in run)
            pen.text((left, round(1.27 * size) + step * i), text, font=font, fill="white", anchor="ls")
            left += font.getlength(text)
    return picture


def _letters(text: str, size: int) -> list[Letter]:
    """
    The letters of a text, in the first font that has all of them, else each in the first that has it; without accents
    if there is none.
    """
    fonts = _fonts(size)
    lacking = [set(_missing(text, font)) for font in fonts]
    if set() in lacking:
        return [(letter, fonts[lacking.index(set())]) for letter in text]
    everywhere = set.intersection(*lacking)
    if everywhere:
        parts = unicodedata.normalize("NFKD", text)
        text = "".join(each for each in parts if not unicodedata.combining(each))
        lacking = [set(_missing(text, font)) for font in fonts]
        everywhere = set.intersection(*lacking)
    if everywhere:
        unknown = "".join(each for each in dict.fromkeys(text) if each in everywhere)
        tell(f"No font of this machine has {unknown[:20]!r}, of which a caption shows boxes.")
    of_each = {each: next((f for f, no in zip(fonts, lacking) if each not in no), fonts[0]) for each in set(text)}
    return [(each, of_each[each]) for each in text]


@lru_cache(maxsize=4)
def _fonts(size: int) -> list[PIL.ImageFont.FreeTypeFont]:
    fonts = [PIL.ImageFont.load_default(size=size)]
    for name in SYSTEM_FONTS:
        with suppress(OSError):
            fonts.append(PIL.ImageFont.truetype(name, size))
    return fonts


def _missing(text: str, font: PIL.ImageFont.FreeTypeFont) -> str:
    """Letters of a text that a font draws as the one that it has for all that is missing."""
    box = _drawn(MISSING, font)
    return "".join(each for each in dict.fromkeys(text) if not each.isspace() and _drawn(each, font) == box)


def _drawn(letter: str, font: PIL.ImageFont.FreeTypeFont) -> bytes:
    picture = PIL.Image.new("L", (64, 64))
    PIL.ImageDraw.Draw(picture).text((8, 8), letter, font=font, fill=255)
    return picture.tobytes()


def _wrapped(letters: list[Letter], width: int) -> list[list[Letter]]:
    """At most so many lines, broken between words, and within one that is too long, as those of East Asia are."""
    lines, rest = [], letters
    while rest and len(lines) < MOST_LINES:
        fitting = _fitting(rest, width)
        spaces = [i for i in range(1, fitting + 1) if i < len(rest) and rest[i][0] == " "]
        if fitting < len(rest) and spaces:
            fitting = spaces[-1]
        lines.append(rest[:fitting])
        rest = rest[fitting:]
        while rest and rest[0][0] == " ":
            rest = rest[1:]
    if rest:
        dots = [(".", lines[-1][-1][1])] * 3
        lines[-1] = lines[-1][: _fitting(lines[-1], width - sum(font.getlength(each) for each, font in dots))] + dots
    return lines


def _fitting(letters: list[Letter], width: float) -> int:
    """How many letters fit, one at least."""
    lengths = np.cumsum([font.getlength(each) for each, font in letters])
    return max(int((lengths <= width).sum()), 1)
