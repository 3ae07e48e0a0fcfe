"""A folder of sounds with a caption for each, and what is wrong with it."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ...pipelines import audio_problems
from .files import MAX_TEXT, check_name, check_text, parse_json
from .progress import tell
from .sounds import MAX_SECONDS, read_waveform, resampled


# Names of files that may be sounds; all else in the folder is left alone.
SUFFIXES = {
    *(".wav", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".m4a", ".mp4"),
    *(".mov", ".3gp", ".amr", ".aac", ".webm", ".mka", ".mkv"),
}
METADATA = "metadata.jsonl"
# Bounds that no honest folder meets.
MOST_SOUNDS, MAX_METADATA_BYTES = 10_000, 2**24
# Fewer sounds than these are learned by heart.
FEW = 5
# Share of a sound's peak, below which a window of it holds only its pauses: 40 dB.
PAUSE = 0.01
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True)
class CaptionedSound:
    """
    A file of a folder.

    Args:
        name (`str`): Its path in the folder.
        path (`Path`): Its place.
        caption (`str`): What is heard, in words; empty if nothing says so.
    """

    name: str
    path: Path
    caption: str


def captioned_sounds(folder: Path, caption: str | None = None) -> list[CaptionedSound]:
    """
    Sounds in a folder and the folders in it, each with its caption: that of `metadata.jsonl`, else of a text file
    beside it, else `caption`, else the words of its name.

    Raises:
        ValueError: If there is no sound, or a caption or `metadata.jsonl` is not as it has to be.
    """
    if not folder.is_dir():
        raise ValueError(f"`audio_dir` has to be a folder of sounds, but is {str(folder)!r}.")
    root, given = folder.resolve(), _read_metadata(folder)
    if caption is not None and not caption.isprintable():
        raise ValueError(f"`audio_prompt` has to be a line that can be printed, but is {caption[:100]!r}.")
    sounds = []
    for path in sorted(_files_of(folder)):
        check_name(path, "audio_dir")
        name = path.relative_to(folder).as_posix()
        if not _is_within(path, root):
            tell(f"{name} is left out: it is no file of this folder.")
            continue
        text = given.pop(name, None)
        text = _text_beside(path, root) if text is None else text
        text = caption if text is None else text
        sounds.append(CaptionedSound(name, path, caption_of(path.stem) if text is None else text))
    for name in given:
        tell(f"{name}, which {METADATA} names, is missing, or its name is no sound's.")
    if not sounds:
        raise ValueError(f"`audio_dir` has to hold sounds, such as WAV, FLAC, MP3 or M4A, but {folder} holds none.")
    if len(sounds) > MOST_SOUNDS:
        raise ValueError(f"`audio_dir` has to hold at most {MOST_SOUNDS} sounds, but holds {len(sounds)}.")
    return sounds


def caption_of(stem: str) -> str:
    """The words of a file's name: "dog bark" of "Dog_bark-03"."""
    return " ".join(WORD.findall(stem)).lower()


