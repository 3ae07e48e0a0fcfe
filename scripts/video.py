"""A sample as a video: the picture with a playhead that moves with its sound, and both prompts as captions."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from diffusers.utils import encode_video


FRAMES_PER_SECOND = 60
MIN_WIDTH = 1024
PLAYHEAD = np.array([255, 64, 64], np.uint8)


def write_video(
    path: str | Path,
    picture: PIL.Image.Image,
    audio: np.ndarray,
    sampling_rate: int,
    captions: list[str],
    num_strips: int = 1,
    comment: str = "",
) -> None:
    """
    Writes an MP4 (H.264 in yuv420p and AAC, which browsers and phones play) as long as the sound, to a frame.

    Args:
        path (`str` or `Path`): Ends in `.mp4`.
        picture (`PIL.Image.Image`): The canvas; enlarged by a whole factor where it is narrower than 1024 pixels.
        audio (`np.ndarray` of shape `(N,)`): Waveform in -1..1.
        sampling_rate (`int`): Samples per second.
        captions (`list[str]`): Lines below the picture, wrapped to its width.
        num_strips (`int`, defaults to 1): Strips of the picture that are played one after the other, top to bottom.
        comment (`str`, *optional*): Stored as the file's comment.
    """
    path = Path(path)
    frame = _still_frame(picture, captions)
    num_frames = max(round(len(audio) / sampling_rate * FRAMES_PER_SECOND), 1)
    silent = path.with_name(path.stem + ".bare.mp4")
    encode_video(
        _frames(frame, _enlarged(picture).size, num_frames, num_strips),
        fps=FRAMES_PER_SECOND,
        output_path=str(silent),
        audio=torch.from_numpy(np.nan_to_num(audio)),
        audio_sample_rate=sampling_rate,
        video_chunks_number=num_frames,
    )
    _copy_with_comment(silent, path, comment)
    os.remove(silent)


def _enlarged(picture: PIL.Image.Image) -> PIL.Image.Image:
    factor = -(-MIN_WIDTH // max(picture.width, 2 * picture.height))
    return picture.convert("RGB").resize(
        (picture.width * factor, picture.height * factor), PIL.Image.Resampling.BICUBIC
    )


def _still_frame(picture: PIL.Image.Image, captions: list[str]) -> np.ndarray:
    picture = _enlarged(picture)
    font = PIL.ImageFont.load_default(size=22)
    lines = [line for caption in captions for line in _wrap(caption, font, picture.width - 24)]
    height = picture.height + 12 + 30 * len(lines)
    # H.264 in yuv420p needs even sides.
    canvas = PIL.Image.new("RGB", (picture.width + picture.width % 2, height + height % 2))
    canvas.paste(picture, (0, 0))
    draw = PIL.ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((12, picture.height + 6 + 30 * i), line, font=font, fill="white")
    return np.asarray(canvas)


def _wrap(text: str, font: PIL.ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _frames(frame: np.ndarray, size: tuple[int, int], num_frames: int, num_strips: int) -> Iterator[torch.Tensor]:
    width, height = size
    strip_height = height // num_strips
    for i in range(num_frames):
        strip, place = divmod(i / num_frames * num_strips, 1)
        top, column = int(strip) * strip_height, int(place * width)
        played = frame.copy()
        played[top : top + strip_height, column : column + 3] = PLAYHEAD
        yield torch.from_numpy(played)[None]


def _copy_with_comment(source: Path, target: Path, comment: str) -> None:
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        output.metadata["comment"] = comment
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
