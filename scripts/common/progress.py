"""Messages of a command about its work, and the environment that it works in."""

import os
import sys
from typing import Any, TextIO


# Threads that wait would spin, which beside any other program makes torch many times slower.
THREADS = {"GOMP_SPINCOUNT": "1000"}
# It would say of everything that diffusers imports how it does without torchvision.
LOGS = {"TRANSFORMERS_VERBOSITY": "error"}
# No bar, of libraries either, stays when it is full.
BARS = {
    "TQDM_BAR_FORMAT": "{desc}: {n_fmt} of {total_fmt} |{bar}| {elapsed} gone, {remaining} left{postfix}",
    "TQDM_LEAVE": "",
}
# Bars if nobody looks on: one a minute, and none that is full within a minute.
IN_LOGS = dict.fromkeys(("TQDM_DELAY", "TQDM_MININTERVAL", "TQDM_MAXINTERVAL"), "60")


def prepare_environment() -> None:
    """Sets what the user has not set. Torch and tqdm read it when they are imported, so that it comes before them."""
    # Its setting of how threads wait would not count any more.
    threads = {} if "OMP_WAIT_POLICY" in os.environ else THREADS
    for name, value in {**threads, **LOGS, **BARS, **({} if sys.stderr.isatty() else IN_LOGS)}.items():
        os.environ.setdefault(name, value)


def printable(text: Any) -> str:
    """
    The text with a question mark for every character that is not printable, such as those that move a terminal's
    cursor or change its title. Line breaks and tabs stay.
    """
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in str(text))


def tell(text: Any, stream: TextIO | None = None) -> None:
    """
    Prints a line, to stderr unless told otherwise, above the bars that are shown. All that a command prints of files
    and names passes here.
    """
    stream, text = stream or sys.stderr, printable(text)
    if sys.stderr.isatty():
        from tqdm import tqdm

        # It draws the bars again below the line.
        tqdm.write(text, stream)
        stream.flush()
    else:
        print(text, file=stream, flush=True)
