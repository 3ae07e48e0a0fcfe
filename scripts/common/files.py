"""Files and folders that appear under their name only when they are complete."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """
    Makes a file or a folder that appears under its name only when it is complete.

    Args:
        path (`str` or `Path`): Its name. A file that is there is replaced; a folder may not be there.

    Yields:
        `Path`: Where to write it: the same name in a new folder beside `path`, open to no other user and to no other
        process, which is removed in the end, whatever happens.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
        yield Path(folder, path.name)
        os.replace(Path(folder, path.name), path)


def write_text(path: Path, text: str) -> None:
    with written(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def check_writable(folder: str | Path) -> None:
    """Raises `ValueError` if `folder` can't be written to, without writing anything."""
    ancestor = Path(folder).absolute()
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise ValueError(f"`output_dir` has to be a folder that can be written to, but {ancestor} is none.")
