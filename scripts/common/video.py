"""Videos of samples: pictures with playheads that move with the sound, and captions below, in any shape."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import PIL.Image

from .captions import draw_captions
from .files import Write, written
from .values import STRIP, VIDEO_SIZES, Look


FRAMES_PER_SECOND = 60
MIN_WIDTH = 1024
# Columns of a picture that are seen at once, ten seconds, or more if it is high. Wider ones move past the playhead.
WIDEST, MOST_ASPECT = 1024, 4
# Share of a frame's height that each strip of a picture has at least if it is shown whole.
MIN_HEIGHT = 1 / 30
PLAYHEAD = np.array([255, 64, 64], np.uint8)
# Shares of a panel's width that are seen on a phone: the playhead, and the dark line at either side of it.
PLAYHEAD_SHARE, EDGE_SHARE = 1 / 170, 1 / 510
# In a shape with room below a picture that is wide, it stands there once more, moving, if it is so much larger then.
MIN_ENLARGEMENT = 1.5
# Animations, for messengers: small, without sound, and not for longer than anybody looks.
ANIMATION_SIZE, ANIMATION_SECONDS = 480, 60
# Milliseconds of a frame, of which GIF counts tens, and of a pause at the end, unless the sound loops.
FRAME, HOLD = 50, 1000
GIF_COLORS = 64

# A panel: the picture, and how many strips of it are played one after the other, top to bottom.
Panel = tuple[PIL.Image.Image, int]
# From a share of the time, 0..1, to a frame of shape (H, W, 3).
Film = Callable[[float], np.ndarray]


def write_videos(
    path: Path,
    panels: list[Panel],
    audio: np.ndarray,
    sampling_rate: int,
    captions: list[str],
    comment: str = "",
    look: Look = STRIP,
    loops: bool = False,
    write: Write = written,
) -> list[Path]:
    """
    Writes a video in all formats of its look, each under the name of `path` with the format's ending, whole or not at
    all, by `written` or `written_once`. The other arguments are those of `write_video` and `write_animation`.

    Returns:
        `list[Path]`: The files.
    """
    files = [path.with_suffix(f".{name}") for name in look.video_format]
    captions = captions if look.captions else []
    for file in files:
        with write(file) as partial:
            if file.suffix == ".mp4":
                write_video(partial, panels, audio, sampling_rate, captions, comment, look.video_shape, loops)
            else:
                write_animation(partial, panels, len(audio) / sampling_rate, captions, look.video_shape, loops)
    return files


def write_video(
    path: str | Path,
    panels: list[Panel],
    audio: np.ndarray,
    sampling_rate: int,
    captions: list[str],
    comment: str = "",
    shape: str = "strip",
    loops: bool = False,
) -> None:
    """
    Writes an MP4 (H.264 in yuv420p and AAC, which browsers and phones play) as long as the sound, to a frame.

    Args:
        path (`str` or `Path`): Ends in `.mp4`.
        panels (`list[tuple[PIL.Image.Image, int]]`): Pictures from top to bottom, each with the number of its strips.
        audio (`np.ndarray` of shape `(N,)`): Waveform in -1..1.
        sampling_rate (`int`): Samples per second.
        captions (`list[str]`): Texts below the pictures, of at most three lines each.
        comment (`str`, *optional*): Stored as the file's comment.
        shape (`str`, defaults to `"strip"`): `"strip"` is as large as the pictures, enlarged to one width, at least
            1024 pixels. Wider ones move, so that ten seconds are seen at once. One of `VIDEO_SIZES` has the size of
            its name, in which wide pictures are also shown enlarged.
        loops (`bool`, defaults to `False`): Whether the sound loops: then pictures that move have no ends.
    """
    # These take seconds to import.
    import torch
    from diffusers.utils import encode_video

    path = Path(path)
    film = film_of(panels, captions, shape, loops)
    num_frames = max(round(len(audio) / sampling_rate * FRAMES_PER_SECOND), 1)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        bare = Path(folder, "bare.mp4")
        encode_video(
            (torch.from_numpy(film(i / num_frames))[None] for i in range(num_frames)),
            fps=FRAMES_PER_SECOND,
            output_path=str(bare),
            audio=torch.from_numpy(np.nan_to_num(audio))[:, None].expand(-1, 2),
            audio_sample_rate=sampling_rate,
            video_chunks_number=num_frames,
        )
        _copy_with_comment(bare, path, comment)


def write_animation(
    path: str | Path,
    panels: list[Panel],
    seconds: float,
    captions: list[str],
    shape: str = "strip",
    loops: bool = False,
) -> None:
    """
    Writes a GIF or an animated WebP of the same pictures, smaller and without sound, that begins anew at its end.

    Args:
        path (`str` or `Path`): Ends in `.gif` or `.webp`.
        panels (`list[tuple[PIL.Image.Image, int]]`): As of `write_video`.
        seconds (`float`): Length of the sound, of which a minute is shown at most.
        captions (`list[str]`): Texts below the pictures.
        shape (`str`, defaults to `"strip"`): As of `write_video`.
        loops (`bool`, defaults to `False`): Whether the sound loops: then there is no pause at the end.
    """
    film = film_of(panels, captions, shape, loops)
    number = max(round(min(seconds, ANIMATION_SECONDS) * 1000 / FRAME), 1)
    frames = (_small(film(i / number * min(1, ANIMATION_SECONDS / seconds))) for i in range(number))
    durations = [FRAME] * number
    durations[-1] += 0 if loops else HOLD
    if Path(path).suffix == ".gif":
        # In one palette only what moves is stored again.
        palette = _small(film(0.0)).quantize(GIF_COLORS)
        frames = (frame.quantize(palette=palette, dither=PIL.Image.Dither.NONE) for frame in frames)
    next(frames).save(path, save_all=True, append_images=frames, duration=durations, loop=0)


def _small(frame: np.ndarray) -> PIL.Image.Image:
    picture = PIL.Image.fromarray(frame)
    picture.thumbnail((ANIMATION_SIZE, ANIMATION_SIZE * 2), PIL.Image.Resampling.BILINEAR)
    return picture


def poster(panels: list[Panel], captions: list[str], shape: str = "strip", loops: bool = False) -> PIL.Image.Image:
    """The first frame of `write_video`'s video."""
    return PIL.Image.fromarray(film_of(panels, captions, shape, loops)(0.0))


