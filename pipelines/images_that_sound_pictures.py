"""Pictures of one's own: how one of any size comes onto a canvas, and how it is painted into a spectrogram."""

from typing import Any

import torch

from .images_that_sound_checks import shown


RESIZE_MODES = ("repeat", "center", "crop", "stretch")


def check_resize_mode(resize_mode: Any) -> None:
    if not isinstance(resize_mode, str) or resize_mode not in RESIZE_MODES:
        names = ", ".join(map(repr, RESIZE_MODES[:-1]))
        raise ValueError(f"`resize_mode` has to be {names} or {RESIZE_MODES[-1]!r}, but is {shown(resize_mode)}.")


def fit_pictures(pictures: torch.Tensor, height: int, width: int, resize_mode: str, ground: float) -> torch.Tensor:
    """
    Pictures on canvases; those of the canvas' own size are left as they are.

    Args:
        pictures (`torch.Tensor` of shape `(B, C, h, w)`): In 0..1.
        height (`int`): `H`, pixels of the canvas.
        width (`int`): `W`, pixels of the canvas.
        resize_mode (`str`): `"repeat"`: as large as fits, side by side as often as it fits. `"center"`: as large as
            fits, once, in the middle. `"crop"`: as small as covers the canvas, its middle. `"stretch"`: in another
            shape.
        ground (`float`): What is around them, in 0..1.

    Returns:
        `torch.Tensor` of shape `(B, C, H, W)` in 0..1.
    """
    if pictures.shape[-2:] == (height, width):
        return pictures
    if resize_mode == "stretch":
        return _resized(pictures, height, width)
    scales = (height / pictures.shape[-2], width / pictures.shape[-1])
    scale = max(scales) if resize_mode == "crop" else min(scales)
    picture = _resized(pictures, *(max(round(side * scale), 1) for side in pictures.shape[-2:]))
    if resize_mode == "crop":
        top, left = ((side - kept) // 2 for side, kept in zip(picture.shape[-2:], (height, width)))
        return picture[..., top : top + height, left : left + width]
    return _spread(picture, height, width, width // picture.shape[-1] if resize_mode == "repeat" else 1, ground)


def _resized(pictures: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(pictures, (height, width), mode="bilinear", antialias=True)


def _spread(picture: torch.Tensor, height: int, width: int, times: int, ground: float) -> torch.Tensor:
    """Copies of pictures on a canvas, with as much ground between them as at either end."""
    canvas = picture.new_full((*picture.shape[:2], height, width), ground)
    rows, columns = picture.shape[-2:]
    top, left_over = (height - rows) // 2, width - times * columns
    for i in range(times):
        left = i * columns + left_over * (i + 1) // (times + 1)
        canvas[..., top : top + rows, left : left + columns] = picture
    return canvas


def imprint(
    spectrograms: torch.Tensor,
    images: torch.Tensor,
    magnitude_ratio: float,
    invert_image: bool = True,
    silence: float = 0.0,
) -> torch.Tensor:
    """
    Paints pictures into spectrograms (arXiv 2405.12221, appendix A.3): takes them towards silence, as far as the
    picture says.

    Args:
        spectrograms (`torch.Tensor` of shape `(B, 1, M, T)`): Canvases in 0..1.
        images (`torch.Tensor` of shape `(B, C, M, T)`): Pictures in 0..1, of which the mean over channels counts.
        magnitude_ratio (`float`): Share of the spectrogram that the picture takes away at most, 0..1.
        invert_image (`bool`, defaults to `True`): Whether what looks like silence takes away most; else the opposite.
        silence (`float`, defaults to 0.0): How silence looks: 0 is black, as in the paper, 1 is white.

    Returns:
        `torch.Tensor` of shape `(B, 1, M, T)`: Canvases in 0..1.
    """
    gray = images.mean(dim=1, keepdim=True)
    loud = (gray - silence).abs()
    taken = 1 - loud if invert_image else loud
    return silence + (spectrograms - silence) * (1 - magnitude_ratio * taken)
