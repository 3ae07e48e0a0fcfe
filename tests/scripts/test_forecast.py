"""The line on how long work takes: its numbers, and that short work has none."""

import itertools

import numpy as np
import pytest
import torch

from images_that_sound.scripts.common import forecast
from images_that_sound.scripts.common.forecast import (
    ColorForecast,
    Forecast,
    in_words,
    length_asked,
    say_beginning,
    steps_of_both_sides,
)
from images_that_sound.scripts.common.values import STRIP


@pytest.mark.parametrize(
    "seconds, words",
    [(61, "a minute"), (100, "2 minutes"), (89 * 60, "89 minutes"), (5400, "1.5 hours"), (50 * 3600, "50 hours")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_side_that_begins_later_does_not_count_before(pipe):
    edges = {"image_guidance_start": 0.2, "image_guidance_end": 1.0, "audio_guidance_start": 0.0}
    arguments = {"num_inference_steps": 10, "audio_weight": 0.5, "audio_guidance_end": 0.9, **edges}
    pipe._num_timesteps = 10
    assert steps_of_both_sides(arguments)(pipe) == [1, 1, *[2] * 7, 1]
    pipe._num_timesteps = 4
    assert steps_of_both_sides(arguments)(pipe) == [2, 2, 2, 1], "the last steps, after a start from a picture"
    assert steps_of_both_sides({**arguments, "audio_weight": 1})(pipe) == [1] * 4


def test_all_work_is_counted(pipe, capsys, monkeypatch):
    """Steps of 3 s, decoding of a window 10 s, playing 20 s, half a second of a video 5 s, by the clock given here."""
    times = itertools.accumulate([0, 3, *[0, 15, 0, 10], *[0, 20, 0, 30], *[0, 9, 0, 5]])
    monkeypatch.setattr(forecast, "clock", lambda: next(times))
    monkeypatch.setitem(pipe.default_arguments, "width", 128)
    width, height = 128, pipe.default_arguments["height"]
    latents = torch.zeros(2, 4, height // 8, 2 * width // 8)
    say = Forecast(4, 2, lambda pipe: [1, 1, 2, 2], look=STRIP)
    for step in range(4):
        assert say(pipe, step, torch.tensor(0), {"latents": latents}) == {}
    seconds = 2 * width / 100
    total = 2 * 6 * 3 + 4 * (2 * (10 + 20) + seconds * 5 / 0.5)
    said = capsys.readouterr().err
    assert f"Making 4 samples of {seconds:.3g} s in 4 steps: about {in_words(total)}." in said


def test_short_work_is_not_announced(pipe, capsys):
    say = Forecast(1, 1, lambda pipe: [1] * 3)
    pipe("a castle", "a bell", width=64, num_inference_steps=3, callback_on_step_end=say)
    assert "Making" not in capsys.readouterr().err and say.said


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"audio": np.zeros(540 * 16000, np.float32), "audio_length_in_s": None, "width": None}, "540 s"),
        ({"audio_length_in_s": 90.5, "width": None}, "90.5 s"),
        ({"width": 6400}, "64 s"),
        ({"width": 1024}, None),
        ({"width": None}, None),
    ],
)
def test_a_minute_and_more_is_announced_before_the_first_step(pipe, capsys, arguments, said):
    say_beginning(2, length_asked(pipe, arguments))
    heard = capsys.readouterr().err
    assert f"Beginning 2 samples of {said}" in heard if said else "Beginning" not in heard


def test_both_stages_of_colorization_are_counted(colorization_pipe, capsys, monkeypatch):
    """Steps of stage I 2 s, passes of stage II 30 s a window: a picture of one window twice, and one of three once."""
    times = itertools.accumulate([0, 2, *[0, 30, 0, 40]])
    monkeypatch.setattr(forecast, "clock", lambda: next(times))
    monkeypatch.setattr(forecast, "WORTH_A_TRIAL", 1000)
    pictures = [torch.rand(3, 32, width) for width in (64, 128)]
    tries = [(to_pil(picture), 0.5, number) for picture, number in zip(pictures, (2, 1))]
    windows = {"circular": False, "window_width": 64, "window_stride": 32, "window_batch_size": 1}
    call = {"num_inference_steps": 4, "start_diffusion_step": 1, "noise_level": 50, **windows}
    colorization_pipe(
        pictures[0][None],
        "a castle",
        **call,
        num_images_per_prompt=2,
        callback_on_step_end=ColorForecast(tries, call),
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )
    total = (3 * 2 + 4 * 30) * (2 + 3) / 2
    said = capsys.readouterr().err
    assert f"Making 3 colour pictures in 4 steps of each stage: about {in_words(total)}." in said


def to_pil(picture):
    import PIL.Image

    return PIL.Image.fromarray(picture.permute(1, 2, 0).mul(255).byte().numpy())
