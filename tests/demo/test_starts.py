"""What a visitor begins with: a drawing, a picture with marks, a sound; and what is said where there is none."""

import hashlib
import io
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from images_that_sound.scripts import generate
from images_that_sound.scripts.common.sampling import complete_settings
from images_that_sound.scripts.common.values import Models, Scores


DEMO = Path(__file__).parents[2] / "demo"
CALL = ("castle towers", "bell ringing", 0.5, 3, 3, 5, 5.12, "strip", 0.6, False)


@pytest.fixture(scope="module")
def works():
    """The module that works, whose folder is no package."""
    sys.path.insert(0, str(DEMO))
    try:
        import studio

        yield studio
    finally:
        sys.path.remove(str(DEMO))
        for file in DEMO.glob("*.py"):
            sys.modules.pop(file.stem, None)


@pytest.fixture(scope="module")
def studio(works, tmp_path_factory):
    return works.Studio(Models(device="cpu"), Scores(scores=["clip"]), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def arguments(studio):
    return studio.call_arguments(*CALL)


def edited(size: tuple[int, int], box: tuple[int, int, int, int] | None) -> dict:
    """An editor's value, black with a white box painted on it."""
    layer, composite = PIL.Image.new("RGBA", size), PIL.Image.new("RGBA", size, "black")
    if box is not None:
        layer.paste("white", box)
        composite.paste("white", box)
    return {"background": PIL.Image.new("RGBA", size, "black"), "layers": [layer], "composite": composite}


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(file)))


def file_of(folder: Path, content: str) -> str:
    """A visitor's file that is no good."""
    rate, path = 16000, folder / "file.wav"
    sounds = {"silent": np.zeros(2 * rate), "faint": np.full(2 * rate, 1e-4), "short": np.ones(100)}
    if content == "text":
        path.write_text("no sound")
    elif content == "huge":
        path = folder / "file.png"
        PIL.Image.new("1", (20_000, 10_000)).save(path)
    else:
        soundfile.write(path, sounds.get(content, np.ones(11 * rate)), rate)
    return str(path)


@pytest.mark.parametrize("content", ["text", "silent", "faint", "short"])
def test_what_is_wrong_with_a_sound_is_one_calm_line(studio, tmp_path, content):
    with pytest.raises(ValueError) as error:
        studio.heard(file_of(tmp_path, content), 0, 5)
    assert_calm(str(error.value))


@pytest.mark.parametrize("content", ["text", "huge"])
def test_what_is_wrong_with_a_picture_is_one_calm_line(works, tmp_path, content):
    with pytest.raises(ValueError) as error:
        works.picture_of(file_of(tmp_path, content), False)
    assert_calm(str(error.value))


def assert_calm(text: str) -> None:
    assert "\n" not in text and "/" not in text and len(text) < 100 and text.endswith(".") and ".." not in text


def test_what_is_missing_is_asked_for(works, studio, arguments):
    picture = PIL.Image.new("RGB", (512, 128))
    for missing, said in (
        (lambda: studio.drawn(edited((1024, 256), None), arguments, "repeat"), "Draw something first."),
        (lambda: studio.drawn(None, arguments, "repeat"), "Draw something first."),
        (lambda: works.picture_of(None, False), "Choose a picture first."),
        (lambda: studio.heard(None, 0, 5), "Choose a sound or record one first."),
        (lambda: studio.chosen(picture, arguments, "repeat", edited((512, 128), None), "marked"), "Mark a part"),
        (lambda: studio.chosen(picture, arguments, "repeat", None, "unmarked"), "Mark a part"),
        (lambda: studio.chosen(picture, arguments, "repeat", edited((64, 64), (0, 0, 9, 9)), "marked"), "once more"),
    ):
        with pytest.raises(ValueError, match=said):
            missing()


def test_marks_are_a_mask_on_the_canvas(studio, arguments):
    box, picture = (10, 20, 100, 60), PIL.Image.new("RGB", (64, 64), "red")
    expected = np.zeros((128, 512), bool)
    expected[20:60, 10:100] = True
    for anew, mask in (("marked", expected), ("unmarked", ~expected)):
        files = studio.chosen(picture, arguments, "center", edited((512, 128), box), anew)
        np.testing.assert_array_equal(pixels(files["mask_image"]) > 0, mask)
        canvas = pixels(files["image"])
        assert canvas.shape == (128, 512, 3)
        assert (canvas[:, 192:320] == (255, 0, 0)).all() and not canvas[:, :192].any() and not canvas[:, 320:].any()


