import re

import numpy as np
import pytest
import scipy.ndimage
import torch
from diffusers.models.embeddings import TextTimeEmbedding

from training import open_embedded
from training.controlnet import new_controlnet
from training.loop import parse_run
from training.open_world import KINDS, describe, material, pictures, sounds
from training.open_world.vocabulary import PICTURES, SOUNDS, article, one_and_many


NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


@pytest.fixture
def drawings(monkeypatch):
    """Every drawing is a white disc that fills half of its box."""
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]
    disc = np.stack([*np.full((3, 32, 32), 255), np.where(rows**2 + columns**2 < 0.5, 255, 0)]).astype(np.uint8)
    icons = {icon for entry in PICTURES.values() for icon in entry.get("icons", ())}
    monkeypatch.setattr(pictures, "load", lambda name: {f"icon/{icon}": disc for icon in icons})


@pytest.fixture
def notes(monkeypatch):
    """Every note is a sine of its key's frequency, every other sound a click."""
    time = np.arange(2 * 16000) / 16000

    class Sounds(dict):
        def __missing__(self, name):
            if name.startswith("note/"):
                frequency = 440 * 2 ** ((int(name.split("/")[2]) - 69) / 12)
                return np.round(20000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)
            return np.round(20000 * np.exp(-np.arange(1600) / 100)).astype(np.int16)

    monkeypatch.setattr(sounds, "load", lambda name: Sounds())


def test_the_vocabulary_is_large_and_complete():
    assert len(PICTURES) >= 400 and len(SOUNDS) >= 60
    assert all(entry["words"] and ("icons" in entry or "drawn" in entry) for entry in PICTURES.values())
    assert all("synthesised" in entry or entry["words"] for entry in SOUNDS.values())
    drawn = {entry["drawn"] for entry in PICTURES.values() if "drawn" in entry}
    assert drawn == set(pictures.drawn_world.SUBJECTS)
    assert {name for name in SOUNDS if "synthesised" in SOUNDS[name]} == set(sounds.synthesised_world.SOUNDS)


def test_the_words_of_a_picture_name_nothing_else():
    owners = {}
    for name, entry in PICTURES.items():
        for word in entry["words"]:
            assert owners.setdefault(one_and_many(word)[0].lower(), name) == name, word


@pytest.mark.parametrize(
    "word, plural",
    [("owl", "owls"), ("fox", "foxes"), ("witch", "witches"), ("fairy", "fairies"), ("monkey", "monkeys"),
     ("wolf/wolves", "wolves"), ("fish/fish", "fish")],
)  # fmt: skip
def test_plurals(word, plural):
    assert one_and_many(word) == (word.split("/")[0], plural)


@pytest.mark.parametrize(
    "words", ["an owl", "a unicorn", "an umbrella", "an hourglass", "a house", "an urn", "an unhappy face", "a UFO"]
)
def test_articles(words):
    assert article(words.split(maxsplit=1)[1]) == words


def test_as_many_things_are_drawn_as_the_prompt_says(drawings):
    told = 0
    for index in range(300):
        generator = np.random.default_rng(index)
        picture, attributes = pictures.draw_picture("owl", generator)
        assert picture.shape == (128, 512) and picture.dtype == np.uint8
        ground = np.bincount(picture.ravel()).argmax()
        _, count = scipy.ndimage.label(np.abs(picture.astype(int) - ground) > 40)
        assert count == attributes["count"] == len(attributes["centers"])
        prompt = pictures.describe_picture("owl", attributes, generator)
        assert "owl" in prompt
        number = re.search(r"\b(two|three|four|five|six)\b", prompt)
        if number:
            told += 1
            assert NUMBERS[number.group()] == count
    assert told > 20


def test_places_and_grounds_are_where_the_prompt_says(drawings):
    seen = set()
    for index in range(400):
        generator = np.random.default_rng(index)
        picture, attributes = pictures.draw_picture("owl", generator)
        if attributes["layout"] == "one":
            ground = np.bincount(picture.ravel()).argmax()
            columns = np.nonzero((np.abs(picture.astype(int) - ground) > 40).any(axis=0))[0]
            middle = columns.mean() / 512
            assert {"left": middle < 0.35, "center": 0.35 < middle < 0.65, "right": middle > 0.65}[attributes["place"]]
            assert {"black": ground < 10, "dark": 15 < ground < 65, "white": ground > 230}[attributes["ground"]]
            seen |= {attributes["place"], attributes["ground"]}
    assert seen == {"left", "center", "right", "black", "dark", "white"}


def test_two_kinds_of_things_are_both_named(drawings):
    found = 0
    for index in range(200):
        generator = np.random.default_rng(index)
        _, attributes = pictures.draw_picture("owl", generator)
        if "other" in attributes:
            found += 1
            words = {form for word in PICTURES[attributes["other"]]["words"] for form in one_and_many(word)}
            prompt = pictures.describe_picture("owl", attributes, generator)
            assert "owl" in prompt and any(word in prompt for word in words)
    assert found > 20


def test_a_picture_in_colour_is_the_gray_one_in_colour(drawings):
    colorful = 0
    for index in range(20):
        gray, told = pictures.draw_picture("tiger", np.random.default_rng(index))
        colors, retold = pictures.draw_picture("tiger", np.random.default_rng(index), colored=True)
        assert colors.shape == (128, 512, 3) and told == retold
        assert np.abs(colors.mean(axis=2) - gray).max() <= 2
        colorful += np.ptp(colors, axis=2).max() > 40
    assert colorful > 10


