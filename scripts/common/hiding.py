"""Pictures hidden in files of sounds, in pieces, so that a sound may be of any length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ...pipelines.images_that_sound_hiding import (
    ROUNDS,
    HiddenPicture,
    check_pictures,
    difference,
    frame_length_of,
    level_of,
    within_full_scale,
)
from .sounds import BLOCK
from .tags import copy_tags


SUFFIXES = (".wav", ".flac")
# Bits of subtypes whose samples are read and written as they are.
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "ULAW": 16, "ALAW": 16}
FLOATS = ("FLOAT", "DOUBLE")
WAV_FORMATS = ("WAV", "WAVEX", "RF64")
# A WAV that is larger has to be an RF64.
MOST_WAV_BYTES = 2**32 - 2**20


@dataclass(frozen=True)
class Hidden:
    """
    Facts about a sound with pictures in it.

    Args:
        subtype (`str`): How its samples are written, such as `"PCM_16"`.
        levels (`list[float]`): Level of white in each picture, in dB per bin of the Fourier transform.
        num_clipped (`int`): Samples that would leave -1..1 and are held at it.
        tags_kept (`bool`): Whether all that the file held besides the sound is in the new one too.
    """

    subtype: str
    levels: list[float]
    num_clipped: int
    tags_kept: bool


def hide_in_file(sound: soundfile.SoundFile, source: Path, target: Path, pictures: list[HiddenPicture]) -> Hidden:
    """
    Writes a sound with pictures in it. Memory does not depend on its length.

    Args:
        sound (`soundfile.SoundFile`): That of `opened_sound`.
        source (`Path`): The file that it came from.
        target (`Path`): Ends in `.wav` or `.flac`; the samples are written as those of `source`, if it is of the same
            format, which keeps them bit by bit outside of the pictures' spans.
        pictures (`list[HiddenPicture]`): At the sound's sampling rate.

    Returns:
        [`Hidden`]: Facts about it.

    Raises:
        ValueError: If a picture ends after the sound, two overlap, or the sound has values that are not finite.
    """
    check_pictures(pictures, sound.frames)
    levels = [_level_in(sound, each) for each in pictures]
    layout = layout_of(sound, target)
    clipped = 0
    same = Path(sound.name) == source and (sound.format == "FLAC") == (layout["format"] == "FLAC")
    with soundfile.SoundFile(target, "w", sound.samplerate, sound.channels, **layout) as written:
        for name, text in {} if same else sound.copy_metadata().items():
            setattr(written, name, text)
        for samples, number in _hidden_blocks(sound, pictures, levels, BITS.get(layout["subtype"])):
            written.write(samples)
            clipped += number
    return Hidden(layout["subtype"], levels, clipped, same and copy_tags(source, target))


def layout_of(sound: soundfile.SoundFile, target: Path) -> dict[str, str]:
    """Format and subtype for a file: those of the sound if the file can have them, else 24 bits."""
    flac = target.suffix.lower() == ".flac"
    kept = sound.subtype in BITS or sound.subtype in FLOATS and not flac
    name = "FLAC" if flac else sound.format if sound.format in WAV_FORMATS else "WAV"
    # A decoded copy says nothing of its source.
    copied = Path(sound.name).name == "decoded.wav"
    subtype = sound.subtype if kept and not copied and soundfile.check_format(name, sound.subtype) else "PCM_24"
    size = sound.frames * sound.channels * (8 if subtype == "DOUBLE" else 4)
    name = "RF64" if name in WAV_FORMATS and size > MOST_WAV_BYTES else "WAV" if copied and not flac else name
    return {"format": name, "subtype": subtype}


def _level_in(sound: soundfile.SoundFile, picture: HiddenPicture) -> float:
    start, end = picture.span
    sound.seek(start)
    overlap = picture.frame_length - 1
    blocks = sound.blocks(_block_of(sound), overlap, end - start, dtype="float64", always_2d=True)
    return level_of(((start + i * (_block_of(sound) - overlap), block) for i, block in enumerate(blocks)), picture)


def _hidden_blocks(
    sound: soundfile.SoundFile, pictures: list[HiddenPicture], levels: list[float], bits: int | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Samples as they are written, int32 if `bits` says how many bits count, and how many were clipped."""
    margin = (ROUNDS + 1) * max(each.frame_length for each in pictures)
    exact = sound.subtype in BITS
    sound.seek(0)
    blocks = sound.blocks(_block_of(sound), 2 * margin, dtype="int32" if exact else "float64", always_2d=True)
    begin = 0
    for block in blocks:
        last = begin + len(block) >= sound.frames or len(block) < _block_of(sound)
        inner = slice(margin if begin else 0, len(block) if last else len(block) - margin)
        waveform = block / 2**31 if exact else block
        if not np.isfinite(waveform).all():
            raise ValueError("`song` holds a sound with values that are not finite.")
        added = sum(difference(waveform, begin, each, level) for each, level in zip(pictures, levels))
        if bits is not None:
            added = within_full_scale(waveform, begin, added, pictures)
        yield _as_written(block[inner], added[inner], bits)
        begin += len(block) - 2 * margin


def _as_written(samples: np.ndarray, added: np.ndarray, bits: int | None) -> tuple[np.ndarray, int]:
    if bits is None:
        return samples + added, 0
    full = 2 ** (bits - 1)
    integers = samples >> (32 - bits) if samples.dtype == np.int32 else np.rint(samples * full).astype(np.int64)
    values = integers.astype(np.int64) + np.rint(added * full).astype(np.int64)
    held = values.clip(-full, full - 1)
    return (held << (32 - bits)).astype(np.int32), int((held != values).sum())


def _block_of(sound: soundfile.SoundFile) -> int:
    """Samples of a piece, so many that it is several frames long and does not take much memory."""
    margin = (ROUNDS + 1) * frame_length_of(sound.samplerate)
    return max(2 * BLOCK // sound.channels, 4 * margin)
