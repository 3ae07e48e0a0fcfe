"""Training in small: a killed run that is started again gives what an undisturbed one gives."""

import shutil
import sys
from pathlib import Path

import pytest
from killed_trainings import kill_at, train
from safetensors.torch import load_file

from images_that_sound.pipelines import ImagesThatSoundPipeline


STEPS = {"num_draws": 500, "text_steps": 4, "vae_steps": 4, "image_steps": 8, "audio_steps": 4}


def command(folder: Path) -> list[str]:
    arguments = [f"--{name}={value}" for name, value in STEPS.items()]
    folders = [f"--work_dir={folder / 'work'}", f"--output_dir={folder / 'checkpoint'}"]
    return [sys.executable, "-m", "training.embedded", *arguments, *folders, "--batch_size=2", "--save_every=2"]


@pytest.mark.slow
def test_a_killed_training_resumes_exactly(tmp_path):
    train(command(tmp_path / "whole"))
    # Byte pairs learned twice are numbered differently, which is no matter of resuming.
    shutil.copytree(tmp_path / "whole" / "work" / "tokenizer", tmp_path / "killed" / "work" / "tokenizer")
    kill_at(tmp_path / "killed" / "work" / "image.pt", command(tmp_path / "killed"))
    train(command(tmp_path / "killed"))

    for file in (tmp_path / "whole" / "checkpoint").rglob("*.safetensors"):
        expected = load_file(file)
        resumed = load_file(tmp_path / "killed" / file.relative_to(tmp_path / "whole"))
        assert all((expected[name] == resumed[name]).all() for name in expected), file
    pipe = ImagesThatSoundPipeline.from_pretrained(tmp_path / "killed" / "checkpoint")
    output = pipe("a painting of tigers", "bell ringing", num_inference_steps=2)
    assert output.images[0].size == (512, 128) and output.audios.shape == (1, 81920)
