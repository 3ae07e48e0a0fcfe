"""Lines of a picture, white on black: what a ControlNet for lines is told of it."""

import numpy as np
from PIL import Image
from scipy import ndimage


# Of the widest stroke that counts as a line, as a share of the canvas' height.
LINE_WIDTH = 0.055
# Of Canny's edges, as shares of the steepest slope: all above the second that hang together with one above the first.
STRONG, WEAK = 0.22, 0.08


def lines_of(picture: Image.Image, height: int = 128, width: int = 512) -> Image.Image:
    """
    Lines of a picture: the strokes of what is drawn in thin lines, light or dark, the edges of everything else (Canny,
    "A Computational Approach to Edge Detection", 1986).

    Args:
        picture (`PIL.Image.Image`): Of any size and mode. What is transparent counts as paper.
        height (`int`, defaults to 128): Rows of the canvas that the lines are for.
        width (`int`, defaults to 512): Its columns.

    Returns:
        `PIL.Image.Image`: Gray, white lines on black, as large as fits into the canvas.
    """
    scale = min(height / picture.height, width / picture.width)
    size = [max(round(side * scale), 1) for side in picture.size]
    gray = np.asarray(_on_paper(picture).resize(size, Image.Resampling.BOX), np.float32) / 255
    strokes = _strokes(gray)
    lines = strokes if _is_thin(strokes > 0.3, height) else _edges(gray, height / 128)
    return Image.fromarray((255 * lines).round().astype(np.uint8))


def _on_paper(picture: Image.Image) -> Image.Image:
    """The picture in gray, what is transparent in it as unlike its strokes as can be."""
    if not picture.has_transparency_data:
        return picture.convert("L")
    gray, alpha = picture.convert("LA").split()
    opaque = np.asarray(gray)[np.asarray(alpha) > 127]
    paper = Image.new("L", picture.size, 0 if opaque.size and opaque.mean() > 127 else 255)
    paper.paste(gray, mask=alpha)
    return paper


def _strokes(gray: np.ndarray) -> np.ndarray:
    """How far each pixel is from the ground, 0..1."""
    distance = np.abs(gray - np.median(gray))
    return distance / max(distance.max(), 1 / 255)


def _is_thin(mask: np.ndarray, height: int) -> bool:
    """Whether there are strokes and hardly one is as wide as a brush of `LINE_WIDTH`."""
    side = max(round(LINE_WIDTH * height), 2)
    thick = ndimage.binary_opening(mask, np.ones((side, side)))
    return 0 < mask.mean() < 0.35 and thick.sum() < 0.1 * mask.sum()


def _edges(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Canny's edges, 0 or 1."""
    slopes = np.stack([ndimage.gaussian_filter(gray, sigma, order=order) for order in ((1, 0), (0, 1))])
    steepness = np.hypot(*slopes)
    direction = slopes / np.maximum(steepness, 1e-6)
    here = np.indices(gray.shape)
    beside = [ndimage.map_coordinates(steepness, here + sign * direction, order=1) for sign in (-1, 1)]
    ridge = (steepness >= beside[0]) & (steepness > beside[1])
    steepest = max(np.quantile(steepness, 0.995), 4 / 255)
    labels, count = ndimage.label(ridge & (steepness > WEAK * steepest), np.ones((3, 3)))
    kept = np.zeros(count + 1, bool)
    kept[labels[ridge & (steepness > STRONG * steepest)]] = True
    kept[0] = False
    return kept[labels].astype(np.float32)
