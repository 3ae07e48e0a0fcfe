"""Videos of samples: pictures with playheads that move with the sound, and captions below, in any shape."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

from .captions import draw_captions
from .files import Write, written
from .values import STRIP, VIDEO_SIZES, Look


FRAMES_PER_SECOND = 60
MIN_WIDTH = 1024
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
                write_video(partial, panels, audio, sampling_rate, captions, comment, look.video_shape)
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
            1024 pixels; one of `VIDEO_SIZES` has the size of its name, in which wide pictures are also shown enlarged.
    """
    # These take seconds to import.
    import torch
    from diffusers.utils import encode_video

    path = Path(path)
    film = film_of(panels, captions, shape)
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
    film = film_of(panels, captions, shape)
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


def poster(panels: list[Panel], captions: list[str], shape: str = "strip") -> PIL.Image.Image:
    """The first frame of `write_video`'s video."""
    return PIL.Image.fromarray(film_of(panels, captions, shape)(0.0))


def film_of(panels: list[Panel], captions: list[str], shape: str = "strip") -> Film:
    """The frames of a video, by the share of the time that has gone."""
    if shape == "strip":
        panels = _same_width(panels)
        return _overview(panels, draw_captions(captions, panels[0][0].width), None)
    width, height = VIDEO_SIZES[shape]
    text = draw_captions(captions, width, size=round(0.026 * max(VIDEO_SIZES[shape])))
    room = height - text.height
    whole = [(_within(picture, width, room // len(panels)), strips) for picture, strips in panels]
    left = min(room - sum(picture.height for picture, _ in whole), width)
    picture, strips = panels[0]
    larger = strips == 1 and left >= MIN_ENLARGEMENT * whole[0][0].height
    close_up = _enlarged(picture, left) if larger else None
    return _overview(whole, text, (width, height), close_up)


def _same_width(panels: list[Panel]) -> list[Panel]:
    width = max(picture.width * -(-MIN_WIDTH // max(picture.width, 2 * picture.height)) for picture, _ in panels)
    return [(_resized(picture, width), num_strips) for picture, num_strips in panels]


def _resized(picture: PIL.Image.Image, width: int) -> PIL.Image.Image:
    size = (width, max(round(picture.height * width / picture.width), 1))
    return picture.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC)


def _within(picture: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    """A picture as large as fits."""
    return _resized(picture, max(round(min(width, picture.width * height / picture.height)), 1))


def _enlarged(picture: PIL.Image.Image, height: int) -> PIL.Image.Image:
    return _resized(picture, round(picture.width * height / picture.height))


def _overview(
    panels: list[Panel],
    text: PIL.Image.Image,
    size: tuple[int, int] | None,
    close_up: PIL.Image.Image | None = None,
) -> Film:
    """Panels, a part of the first one enlarged, and captions, under each other; in the middle of a size, or as is."""
    used = sum(picture.height for picture, _ in panels) + text.height + (close_up.height if close_up else 0)
    # H.264 in yuv420p needs even sides.
    width, height = size or (text.width + text.width % 2, used + used % 2)
    still = PIL.Image.new("RGB", (width, height))
    top, places = (height - used) // 2, []
    for picture, strips in panels:
        place = ((width - picture.width) // 2, top)
        still.paste(picture, place)
        places.append((*place, picture.width, picture.height, strips))
        top += picture.height
    window = None if close_up is None else (np.asarray(close_up), top)
    still.paste(text, (0, top + (close_up.height if close_up else 0)))
    background = np.asarray(still)

    def frame(share: float) -> np.ndarray:
        frame = background.copy()
        for left, top, width, height, strips in places:
            strip, place = divmod(share * strips, 1)
            first = top + int(strip) * (height // strips)
            _draw_playhead(frame[first : first + height // strips, left : left + width], place)
        if window is not None:
            pixels, top = window
            shown, middle = frame[top : top + len(pixels)], share * pixels.shape[1]
            first = int(np.clip(middle - shown.shape[1] / 2, 0, max(pixels.shape[1] - shown.shape[1], 0)))
            part = pixels[:, first : first + shown.shape[1]]
            shown[:, : part.shape[1]] = part
            _draw_playhead(shown, (middle - first) / shown.shape[1])
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
