"""What follows the open world's UNets, in small: scores, lines for the ControlNet, the pipeline."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.selection.clap import clap_features
from images_that_sound.selection.clip import canvas_windows
from training import open_scores
from training.open_controlnet import EMBEDDING_CHANNELS, lines_of_squares
from training.open_pipeline import known_words, open_pipeline
from training.open_world.vocabulary import PICTURES, SOUNDS


CHECKPOINTS = Path(__file__).parents[2] / "training" / "checkpoints"
TOKENIZER = CLIPTokenizer.from_pretrained(CHECKPOINTS / "tokenizer")


def test_the_loss_asks_for_a_name_and_for_its_vector():
    """Against cross entropy in its own words, with a share of 0.05 for all names alike."""
    generator = torch.Generator().manual_seed(0)
    model = open_scores.Matched(open_scores.new_clip(TOKENIZER), open_scores.embed_pictures, "logit_scale", 5)
    embeddings, rows = torch.randn(3, open_scores.PROJECTION, generator=generator), torch.tensor([4, 0, 2])
    units = [(each / each.norm(dim=1, keepdim=True)).double() for each in (embeddings, model.names.weight.detach())]
    cosines = units[0] @ units[1].T
    right = cosines[torch.arange(3), rows]
    odds = (math.exp(2.6592) * cosines).softmax(dim=1).log()
    wanted = -0.95 * odds[torch.arange(3), rows] - 0.05 * odds.mean(dim=1)
    expected = wanted.mean() + open_scores.NEAR_WEIGHT * (1 - right.mean())
    assert model.loss(embeddings, rows).item() == pytest.approx(expected.item(), rel=1e-4)


def test_squares_are_turned_as_windows_of_a_canvas_of_them_are():
    square = torch.rand(1, 64, 64)
    windows = canvas_windows(square[None].repeat(1, 1, 1, 4))[0, :, 0]
    for seed in range(5):
        (turned,) = open_scores.slid(square, torch.Generator().manual_seed(seed))
        assert any(torch.equal(turned, window) for window in windows)


def test_a_square_is_heard_as_what_is_played_of_it():
    """Chirps, against CLAP's own front end on what Griffin-Lim plays of the canvas, for all that is loud."""
    time = np.arange(40960) / 16000
    chirps = sum(np.sin(2 * np.pi * k * (300 * time + 150 * time**2)) * (time > 0.64 * k) for k in (1, 2, 3))
    canvas = MelSpectrogram().audio_to_canvas(torch.from_numpy(chirps.astype(np.float32)))
    rough = open_scores.heard_roughly(canvas)[0]
    audio = open_scores.HEARING.canvas_to_audio(canvas[:, None])
    heard = clap_features(open_scores.clap_feature_extractor(), audio.numpy(), 16000)[0, 0, : len(rough)]
    assert rough.shape == (64, 64)
    loud = heard > heard.max() - 30
    assert (heard - rough)[loud].std() < 3 and np.corrcoef(heard[loud], rough[loud])[0, 1] > 0.9


def test_canvases_hold_four_squares_of_one_sound():
    """Rows of squares that carry the number of their name and of their turn at one place each."""
    heard = torch.full((3 * len(SOUNDS), 64, 64), -200.0)
    heard[:, 0, 0] = torch.arange(len(SOUNDS)).repeat(3) / 10.0
    rows = np.array([0, 42, 99])
    canvases = open_scores.canvases_heard(heard, rows, np.random.default_rng(0))
    assert canvases.shape == (3, 1, 256, 64)
    # Four equal squares of the same name, though of different turns.
    first = canvases[:, 0, ::64, 0]
    assert (first == first[:, :1]).all() and (18 <= first).all() and (first <= 36).all()
    assert (canvases[:, 0, 1:64] == -100).all()


def test_lines_surround_what_is_filled():
    square = np.zeros((2, 256, 256), np.uint8)
    square[:, 60:200, 80:180] = 255
    packed = lines_of_squares(square)
    assert packed.shape == (2, 256, 32)
    lines = np.unpackbits(packed[0], axis=1)
    assert lines[60, 100:160].mean() > 0.9 or lines[59, 100:160].mean() > 0.9
    assert not lines[80:180, 100:160].any() and not lines[:40].any()
    assert 2 ** (len(EMBEDDING_CHANNELS) - 1) == 256 // 16


def test_the_pipeline_sees_squares_one_by_one():
    """Two squares of a canvas come from their own noise alone, until the VAE blends their border."""
    pipe = open_pipeline(CHECKPOINTS)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 12, 16, 32, generator=generator)
    arguments = {"num_inference_steps": 2, "output_type": "latent"}
    both = pipe("a castle", "a violin", width=512, latents=noise, **arguments).images
    one = pipe("a castle", "a violin", width=256, latents=noise[..., 16:], **arguments).images
    torch.testing.assert_close(both[..., 16:], one, rtol=1e-3, atol=1e-3)
    canvas = pipe.resolve_windows(pipe.resolve_size())
    assert (canvas.height, canvas.width, canvas.columns) == (256, 1024, 1024)
    assert canvas.windows.starts == canvas.audio_windows.starts == [0, 256, 512, 768]
    assert canvas.windows.batch_size == 4
    assert pipe.mel_spectrogram.num_samples(1024) / pipe.sampling_rate == pytest.approx(10.24)


def test_known_words_hold_each_word_of_the_vocabulary():
    labels = {
        "picture": [{"name": name} for name in ("wolf", "castle")],
        "sound": [{"name": "violin", "attributes": {"figure": "melody", "pitch": "high", "speed": "slow"}}],
    }
    known = known_words(labels)
    assert known["picture"]["names"] == ["wolf", "castle"] and known["sound"]["names"] == ["violin"]
    words = {part for word in PICTURES["wolf"]["words"] for each in word.split("/") for part in each.lower().split()}
    assert words < {*known["picture"]["words"]}
    assert {"violin", "melody", "slow", "high", "tune"} < {*known["sound"]["words"]}