def test_light_and_dark_are_swapped_but_for_what_is_transparent(works, tmp_path):
    picture = PIL.Image.new("RGBA", (2, 1), (255, 200, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.save(tmp_path / "ink.png")
    swapped = works.picture_of(str(tmp_path / "ink.png"), True)
    assert swapped.getpixel((0, 0)) == (0, 55, 255) and swapped.getpixel((1, 0)) == (0, 0, 0)


def test_a_black_logo_on_transparency_becomes_light(works, tmp_path):
    logo = PIL.Image.new("RGBA", (64, 64))
    logo.paste((0, 0, 0, 255), (16, 16, 48, 48))
    logo.save(tmp_path / "logo.png")
    picture, swapped = works.drawing_of(str(tmp_path / "logo.png"), None)
    assert swapped and picture.getpixel((32, 32)) == (255, 255, 255) and picture.getpixel((2, 2)) == (0, 0, 0)
    assert not works.drawing_of(str(tmp_path / "logo.png"), False)[1]


def test_a_sound_of_its_own_length_goes_home_with_what_it_makes(studio, arguments, tmp_path):
    t = np.arange(40 * 44100) / 44100
    soundfile.write(tmp_path / "tone.flac", 0.5 * np.sin(2 * np.pi * 440 * t), 44100)
    files = studio.heard(str(tmp_path / "tone.flac"), 1, 2)
    *_, (done, steps, pictures, output) = studio.denoise(arguments, [3], files)
    assert done == steps == 3 and len(pictures) == 1
    (folder,) = studio.write(arguments, [3], files, output)
    assert soundfile.info(folder / "audio.wav").duration == pytest.approx(2, abs=0.02)
    sound, rate = soundfile.read(folder / "sound.wav")
    assert rate == 16000 and np.abs(np.fft.rfft(sound)).argmax() / 2 == pytest.approx(440, abs=1)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["audio"] == "sound.wav" and settings["strength"] == 0.6 and "audio_length_in_s" not in settings
    assert settings["sha256"] == {"sound.wav": hashlib.sha256((folder / "sound.wav").read_bytes()).hexdigest()}


def test_a_drawing_guides_what_its_settings_and_lines_of_python_make_again(works, studio, tmp_path, monkeypatch):
    arguments = studio.call_arguments("a picture", "birds singing", 0.5, 10, 10, 5, 2, "folded", 0.6, False)
    files = studio.drawn(edited((512, 512), (100, 100, 400, 112)), arguments, "repeat")
    *_, (done, steps, pictures, output) = studio.denoise(arguments, [1], files)
    assert done == steps == 5
    (folder,) = studio.write(arguments, [1], files, output)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["control_image"] == ["drawing.png"] and settings["controlnet"] == ["embedded"]
    assert list(settings["sha256"]) == ["drawing.png"] and "strength" not in settings
    made = pixels((folder / "image.png").read_bytes()).astype(int)
    generate.main(
        [
            "--params_from",
            str(folder / "settings.json"),
            "--device",
            "cpu",
            "--no-video",
            "--output_dir",
            str(tmp_path),
        ]
    )
    again = pixels((tmp_path / "seed-000001" / "image.png").read_bytes())
    assert np.abs(again - made).max() <= 1
    monkeypatch.chdir(folder)
    exec(works.as_python(settings, studio.models), {})
    np.testing.assert_array_equal(pixels(Path("image.png").read_bytes()), made)
    *_, (_, _, (without,), _) = studio.denoise(arguments, [1], {})
    assert np.abs(made - np.asarray(without)).mean() > 10


def test_scenes_that_loop_are_in_their_command_and_lines_of_python(works, studio, tmp_path, monkeypatch):
    call = ("castle towers", "bell ringing", 0.5, 10, 10, 5, 7.68, "strip", 0.6, True)
    call = works.arguments_with(studio.call_arguments(*call, scenes=[(3.84, "furry kittens", "")]), {})
    settings = {**complete_settings(studio.models, studio.pipe, call), "seed": 1, "gain_in_db": 0.0}
    assert settings["prompt"] == "castle towers; furry kittens" and settings["audio_prompt"] == "bell ringing"
    (tmp_path / "score.json").write_text(json.dumps(settings["score"]))
    monkeypatch.chdir(tmp_path)
    _, command, *options = shlex.split(works.as_command(settings))
    request = generate.parse_args(options)
    assert command == "generate" and request.recorded["score"] == settings["score"] and request.call["circular"]
    assert request.call["audio_length_in_s"] == 7.68 and request.call["prompt"] == settings["prompt"]
    lines = works.as_python(settings, studio.models).splitlines()
    assert "    prompt={0.0: 'castle towers', 3.84: 'furry kittens'}," in lines and "    circular=True," in lines


def test_a_run_is_bounded_by_the_sound_that_it_begins_with(works, studio, tmp_path):
    """Not by the length of a canvas that nobody asked for."""
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(3 * 16000)), 16000)
    files = studio.heard(str(tmp_path / "tone.wav"), 0, 3)
    asked = studio.call_arguments(*CALL[:6], 60, *CALL[7:])
    studio.check_run([1, 2, 3, 4], asked, files)
    for arguments, said in ((asked, "at most 1 attempts of 60 seconds"), ({**asked, "circular": True}, "at most 1 ")):
        with pytest.raises(ValueError, match=said):
            studio.check_run([1, 2, 3, 4], arguments, {})


