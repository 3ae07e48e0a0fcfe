"""Trainings that are killed, as whoever tests that they go on needs them."""

import subprocess
import sys
import time
from pathlib import Path


ROOT = Path(__file__).parents[1]


def command_of(module: str, folder: Path, *numbers: str) -> list[str]:
    """A training's command, with all that it writes in the folder's `work` and `checkpoint`."""
    folders = (f"--work_dir={folder / 'work'}", f"--output_dir={folder / 'checkpoint'}")
    return [sys.executable, "-m", module, *numbers, *folders]


def train(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, timeout=900)


def kill_at(checkpoint: Path, command: list[str]) -> None:
    """Runs until there is a checkpoint, and no further."""
    process = subprocess.Popen(command, cwd=ROOT)
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
