"""The border of a command: what goes wrong outside of the program is said in one line."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .progress import prepare_environment, tell


# What libraries raise where a file can't be read or written, such as on a full disk, besides OSError.
FILE_ERRORS = (("soundfile", "LibsndfileError"), ("av.error", "FFmpegError"), ("safetensors", "SafetensorError"))


def run(make: Callable[[], Iterator[Path | str]]) -> None:
    """
    Prints what `make` yields. What goes wrong outside of the program, the user's input, files, devices, memory, is
    said in one line; anything else is a fault of the program and passes as it is.
    """
    prepare_environment()
    try:
        with _ended_in_order():
            for path in make():
                tell(path, sys.stdout)
    except Exception as error:
        if not _is_from_outside(error):
            raise
        raise SystemExit(f"error: {one_line(error)}") from error


@contextmanager
def arguments_named(**names: str) -> Iterator[None]:
    """Lets a `ValueError` raised inside speak of what the command has: of each name, what it is there."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        for name, own in names.items():
            text = text.replace(f"`{name}`", f"`{own}`")
        raise ValueError(text) from error


def _is_from_outside(error: Exception) -> bool:
    # What is not imported can't have been raised.
    foreign = tuple(getattr(sys.modules[module], name) for module, name in FILE_ERRORS if module in sys.modules)
    if isinstance(error, (ValueError, OSError, MemoryError, *foreign)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    from accelerate.utils.memory import should_reduce_batch_size

    return should_reduce_batch_size(error) or "PytorchStreamWriter" in str(error)


def one_line(error: Exception | str) -> str:
    """The message without what could write elsewhere on a terminal."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets SIGTERM end the program as an exception would, so that nothing half-written is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
