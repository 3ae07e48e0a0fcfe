import numpy as np
import pytest

from training.open_world import material, pictures, sounds, squares
from training.open_world.vocabulary import PICTURES, SOUNDS, article, one_and_many


@pytest.fixture
def drawings(monkeypatch):
    """Every drawing is a white disc that fills half of its box."""
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]
    disc = np.stack([*np.full((3, 32, 32), 255), np.where(rows**2 + columns**2 < 0.5, 255, 0)]).astype(np.uint8)
    icons = {icon for entry in PICTURES.values() for icon in entry["icons"]}
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
    assert len(PICTURES) >= 460 and len(SOUNDS) == 100
    assert all(entry["words"] and entry["icons"] for entry in PICTURES.values())
    assert all("synthesised" in entry or entry["words"] for entry in SOUNDS.values())
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


def test_a_drawing_fills_nine_tenths_of_its_square_and_stands_in_the_middle(drawings):
    square = pictures.draw_picture("owl")
    assert square.shape == (256, 256) and square.dtype == np.uint8 and square.max() == 255 and square[0, 0] == 0
    rows, columns = np.nonzero(square > 128)
    for places in (rows, columns):
        assert np.ptp(places) + 1 == pytest.approx(0.9 * 256, abs=4)
        assert (places.max() + places.min()) / 2 == pytest.approx(127.5, abs=2)


def test_wild_squares_repeat_and_differ(drawings):
    first, again, other = (pictures.draw_wild(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (256, 256) and first.dtype == np.uint8 and first.max() >= 140


def test_every_word_of_the_vocabulary_reaches_prompts():
    for name in ("castle", "water lily", "wolf"):
        generator = np.random.default_rng(0)
        said = {pictures.describe_picture(name, generator) for _ in range(400)}
        for word in PICTURES[name]["words"]:
            one, many = one_and_many(word)
            assert any(one in prompt for prompt in said) and any(many in prompt for prompt in said)
        assert any(prompt.endswith("grayscale") for prompt in said)


@pytest.mark.parametrize("key", [57, 60, 63])
def test_notes_between_the_rendered_ones_have_their_pitch(notes, key):
    audio = sounds._note(0, key, [55, 59, 63], 1.0)
    spectrum = np.abs(np.fft.rfft(audio[:16000] * np.hanning(16000)))
    assert spectrum.argmax() == pytest.approx(440 * 2 ** ((key - 69) / 12), abs=1.5)


def test_every_sound_is_made_and_worded(notes):
    for name in SOUNDS:
        audio, attributes = sounds.make_sound(name, len(name) % sounds.VARIANTS)
        assert audio.shape == (40960,) and audio.dtype == np.float32
        assert np.abs(audio).max() == pytest.approx(0.95, abs=1e-3) and abs(audio[-1]) < 1e-6
        label = {"name": name, "attributes": attributes}
        assert squares.describe("sound", label, np.random.default_rng(0)).strip()


def test_sounds_begin_early_and_repeat(notes):
    for variant in range(sounds.VARIANTS):
        audio, attributes = sounds.make_sound("violin", variant)
        assert np.flatnonzero(np.abs(audio) > 0.05)[0] < 0.1 * 16000
        assert (attributes["figure"], attributes["pitch"], attributes["speed"]) == sounds.MUSIC[variant]
        assert np.array_equal(audio, sounds.make_sound("violin", variant)[0])


def test_a_note_is_where_its_frequency_belongs_in_its_square(notes):
    """Rows of a square are mel filters, whose centres `librosa`'s formula gives: linear below 1 kHz."""
    audio, _ = sounds.make_sound("violin", 0)
    frequency = np.abs(np.fft.rfft(audio[1600:17600] * np.hanning(16000))).argmax()
    pixels, _ = squares.sound_square("violin", 0)
    assert pixels.shape == (256, 256) and pixels.dtype == np.uint8
    mel = frequency * 3 / 200 if frequency < 1000 else 15 + np.log(frequency / 1000) * 27 / np.log(6.4)
    highest = 15 + np.log(8) * 27 / np.log(6.4)
    row = 255 - pixels[:, 60:100].astype(int).sum(axis=1).argmax()
    assert row == pytest.approx(mel / highest * 257 - 1, abs=1.5)


def test_scales_rise():
    rising = sounds._offsets("rising scale", np.random.default_rng(0), 2.0, 0.3)
    assert rising == sorted(set(rising)) and len(rising) > 3


def test_squares_are_drawn_once(drawings, notes, tmp_path):
    first = squares.make_squares(tmp_path, 5, ("wild", "fresh sound"))
    assert first["wild"].pixels.shape == first["fresh sound"].pixels.shape == (5, 256, 256)
    assert first["fresh sound"].labels[2]["name"] == list(SOUNDS)[2]
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = squares.make_squares(tmp_path, 5, ("wild", "fresh sound"))
    assert all(np.array_equal(first[kind].pixels, again[kind].pixels) for kind in first)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times


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
