"""CLAP's score against the published formula, through the model itself."""

import numpy as np
import pytest
import scipy.signal
import torch

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import CLAPScore
from training.world import make_sound


@pytest.fixture(scope="module")
def clap() -> CLAPScore:
    return CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32)


def noise(seconds: float, count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, round(16000 * seconds))).astype(np.float32)


def test_score_is_the_published_formula(clap):
    audios, prompts = noise(2, 2), ["bell ringing", "dog barking"]
    scores = clap(audios, 16000, prompts)
    for audio, prompt, score in zip(audios, prompts, scores):
        resampled = scipy.signal.resample_poly(audio, 3, 1)
        resampled = resampled / np.abs(resampled).max()
        inputs = clap.processor(text=[prompt], audio=[resampled], sampling_rate=48000, return_tensors="pt")
        with torch.no_grad():
            output = clap.model(**inputs)
        cosine = (output.audio_embeds @ output.text_embeds.T).item()
        assert score.item() == pytest.approx(max(cosine, 0), abs=1e-5)


def test_log_probability_is_that_of_the_own_prompt_among_others(clap):
    audios, others = noise(1, 2), ["dog barking", "ocean waves", "a train whistling"]
    scores, log_probabilities = clap.with_log_probabilities(audios, 16000, ["bell ringing", "dog barking"], others)
    torch.testing.assert_close(scores, clap(audios, 16000, ["bell ringing", "dog barking"]), atol=1e-6, rtol=0)
    for audio, bank, found in zip(audios, (["bell ringing", *others], others), log_probabilities.tolist()):
        cosines = (clap.embed_audios(audio[None], 16000) @ clap.embed_prompts(bank).T)[0].numpy()
        odds = np.exp(np.exp(clap.model.logit_scale_a.item()) * cosines)
        assert found == pytest.approx(np.log(odds[0] / odds.sum()), abs=1e-4)


def test_long_sounds_are_heard_in_pieces_from_beginning_to_end(clap):
    audios = np.concatenate([noise(8), np.sin(np.arange(17 * 16000) / 9)[None]], axis=1, dtype=np.float32)
    resampled = scipy.signal.resample_poly(audios, 3, 1, axis=1)
    resampled /= np.abs(resampled).max()
    pieces = [resampled[0, start : start + 480000] for start in (0, 360000, 720000)]
    inputs = clap.processor(text=["bell ringing"], audio=pieces, sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        output = clap.model(**inputs)
    cosines = (output.audio_embeds @ output.text_embeds.T)[:, 0]
    assert clap(audios, 16000, ["bell ringing"]).item() == pytest.approx(cosines.mean().clamp(min=0).item(), abs=1e-5)
    assert cosines.std() > 0.01, "each piece counts"


def test_what_exceeds_a_single_piece_by_little_is_left_out_the_same_way_every_time(clap):
    audios = noise(10.24)
    np.random.seed(0)
    first = clap(audios, 16000, ["bell ringing"])
    np.random.seed(1)
    assert torch.equal(clap(audios, 16000, ["bell ringing"]), first)
    beginning = scipy.signal.resample_poly(audios, 3, 1, axis=1)[:, :480000]
    assert torch.equal(clap(beginning, 48000, ["bell ringing"]), first)


def test_loudness_does_not_count(clap):
    audios = noise(1)
    torch.testing.assert_close(
        clap(0.1 * audios, 16000, ["bell ringing"]), clap(audios, 16000, ["bell ringing"]), atol=1e-4, rtol=0
    )


def test_silence_has_a_score_and_what_is_not_finite_has_none(clap):
    audios = np.zeros((2, 16000), np.float32)
    audios[1, 5] = np.nan
    scores = clap(audios, 16000, ["bell ringing"] * 2)
    assert scores[0].isfinite() and scores[1].isnan()


def test_score_does_not_depend_on_the_batch(clap):
    clap.batch_size, audios = 2, noise(1, 5)
    together = clap(audios, 16000, ["bell ringing"] * 5)
    alone = torch.cat([clap(audio[None], 16000, ["bell ringing"]) for audio in audios])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_as_many_prompts_as_sounds(clap):
    with pytest.raises(ValueError, match="`prompts` has to hold 1, one per sound, but holds 2"):
        clap(noise(1), 16000, ["bell ringing"] * 2)


def test_embedded_clap_tells_fresh_sounds_apart(clap):
    """The card's measurement in small: 60 draws of a seed that nothing was trained on."""
    generator, right = np.random.default_rng([104, 1]), 0
    names = list(WORLD_PROMPTS["sound"])
    prompts = clap.embed_prompts(list(WORLD_PROMPTS["sound"].values()))
    for i in range(60):
        audio, _ = make_sound(names[i % 10], generator)
        right += int((clap.embed_audios(audio[None], 16000) @ prompts.T).argmax()) == i % 10
    assert right >= 54
