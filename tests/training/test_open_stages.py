"""What follows the open world's UNets, in small: scores, lines for the ControlNet, the pipeline."""

import math

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.selection import CLIPScore
from images_that_sound.selection.clip import canvas_windows
from training import open_scores
from training.loop import parse_run
from training.open_controlnet import EMBEDDING_CHANNELS, lines_of_squares
from training.open_world.squares import Squares
from training.open_world.vocabulary import SOUNDS


@pytest.fixture
def data() -> dict[str, Squares]:
    """Three pictures, a wild square and two sounds: bars in different rows."""
    squares = {}
    for kind, names in (
        ("picture", ("castle", "owl", "anchor")),
        ("wild", ("wild",)),
        ("sound", ("violin", "flute")),
        ("fresh sound", ("violin",)),
    ):
        pixels = np.zeros((len(names), 256, 256), np.uint8)
        for i, square in enumerate(pixels):
            top = 20 + 60 * i + 15 * len(kind) % 40
            square[top : top + 30, 30:220] = 255
        squares[kind] = Squares(pixels, [{"name": name, "attributes": {}} for name in names])
    return squares


def run_of(folder, **numbers):
    values = [f"--{name}={value}" for name, value in numbers.items()]
    arguments = [f"--output_dir={folder}", f"--work_dir={folder}", *values]
    return parse_run("", arguments, work_dir="", num_draws=1, batch_size=8, steps={"clip": 30})


def test_clip_learns_names_of_pictures_and_of_prompts(data, tmp_path):
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    model, processor, found = open_scores.train_clip(run_of(tmp_path, clip_steps=60), data, tokenizer)
    assert found["clean"]["top 1"]["share"] > 0.9 and found["clean"]["top 1"]["total"] == 500
    score = CLIPScore(model, processor)
    canvases = torch.from_numpy(data["picture"].pixels)[:, None].repeat(1, 1, 1, 4) / 255
    cosines = score.embed_canvases(canvases).mean(dim=1) @ score.embed_prompts(["castle", "an owl", "the anchor"]).T
    assert cosines.argmax(dim=1).tolist() == [0, 1, 2]


def test_squares_are_turned_as_windows_of_a_canvas_of_them_are():
    square = torch.rand(1, 64, 64)
    windows = canvas_windows(square[None].repeat(1, 1, 1, 4))[0, :, 0]
    for seed in range(5):
        (turned,) = open_scores.slid(square, torch.Generator().manual_seed(seed))
        assert any(torch.equal(turned, window) for window in windows)


def test_a_square_is_heard_at_its_pitch_and_time():
    """A tone of 1 kHz in the second half: CLAP's filters are even on the mel scale 2595 log10(1 + f / 700)."""
    time = np.arange(40960) / 16000
    tone = torch.from_numpy((0.9 * np.sin(2000 * np.pi * time) * (time > 1.28)).astype(np.float32))
    heard = open_scores.hear(MelSpectrogram().audio_to_canvas(tone)[0]).float()
    assert heard.shape == (64, 64)
    highest = math.log10(1 + 8000 / 700)
    expected = math.log10(1 + 1000 / 700) / highest * 65 - 1
    assert int(heard[40:60].mean(dim=0).argmax()) == pytest.approx(expected, abs=1)
    assert heard[40:60].max() > heard[5:25].max() + 20


def test_canvases_hold_four_squares_of_one_sound():
    """Squares carry the number of their name."""
    heard = torch.arange(len(SOUNDS)).repeat(3)[:, None, None].expand(-1, 64, 64).half()
    rows = np.array([0, 42, 99])
    canvases = open_scores.canvases_heard(heard, rows, np.random.default_rng(0))
    assert canvases.shape == (3, 1, 256, 64)
    assert (canvases.amax(dim=(1, 2, 3)) - torch.from_numpy(rows)).abs().max() <= 6


def test_lines_surround_what_is_filled():
    square = np.zeros((2, 256, 256), np.uint8)
    square[:, 60:200, 80:180] = 255
    packed = lines_of_squares(square)
    assert packed.shape == (2, 256, 32)
    lines = np.unpackbits(packed[0], axis=1)
    assert lines[60, 100:160].mean() > 0.9 or lines[59, 100:160].mean() > 0.9
    assert not lines[80:180, 100:160].any() and not lines[:40].any()
    assert 2 ** (len(EMBEDDING_CHANNELS) - 1) == 256 // 16
