"""Pictures and sounds of the user: recorded by name and SHA-256, and found again by these."""

import argparse
import hashlib
import math
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from .files import SAMPLE_FILES, parse_json


# Kinds of files that arguments take, and arguments that take several.
OWN_FILES = {
    **{"image": "picture", "audio": "sound", "mask_image": "picture"},
    **{"control_image": "picture", "ip_adapter_image": "picture"},
    **{"audio_control_image": "picture", "audio_ip_adapter_image": "picture"},
}
SEVERAL = ("control_image", "audio_control_image")


SCORE = (
    '{"0": {"prompt": "castle towers", "audio_prompt": "bell ringing"}, "10": {"prompt": "kittens", "audio_weight":'
    " 0.4}}"
)


def read_score(file: str) -> dict[str, Any]:
    """The score in a JSON file. argparse names a refused one by this function's name."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"`{file}` can't be read as a score: {error}") from error
    try:
        return parse_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"`{file}` is no score ({error}). A score names the seconds at which prompts begin, all in one pair of"
            f" curly brackets: {SCORE}"
        ) from error


# How files are read, each with how argparse reads it. An argument is `None` if it is not given.
READ_BY: dict[str, dict[str, Any]] = {
    "invert": {
        "action": argparse.BooleanOptionalAction,
        "help": "Whether to swap light and dark of --image. Default: yes for a drawing on a light ground, such as"
        " paper.",
    },
    "audio_start_in_s": {
        "type": float,
        "help": "Start in --audio in seconds, of which --audio_length_in_s takes so much. Default: 0.",
    },
    "onsets": {
        "type": str,
        "nargs": "+",
        "help": "Time spans in seconds in which --audio_controlnet lets something sound, such as 0.5-1.2 3-4, or"
        " picture: the columns in which --image, or else --control_image, shows something.",
    },
    "score": {
        "type": read_score,
        "help": f"A JSON file of prompts over time, by the seconds at which they begin: {SCORE}.",
    },
}
# Models that a pipeline can have besides its own, each argument with what of it ships.
COMPONENTS: dict[str, tuple[str, ...]] = {
    **{"controlnet": ("embedded",), "ip_adapter": (), "lora": ()},
    **{"audio_controlnet": (), "audio_ip_adapter": (), "audio_lora": ()},
}


@dataclass(frozen=True)
class OwnFile:
    """
    A file of the user's.

    Args:
        name (`str`): As it was given at first, and as settings name it.
        path (`Path`): Its place.
        sha256 (`str`): SHA-256 of its content, in hexadecimal digits.
    """

    name: str
    path: Path
    sha256: str


def add_reading_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """The named ones, for commands that take a picture and a sound."""
    for name in names:
        parser.add_argument(f"--{name}", **READ_BY[name])


def spans_of(texts: list[str]) -> list[tuple[float, float]] | str:
    """Time spans in seconds of texts such as `0.5-1.2`, or `"picture"`. Raises `ValueError` for other texts."""
    if texts == ["picture"]:
        return "picture"
    try:
        return [(float(start), float(end)) for start, end in (text.split("-") for text in texts)]
    except ValueError as error:
        raise ValueError(
            f"`onsets` has to be picture, or spans of seconds such as 0.5-1.2, but is {' '.join(texts)[:100]!r}."
        ) from error


# Arguments that a score gives over time, and the kind of their values.
IN_SCORES = dict.fromkeys(("prompt", "audio_prompt", "negative_prompt", "negative_audio_prompt"), str)
IN_SCORES["audio_weight"] = (int, float)


def values_over_time(score: dict[str, Any]) -> dict[str, dict[float, Any]]:
    """
    Values of a score, by the argument and the second at which they begin. Raises `ValueError` for another form; the
    call says the rest.
    """
    values: dict[str, dict[float, Any]] = {}
    for second, row in score.items():
        try:
            begin = float(second)
        except ValueError:
            begin = math.nan
        given = row.items() if isinstance(row, dict) else ()
        right = all(_fits(name, value) for name, value in given)
        if not given or not 0 <= begin < math.inf or not right:
            known = ", ".join(f"`{name}`" for name in IN_SCORES)
            raise ValueError(
                f"`score` has to hold, for each second, prompts or a weight by their names ({known}), such as {SCORE},"
                f" but holds {second[:40]!r}: {str(row)[:100]}."
            )
        for name, value in given:
            values.setdefault(name, {})[begin] = value
    return values


def _fits(name: str, value: Any) -> bool:
    """Whether a score may hold a value under a name. JSON's `true` is no number."""
    return isinstance(value, IN_SCORES.get(name, ())) and not isinstance(value, bool)


