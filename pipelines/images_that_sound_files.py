"""Files and folders that appear under their name only when they are complete. Commands import it without torch."""

import errno
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
        path (`str` or `Path`): Its name. An existing file is replaced, an existing folder is not.

    Yields:
        `Path`: Place to write to: the same name in a new folder beside `path`. No other user and no other process
        opens that folder, and it is removed in the end, whatever happens.

    Raises:
        FileExistsError: If a folder was written and its name is taken in the end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent) as folder:
        partial = Path(folder, path.name)
        yield partial
        try:
            os.replace(partial, path)
        except OSError as error:
            if partial.is_dir() and os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "There is something already", str(path)) from error
            raise
