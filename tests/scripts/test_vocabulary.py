"""What is said of words that a checkpoint does not know: nothing of others, and by its own list."""

import json

import pytest
from transformers import AutoTokenizer

from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import GENERATE_PRESETS, WORLD_PROMPTS
from images_that_sound.scripts.common.vocabulary import unknown_words


def said_of(prompt, audio_prompt, model="embedded", audio_model=None):
    return unknown_words({"prompt": prompt, "audio_prompt": audio_prompt, "model": model, "audio_model": audio_model})


def test_unknown_words_are_named_with_what_is_known():
    picture, sound = said_of("A zeppelin over my casle, grayscale", "eine Geige")
    assert "picture" in picture and "“zeppelin”, “over”, “casle” (nearest: castle" in picture
    assert picture.endswith(
        "It knows 10 pictures: castle, kitten, dog, corgi, train, tiger, garden, race, pond, horse."
    )
    assert "sound" in sound and "“eine”" in sound and "“geige”" in sound and "waves." in sound
    assert not any(f"“{word}”" in picture for word in ("a", "my", "grayscale"))


def test_a_side_knows_its_own_words_only():
    picture, sound = said_of("bell ringing", "a castle")
    assert "“bell”, “ringing”" in picture and "“castle”" in sound
    (picture,) = said_of("🐉", None)
    assert "“🐉”" in picture


def test_nothing_is_said_of_what_is_known():
    for prompt in WORLD_PROMPTS["picture"].values():
        for audio_prompt in WORLD_PROMPTS["sound"].values():
            assert said_of(prompt, audio_prompt) == []
    for preset in GENERATE_PRESETS.values():
        assert said_of(preset["prompt"], preset["audio_prompt"]) == []
    assert said_of(None, None) == said_of("", "") == []


def test_the_list_holds_whole_words_of_the_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED, subfolder="tokenizer")
    for known in json.loads((EMBEDDED / "vocabulary.json").read_text()).values():
        assert set(known["names"]) <= set(known["words"])
        assert all(tokenizer.tokenize(word) == [f"{word}</w>"] for word in known["words"])


def test_each_side_has_its_own_list(stable_diffusion_folder, tmp_path):
    other = str(stable_diffusion_folder)
    assert said_of("a dragon", "violin", other) == []
    (sound,) = said_of("a dragon", "violin", other, "embedded")
    assert "“violin”" in sound
    names = [f"thing{i}" for i in range(40)]
    (tmp_path / "vocabulary.json").write_text(json.dumps({"picture": {"names": names, "words": names}}))
    (picture,) = said_of("thing1, thingy1", None, str(tmp_path))
    assert "“thingy1” (nearest: thing1" in picture and "40 pictures, such as thing0, thing4, " in picture
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "vocabulary.json").write_text('{"picture": ["castle"]}')
    with pytest.raises(ValueError, match="`model`.*vocabulary"):
        said_of("a dragon", None, str(tmp_path / "broken"))
