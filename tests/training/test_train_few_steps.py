"""Distillation into few steps in small: its arithmetic is that of diffusers' schedulers, and it resumes."""

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from killed_trainings import whole_and_killed
from safetensors.torch import load_file

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.models import EMBEDDED
from training.few_steps import NUM_LEVELS, Levels
from training.loop import NOISE


@pytest.mark.parametrize("level", [1, 2, 12, NUM_LEVELS])
def test_levels_are_those_of_the_schedulers(level):
    noisy, noise = torch.randn(2, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    levels, timestep = Levels("cpu"), level * 1000 // NUM_LEVELS - 1
    timesteps = torch.full((2,), timestep)

    lcm = LCMScheduler(**NOISE, original_inference_steps=NUM_LEVELS)
    lcm.set_timesteps(NUM_LEVELS)
    assert timestep in lcm.timesteps
    expected = lcm.step(noise, lcm.timesteps[NUM_LEVELS - level], noisy, generator=torch.Generator()).denoised
    torch.testing.assert_close(levels.consistent(noisy, noise, timesteps), expected)

    ddim = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(NUM_LEVELS)
    closer, nearer = levels.next(noisy, noise, timesteps)
    torch.testing.assert_close(closer, ddim.step(noise, timestep, noisy).prev_sample)
    assert nearer.tolist() == [max(timestep - 1000 // NUM_LEVELS, 0)] * 2


@pytest.mark.slow
def test_a_killed_distillation_resumes_exactly(tmp_path):
    numbers = ["--num_draws=50", "--lora_steps=4", "--batch_size=1", "--save_every=2"]
    whole, killed = whole_and_killed("training.few_steps", "lora", tmp_path, *numbers)

    expected, resumed = (load_file(each / "pytorch_lora_weights.safetensors") for each in (whole, killed))
    assert expected.keys() == resumed.keys() and all((expected[name] == resumed[name]).all() for name in expected)
    assert any(value.any() for name, value in expected.items() if name.startswith("unet_audio.") and "lora_B" in name)
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.load_few_step_lora_weights(killed)
    assert pipe.audio.get_list_adapters() == {"unet": ["few_steps"]}
