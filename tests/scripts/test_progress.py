"""What commands say on the way: on a terminal a bar that goes, in a log next to nothing, and lines above it whole."""

import os
import re
import subprocess
import sys

import pytest


WORK = """
from images_that_sound.scripts.common.progress import prepare_environment, tell
prepare_environment()
import sys
from tqdm import tqdm
with tqdm(total=4, desc="Samples") as bar:
    for i in range(4):
        bar.update()
        tell(f"sample {i}", sys.stdout)
tell("the end")
"""


def test_a_log_gets_lines_and_no_short_bars():
    process = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert process.stdout == "sample 0\nsample 1\nsample 2\nsample 3\n"
    assert process.stderr == "the end\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other terminals")
@pytest.mark.parametrize(
    "given, bar", [({}, r"Samples: 1 of 4 \|.*\| 00:00 gone, 00:00 left"), ({"TQDM_BAR_FORMAT": "{n} made"}, "1 made")]
)
def test_a_terminal_gets_a_bar_that_says_how_long_it_takes_and_goes(given, bar):
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    others = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    subprocess.run([sys.executable, "-c", WORK], stdout=theirs, stderr=theirs, env={**others, **given}, check=True)
    os.close(theirs)
    printed = os.read(ours, 100_000).decode()
    os.close(ours)
    assert all(f"{line}\r\n" in printed for line in ("sample 0", "sample 3", "the end"))
    assert re.search(bar, printed)
    assert printed.endswith(" \rthe end\r\n")
