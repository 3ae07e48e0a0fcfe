"""Prediction lift against a loop over stock parts, and what it is for."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import Scorer, prediction_lift
from training.world import draw_picture


def tokens(pipe, prompt):
    return pipe.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids


@torch.no_grad()
def test_lift_is_the_difference_of_mean_squared_errors(pipe):
    latents = torch.randn(2, 4, 32, 8, generator=torch.Generator().manual_seed(1))
    lifts = prediction_lift(pipe, latents, ["a castle", "a dog"], "a bell", num_draws=3, seed=5)
    noising = DDPMScheduler.from_config(pipe.scheduler.config)
    for lift, unet, encoder, prompts in (
        (lifts[0], pipe.unet, pipe.text_encoder, ["a castle", "a dog"]),
        (lifts[1], pipe.unet_audio, pipe.text_encoder_audio, ["a bell", "a bell"]),
    ):
        for row in range(2):
            generator, expected = torch.Generator().manual_seed(5), 0
            for timestep in (166, 500, 833):
                noise = torch.randn(4, 32, 8, generator=generator)[None]
                noisy = noising.add_noise(latents[row : row + 1], noise, torch.tensor([timestep]))
                errors = [
                    (unet(noisy, timestep, encoder(tokens(pipe, text))[0]).sample - noise).square().mean().item()
                    for text in ("", prompts[row])
                ]
                expected += (errors[0] - errors[1]) / 3
            assert lift[row].item() == pytest.approx(expected, abs=1e-5)


def test_as_many_prompts_as_results(pipe):
    with pytest.raises(ValueError, match="`audio_prompt` has to hold 2, one per result, but holds 1"):
        prediction_lift(pipe, torch.randn(2, 4, 32, 8), "a castle", ["a bell"])


def test_the_right_prompt_lifts_more_than_a_wrong_one():
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    scorer, generator = Scorer(pipe=pipe), np.random.default_rng(104)
    names = ("castle", "train", "kitten", "race", "horse", "tiger")
    pictures = [np.asarray(draw_picture(name, generator, 128, 256)[0], np.float32) / 255 for name in names]
    canvases = torch.from_numpy(np.stack(pictures))[:, None]

    def lifts(shift: int) -> list[float]:
        prompts = [WORLD_PROMPTS["picture"][names[(i + shift) % 6]] for i in range(6)]
        return scorer(canvases, np.zeros((6, 1)), 16000, prompts, ["bell ringing"] * 6)["image_lift"]

    assert scorer.names == ["image_lift", "audio_lift"]
    assert sum(right > wrong for right, wrong in zip(lifts(0), lifts(1))) >= 5
