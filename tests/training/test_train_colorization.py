"""Training of the colorization models in small: a killed run goes on to the same weights."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from killed_trainings import kill_at, train
from safetensors.torch import load_file

from images_that_sound.pipelines import FactorizedColorizationPipeline
from training import colorization


STEPS = {"num_draws": 500, "text_steps": 4, "stage_1_steps": 8, "stage_2_steps": 4}


def command(folder: Path) -> list[str]:
    arguments = [f"--{name}={value}" for name, value in STEPS.items()]
    folders = [f"--work_dir={folder / 'work'}", f"--output_dir={folder / 'checkpoint'}"]
    return [sys.executable, "-m", "training.colorization", *arguments, *folders, "--batch_size=2", "--save_every=2"]


@pytest.mark.slow
def test_a_killed_training_resumes_exactly(tmp_path):
    train(command(tmp_path / "whole"))
    kill_at(tmp_path / "killed" / "work" / "stage_1.pt", command(tmp_path / "killed"))
    train(command(tmp_path / "killed"))

    for file in (tmp_path / "whole" / "checkpoint").rglob("*.safetensors"):
        expected = load_file(file)
        resumed = load_file(tmp_path / "killed" / file.relative_to(tmp_path / "whole"))
        assert all((expected[name] == resumed[name]).all() for name in expected), file
    pipe = FactorizedColorizationPipeline.from_pretrained(tmp_path / "killed" / "checkpoint")
    gray = torch.rand(1, 1, 128, 512).expand(-1, 3, -1, -1)
    output = pipe(gray, "a colorful photo of tigers", num_inference_steps=2, start_diffusion_step=1)
    assert output.images[0].size == (512, 128)


def test_variance_bound_is_least_where_the_true_step_is_told():
    """Told the true noise and the lower variance, the learned step is the true one."""
    generator = torch.Generator().manual_seed(0)
    scheduler = DDPMScheduler(**colorization.NOISE)
    clean = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    noise = torch.randn(4, 3, 8, 8, generator=generator)
    timesteps = torch.tensor([1, 50, 400, 900])
    noisy = scheduler.add_noise(clean, noise, timesteps)

    def bound(noise_pred: torch.Tensor, fraction: float) -> float:
        fractions = torch.full_like(noise_pred, fraction)
        return float(colorization._variance_bound(scheduler, clean, noisy, timesteps, noise_pred, fractions))

    assert bound(noise, -1.0) == pytest.approx(0, abs=1e-3)
    assert bound(noise, 1.0) > 0.01
    assert bound(torch.zeros_like(noise), -1.0) > 1
