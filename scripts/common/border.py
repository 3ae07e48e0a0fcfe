"""The border of a command: errors from outside of the program are one line, and a command that is ended cleans up."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .progress import prepare_environment, printable, tell


# Errors that libraries raise, besides OSError, if a file can't be read or written, such as on a full disk.
FILE_ERRORS = (("soundfile", "LibsndfileError"), ("av.error", "FFmpegError"), ("safetensors", "SafetensorError"))
# Signals that end a program: on request, and, on systems that tell so, if its terminal is closed.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
    except KeyboardInterrupt:
        tell("stopped")
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if not _is_from_outside(error):
            raise
        raise SystemExit(f"error: {one_line(error)}") from error


@contextmanager
def arguments_named(**names: str) -> Iterator[None]:
    """Lets a `ValueError` raised inside name arguments as the command does: each by the given name."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        for name, name_here in names.items():
            text = text.replace(f"`{name}`", f"`{name_here}`")
        raise ValueError(text) from error


def _is_from_outside(error: Exception) -> bool:
    # A class that is not imported can't have been raised.
    foreign = tuple(getattr(sys.modules[module], name) for module, name in FILE_ERRORS if module in sys.modules)
    if isinstance(error, (ValueError, OSError, MemoryError, *foreign)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    from accelerate.utils.memory import should_reduce_batch_size

    return should_reduce_batch_size(error) or "PytorchStreamWriter" in str(error)


def one_line(error: BaseException | str) -> str:
    """The message on one line of at most 2000 characters, all of them printable."""
    text = printable(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets signals that end the program raise `SystemExit`, so that nothing half-written is left behind."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        # `nohup` has the hang-up of a terminal ignored, which then stays so.
        before = {number: signal.getsignal(number) for number in ENDING}
        before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
