"""Training of the scores in small: a run that is killed in either stage goes on to the same weights."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_trainings import kill_at, train
from safetensors.torch import load_file

from images_that_sound.selection import CLAPScore, CLIPScore


STEPS = {"clip": 40, "clap": 40}


def command(folder: Path) -> list[str]:
    arguments = ["--num_draws=500", *(f"--{stage}_steps={steps}" for stage, steps in STEPS.items())]
    folders = [f"--work_dir={folder / 'work'}", f"--output_dir={folder / 'scores'}"]
    return [sys.executable, "-m", "training.scores", *arguments, *folders, "--batch_size=2", "--save_every=2"]


def kill_in(stage: str, folder: Path) -> None:
    """Runs until the first checkpoint of a stage, which is then not done."""
    checkpoint = folder / "work" / f"{stage}.pt"
    kill_at(checkpoint, command(folder))
    assert torch.load(checkpoint, weights_only=True)["step"] < STEPS[stage]


@pytest.mark.slow
def test_a_killed_training_resumes_exactly(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(command(whole))
    # Byte pairs learned twice are numbered differently, which is no matter of resuming. The draws spare minutes.
    shutil.copytree(whole / "work", killed / "work", ignore=shutil.ignore_patterns("*.pt", "log.jsonl"))
    for stage in STEPS:
        kill_in(stage, killed)
    train(command(killed))

    for stage in STEPS:
        expected, resumed = (load_file(each / "scores" / stage / "model.safetensors") for each in (whole, killed))
        assert expected.keys() == resumed.keys()
        assert all(torch.equal(expected[name], resumed[name]) for name in expected), stage
    load = {"pretrained_model_name_or_path": killed / "scores", "dtype": torch.float32}
    canvas, audio = torch.rand(1, 1, 128, 512), np.random.default_rng(0).uniform(-1, 1, (1, 16000))
    assert CLIPScore.from_pretrained(**load, subfolder="clip")(canvas, ["tigers"]).isfinite().all()
    assert CLAPScore.from_pretrained(**load, subfolder="clap")(audio, 16000, ["bell ringing"]).isfinite().all()
