"""Contents of sound files besides the sound, carried from one to another of the same format as it is."""

import os
import shutil
import struct
from pathlib import Path
from typing import BinaryIO


# Blocks of FLAC: of a file itself, which describe it and stay its own; and the mark of the last one.
FLAC_OWN = (0, 1, 3)
FLAC_LAST = 0x80
# The same of chunks of WAV.
WAV_OWN = (b"fmt ", b"data", b"fact", b"PEAK", b"ds64")
# More than any tags with covers; a file that claims more holds no honest ones.
MOST_BYTES = 2**27
RIFF_LIMIT = 2**32 - 1


def copy_tags(source: Path, target: Path) -> bool:
    """
    Gives a sound file all that another of the same format holds besides the sound: tags, covers, cue points, notes.

    Args:
        source (`Path`): WAV or FLAC.
        target (`Path`): A file that was just written, which is changed.

    Returns:
        `bool`: Whether that was possible: both are WAV, or FLAC, and the tags fit.
    """
    with open(source, "rb") as file, open(target, "rb") as other:
        starts = [_start_of(each) for each in (file, other)]
        if starts[0] != starts[1]:
            return False
        if starts[0] == b"fLaC":
            tags = [block for block in _flac_blocks(file) if block[0] & 0x7F not in FLAC_OWN]
            return _fits(tags) and _write_flac(other, target, tags)
        if starts[0] == b"RIFF":
            return _append_chunks(target, b"".join(_wav_chunks(file)))
    return False


def _start_of(file: BinaryIO) -> bytes:
    start = file.read(12)
    if start[:4] == b"fLaC":
        file.seek(4)
        return start[:4]
    return start[:4] if start[8:] == b"WAVE" else b""


def _fits(tags: list[bytes]) -> bool:
    return sum(map(len, tags)) <= MOST_BYTES


def _flac_blocks(file: BinaryIO) -> list[bytes]:
    """Metadata blocks with their headers; the file is left where the sound begins."""
    blocks, last = [], False
    while not last and sum(map(len, blocks)) <= MOST_BYTES:
        header = file.read(4)
        if len(header) < 4:
            break
        last = bool(header[0] & FLAC_LAST)
        blocks.append(bytes([header[0] & ~FLAC_LAST]) + header[1:] + file.read(int.from_bytes(header[1:], "big")))
    return blocks


def _write_flac(bare: BinaryIO, target: Path, tags: list[bytes]) -> bool:
    blocks = [*_flac_blocks(bare)[:1], *tags]
    blocks[-1] = bytes([blocks[-1][0] | FLAC_LAST]) + blocks[-1][1:]
    tagged = target.with_name("tagged.flac")
    with open(tagged, "wb") as file:
        file.write(b"fLaC" + b"".join(blocks))
        shutil.copyfileobj(bare, file)
    os.replace(tagged, target)
    return True


def _wav_chunks(file: BinaryIO) -> list[bytes]:
    chunks, size = [], os.fstat(file.fileno()).st_size
    while len(header := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", header)
        end = file.tell() + length + length % 2
        if name not in WAV_OWN and end <= size + 1 and _fits(chunks) and length <= MOST_BYTES:
            chunks.append(header + file.read(length) + b"\0" * (length % 2))
        if end > size:
            break
        file.seek(end)
    return chunks


def _append_chunks(target: Path, chunks: bytes) -> bool:
    with open(target, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        padding = b"\0" * (size % 2)
        total = size + len(padding) + len(chunks)
        if total - 8 > RIFF_LIMIT:
            return False
        file.write(padding + chunks)
        file.seek(4)
        file.write(struct.pack("<I", total - 8))
    return True
