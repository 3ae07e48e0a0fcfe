"""The drawn and synthesised world: seeded, in range, and described in words that are true of it."""

import numpy as np
import pytest

from images_that_sound.scripts.common.presets import GENERATE_PRESETS
from images_that_sound.scripts.common.vocabulary import unknown_words
from training.world import (
    SOUNDS,
    SUBJECTS,
    describe_picture,
    describe_sound,
    draw_picture,
    make_sound,
)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_pictures_are_seeded_varied_and_visible(subject):
    pictures = [np.asarray(draw_picture(subject, np.random.default_rng(seed))[0]) for seed in (0, 0, 1, 2)]
    assert pictures[0].shape == (128, 512) and pictures[0].dtype == np.uint8
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2]) and not np.array_equal(pictures[2], pictures[3])
    for picture in pictures:
        assert np.ptp(picture.astype(int)) >= 70


@pytest.mark.parametrize("subject", SUBJECTS)
def test_colored_pictures_are_the_gray_ones_in_color(subject):
    for seed in range(8):
        gray, attributes = draw_picture(subject, np.random.default_rng(seed))
        colored, same = draw_picture(subject, np.random.default_rng(seed), colored=True)
        assert colored.mode == "RGB" and attributes == same
        pixels = np.asarray(colored).astype(float)
        difference = np.abs(pixels.mean(axis=2) - np.asarray(gray))
        assert np.quantile(difference, 0.99) <= 2
        assert np.ptp(pixels, axis=2).max() > 40


@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_are_seeded_varied_and_audible(sound):
    sounds = [make_sound(sound, np.random.default_rng(seed), length_in_s=1.28)[0] for seed in (0, 0, 1)]
    assert sounds[0].shape == (20480,) and sounds[0].dtype == np.float32
    assert np.array_equal(sounds[0], sounds[1]) and not np.array_equal(sounds[1], sounds[2])
    for audio in sounds:
        assert np.abs(audio).max() == pytest.approx(0.95, abs=1e-4)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="`subject`.*unicorn.*castle"):
        draw_picture("unicorn", np.random.default_rng(0))
    with pytest.raises(ValueError, match="`sound`.*silence.*bell"):
        make_sound("silence", np.random.default_rng(0))


def wordings(names: tuple[str, ...], make, describe, count: int) -> set[str]:
    generator = np.random.default_rng(0)
    drawn = [(name, make(name, generator)[1]) for name in names for _ in range(count)]
    return {describe(name, attributes, generator) for name, attributes in drawn for _ in range(20)}


def test_the_published_prompts_are_part_of_the_language():
    pictures = wordings(SUBJECTS, draw_picture, describe_picture, 60)
    sounds = wordings(SOUNDS, make_sound, describe_sound, 20)
    prompts = pictures | sounds
    for preset in GENERATE_PRESETS.values():
        assert preset["prompt"] in prompts and preset["audio_prompt"] in prompts
    assert len(prompts) > 2000, "prompts are to be read and not looked up"
    every_word = {"prompt": " ".join(pictures), "audio_prompt": " ".join(sounds)}
    assert unknown_words({**every_word, "model": "embedded", "audio_model": None}) == []


def test_words_are_true_of_the_drawing():
    generator = np.random.default_rng(0)
    for _ in range(200):
        picture, attributes = draw_picture("castle", generator)
        prompt = describe_picture("castle", attributes, generator)
        ground = np.median(np.asarray(picture)[: picture.height // 8])
        if "black background" in prompt:
            assert ground < 32
        if "light background" in prompt:
            assert ground > 128
