"""When each modality speaks, and how strongly."""

import pytest
import torch

from images_that_sound.schedulers import ModalityScheduler


CALL = {"width": 64, "crop_right": 0, "num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "latent"}


def test_defaults_are_the_papers_step_functions():
    shares = ModalityScheduler().audio_noise_shares(100)
    assert shares == [1.0] * 10 + [0.5] * 90


@pytest.mark.parametrize("num_inference_steps", [1, 2, 7, 1000])
def test_there_is_a_share_for_each_step(num_inference_steps):
    shares = ModalityScheduler(image_guidance_start=0.3, fade=0.5).audio_noise_shares(num_inference_steps)
    assert len(shares) == num_inference_steps and all(0.5 <= share <= 1 for share in shares)
    assert shares[-1] == 0.5


def test_weights_are_divided_by_their_sum():
    scheduler = ModalityScheduler(
        audio_weight=0.3, image_guidance_start=0.2, image_guidance_end=0.8, audio_guidance_end=1.0
    )
    assert scheduler.audio_noise_shares(10) == pytest.approx([1.0] * 2 + [0.3] * 6 + [1.0] * 2)
    audio_between = ModalityScheduler(image_guidance_start=0.0, audio_guidance_start=0.5, audio_guidance_end=0.75)
    assert audio_between.audio_noise_shares(4) == [0.0, 0.0, 0.5, 0.0]


def test_fade_falls_from_one_to_the_full_mixture():
    shares = ModalityScheduler(image_guidance_start=0.2, fade=0.4).audio_noise_shares(50)
    assert shares[:10] == [1.0] * 10
    assert all(later < earlier for earlier, later in zip(shares[9:29], shares[10:30]))
    assert shares[30:] == [0.5] * 20


def test_fade_of_the_audio_side_rises():
    shares = ModalityScheduler(image_guidance_start=0.0, audio_guidance_start=0.5, fade=0.5).audio_noise_shares(20)
    assert shares[:10] == [0.0] * 10
    assert all(earlier < later for earlier, later in zip(shares[9:19], shares[10:]))
    assert shares[-1] == 0.5


def test_a_call_takes_it_as_audio_weight(pipe):
    plain = {"audio_weight": 0.3, "image_guidance_start": 0.5, "audio_guidance_end": 0.75}
    by_arguments = _draw(pipe, **CALL, **plain)
    assert torch.equal(_draw(pipe, **CALL, audio_weight=ModalityScheduler(**plain)), by_arguments)
    assert not torch.equal(_draw(pipe, **CALL, audio_weight=0.3), by_arguments)


def test_a_fade_reaches_the_latents(pipe):
    scheduler = ModalityScheduler(image_guidance_start=0.25, fade=0.5)
    by_list = _draw(pipe, **CALL, audio_weight=scheduler.audio_noise_shares(4), image_guidance_start=0.0)
    assert torch.equal(_draw(pipe, **CALL, audio_weight=scheduler), by_list)


def test_starts_and_ends_beside_a_schedule_are_refused(pipe):
    with pytest.raises(ValueError, match="`audio_weight` is a schedule.*'image_guidance_start': 0.2"):
        _draw(pipe, audio_weight=ModalityScheduler(), image_guidance_start=0.2)


@pytest.mark.parametrize(
    "name, value",
    [
        ("audio_weight", 1.5),
        ("audio_weight", float("nan")),
        ("image_guidance_start", -0.1),
        ("image_guidance_end", 2),
        ("audio_guidance_start", "0.1"),
        ("fade", 1.1),
    ],
)
def test_values_outside_0_to_1_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.* {value!r}"):
        ModalityScheduler(**{name: value})


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_start_after_end_is_refused(modality):
    with pytest.raises(ValueError, match=f"`{modality}_guidance_start`.*0.6 against 0.4"):
        ModalityScheduler(**{f"{modality}_guidance_start": 0.6, f"{modality}_guidance_end": 0.4})


def test_a_step_without_a_speaker_is_refused():
    scheduler = ModalityScheduler(image_guidance_start=0.5, audio_guidance_start=0.2)
    with pytest.raises(ValueError, match="No side acts at step 0 of 10"):
        scheduler.audio_noise_shares(10)


def _draw(pipe, **call):
    return pipe("a castle", "a bell", generator=torch.Generator().manual_seed(0), **call).images