def _files_of(folder: Path) -> list[Path]:
    """Files that may be sounds; links to folders are not followed, hidden files are not taken."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return [path for path in found if path.suffix.lower() in SUFFIXES]


def _is_within(path: Path, root: Path) -> bool:
    """Whether it is a plain file that no link leads out of the folder: captions are published with the weights."""
    return path.is_file() and path.resolve().is_relative_to(root)


def _text_beside(path: Path, root: Path) -> str | None:
    file = path.with_suffix(".txt")
    if not os.path.lexists(file):
        return None
    if not _is_within(file, root):
        raise ValueError(f"`audio_dir` holds {file.name}, which has to be a text in this folder.")
    with open(file, "rb") as opened:
        content = opened.read(MAX_TEXT + 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"`audio_dir` holds {file.name}, which has to be text in UTF-8: {error}") from error
    return _checked(text, file.name)


def _checked(text: str, place: str) -> str:
    """A caption on one line."""
    try:
        check_text("text", text)
    except ValueError as error:
        raise ValueError(f"`audio_dir` holds a caption in {place} that is none: {error}") from error
    caption = " ".join(text.split())
    if not caption.isprintable():
        raise ValueError(f"`audio_dir` holds a caption in {place} that can't be printed: {caption[:100]!r}.")
    return caption


def _read_metadata(folder: Path) -> dict[str, str]:
    """Captions by files, as `metadata.jsonl` of a folder for `datasets` has them in `file_name` and `text`."""
    file = folder / METADATA
    if not os.path.lexists(file):
        return {}
    if not _is_within(file, folder.resolve()):
        raise ValueError(f"`audio_dir` holds {METADATA}, which has to be a file of this folder.")
    with open(file, "rb") as opened:
        content = opened.read(MAX_METADATA_BYTES + 1)
    if len(content) > MAX_METADATA_BYTES:
        raise ValueError(f"`audio_dir` holds {METADATA}, which has to have at most {MAX_METADATA_BYTES} bytes.")
    captions = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            name, text = _row(line, place := f"line {number} of {METADATA}")
            if name in captions:
                raise ValueError(f"`audio_dir` holds {place}, which names {name!r} a second time.")
            captions[name] = text
    return captions


def _row(line: bytes, place: str) -> tuple[str, str]:
    try:
        row = parse_json(line.decode("utf-8-sig"))
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError("it has to hold texts as `file_name` and `text`")
        # A name from anybody must not lead out of the folder, nor to another machine.
        parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
        if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
            raise ValueError(f"`file_name` has to be a path in this folder, but is {name[:100]!r}")
    except ValueError as error:
        raise ValueError(f"`audio_dir` holds {place}, which can't be read: {error}.") from error
    return PurePosixPath(name).as_posix(), _checked(text, place)


# -------------------- Sounds --------------------


def read_sound(sound: CaptionedSound, sampling_rate: int) -> np.ndarray | None:
    """
    The waveform `(N,)` of a sound, resampled, of which at most ten minutes are taken. What is wrong with it is told in
    a line; `None` for one that teaches nothing: it can't be read, is silent, or has no caption.
    """
    if not sound.caption:
        tell(f"{sound.name} is left out: it has no caption. {METADATA}, a text file beside it or its name give one.")
        return None
    try:
        audio, rate = read_waveform(sound.path, 0.0, MAX_SECONDS)
    except ValueError as error:
        tell(f"{sound.name} is left out: {error}")
        return None
    problems = audio_problems(audio)
    if problems and "clipped" not in problems[0]:
        tell(f"{sound.name} is left out: {problems[0]}.")
        return None
    remarks = list(problems)
    if len(audio) >= MAX_SECONDS * rate:
        remarks.append(f"only its first {MAX_SECONDS // 60} minutes are taken")
    if rate < sampling_rate:
        remarks.append(f"nothing is above {rate // 2} Hz, since it has {rate} samples per second")
    if remarks:
        tell(f"{sound.name} is taken, but {', and '.join(remarks)}.")
    return resampled(audio, rate, sampling_rate)


def windows_of(audio: np.ndarray, length: int) -> list[np.ndarray]:
    """
    Windows of `length` samples that cover a waveform `(N,)`, half of each in the next, without those that hold only
    its pauses. A sound that is shorter is repeated.
    """
    if len(audio) <= length:
        return [np.resize(audio, length)]
    number = int(np.ceil((len(audio) - length) / (length / 2))) + 1
    starts = np.linspace(0, len(audio) - length, number).round().astype(int)
    peak = np.abs(audio).max()
    windows = [audio[start : start + length] for start in starts]
    return [window for window in windows if np.abs(window).max() > PAUSE * peak]


def say_captions(captions: list[str]) -> None:
    """Tells how many sounds there are of which captions."""
    counts = Counter(captions)
    shown = ", ".join(f"“{caption[:80]}” ({number})" for caption, number in counts.most_common(10))
    more = f", and {len(counts) - 10} more" if len(counts) > 10 else ""
    tell(f"{len(captions)} sound{'s' * (len(captions) > 1)}: {shown}{more}.")
    if len(captions) < FEW:
        tell(f"So few sounds are learned by heart: {FEW} or more of a kind are better.")
