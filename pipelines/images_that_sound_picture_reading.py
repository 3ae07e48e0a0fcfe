"""Pictures as people bring them, made ready for a canvas: upright, of 8 bits, and light where the drawing is."""

import numpy as np
import PIL.Image
import PIL.ImageOps
import scipy.ndimage
from PIL.ImageFilter import MaxFilter, MinFilter


# Paper is light, and changes softly, also in the uneven light of a photograph: by at most this share from a pixel to
# those around it. It makes up nearly all of a drawing's border, but not of a portrait's, which has shoulders there.
SOFT_STEP = 0.06
BORDER_SHARE = 0.85
PAPER_LIGHTNESS = 110
# Share of the paper's lightness from which on a part is as light as paper, below which it is ink, and of the lightest
# pixel, from which on paper is paper and no board for chalk. A drawing has few parts between paper and ink.
AS_PAPER, AS_INK, AS_LIGHTEST = 0.93, 0.45, 0.6
MOST_BETWEEN = 0.2
# Least share of the drawn pixels that makes a drawing on transparency light, or dark.
DRAWN_SHARE = 0.9


def upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """
    A picture as one sees it: turned as the camera noted it, gray ones of 16 bits or of floats brought to 8 bits, with
    their transparency.

    Args:
        picture (`PIL.Image.Image`): A picture of any mode.

    Returns:
        `PIL.Image.Image`: A picture of 8 bits per channel.

    Raises:
        ValueError: If gray values are outside of 0..1 and 0..255.
    """
    picture = PIL.ImageOps.exif_transpose(picture)
    return _of_8_bits(picture) if picture.mode[0] in "IF" else picture


def _of_8_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Gray pictures of modes I, I;16 and F, whose values Pillow would clip and whose transparency it would drop."""
    values = np.asarray(picture, np.float32)
    hidden = picture.info.get("transparency")
    opaque = None if hidden is None else values != hidden
    if picture.mode.startswith("I"):
        values = values / 65535
    elif values.size and values.max() > 1:
        values = values / 255
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("`image` has to be a picture of 8 or 16 bits, or of numbers in 0..1 or 0..255.")
    gray = PIL.Image.fromarray((values * 255).round().astype(np.uint8))
    if opaque is not None:
        gray.putalpha(PIL.Image.fromarray(opaque.astype(np.uint8) * 255))
    return gray


def on_ground(picture: PIL.Image.Image, ground: float) -> PIL.Image.Image:
    """A picture whose transparent parts show an even gray in 0..1; one without any as it is."""
    if not picture.has_transparency_data:
        return picture
    behind = PIL.Image.new("RGBA", picture.size, (*[round(255 * ground)] * 3, 255))
    return PIL.Image.alpha_composite(behind, picture.convert("RGBA")).convert("RGB")


def as_drawing(
    picture: PIL.Image.Image, silence: float = 0.0, invert: bool | None = None
) -> tuple[PIL.Image.Image, bool]:
    """
    A picture as a canvas wants it: the ground looks like silence, and the drawing does not.

    Args:
        picture (`PIL.Image.Image`): A picture from [`upright`].
        silence (`float`, defaults to 0.0): How silence looks: 0 is black, 1 is white.
        invert (`bool`, *optional*): Whether light and dark are swapped. Default: swapped if paper, unlike silence,
            fills nearly the whole border and most of the rest is ink; on transparency, if the drawing itself looks
            like silence.

    Returns:
        `tuple[PIL.Image.Image, bool]`: The picture without transparency, what was transparent being silent, and
        whether light and dark were swapped.
    """
    if invert is None:
        invert = _is_swapped(picture, silence)
    plain = on_ground(picture, 1 - silence if invert else silence)
    return (PIL.ImageOps.invert(plain.convert("RGB")) if invert else plain), invert


def _is_swapped(picture: PIL.Image.Image, silence: float) -> bool:
    """Whether the side of a picture that is to be loud looks like silence."""
    small = picture.convert("RGBA")
    small.thumbnail((128, 128))
    gray, alpha = small.convert("LA").split()
    light = PIL.ImageOps.invert(gray) if silence else gray
    values, opaque = np.asarray(light), np.asarray(alpha) > 127
    if _border(opaque).mean() < 0.5:
        return bool(opaque.any() and (values[opaque] < 128).mean() >= DRAWN_SHARE)
    return _is_on_paper(light)


def _is_on_paper(light: PIL.Image.Image) -> bool:
    """Whether a small gray picture is a drawing on a light ground."""
    # Without thin lines.
    light = light.filter(MaxFilter(5))
    values, most, least = (
        np.asarray(each, np.float32) for each in (light, *map(light.filter, (MaxFilter(3), MinFilter(3))))
    )
    parts, _ = scipy.ndimage.label(most - least <= SOFT_STEP * most)
    at_border = np.bincount(_border(parts))[1:]
    if not at_border.any():
        return False
    soft = parts == 1 + at_border.argmax()
    ground = np.median(values[soft])
    paper = scipy.ndimage.binary_dilation(soft, iterations=2) | (values >= AS_PAPER * ground)
    between = ~paper & (values >= AS_INK * ground)
    is_light = ground >= max(PAPER_LIGHTNESS, AS_LIGHTEST * values.max())
    return bool(is_light and _border(paper).mean() >= BORDER_SHARE and between.mean() <= MOST_BETWEEN)


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
