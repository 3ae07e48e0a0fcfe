"""Captions of videos: a few lines in the first font that has all letters."""

import unicodedata
from contextlib import suppress
from functools import lru_cache

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
        text = " ".join(caption[:MOST_LETTERS].split())
        font, text = _readable(text, size)
        lines += [(line, font) for line in _wrapped(text, font, width - size)]
    step = round(1.36 * size)
    picture = PIL.Image.new("RGB", (width, step * len(lines) + round(0.55 * size) if lines else 0))
    pen = PIL.ImageDraw.Draw(picture)
    for i, (line, font) in enumerate(lines):
        pen.text((size // 2, 0.27 * size + step * i), line, font=font, fill="white")
    return picture


def _readable(text: str, size: int) -> tuple[PIL.ImageFont.FreeTypeFont, str]:
    """The first font that has all letters of a text; without accents if there is none."""
    fonts = _fonts(size)
    for font in fonts:
        if not _missing(text, font):
            return font, text
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    font = min(fonts, key=lambda font: len(_missing(plain, font)))
    if letters := _missing(plain, font):
        tell(f"No font of this machine has {letters[:20]!r}, of which a caption shows boxes.")
    return font, plain


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


def _wrapped(text: str, font: PIL.ImageFont.FreeTypeFont, width: int) -> list[str]:
    """At most so many lines, broken between words, and within one that is too long, as those of East Asia are."""
    lines, rest = [], text
    while rest and len(lines) < MOST_LINES:
        fitting = _fitting(rest, font, width)
        if fitting < len(rest) and " " in rest[1 : fitting + 1]:
            fitting = rest.rindex(" ", 1, fitting + 1)
        lines.append(rest[:fitting])
        rest = rest[fitting:].strip()
    if rest:
        lines[-1] = f"{lines[-1][: max(_fitting(lines[-1], font, width - font.getlength('...')), 1)]}..."
    return lines


def _fitting(text: str, font: PIL.ImageFont.FreeTypeFont, width: float) -> int:
    """How many letters fit, one at least."""
    lengths = np.cumsum([font.getlength(each) for each in text])
    return max(int((lengths <= width).sum()), 1)
