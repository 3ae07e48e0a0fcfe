"""Training of the colorization models in small: a killed run goes on to the same weights."""

import pytest
import torch
from diffusers import DDPMScheduler
from killed_trainings import whole_and_killed
from safetensors.torch import load_file

from images_that_sound.pipelines import FactorizedColorizationPipeline
from training import colorization


@pytest.mark.slow
def test_a_killed_training_resumes_exactly(tmp_path):
    steps = ("--num_draws=500", "--text_steps=4", "--stage_1_steps=8", "--stage_2_steps=4")
    numbers = (*steps, "--batch_size=2", "--save_every=2")
    whole, killed = whole_and_killed("training.colorization", "stage_1", tmp_path, *numbers)

    for file in whole.rglob("*.safetensors"):
        expected, resumed = load_file(file), load_file(killed / file.relative_to(whole))
        assert all((expected[name] == resumed[name]).all() for name in expected), file
    pipe = FactorizedColorizationPipeline.from_pretrained(killed)
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
