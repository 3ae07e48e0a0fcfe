"""Videos of samples: panels above each other with playheads that move with the sound, and captions below."""

import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont


FRAMES_PER_SECOND = 60
MIN_WIDTH = 1024
# Of systems, for letters that Pillow's own font lacks: all but ASCII's.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
PLAYHEAD = np.array([255, 64, 64], np.uint8)
PLAYHEAD_WIDTH = 3

# A panel: the picture, and how many strips of it are played one after the other, top to bottom.
Panel = tuple[PIL.Image.Image, int]


def write_video(
    path: str | Path,
    panels: list[Panel],
    audio: np.ndarray,
    sampling_rate: int,
    captions: list[str],
    comment: str = "",
) -> None:
    """
    Writes an MP4 (H.264 in yuv420p and AAC, which browsers and phones play) as long as the sound, to a frame.

    Args:
        path (`str` or `Path`): Ends in `.mp4`.
        panels (`list[tuple[PIL.Image.Image, int]]`): Pictures from top to bottom, each with the number of its strips;
            all are enlarged to one width, at least 1024 pixels for strips.
        audio (`np.ndarray` of shape `(N,)`): Waveform in -1..1.
        sampling_rate (`int`): Samples per second.
        captions (`list[str]`): Lines below the pictures, wrapped to their width.
        comment (`str`, *optional*): Stored as the file's comment.
    """
    # These take seconds to import.
    import torch
    from diffusers.utils import encode_video

    path = Path(path)
    panels = _same_width(panels)
    num_frames = max(round(len(audio) / sampling_rate * FRAMES_PER_SECOND), 1)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        bare = Path(folder, "bare.mp4")
        encode_video(
            (torch.from_numpy(frame)[None] for frame in _frames(panels, captions, num_frames)),
            fps=FRAMES_PER_SECOND,
            output_path=str(bare),
            audio=torch.from_numpy(np.nan_to_num(audio))[:, None].expand(-1, 2),
            audio_sample_rate=sampling_rate,
            video_chunks_number=num_frames,
        )
        _copy_with_comment(bare, path, comment)


def poster(panels: list[Panel], captions: list[str]) -> PIL.Image.Image:
    """The first frame of `write_video`'s video."""
    return PIL.Image.fromarray(next(_frames(_same_width(panels), captions, 1)))


def _same_width(panels: list[Panel]) -> list[Panel]:
    width = max(picture.width * -(-MIN_WIDTH // max(picture.width, 2 * picture.height)) for picture, _ in panels)
    resized = []
    for picture, num_strips in panels:
        size = (width, round(picture.height * width / picture.width))
        resized.append((picture.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC), num_strips))
    return resized


def _still_frame(panels: list[Panel], captions: list[str]) -> np.ndarray:
    width = panels[0][0].width
    captions, font = _readable(captions)
    lines = [line for caption in captions for line in _wrap(caption, font, width - 24)]
    pictures_height = sum(picture.height for picture, _ in panels)
    height = pictures_height + 12 + 30 * len(lines)
    # H.264 in yuv420p needs even sides.
    canvas = PIL.Image.new("RGB", (width + width % 2, height + height % 2))
    top = 0
    for picture, _ in panels:
        canvas.paste(picture, (0, top))
        top += picture.height
    draw = PIL.ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((12, pictures_height + 6 + 30 * i), line, font=font, fill="white")
    return np.asarray(canvas)


def _readable(captions: list[str]) -> tuple[list[str], PIL.ImageFont.FreeTypeFont]:
    """Captions and a font that has their letters; without accents where there is none."""
    if not "".join(captions).isascii():
        for name in SYSTEM_FONTS:
            with suppress(OSError):
                return captions, PIL.ImageFont.truetype(name, 22)
    plain = [unicodedata.normalize("NFKD", caption) for caption in captions]
    plain = ["".join(letter for letter in text if not unicodedata.combining(letter)) for text in plain]
    return plain, PIL.ImageFont.load_default(size=22)


def _wrap(text: str, font: PIL.ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _frames(panels: list[Panel], captions: list[str], num_frames: int) -> Iterator[np.ndarray]:
    still = _still_frame(panels, captions)
    for i in range(num_frames):
        frame, top = still.copy(), 0
        for picture, num_strips in panels:
            strip, place = divmod(i / num_frames * num_strips, 1)
            strip_height, column = picture.height // num_strips, int(place * picture.width)
            first = top + int(strip) * strip_height
            frame[first : first + strip_height, column : column + PLAYHEAD_WIDTH] = PLAYHEAD
            top += picture.height
        yield frame


def _copy_with_comment(source: Path, target: Path, comment: str) -> None:
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        output.metadata["comment"] = comment
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
