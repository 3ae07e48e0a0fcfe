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


def whole_and_killed(module: str, stage: str, folder: Path, *numbers: str) -> tuple[Path, Path]:
    """The checkpoints of a run that went through, and of one that was killed in a stage and started again."""
    whole, killed = folder / "whole", folder / "killed"
    train(command_of(module, whole, *numbers))
    kill_at(killed / "work" / f"{stage}.pt", command_of(module, killed, *numbers))
    train(command_of(module, killed, *numbers))
    return whole / "checkpoint", killed / "checkpoint"


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