def joined(texts: dict[float, str]) -> str:
    """Prompts over time in one text, as settings, captions and folders name them."""
    return "; ".join(texts.values())


def own_files(args: argparse.Namespace, saved: dict[str, Any], params_from: str | None) -> dict[str, list[OwnFile]]:
    """
    The files of a command, by its arguments: those of the command line, and else those that `saved`, the settings in
    `params_from`, names. Raises `ValueError` for one that can't be read, is missing or has changed.
    """
    files = {}
    for argument, kind in OWN_FILES.items():
        if (names := getattr(args, argument, None)) is not None:
            files[argument] = [OwnFile(name, Path(name), sha256_of(name, kind)) for name in listed(names)]
        elif (names := saved.get(argument)) is not None:
            if not hasattr(args, argument):
                raise ValueError(f"`params_from` was made with `{argument}` {names!r}, which this command can't take.")
            known = saved.get("sha256") or {}
            files[argument] = [_find_again(argument, name, known.get(name), params_from) for name in listed(names)]
    return files


def listed(value: str | list[str] | None) -> list[str]:
    """A list of one or several names."""
    return [value] if isinstance(value, str) else value or []


def source_and_weight(text: str) -> tuple[str, float]:
    """The repo, folder or file that a text such as `REPO:0.8` names, and its weight, 1 if it has none."""
    source, _, weight = text.rpartition(":")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    return (source, number) if source and math.isfinite(number) else (text, 1.0)


def recorded(files: dict[str, list[OwnFile]], components: dict[str, str | list[str] | None]) -> dict[str, Any]:
    """
    What settings say of files and of components: their names by argument, and by name the SHA-256 of each that is a
    file of this machine.
    """
    names = {name: [file.name for file in several] for name, several in files.items()}
    names = {name: each if name in SEVERAL else each[0] for name, each in names.items()}
    hashes = {file.name: file.sha256 for several in files.values() for file in several}
    sources = {source_and_weight(text)[0] for value in components.values() for text in listed(value)}
    hashes |= {source: sha256_of(source, "LoRA or adapter") for source in sorted(sources) if os.path.isfile(source)}
    return {**names, **components, "sha256": hashes or None}


def _find_again(argument: str, name: str, sha256: str | None, params_from: str) -> OwnFile:
    """A file that settings name, as it was: beside them, or where they say."""
    if sha256 is None:
        raise ValueError(
            f"`params_from` names a file, which is read only if you name it once more:"
            f" --{argument} {shlex.quote(name)}"
        )
    places = [place for place in _places_of(name, Path(params_from)) if os.path.isfile(place)]
    for place in places:
        if sha256_of(place, OWN_FILES[argument]) == sha256:
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
    # A picture from anybody must not make this machine ask another one for a file.
    if not PureWindowsPath(name).drive.startswith("\\\\"):
        yield Path(name)
    # Beside a sample's settings are the sample's files.
    if Path(name).name not in SAMPLE_FILES:
        yield params_from.parent / Path(name).name


def sha256_of(path: str | Path, kind: str) -> str:
    try:
        # Anything but a plain file, such as a pipe, might not end, or not be there a second time.
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("It is no file.")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise ValueError(f"`{path}` can't be read as a {kind}: {error}") from error
