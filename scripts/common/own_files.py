"""Pictures and sounds of one's own: recorded by name and SHA-256, found again by these, and read."""

import argparse
import hashlib
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# What each argument that takes a file holds.
OWN_FILES = {"image": "picture", "audio": "sound", "mask_image": "picture"}


@dataclass(frozen=True)
class OwnFile:
    """
    A file of the user's.

    Args:
        name (`str`): As it was given at first, and as settings name it.
        path (`Path`): Where it is.
        sha256 (`str`): Of what it holds, in hexadecimal digits.
    """

    name: str
    path: Path
    sha256: str


def own_files(args: argparse.Namespace, saved: dict[str, Any], params_from: str | None) -> dict[str, OwnFile]:
    """
    The files of a command, by its arguments: those of the command line, and else those that `saved`, the settings in
    `params_from`, names. Raises `ValueError` for one that can't be read, is missing or has changed.
    """
    files = {}
    for argument, kind in OWN_FILES.items():
        if (name := getattr(args, argument, None)) is not None:
            files[argument] = OwnFile(name, Path(name), _sha256_of(name, kind))
        elif (name := saved.get(argument)) is None:
            continue
        elif not hasattr(args, argument):
            raise ValueError(f"`params_from` was made with `{argument}` {name!r}, which this command does not take.")
        else:
            files[argument] = _find_again(argument, name, (saved.get("sha256") or {}).get(name), Path(params_from))
    return files


def recorded(files: dict[str, OwnFile]) -> dict[str, Any]:
    """What settings say of files: their names by argument, and their SHA-256 by name."""
    names = {argument: file.name for argument, file in files.items()}
    return {**names, "sha256": {file.name: file.sha256 for file in files.values()} or None}


def with_files(arguments: dict[str, Any], files: dict[str, OwnFile], pipe: "DiffusionPipeline") -> dict[str, Any]:
    """
    Arguments of a pipeline's call with what files hold: pictures, on silence where they are transparent, and a
    waveform at its rate, of which `audio_length_in_s` says how much is taken. Raises `ValueError` for more than there
    is, or what is no picture or sound.
    """
    from .samples import on_ground, read_audio, read_picture

    ground = pipe.mel_spectrogram.silence
    readers = {
        "audio": lambda path: read_audio(path, pipe.sampling_rate),
        "image": lambda path: on_ground(read_picture(path), ground),
        "mask_image": lambda path: on_ground(read_picture(path), 0),
    }
    arguments = {**arguments, **{argument: readers[argument](file.path) for argument, file in files.items()}}
    seconds = arguments.get("audio_length_in_s")
    if "audio" in files and seconds is not None:
        length = len(arguments["audio"]) / pipe.sampling_rate
        if not 0 < seconds <= length:
            raise ValueError(f"`audio_length_in_s` has to be in the {length:.2f} s of `audio`, but is {seconds}.")
        beginning = arguments["audio"][: round(seconds * pipe.sampling_rate)]
        arguments |= {"audio": beginning, "audio_length_in_s": None}
    return arguments


def _find_again(argument: str, name: str, sha256: str | None, params_from: Path) -> OwnFile:
    """A file that settings name, as it was: beside them, or where they say."""
    if sha256 is None:
        raise ValueError(
            f"`params_from` names a file, which is read only if you name it once more:"
            f" --{argument} {shlex.quote(name)}"
        )
    places = [place for place in _places_of(name, params_from) if os.path.isfile(place)]
    for place in places:
        if _sha256_of(place, OWN_FILES[argument]) == sha256:
            return OwnFile(name, place, sha256)
    if not places:
        raise ValueError(
            f"`params_from` was made with `{argument}` {name!r}, which is missing, there and beside it. Name it where"
            f" it is now: --{argument} FILE"
        )
    raise ValueError(
        f"`params_from` was made with `{argument}` {name!r}, which has changed since: its SHA-256 is another. To take"
        f" it as it is now: --{argument} {shlex.quote(str(places[0]))}"
    )


def _places_of(name: str, params_from: Path) -> Iterable[Path]:
    from .samples import SAMPLE_FILES

    # A picture from anybody must not make this machine ask another one for a file.
    if not PureWindowsPath(name).drive.startswith("\\\\"):
        yield Path(name)
    # Beside a sample's settings are files of its own.
    if Path(name).name not in SAMPLE_FILES:
        yield params_from.parent / Path(name).name


def _sha256_of(path: str | Path, kind: str) -> str:
    try:
        # What is no plain file, such as a pipe, might not end, or not be there a second time.
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("It is no file.")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise ValueError(f"`{path}` can't be read as a {kind}: {error}") from error
