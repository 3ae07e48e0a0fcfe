"""Lines of a picture, white on black: what a ControlNet for lines is told of it."""

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage
from skimage.feature import canny

from ...pipelines.images_that_sound_picture_reading import as_drawing


# Width of the widest stroke that counts as a line, as a share of the canvas' height.
LINE_WIDTH = 0.055
# Canny's thresholds, if black to white is 1: edges are all above the second that touch one above the first.
STRONG, WEAK = 0.5, 0.2
# Least darkness of strokes on paper, as a share of its lightness, and in deviations of its grain, and the deviations
# that are no stroke.
DARKNESS, CLEAR, GRAIN = 0.05, 8, 3


def lines_of(picture: Image.Image, height: int = 128, width: int = 512) -> Image.Image:
    """
    Lines of a picture: strokes if it is drawn in thin lines, light or dark on an even ground, or dark on paper in
    uneven light; the edges of everything else (Canny, "A Computational Approach to Edge Detection", 1986).

    Args:
        picture (`PIL.Image.Image`): A picture of any size and mode. Transparent parts count as paper.
        height (`int`, defaults to 128): Rows of the canvas that the lines are for.
        width (`int`, defaults to 512): Its columns.

    Returns:
        `PIL.Image.Image`: Gray, white lines on black, as large as fits into the canvas.
    """
    scale = min(height / picture.height, width / picture.width)
    size = [max(round(side * scale), 1) for side in picture.size]
    gray = _on_paper(picture).resize(size, Image.Resampling.BOX)
    strokes = _strokes(np.asarray(gray, np.float32) / 255)
    if not _are_thin(strokes, height) and as_drawing(ImageOps.autocontrast(gray, cutoff=(0, 1)))[1]:
        strokes = _strokes_on_paper(np.asarray(gray, np.float32) / 255, height)
    lines = strokes if _are_thin(strokes, height) else _edges(gray, height / 128)
    return Image.fromarray((255 * lines).round().astype(np.uint8))


def _on_paper(picture: Image.Image) -> Image.Image:
    """The picture in gray, with transparent parts as unlike its strokes as can be."""
    if not picture.has_transparency_data:
        return picture.convert("L")
    gray, alpha = picture.convert("LA").split()
    opaque = np.asarray(gray)[np.asarray(alpha) > 127]
    paper = Image.new("L", picture.size, 0 if opaque.size and opaque.mean() > 127 else 255)
    paper.paste(gray, mask=alpha)
    return paper


def _strokes(gray: np.ndarray) -> np.ndarray:
    """Distance of each pixel from the ground, 0 to 1."""
    distance = np.abs(gray - np.median(gray))
    return distance / max(distance.max(), 1 / 255)


def _strokes_on_paper(gray: np.ndarray, height: int) -> np.ndarray:
    """Darkness of each pixel against the paper around it, 0 to 1; nothing if there is none that stands out."""
    side = max(round(2 * LINE_WIDTH * height), 3)
    paper = ndimage.gaussian_filter(ndimage.grey_closing(gray, (side, side)), side / 2)
    dark = 1 - gray / paper.clip(1 / 255)
    dark -= np.median(dark)
    grain = 1.4826 * np.median(np.abs(dark))
    full = np.percentile(dark[dark > 0.3 * dark.max()], 75) if dark.any() else 0
    if full < max(DARKNESS, CLEAR * grain):
        return np.zeros_like(gray)
    return ((dark - GRAIN * grain) / (full - GRAIN * grain)).clip(0, 1)


def _are_thin(strokes: np.ndarray, height: int) -> bool:
    """Whether the ground is even, and hardly a stroke on it as wide as a brush of `LINE_WIDTH`."""
    mask, side = strokes > 0.3, max(round(LINE_WIDTH * height), 2)
    thick = ndimage.binary_opening(mask, np.ones((side, side)))
    return (strokes < 0.05).mean() > 0.6 and thick.sum() < 0.1 * mask.sum()


def _edges(gray: Image.Image, sigma: float) -> np.ndarray:
    """Whether each pixel is on one of Canny's edges."""
    stretched = np.asarray(ImageOps.autocontrast(gray, cutoff=1), np.float32) / 255
    return canny(stretched, sigma, low_threshold=WEAK, high_threshold=STRONG)
