"""Files and folders that appear under their name only when they are complete, and JSON that others can read."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...pipelines.images_that_sound_files import written


# Files of a finished sample.
SAMPLE_FILES = {"image.png", "spectrogram.png", "audio.wav", "settings.json"}
# More than any settings, scores or prompts that were written here.
MAX_JSON_BYTES = 2**20
# Bytes of a text in settings or on a command line: more than any text encoder reads.
MAX_TEXT = 10_000
# `written` or `written_once`.
Write = Callable[[Path], AbstractContextManager[Path]]


def write_text(path: Path, text: str) -> None:
    with written(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    write_text(path, json_text(content, indent=2) + "\n")


def json_text(content: object, indent: int | None = None) -> str:
    """JSON, in which a number that is not finite is null, since JSON has none."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> dict[str, Any]:
    """Reads a dict that `write_json` wrote. Raises `ValueError` if the file can't be read or holds something else."""
    try:
        with open(path, "rb") as file:
            content = parse_json(file.read(MAX_JSON_BYTES + 1).decode())
    except (OSError, ValueError) as error:
        raise ValueError(f"`{path}` can't be read: {error}") from error
    return content


def parse_json(text: str) -> dict[str, Any]:
    """The dict that a JSON text holds. Raises `ValueError` if it holds none, or is longer than any honest one."""
    try:
        content = json.loads(text) if len(text) <= MAX_JSON_BYTES else None
        # Halves of characters, which JSON may hold and no other file.
        json.dumps(content, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"no JSON object of at most {MAX_JSON_BYTES} characters")
    return content


def check_text(name: str, text: str) -> None:
    """Raises `ValueError` for a text of an argument that is longer than any honest one, or holds what is no text."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` has to be text, but holds what is none: {text[:100]!r}.") from error
    if size > MAX_TEXT:
        raise ValueError(f"`{name}` has to be at most {MAX_TEXT} bytes long, but has {size}.")


def check_writable(folder: str | Path, argument: str = "output_dir") -> None:
    """Raises `ValueError` if `folder`, given by `argument`, can't be written to, without writing anything."""
    folder = Path(folder).absolute()
    check_name(folder, argument)
    ancestor, missing = folder, []
    while not os.path.lexists(ancestor):
        missing.append(ancestor.name)
        ancestor = ancestor.parent
    try:
        # A name that is too long is found so in the place of its folder, or else by the length of the whole.
        for path in (*(ancestor / name for name in missing), folder / ("x" * 100)):
            with suppress(FileNotFoundError):
                os.lstat(path)
        tempfile.TemporaryFile(dir=ancestor).close()
    except OSError as error:
        raise ValueError(
            f"`{argument}` needs a folder that can be written to, but {folder} is none: {error.strerror}."
        ) from error


def check_name(path: Path, argument: str) -> None:
    """Raises `ValueError` for a name that is no text, which neither settings nor pages could hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{argument}` has to name files by text, but holds {str(path)!r}. Rename it.") from error


def check_own_folder(folder: Path) -> None:
    """Raises `ValueError` for a link under the name of a folder whose files are ours alone to write."""
    if folder.is_symlink():
        raise ValueError(f"{folder} has to be a folder, but is a link. Move it away.")


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """
    Writes `settings.json` into the folder of a computation that may stop and go on. Raises `ValueError` if one with
    other settings began there; one that left nothing else was refused before it began.
    """
    file = folder / "settings.json"
    known = read_json(file) if file.exists() else None
    if known == parse_json(json_text(settings)):
        return
    if known is not None and any(each != file and each.suffix != ".part" for each in folder.iterdir()):
        raise ValueError(f"`output_dir` holds {folder}, begun with other settings. Name another folder.")
    write_json(file, settings)


def check_own_file(path: Path, beginning: str, argument: str = "sample_dir") -> None:
    """Raises `ValueError` if what is under a name of ours does not begin as ours do, and so is not to be replaced."""
    if not os.path.lexists(path):
        return
    try:
        with open(path, "rb") as file:
            written_here = file.read(len(beginning)) == beginning.encode()
    except OSError:
        written_here = False
    if not written_here:
        raise ValueError(f"`{argument}` holds {path}, which was not written here and would be replaced. Move it away.")


def check_readable(path: Path, kind: str) -> None:
    """Raises `ValueError` if a picture or a sound, as `kind` says, is not there or may not be read."""
    try:
        open(path, "rb").close()
    except OSError as error:
        raise ValueError(f"`{path}` can't be read as a {kind}: {error}") from error


def check_absent(path: Path, argument: str) -> None:
    """Raises `ValueError` if something is there under a name that nobody gave."""
    if os.path.lexists(path):
        raise ValueError(f"`{argument}` has to be given, since {path} is there already.")


@contextmanager
def written_once(path: Path) -> Iterator[Path]:
    """As `written`, for the default name of `--output`: raises `ValueError` if a file took the name meanwhile."""
    with written(path) as partial:
        yield partial
        try:
            _take_name(partial, path)
        except FileExistsError:
            check_absent(path, "--output")


def _take_name(file: Path, path: Path) -> None:
    """Gives a complete file a second name. Raises `FileExistsError` if the name is taken."""
    try:
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:
        # On a file system without links, an empty file, which only one process can make, is what `written` replaces.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
