"""Sounds of any length, read in pieces: by libsndfile, and what it can't read by FFmpeg."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile


# What a file begins with, from which byte on, and the one format of FFmpeg that it is read as: others may name files.
FFMPEG_FORMATS = (
    *((b"ftyp", 4, "mp4"), (b"moov", 4, "mp4"), (b"wide", 4, "mp4"), (b"mdat", 4, "mp4")),
    *((b"\x1aE\xdf\xa3", 0, "matroska"), (b"#!AMR", 0, "amr"), (b"fLaC", 0, "flac")),
    *((bytes([0xFF, second]), 0, "aac") for second in (0xF0, 0xF1, 0xF8, 0xF9)),
)
# Tags by libsndfile's names and FFmpeg's.
TAGS = {name: name for name in ("title", "artist", "album", "date", "genre", "comment", "copyright")}
TAGS["tracknumber"] = "track"
# Claimed by files that were written without an end.
MOST_FRAMES = 2**48
BLOCK = 2**17


@contextmanager
def opened_sound(path: str | Path, folder: Path) -> Iterator[soundfile.SoundFile]:
    """
    Opens a sound of any length.

    Args:
        path (`str` or `Path`): What libsndfile reads, or FFmpeg as one of `FFMPEG_FORMATS`.
        folder (`Path`): Gets a decoded copy of what libsndfile can't read, as long as that is open.

    Yields:
        `soundfile.SoundFile`: Of at least one frame.

    Raises:
        ValueError: If the file can't be read as a sound.
    """
    copy = folder / "decoded.wav"
    try:
        try:
            sound = _opened(path, copy)
        except (OSError, soundfile.LibsndfileError, av.FFmpegError) as error:
            raise ValueError(f"`{path}` can't be read as a sound: {error}") from error
        with sound:
            if not sound.frames:
                raise ValueError(f"`{path}` holds no sound.")
            yield sound
    finally:
        copy.unlink(missing_ok=True)


def _opened(path: str | Path, copy: Path) -> soundfile.SoundFile:
    refused = None
    try:
        sound = soundfile.SoundFile(path)
        if sound.frames < MOST_FRAMES and sound.seekable():
            return sound
        sound.close()
    except soundfile.LibsndfileError as error:
        refused = error
    with open(path, "rb") as file:
        if _ffmpeg_format(file) is None and refused:
            raise refused
        _decode(file, copy)
    return soundfile.SoundFile(copy)


def _decode(file: BinaryIO, copy: Path) -> None:
    """Writes the sound in a file as WAV of any length, with the tags that both formats have."""
    blocks = decoded_blocks(file)
    rate, block = next(blocks)
    with soundfile.SoundFile(copy, "w", rate, block.shape[1], "FLOAT", format="RF64") as sound:
        for name, text in tags_of(file).items():
            setattr(sound, name, text)
        sound.write(block)
        for _, block in blocks:
            sound.write(block)


def decoded_blocks(file: BinaryIO) -> Iterator[tuple[int, np.ndarray]]:
    """
    Decodes a sound by FFmpeg, from the first of a file's tracks in which anything is heard, or else from the first.

    Yields:
        `tuple[int, np.ndarray]`: Samples per second, and float32 samples of shape `(n, C)`; both numbers stay.

    Raises:
        OSError: If the file is of no format in `FFMPEG_FORMATS`, or no track can be decoded.
    """
    with _container(file) as container:
        tracks = [i for i, each in enumerate(container.streams.audio) if each.codec_context is not None]
    errors = [OSError("It has no sound that can be decoded.")]
    silent = []
    for track in tracks:
        try:
            if any(block.any() for _, block in _blocks_of(file, track)):
                break
            silent.append(track)
        except (OSError, av.FFmpegError) as error:
            errors.append(error)
    else:
        if not silent:
            raise errors[-1]
        track = silent[0]
    yield from _blocks_of(file, track)


def _blocks_of(file: BinaryIO, track: int) -> Iterator[tuple[int, np.ndarray]]:
    with _container(file) as container:
        resampler = rate = None
        for decoded in container.decode(audio=track):
            if resampler is None:
                rate = decoded.sample_rate
                resampler = av.AudioResampler(format="fltp", layout=decoded.layout, rate=rate)
            for frame in resampler.resample(decoded):
                yield rate, frame.to_ndarray().T
        for frame in resampler.resample(None) if resampler else ():
            yield rate, frame.to_ndarray().T


def tags_of(file: BinaryIO) -> dict[str, str]:
    """What a file's tags say, by the names that libsndfile has for them."""
    with _container(file) as container:
        texts = {name: container.metadata.get(tag) for name, tag in TAGS.items()}
    return {name: text for name, text in texts.items() if text and text.isprintable()}


def _container(file: BinaryIO) -> av.container.InputContainer:
    """A file opened as the one format that its first bytes say, in which nothing that it names is fetched."""
    file_format = _ffmpeg_format(file)
    if file_format is None:
        raise OSError("It is of no format that is known here.")
    file.seek(0)
    return av.open(file, format=file_format)


def _ffmpeg_format(file: BinaryIO) -> str | None:
    file.seek(0)
    start = file.read(16)
    return next((name for mark, at, name in FFMPEG_FORMATS if start[at:].startswith(mark)), None)
