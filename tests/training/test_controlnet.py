"""Training of the ControlNet in small."""

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from killed_trainings import whole_and_killed
from safetensors.torch import load_file
from scipy import ndimage

from images_that_sound.scripts.common.models import EMBEDDED
from training import controlnet


def test_a_new_controlnet_says_nothing_and_reads_prompts_as_its_unet_does():
    unet = UNet2DConditionModel.from_pretrained(EMBEDDED, subfolder="unet")
    model = controlnet.new_controlnet(unet)
    generator = torch.Generator().manual_seed(0)
    latents, prompts = torch.randn(1, 4, 16, 8, generator=generator), torch.randn(1, 7, 64, generator=generator)
    lines = torch.rand(1, 3, 128, 64, generator=generator)

    down, middle = model(latents, 500, prompts, lines, return_dict=False)
    assert all(not residual.any() for residual in (*down, middle))
    assert torch.equal(model.add_embedding(prompts), unet.add_embedding(prompts))


def test_lines_of_a_hand_stay_near_and_some_are_missing():
    lines = np.zeros((128, 256), np.uint8)
    lines[30, 40:200] = lines[30:100, 40] = 1
    near = ndimage.distance_transform_edt(lines == 0) < 16
    shares = []
    for seed in range(30):
        drawn = controlnet.hand_drawn(lines, np.random.default_rng(seed))
        assert drawn.shape == lines.shape and drawn.min() >= 0 and drawn.max() == pytest.approx(1)
        assert drawn[~near].max() < 0.1
        shares.append((ndimage.grey_dilation(drawn, (33, 33)) > 0.5)[lines == 1].mean())
        again = controlnet.hand_drawn(lines, np.random.default_rng(seed))
        assert (again == drawn).all()
    assert np.median(shares) > 0.9 and min(shares) < 1


@pytest.mark.slow
def test_a_killed_training_resumes_exactly(tmp_path):
    numbers = ["--num_draws=500", "--controlnet_steps=6", "--batch_size=2", "--save_every=2"]
    whole, killed = whole_and_killed("training.controlnet", "controlnet", tmp_path, *numbers)

    expected, resumed = (load_file(next(each.glob("*.safetensors"))) for each in (whole, killed))
    assert all((expected[name] == resumed[name]).all() for name in expected)
    assert any(value.any() for name, value in expected.items() if name.startswith("controlnet_mid_block"))
    assert ControlNetModel.from_pretrained(killed).dtype == torch.float32