def film_of(panels: list[Panel], captions: list[str], shape: str = "strip", loops: bool = False) -> Film:
    """The frames of a video, by the share of the time that has gone."""
    if shape == "strip":
        views = _stacked(panels, loops)
        return _film(views, draw_captions(captions, max(view.width for view in views)), None)
    width, height = VIDEO_SIZES[shape]
    text = draw_captions(captions, width, size=round(0.026 * max(VIDEO_SIZES[shape])))
    room = height - text.height
    views = [_whole(picture, strips, width, room // len(panels), height) for picture, strips in panels]
    left = min(room - sum(view.height for view in views), width)
    picture, strips = panels[0]
    if left >= MIN_ENLARGEMENT * views[0].height and (strips == 1 or _moves(picture)):
        views.append(_View(_unfolded(picture, strips), 1, width, left, loops))
    return _film(views, text, (width, height))


@dataclass(frozen=True, eq=False)
class _View:
    """
    A picture in a frame: whole, or as much of it as fits, moving past the playhead.

    Args:
        picture (`PIL.Image.Image`): RGB, enlarged to the height.
        strips (`int`): Parts of it that are played one after the other, top to bottom.
        width (`int`): Pixels of the frame.
        height (`int`): Pixels of the frame.
        loops (`bool`): Whether a picture that moves goes on at its beginning. Otherwise it stands still near its ends,
            and the playhead moves.
    """

    picture: PIL.Image.Image
    strips: int
    width: int
    height: int
    loops: bool = False

    @property
    def total(self) -> int:
        """Columns of the whole picture, as large as it is shown."""
        return max(round(self.picture.width * self._scale), self.width)

    @property
    def _scale(self) -> float:
        return self.height / self.picture.height

    def draw(self, pixels: np.ndarray, share: float) -> None:
        """Draws what moves into pixels `(height, width, 3)` of a frame, at a share of the time that has gone."""
        strip, place = divmod(share * self.strips, 1)
        played = place * self.total
        first = self._first(played)
        if self.total > self.width:
            pixels[:] = self._columns(first)
        rows = self.height // self.strips
        top = int(strip) * rows
        _draw_playhead(pixels[top : top + rows], (played - first) % self.total / self.width)

    def _first(self, played: float) -> int:
        """The column at the left end while a column is played."""
        first = played - self.width / 2
        if self.loops and self.total > self.width:
            return int(first) % self.total
        return int(np.clip(first, 0, self.total - self.width))

    def _columns(self, first: int) -> np.ndarray:
        tile, start = divmod(first, self.width)
        return np.concatenate([self._tile(tile), self._tile(tile + 1)], axis=1)[:, start : start + self.width]

    @cached_property
    def _tile(self) -> Callable[[int], np.ndarray]:
        """Parts as wide as the view. Few are kept, since a picture of many minutes would be too large."""
        return lru_cache(maxsize=3)(self._enlarged)

    def _enlarged(self, tile: int) -> np.ndarray:
        box = (tile * self.width / self._scale, 0, (tile + 1) * self.width / self._scale, self.picture.height)
        return np.asarray(self._source.resize((self.width, self.height), PIL.Image.Resampling.BICUBIC, box))

    @cached_property
    def _source(self) -> PIL.Image.Image:
        """The picture, and behind it what fills the last parts: its beginning if it loops, else nothing."""
        tiles = self.total // self.width + 2
        source = PIL.Image.new("RGB", (math.ceil(tiles * self.width / self._scale), self.picture.height))
        for left in range(0, source.width if self.loops else 1, self.picture.width):
            source.paste(self.picture, (left, 0))
        return source


def _stacked(panels: list[Panel], loops: bool) -> list[_View]:
    """Panels of one width, enlarged if they are small. Those that are wider than is seen at once move."""
    width = max(seen_at_once(picture.height) if _moves(picture) else _enlarged_width(picture) for picture, _ in panels)
    views = []
    for picture, strips in panels:
        shown = picture.convert("RGB") if picture.width > width else _resized(picture, width)
        views.append(_View(shown, strips, width, shown.height, loops))
    return views


def seen_at_once(height: int) -> int:
    """Columns of a picture of such a height that are shown side by side."""
    return max(WIDEST, MOST_ASPECT * height)


def _moves(picture: PIL.Image.Image) -> bool:
    return picture.width > seen_at_once(picture.height)


def _enlarged_width(picture: PIL.Image.Image) -> int:
    return picture.width * -(-MIN_WIDTH // max(picture.width, 2 * picture.height))


def _whole(picture: PIL.Image.Image, strips: int, width: int, height: int, frame_height: int) -> _View:
    """A picture as large as fits. One that is very wide is stretched upwards, so that it is seen at all."""
    shown = max(round(min(width, picture.width * height / picture.height)), 1)
    rows = max(round(picture.height * shown / picture.width), round(strips * MIN_HEIGHT * frame_height), 1)
    return _View(_resized(picture, shown, min(rows, height)), strips, shown, min(rows, height))


def _resized(picture: PIL.Image.Image, width: int, height: int | None = None) -> PIL.Image.Image:
    height = max(round(picture.height * width / picture.width), 1) if height is None else height
    return picture.convert("RGB").resize((width, height), PIL.Image.Resampling.BICUBIC)


def _unfolded(picture: PIL.Image.Image, strips: int) -> PIL.Image.Image:
    """The strips of a picture one after the other."""
    rows = picture.height // strips
    strip = PIL.Image.new("RGB", (picture.width * strips, rows))
    for i in range(strips):
        strip.paste(picture.crop((0, i * rows, picture.width, (i + 1) * rows)), (i * picture.width, 0))
    return strip


def _film(views: list[_View], text: PIL.Image.Image, size: tuple[int, int] | None) -> Film:
    """Views and captions under each other; in the middle of a size, or as is."""
    used = sum(view.height for view in views) + text.height
    # H.264 in yuv420p needs even sides.
    width, height = size or (text.width + text.width % 2, used + used % 2)
    still = PIL.Image.new("RGB", (width, height))
    top, places = (height - used) // 2, []
    for view in views:
        places.append((top, (width - view.width) // 2))
        if view.total == view.width:
            still.paste(view.picture, places[-1][::-1])
        top += view.height
    still.paste(text, (0, top))
    background = np.asarray(still)

    def frame(share: float) -> np.ndarray:
        frame = background.copy()
        for view, (top, left) in zip(views, places):
            view.draw(frame[top : top + view.height, left : left + view.width], share)
        return frame

    return frame


def _draw_playhead(pixels: np.ndarray, place: float) -> None:
    """A line across pixels `(h, w, 3)`, at a share of the width, with a dark one at either side."""
    width = pixels.shape[1]
    middle, half = int(place * width), max(round(width * PLAYHEAD_SHARE / 2), 1)
    edge = half + max(round(width * EDGE_SHARE), 1)
    pixels[:, max(middle - edge, 0) : middle + edge] //= 4
    pixels[:, max(middle - half, 0) : middle + half] = PLAYHEAD


def _copy_with_comment(source: Path, target: Path, comment: str) -> None:
    import av

    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        output.metadata["comment"] = comment
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