def test_a_drawing_is_like_the_picture_that_follows_it(works, tmp_path):
    drawing = edited((512, 128), (50, 20, 400, 60))["composite"].convert("RGB")
    for name, box in (("same", (50, 20, 400, 60)), ("other", (420, 80, 500, 120))):
        (tmp_path / name).mkdir()
        edited((512, 128), box)["composite"].convert("RGB").save(tmp_path / name / "image.png")
    file = io.BytesIO()
    drawing.save(file, "png")
    same, other = (works._likeness(file.getvalue(), tmp_path / name) for name in ("same", "other"))
    assert same > 0.99 and other < 0.1
    # Of two, each better by one, the scores decide; one with a problem comes last.
    assert works._best_first([0.2, 0.9], [0.9, 0.2]) == [1, 0] == works._best_first([float("nan"), 0.1], [0.9, 0.2])
    assert works._best_first([0.2, 0.9], None) == [1, 0]
    assert works._best_first([0.3, 0.2, 0.1], [0.1, 0.9, 0.2]) == [1, 0, 2]


def test_scores_are_words_and_only_of_known_words(works, tmp_path):
    settings = {"prompt": "a dragon", "audio_prompt": "bell ringing", "model": "embedded", "audio_model": None}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    scores = {"clip_log_probability": -0.1, "clap_log_probability": -1.0}
    (tmp_path / "scores.json").write_text(json.dumps({"scores": scores}))
    assert works.label_of(tmp_path) == "sound unsure" and works.numbers_of(tmp_path) == "Scores: sound 37% sure."
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "prompt": "castle towers"}))
    assert works.label_of(tmp_path) == "picture clear, sound unsure"


def test_a_picture_is_hidden_where_a_sound_has_room(works, tmp_path):
    import hidden

    rate, picture = 16000, PIL.Image.new("L", (40, 40), 255)
    soundfile.write(tmp_path / "long.wav", np.zeros((hidden.MAX_SECONDS + 1) * 1000), 1000)
    sound = 0.1 * np.random.default_rng(0).standard_normal(8 * rate)
    soundfile.write(tmp_path / "noise.wav", sound, rate)
    (tmp_path / "text.m4a").write_text("no sound")
    with pytest.raises(ValueError, match="10 minutes"):
        hidden.hide(picture, tmp_path / "long.wav", 0, 0.8, tmp_path)
    with pytest.raises(ValueError, match="ends after 8.0 s"):
        hidden.hide(picture, tmp_path / "noise.wav", 7.5, 0.8, tmp_path)
    with pytest.raises(ValueError, match="can't be read as a sound"):
        hidden.hide(picture, tmp_path / "text.m4a", 0, 0.8, tmp_path)
    made = hidden.hide(picture, tmp_path / "noise.wav", 2, 0.8, tmp_path)
    written, _ = soundfile.read(made.file)
    assert len(written) == len(sound) and np.abs(written - sound)[: 2 * rate].max() < 1e-4
    assert np.abs(written - sound)[3 * rate : 6 * rate].max() > 0.01
