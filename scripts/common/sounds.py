"""Sounds of any length, read in pieces: by libsndfile, and what it can't read by FFmpeg."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import scipy.signal
import soundfile


# First bytes of a file, their place, and the one format of FFmpeg that it is read as: others may name files.
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
# Bounds of reading at once, which no honest sound meets; memory and time are taken by these.
SAMPLING_RATES = range(1000, 768001)
MAX_SECONDS = 600
MAX_VALUES = 2**27
# Share of the peak of any channel, below which the channels' mean is only rounding.
CANCELLED = 1e-4
# Seconds of the sound beyond its end that a resampled part may need.
BEYOND = 0.1


def read_waveform(
    path: str | Path | BinaryIO, start_in_s: float = 0.0, length_in_s: float | None = None
) -> tuple[np.ndarray, int]:
    """
    Reads a sound that libsndfile knows, or FFmpeg as one of `FFMPEG_FORMATS`.

    Args:
        path (`str`, `Path` or `BinaryIO`): The file.
        start_in_s (`float`, defaults to 0.0): Start of the part in seconds.
        length_in_s (`float`, *optional*): Seconds to read, if there are so many. Default: all.

    Returns:
        `tuple[np.ndarray, int]`: Mono float32 waveform of shape `(N,)`, the mean of the channels, and its samples per
        second.

    Raises:
        ValueError: If the file can't be read, holds nothing there, nothing but channels that cancel each other, or
            values that are not finite, or is longer or of another sampling rate than any honest one.
    """
    try:
        rate, samples = _read_part(path, start_in_s, length_in_s)
    except (OSError, RuntimeError, av.FFmpegError) as error:
        raise ValueError(f"`{path}` can't be read as a sound: {error}") from error
    if not len(samples):
        raise ValueError(f"`{path}` holds no sound{f' from {start_in_s:g} s on' if start_in_s else ''}.")
    if not np.isfinite(samples).all():
        raise ValueError(f"`{path}` holds a sound with values that are not finite.")
    audio = samples.mean(axis=1)
    # No copy of all channels is made.
    if max(audio.max(), -audio.min()) < CANCELLED * max(samples.max(), -samples.min()):
        raise ValueError(f"`{path}` holds nothing to be heard in mono: its channels cancel each other.")
    return audio, rate


def read_audio(
    path: str | Path | BinaryIO, sampling_rate: int, start_in_s: float = 0.0, length_in_s: float | None = None
) -> np.ndarray:
    """The waveform of `read_waveform`, resampled to `sampling_rate`."""
    part = None if length_in_s is None else length_in_s + BEYOND
    audio = resampled(*read_waveform(path, start_in_s, part), sampling_rate)
    return audio if length_in_s is None else audio[: round(length_in_s * sampling_rate)]


def resampled(audio: np.ndarray, rate: int, sampling_rate: int) -> np.ndarray:
    """A waveform `(N,)` of `rate` samples per second at `sampling_rate`, as float32."""
    divisor = math.gcd(rate, sampling_rate)
    return scipy.signal.resample_poly(audio, sampling_rate // divisor, rate // divisor).astype(np.float32)


def _read_part(path: str | Path | BinaryIO, start_in_s: float, length_in_s: float | None) -> tuple[int, np.ndarray]:
    """Samples per second, and float32 samples `(N, C)`."""
    try:
        with soundfile.SoundFile(path) as sound:
            if sound.frames < MOST_FRAMES:
                start = min(round(start_in_s * sound.samplerate), sound.frames)
                frames = sound.frames - start
                if length_in_s is not None:
                    frames = min(frames, round(length_in_s * sound.samplerate))
                _check_size(path, sound.samplerate, frames, sound.channels)
                sound.seek(start)
                return sound.samplerate, sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        if hasattr(path, "read") or not _is_for_ffmpeg(path):
            raise
    with nullcontext(path) if hasattr(path, "read") else open(path, "rb") as file:
        return _decode_part(path, file, start_in_s, length_in_s)


def _decode_part(
    path: str | Path | BinaryIO, file: BinaryIO, start_in_s: float, length_in_s: float | None
) -> tuple[int, np.ndarray]:
    parts, first, kept = [], 0, 0
    for rate, block in decoded_blocks(file):
        start = round(start_in_s * rate)
        end = math.inf if length_in_s is None else start + round(length_in_s * rate)
        part = block[max(start - first, 0) : max(min(end - first, len(block)), 0)]
        first += len(block)
        kept += len(part)
        _check_size(path, rate, kept, block.shape[1])
        parts.append(part)
        if first >= end:
            break
    return rate, np.concatenate(parts)


def _check_size(path: str | Path | BinaryIO, sampling_rate: int, frames: int, channels: int) -> None:
    if sampling_rate not in SAMPLING_RATES:
        raise ValueError(
            f"`{path}` has to have {SAMPLING_RATES[0]} to {SAMPLING_RATES[-1]} samples per second, but has"
            f" {sampling_rate}."
        )
    if frames > MAX_SECONDS * sampling_rate or frames * channels > MAX_VALUES:
        raise ValueError(
            f"`{path}` has to be at most {MAX_SECONDS} seconds and {MAX_VALUES} values long, but has {frames} in"
            f" each of {channels} channels at {sampling_rate} per second. If a command has --audio_length_in_s,"
            " that takes a part of it."
        )


@contextmanager
def opened_sound(path: str | Path, folder: Path) -> Iterator[soundfile.SoundFile]:
    """
    Opens a sound of any length.

    Args:
        path (`str` or `Path`): A file that libsndfile reads, or FFmpeg as one of `FFMPEG_FORMATS`.
        folder (`Path`): Gets a decoded copy of what libsndfile can't read, as long as that is open.

    Yields:
        `soundfile.SoundFile`: A sound of at least one frame.

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
    if refused and not _is_for_ffmpeg(path):
        raise refused
    with open(path, "rb") as file:
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
    """Texts of a file's tags, by libsndfile's names for them."""
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


def _is_for_ffmpeg(path: str | Path) -> bool:
    with open(path, "rb") as file:
        return _ffmpeg_format(file) is not None


def _ffmpeg_format(file: BinaryIO) -> str | None:
    file.seek(0)
    start = file.read(16)
    return next((name for mark, at, name in FFMPEG_FORMATS if start[at:].startswith(mark)), None)
