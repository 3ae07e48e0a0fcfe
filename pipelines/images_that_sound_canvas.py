"""The canvas that is seen and played, and how pictures come onto it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor

from .images_that_sound_checks import check_choice, check_integer, check_number, check_tensor, get_logger, shown
from .images_that_sound_picture_reading import on_ground, upright


logger = get_logger(__name__)

LAYOUTS = ("strip", "folded")
RESIZE_MODES = ("repeat", "center", "crop", "stretch")

# Pictures are brought to the canvas' size by `fit_pictures`.
PICTURES = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True)
MASKS = VaeImageProcessor(do_resize=False, do_normalize=False, do_binarize=True, do_convert_grayscale=True)


@dataclass(frozen=True)
class Windows:
    """
    Places at which a model sees a wide canvas, one after the other along time
    ([arXiv 2302.08113](https://arxiv.org/abs/2302.08113)).

    Args:
        width (`int`): Pixels of a window.
        stride (`int`): Pixels from one window to the next, at most `width`.
        total (`int`): Pixels of the canvas, at least `width`.
        batch_size (`int`, defaults to 1): Windows that a model sees at once.
        circular (`bool`, defaults to `False`): Whether the right end of the canvas meets its left end, so that windows
            cross it. Otherwise the last window ends with the canvas.
    """

    width: int
    stride: int
    total: int
    batch_size: int = 1
    circular: bool = False

    @cached_property
    def starts(self) -> list[int]:
        """Left ends of the windows in pixels."""
        if self.circular:
            return list(range(0, self.total, self.stride))
        last = self.total - self.width
        return [*range(0, last, self.stride), last]

    def cut(self, pictures: torch.Tensor, places: list[int]) -> torch.Tensor:
        """Windows `(P * B, ..., width)` of pictures or latents `(B, ..., total)`, at places among `starts`."""
        scale = self.total // pictures.shape[-1]
        return torch.cat([pictures[..., self._columns(place, scale, pictures.device)] for place in places])

    def _columns(self, place: int, scale: int, device: torch.device) -> torch.Tensor:
        """Columns of a window, each of `scale` pixels."""
        columns = torch.arange(self.width // scale, device=device) + self.starts[place] // scale
        return columns % (self.total // scale)

    def merge(self, latents: torch.Tensor, compute: Callable[[torch.Tensor, list[int]], torch.Tensor]) -> torch.Tensor:
        """
        Computes something in windows, and averages it with weights that fall off towards the edges of a window.

        Args:
            latents (`torch.Tensor` of shape `(B, C, h, w)`): Latents of the canvas, or its picture.
            compute (`Callable`): Takes `P` windows `(P * B, C, h, v)`, each of `v` columns, and their places. Returns
                `(P * B, c, H, V)`, such as noise, decoded pictures or encoded ones.

        Returns:
            `torch.Tensor` of shape `(B, c, H, w * V / v)`.
        """
        merged = weights = None
        for first in range(0, len(self.starts), self.batch_size):
            places = list(range(first, min(first + self.batch_size, len(self.starts))))
            computed = compute(self.cut(latents, places), places)
            scale, size = self.width // computed.shape[-1], computed.shape[-1]
            if merged is None:
                # In half precision, sums of many columns would round.
                kind = {"device": computed.device, "dtype": torch.promote_types(computed.dtype, torch.float32)}
                merged = torch.zeros(len(latents), *computed.shape[1:-1], self.total // scale, **kind)
                weights = torch.zeros(merged.shape[-1], **kind)
                rising = torch.arange(1, size + 1, **kind)
                falloff = torch.minimum(rising, rising.flip(0))
            for place, window in zip(places, computed.chunk(len(places))):
                columns = self._columns(place, scale, computed.device)
                merged.index_add_(-1, columns, window * falloff)
                weights.index_add_(0, columns, falloff)
        return merged.div_(weights).to(computed.dtype)

    def overlapping(self, multiple: int) -> "Windows":
        """
        Windows of the same width for a VAE, each an eighth over the next, so that no border shows even if those of the
        UNet do not overlap. Strides are multiples of `multiple`.
        """
        share = 0.5 if self.width == self.total else 0.875
        stride = max(int(self.width * share) // multiple, 1) * multiple
        return replace(self, stride=stride, batch_size=1)

    def fractions(self, place: int, starts: tuple[int, ...]) -> list[float]:
        """
        Fractions of a window, 0 to 1, in each part of the canvas. Parts begin at the columns `starts`, which rise from
        0.
        """
        first = self.starts[place]
        spans = [(first, first + self.width), (first - self.total, first - self.total + self.width)]
        counts = [
            sum(max(min(end, right) - max(start, left), 0) for left, right in spans)
            for start, end in zip(starts, [*starts[1:], self.total])
        ]
        return [count / self.width for count in counts]


def resolve_windows(
    total: int,
    width: int,
    stride: int | None,
    multiple: int,
    *,
    name: str = "window",
    widest: int | None = None,
    batch_size: int = 1,
    circular: bool = False,
) -> Windows | None:
    """
    Windows that the arguments of a call ask for, or `None` for a canvas that is seen whole.

    Args:
        total (`int`): Pixels of the canvas.
        width (`int`): Pixels of a window.
        stride (`int`, *optional*): Pixels from one window to the next, half of a window by default.
        multiple (`int`): Pixels of which width and stride have to be multiples.
        name (`str`, defaults to `"window"`): Beginning of the arguments' names.
        widest (`int`, *optional*): Pixels of the widest canvas that is seen whole, `width` by default.
        batch_size (`int`, defaults to 1): Windows that a model sees at once.
        circular (`bool`, defaults to `False`): Whether the canvas has no ends. It is then always seen in windows.

    Raises:
        ValueError: For an argument that does not make sense.
    """
    check_integer("window_batch_size", batch_size)
    check_integer(f"{name}_width", width, multiple)
    if stride is not None:
        check_integer(f"{name}_stride", stride, multiple, width)
    for argument, value in ((f"{name}_width", width), (f"{name}_stride", stride)):
        if value is not None and value % multiple:
            raise ValueError(f"`{argument}` has to be a multiple of {multiple}, but is {value}.")
    if total <= (width if widest is None else widest) and not circular:
        return None
    width = min(width, total)
    stride = max(width // (2 * multiple), 1) * multiple if stride is None else stride
    if circular and stride >= total:
        raise ValueError(
            f"`{name}_stride` has to be below the {total} columns of a circular canvas, so that a window crosses its"
            f" end, but is {stride}."
        )
    return Windows(width, min(stride, width), total, batch_size, circular)


@dataclass(frozen=True)
class Canvas:
    """
    Size of a picture and how it is played, column by column, as a strip of `M` mel bins and `T` columns.

    Args:
        height (`int`): `H`, pixels of the picture.
        width (`int`): `W`, pixels of the picture.
        columns (`int`): Columns of the strip that spectrogram and sound keep, from the left.
        folded (`bool`, defaults to `False`): Whether the top half of the picture is played first, then its bottom
            half.
        windows ([`Windows`], *optional*): Places at which the image side sees the picture, whole by default.
        audio_windows ([`Windows`], *optional*): Places at which the audio side sees the strip, whole by default.
        circular (`bool`, defaults to `False`): Whether picture and sound go on at their beginning.
    """

    height: int
    width: int
    columns: int
    folded: bool = False
    windows: Windows | None = None
    audio_windows: Windows | None = None
    circular: bool = False

    @property
    def strip_width(self) -> int:
        """`T` of the whole strip."""
        return self.width * 2 if self.folded else self.width

    @property
    def strip_size(self) -> tuple[int, int]:
        """`M` and `T` of the whole strip."""
        return self.height // 2 if self.folded else self.height, self.strip_width

    def unfold(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture or its latents `(..., H, W)` as the strip `(..., M, T)` that is played."""
        return unfold_canvas(picture) if self.folded else picture

    def fold(self, strip: torch.Tensor) -> torch.Tensor:
        """The inverse of `unfold`."""
        return fold_canvas(strip) if self.folded else strip

    def cut(self, strip: torch.Tensor) -> torch.Tensor:
        """The columns of a strip `(..., M, T)` that are kept."""
        return strip[..., : self.columns]

    def cut_picture(self, picture: torch.Tensor) -> torch.Tensor:
        """The part of a picture `(..., H, W)` that is kept. A folded one stays whole."""
        return picture if self.folded else self.cut(picture)

    def put(self, spectrograms: torch.Tensor, silence: float) -> torch.Tensor:
        """Spectrograms `(B, 1, M, t)` as pictures `(B, 1, H, W)`, with silence behind them."""
        padding = self.strip_width - spectrograms.shape[-1]
        return self.fold(torch.nn.functional.pad(spectrograms, (0, padding), value=silence))

    def latents_shape(self, batch_size: int, channels: int, scale_factor: int) -> tuple[int, int, int, int]:
        """`(B, C, H / scale_factor, W / scale_factor)`."""
        return batch_size, channels, self.height // scale_factor, self.width // scale_factor

    def span_mask(self, start_in_s: float | None, end_in_s: float | None, columns_per_second: float) -> torch.Tensor:
        """
        Mask `(1, 1, H, W)` of a span of time: 1 inside, 0 outside.

        Args:
            start_in_s (`float`, *optional*): Start in seconds, that of the sound by default.
            end_in_s (`float`, *optional*): End in seconds, that of the sound by default.
            columns_per_second (`float`): Rate of the strip.

        Raises:
            ValueError: If a time is not on the canvas, or the start is not before the end.
        """
        most = self.strip_width / columns_per_second
        start = check_number("mask_start_in_s", 0.0 if start_in_s is None else start_in_s, 0, most)
        end = check_number("mask_end_in_s", most if end_in_s is None else end_in_s, 0, most)
        first, last = round(start * columns_per_second), round(end * columns_per_second)
        if first >= last:
            raise ValueError(
                f"`mask_start_in_s` has to be before `mask_end_in_s`, by {1 / columns_per_second:g} s at least, but"
                f" they are {start} and {end}."
            )
        columns = torch.arange(self.strip_width)
        inside = (columns >= first) & (columns < last)
        bins = self.height // 2 if self.folded else self.height
        return self.fold(inside.float().expand(1, 1, bins, -1))


def unfold_canvas(canvas: torch.Tensor) -> torch.Tensor:
    """The strip `(..., H / 2, 2 * W)` of a folded picture `(..., H, W)`, whose top half is played first."""
    return torch.cat(canvas.chunk(2, dim=-2), dim=-1)


def fold_canvas(canvas: torch.Tensor) -> torch.Tensor:
    """The inverse of [`unfold_canvas`]."""
    return torch.cat(canvas.chunk(2, dim=-1), dim=-2)


# -------------------- Pictures --------------------


def read_pictures(
    image: PipelineImageInput, name: str = "image", processor: VaeImageProcessor = PICTURES, ground: float = 0.0
) -> torch.Tensor:
    """
    Pictures of an argument as `(B, C, H, W)` in 0..1, with `C` 1 or 3. Those of Pillow are read as the commands read
    files: upright, 16 bits in full, on `ground` if they are transparent. Raises `ValueError` for anything else.
    """
    try:
        images = processor.preprocess(_as_seen(image, ground)).float()
    except Exception as error:  # the processor raises anything for values that are no picture
        raise ValueError(
            f"`{name}` has to be a picture, an array, a tensor or a list of them, but is {shown(image)}: {error}"
        ) from error
    check_tensor(name, images, ("B", images.shape[1] if images.shape[1:2] in ((1,), (3,)) else "1 or 3", "H", "W"))
    if isinstance(image, torch.Tensor) and -1 <= images.amin() < 0 and images.amax() <= 1:
        logger.warning(f"`{name}` is a tensor that reaches below 0, and is taken as one in -1..1.")
        images = (images + 1) / 2
    if not (0 <= images.amin() and images.amax() <= 1):
        raise ValueError(f"`{name}` has to be in 0..1, but reaches {images.amin():.3g} to {images.amax():.3g}.")
    return images


def _as_seen(image: Any, ground: float) -> Any:
    """Pictures of Pillow, alone or in lists, as one sees them; anything else as it is."""
    if isinstance(image, PIL.Image.Image):
        return on_ground(upright(image), ground)
    return [_as_seen(each, ground) for each in image] if isinstance(image, (list, tuple)) else image


def check_resize_mode(resize_mode: Any) -> None:
    """Raises `ValueError` for an unknown `resize_mode`."""
    check_choice("resize_mode", resize_mode, RESIZE_MODES)


def fit_pictures(pictures: torch.Tensor, height: int, width: int, resize_mode: str, ground: float) -> torch.Tensor:
    """
    Puts pictures on canvases. Pictures of the canvas' size stay as they are.

    Args:
        pictures (`torch.Tensor` of shape `(B, C, h, w)`): In 0..1.
        height (`int`): `H`, pixels of the canvas.
        width (`int`): `W`, pixels of the canvas.
        resize_mode (`str`): `"repeat"`: as large as fits, side by side as often as it fits. `"center"`: as large as
            fits, once, in the middle. `"crop"`: as small as covers the canvas, its middle. `"stretch"`: resized to
            the canvas, in another shape.
        ground (`float`): Brightness around them, 0 to 1.

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
    Paints pictures into spectrograms (arXiv 2405.12221, appendix A.3): moves them towards silence, as far as the
    picture says.

    Args:
        spectrograms (`torch.Tensor` of shape `(B, 1, M, T)`): Canvases in 0..1.
        images (`torch.Tensor` of shape `(B, C, M, T)`): Pictures in 0..1, averaged over channels.
        magnitude_ratio (`float`): Greatest share of the spectrogram that the picture takes away, 0 to 1.
        invert_image (`bool`, defaults to `True`): Whether the parts that look like silence take most away, or the
            others.
        silence (`float`, defaults to 0.0): Brightness of silence: 0 is black, as in the paper, 1 is white.

    Returns:
        `torch.Tensor` of shape `(B, 1, M, T)`: Canvases in 0..1.
    """
    gray = images.mean(dim=1, keepdim=True)
    loud = (gray - silence).abs()
    taken = 1 - loud if invert_image else loud
    return silence + (spectrograms - silence) * (1 - magnitude_ratio * taken)