def test_draws_repeat(drawings, notes):
    for make, name in ((pictures.draw_picture, "dragon"), (sounds.make_sound, "violin")):
        (one, told), (other, retold) = (make(name, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(one, other) and told == retold


def test_a_square_shows_the_thing_that_its_label_names():
    """Latents hold the number of the thing in each column: two kinds of things in turns."""
    latents = torch.zeros(1, 1, 16, 64)
    for thing, center in enumerate((8, 24, 40, 56)):
        latents[..., center - 8 : center + 8] = thing % 2 + 1
    attributes = {"layout": "turns", "count": 4, "other": "fox", "centers": [8 / 64, 24 / 64, 40 / 64, 56 / 64]}
    labels = [{"name": "owl", "attributes": attributes}]
    crops, shown = open_embedded.squares(latents, labels, np.zeros(50, int), np.random.default_rng(0))
    assert crops.shape == (50, 1, 16, 16)
    for crop, label in zip(crops, shown, strict=True):
        assert {1: "owl", 2: "fox"}[int(crop.median())] == label["name"]
        assert "other" not in label["attributes"]
    assert {label["name"] for label in shown} == {"owl", "fox"}


@pytest.fixture
def pooling():
    return TextTimeEmbedding(open_embedded.TEXT_WIDTH, open_embedded.POOLED_WIDTH, open_embedded.POOLING_HEADS)


@pytest.fixture
def unet(pooling):
    run = parse_run("", ["--output_dir", "unused"], work_dir="unused", num_draws=1, batch_size=1, steps={})
    return open_embedded.new_unet(run, pooling)


def test_a_controlnet_begins_as_the_unet(unet):
    controlnet = new_controlnet(unet)
    prompts = torch.randn(1, 8, open_embedded.TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(controlnet.add_embedding(prompts), unet.add_embedding(prompts))
    assert torch.equal(controlnet.conv_in.weight, unet.conv_in.weight)


def test_an_untrained_unet_predicts_its_input_and_pools_as_the_text_encoder_learned_to(pooling, unet):
    latents = torch.randn(2, 4, 16, 64, generator=torch.Generator().manual_seed(0))
    embeddings = torch.randn(2, 8, open_embedded.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))
    assert torch.equal(unet.add_embedding(embeddings), pooling(embeddings))
    predicted = unet(latents, torch.tensor([20, 980]), embeddings).sample
    assert (predicted - latents).square().mean() < 1e-3
    predicted.square().sum().backward()
    assert unet.conv_out.weight.grad.abs().amin(dim=(0, 2, 3)).gt(0).all()


@pytest.mark.parametrize("key", [57, 60, 63])
def test_notes_between_the_rendered_ones_have_their_pitch(notes, key):
    audio = sounds._note(0, key, [55, 59, 63], 1.0)
    spectrum = np.abs(np.fft.rfft(audio[:16000] * np.hanning(16000)))
    assert spectrum.argmax() == pytest.approx(440 * 2 ** ((key - 69) / 12), abs=1.5)


def test_every_sound_is_made_and_worded(notes):
    for name in SOUNDS:
        generator = np.random.default_rng(len(name))
        audio, attributes = sounds.make_sound(name, generator)
        assert audio.shape == (81920,) and audio.dtype == np.float32
        assert np.abs(audio).max() == pytest.approx(0.95, abs=1e-3)
        assert describe("sound", {"name": name, "attributes": attributes}, generator).strip()


def test_scales_rise_and_fall():
    generator = np.random.default_rng(0)
    rising = sounds._offsets("rising scale", generator, 2.0, 0.3)
    assert rising == sorted(set(rising)) and len(rising) > 3
    falling = sounds._offsets("falling scale", generator, 2.0, 0.3)
    assert falling == sorted(set(falling), reverse=True)


def test_facts_tell_what_prompts_may_tell(drawings):
    _, attributes = pictures.draw_picture("owl", np.random.default_rng(3))
    facts = open_embedded.facts("picture", {"name": "owl", "attributes": attributes})
    assert facts["picture.name"] == "owl" and facts["picture.ground"] == attributes["ground"]
    assert all(isinstance(value, str) for value in facts.values())
    assert set(KINDS) == {"picture", "sound"}


def test_known_words_are_those_of_the_prompts():
    attributes = {"layout": "row", "count": 3, "size": "medium", "style": "icon", "ground": "black", "tone": "soft"}
    labels = [{"name": "owl", "attributes": attributes}] * 40
    words = open_embedded.known_words({"picture": (None, labels)}, KINDS, describe)["picture"]["words"]
    assert {"owls", "three", "row", "grayscale"} <= set(words) and "dragon" not in words and "" not in words


def test_icons_become_svg_files():
    icons = {
        "icons": {"dot": {"body": '<circle fill="currentColor" r="4"/>'}},
        "aliases": {"point": {"parent": "dot"}},
        "width": 32,
        "height": 24,
    }
    for name in ("dot", "point"):
        text = material.svg(icons, name)
        assert 'viewBox="0 0 32 24"' in text and 'fill="#fff"' in text
    assert material.svg(icons, "line") is None


@pytest.mark.parametrize(
    "number, expected", [(0, "00"), (0x7F, "7f"), (0x80, "8100"), (0x3FFF, "ff7f"), (0x200000, "81808000")]
)
def test_lengths_are_written_as_in_the_midi_specification(number, expected):
    assert material._variable_length(number).hex() == expected


def test_a_midi_file_says_its_own_length():
    content = material.midi_file(0, 40, [60, 64])
    assert content[:4] == b"MThd" and content[14:18] == b"MTrk"
    assert int.from_bytes(content[18:22], "big") == len(content) - 22
    assert bytes([0xC0, 40]) in content and bytes([0x90, 64, 100]) in content and content.endswith(b"\xff\x2f\x00")
