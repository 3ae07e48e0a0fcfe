"""Training of a vocoder in small: what it learns from, what it is told, and what comes out."""

import json

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import SpeechT5HifiGan

from images_that_sound.pipelines.images_that_sound_audio_prior import check_vocoder
from training.vocoder import CROP_WIDTH, MARGIN, crop_sounds, distance, draw_for_vocoder, new_vocoder, save_vocoder
from training.world import SPECTROGRAM


def test_crops_of_a_sound_are_what_its_whole_canvas_shows():
    sound, _, _ = draw_for_vocoder("sound", 0, 3)
    whole = SPECTROGRAM.audio_to_log_mel(torch.from_numpy(sound / np.float32(32767)))
    audio, crops = crop_sounds(sound[None], np.random.default_rng(0), 2)
    assert audio.shape == (2, SPECTROGRAM.num_samples(CROP_WIDTH))
    windows = whole[:, MARGIN : whole.shape[-1] - MARGIN].unfold(1, CROP_WIDTH, 1).transpose(0, 1)
    for crop in crops:
        assert (windows - crop).abs().amax(dim=(1, 2)).min() < 1e-3


def test_a_sound_may_be_quieter_as_a_whole_where_its_canvas_is_too_loud_but_never_louder():
    log_mel = torch.randn(1, 128, CROP_WIDTH, generator=torch.Generator().manual_seed(0))
    assert distance(log_mel - 2, log_mel, any_gain=True) < 1e-5
    for heard, any_gain in ((log_mel - 2, False), (log_mel + 2, True)):
        torch.testing.assert_close(distance(heard, log_mel, any_gain), torch.tensor(2.0))


def test_the_vocoder_fits_the_canvas_and_is_saved_in_three_megabytes_that_load_as_float32(tmp_path):
    vocoder = new_vocoder(torch.randn(2, 128, 16))
    check_vocoder(vocoder, SPECTROGRAM)
    save_vocoder(vocoder, tmp_path)
    file = tmp_path / "model.safetensors"
    assert file.stat().st_size <= 3e6
    assert {weights.dtype for weights in load_file(file).values()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    loaded = SpeechT5HifiGan.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        played = SPECTROGRAM.canvas_to_audio(torch.rand(2, 1, 128, 20), loaded)
    assert played.shape == (2, SPECTROGRAM.num_samples(20)) and played.dtype == torch.float32
