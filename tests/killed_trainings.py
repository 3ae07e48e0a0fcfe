"""Trainings that are killed, as whoever tests that they go on needs them."""

import subprocess
import time
from pathlib import Path


ROOT = Path(__file__).parents[1]


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
