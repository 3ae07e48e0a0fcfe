"""Pictures to sounds, sounds to pictures, and whether a sample's two agree."""

import json

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
import torch

from images_that_sound.pipelines import SPECTROGRAMS, MelSpectrogram, fold_canvas
from images_that_sound.scripts import check, play, see
from images_that_sound.scripts.common.canvases import heard_canvas
from images_that_sound.scripts.common.samples import read_settings, write_picture, write_sample
from images_that_sound.scripts.common.spectrograms import BOTTOM, LEFT, RIGHT, TOP


MEL = MelSpectrogram(num_mel_bins=64)


def chirp(seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.9 * np.sin(2 * np.pi * (400 * time + 1200 * time**2))).astype(np.float32)


def canvas_picture(mel: MelSpectrogram = MEL, sound: np.ndarray | None = None) -> PIL.Image.Image:
    canvas = mel.audio_to_canvas(torch.from_numpy(chirp() if sound is None else sound))[0]
    return PIL.Image.fromarray(canvas.mul(255).round().byte().numpy())


def sample(folder, audio: np.ndarray, **settings) -> None:
    picture = canvas_picture()
    settings = {"prompt": "a line", "audio_prompt": "a chirp", "spectrogram": MEL.to_dict(), **settings}
    write_sample(folder, picture, picture, audio, 16000, settings)


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(np.asarray(first, float).ravel(), np.asarray(second, float).ravel())[0, 1])


def test_check_tells_a_true_sound_from_a_wrong_one(tmp_path, capsys):
    sample(tmp_path / "true", chirp())
    sample(tmp_path / "wrong", chirp()[::-1].copy())
    check.main(["--sample_dir", str(tmp_path)])

    numbers = {name: json.loads((tmp_path / name / "check.json").read_text()) for name in ("true", "wrong")}
    canvas = torch.from_numpy(np.asarray(canvas_picture(), np.float32) / 255)[None, None]
    unlevelled = heard_canvas(canvas, torch.from_numpy(chirp()), MEL)[1]
    assert numbers["true"]["saved sound"] == pytest.approx(unlevelled, rel=0.02)
    assert set(numbers["true"]) == {"saved sound", "Griffin-Lim"}
    assert numbers["true"]["saved sound"]["correlation"] > 0.95
    assert numbers["true"]["Griffin-Lim"]["correlation"] > 0.8
    assert numbers["wrong"]["saved sound"]["correlation"] < 0.7
    true, wrong = (numbers[name]["saved sound"]["log_mel_distance_in_db"] for name in ("true", "wrong"))
    assert true < 5 < wrong
    table = capsys.readouterr().out
    assert "true" in table and "wrong" in table and f"{true:.1f}" in table
    sheet = PIL.Image.open(tmp_path / "true" / "check.png")
    assert sheet.size == (360, 3 * (64 + 24))
    assert similarity(np.asarray(sheet)[24:88, :100], canvas_picture()) > 0.999


def test_check_rebuilds_by_the_vocoder_that_is_named(tmp_path, pipe, auffusion_folder, capsys):
    mel = MelSpectrogram()
    picture = canvas_picture(mel)
    canvas = torch.from_numpy(np.asarray(picture, np.float32) / 255)[None, None]
    with torch.no_grad():
        audio = mel.canvas_to_audio(canvas, pipe.vocoder)[0].numpy()
    settings = {"prompt": "p", "audio_prompt": "a", "spectrogram": mel.to_dict(), "audio_model": str(auffusion_folder)}
    write_sample(tmp_path / "sample", picture, picture, audio, 16000, settings)
    check.main(["--sample_dir", str(tmp_path)])
    assert f"name it by --vocoder {auffusion_folder}" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "sample" / "check.json").read_text())) == {"saved sound", "Griffin-Lim"}
    check.main(["--sample_dir", str(tmp_path), "--vocoder", str(auffusion_folder)])
    numbers = json.loads((tmp_path / "sample" / "check.json").read_text())
    assert set(numbers) == {"saved sound", "vocoder", "magnitude with the vocoder's phase", "Griffin-Lim"}
    assert numbers["vocoder"]["correlation"] == pytest.approx(numbers["saved sound"]["correlation"], abs=0.05)
    phase, vocoder = (numbers[name]["correlation"] for name in ("magnitude with the vocoder's phase", "vocoder"))
    assert phase > vocoder, "random weights paint another magnitude, which the canvas's own replaces"


def test_phases_of_the_true_sound_give_it_back():
    audio = torch.from_numpy(chirp())[None]
    mel = MelSpectrogram(num_mel_bins=256)
    rebuilt = mel.griffin_lim(mel.audio_to_log_mel(audio), 0, phases_of=audio)
    assert similarity(rebuilt[0, 800:-800], audio[0, 800:-800]) > 0.97


def test_see_and_play_are_inverse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "chirp.wav", np.stack([chirp(1, 22050), chirp(1, 22050)], axis=1), 22050)
    see.main([str(tmp_path / "chirp.wav")])
    picture = PIL.Image.open(tmp_path / "chirp.png")
    assert picture.size == (100, 256) and picture.mode == "L"
    assert MelSpectrogram.from_dict(read_settings(tmp_path / "chirp.png")["spectrogram"]) == MelSpectrogram()
    expected = MelSpectrogram().audio_to_canvas(torch.from_numpy(chirp()))[0]
    assert similarity(picture, expected) > 0.96, "but for the noise of 16 bits"

    play.main(["--no-video", str(tmp_path / "chirp.png"), "--output", str(tmp_path / "again.wav")])
    audio, rate = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert rate == 16000 and len(audio) == 16000
    canvas = torch.from_numpy(np.asarray(picture, np.float32) / 255)[None, None]
    gain = read_settings(tmp_path / "again.wav")["gain_in_db"]
    played = MelSpectrogram().canvas_to_audio(canvas)[0].numpy()
    np.testing.assert_allclose(audio / 10 ** (gain / 20), played, atol=1e-4)
    assert gain < -10, "a tone of full scale is louder than most"
    heard = MelSpectrogram().audio_to_canvas(torch.from_numpy(audio))[0]
    assert similarity(heard, expected) > 0.8


def test_any_picture_and_any_sound_by_either_scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "chirp.wav", chirp(1, 44100), 44100)
    see.main([str(tmp_path / "chirp.wav"), "--spectrogram", "riffusion"])
    picture = PIL.Image.open(tmp_path / "chirp.png")
    assert picture.size == (101, 512)
    assert MelSpectrogram.from_dict(read_settings(tmp_path / "chirp.png")["spectrogram"]) == SPECTROGRAMS["riffusion"]
    assert np.median(picture) > 150 and np.min(picture) == 0, "black on white"

    play.main(["--no-video", str(tmp_path / "chirp.png"), "--output", str(tmp_path / "again.wav")])
    audio, rate = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert rate == 44100 and len(audio) == 44100
    heard = SPECTROGRAMS["riffusion"].audio_to_canvas(torch.from_numpy(audio))[0]
    assert similarity(heard, picture) > 0.97

    play.main(
        [
            "--no-video",
            str(tmp_path / "chirp.png"),
            "--spectrogram",
            "auffusion",
            "--output",
            str(tmp_path / "white.wav"),
        ]
    )
    audio, rate = soundfile.read(tmp_path / "white.wav", dtype="float32")
    assert rate == 16000 and abs(len(audio) - 160 * 101 / 2) <= 160, "resized to 256 rows"
    play.main(
        [str(tmp_path / "chirp.png"), "--spectrogram", json.dumps(MEL.to_dict()), "--output", str(tmp_path / "x.wav")]
        + ["--no-video"]
    )
    for bad in ("jazz", '{"hop": 1}'):
        with pytest.raises(SystemExit, match="`spectrogram`"):
            play.main(
                ["--no-video", str(tmp_path / "chirp.png"), "--spectrogram", bad, "--output", str(tmp_path / "y.wav")]
            )


@pytest.mark.parametrize("spectrogram", ["auffusion", "riffusion"])
@pytest.mark.parametrize("frequency_scale", ["linear", "logarithmic"])
def test_rows_on_other_scales(tmp_path, spectrogram, frequency_scale):
    """A line across the picture is a tone, where a viewer with that scale has it."""
    mel = SPECTROGRAMS[spectrogram]
    for row in (0.3, 0.8):
        gray = np.full((mel.num_mel_bins, 64), 255 * mel.silence)
        gray[round(row * mel.num_mel_bins)] = 255 * (1 - mel.silence)
        PIL.Image.fromarray(gray.astype(np.uint8)).save(tmp_path / "line.png")
        scales = ["--spectrogram", spectrogram, "--frequency_scale", frequency_scale]
        play.main(["--no-video", str(tmp_path / "line.png"), *scales, "--output", str(tmp_path / "line.wav")])
        audio, rate = soundfile.read(tmp_path / "line.wav", dtype="float32")
        loudest = np.abs(np.fft.rfft(audio)).argmax() * rate / len(audio)
        part = 1 - (round(row * mel.num_mel_bins) + 1) / (mel.num_mel_bins + 1)
        top = mel.max_frequency
        expected = part * top if frequency_scale == "linear" else 20 * (top / 20) ** part
        assert loudest == pytest.approx(expected, rel=0.05)
    assert (
        MelSpectrogram.from_dict(read_settings(tmp_path / "line.wav")["spectrogram"]).frequency_scale
        == frequency_scale
    )


def test_a_vocoder_plays_its_own_spectrograms_only(tmp_path, auffusion_folder):
    PIL.Image.new("L", (64, 512), 255).save(tmp_path / "paper.png")
    vocoder = [str(tmp_path / "paper.png"), "--vocoder", str(auffusion_folder)]
    with pytest.raises(SystemExit, match="`vocoder` amounts to 256.*512"):
        play.main([*vocoder, "--spectrogram", "riffusion"])
    with pytest.raises(SystemExit, match="`vocoder`.*`frequency_scale` linear"):
        play.main([*vocoder, "--frequency_scale", "linear"])


def test_check_of_a_riffusion_sample(tmp_path):
    mel = SPECTROGRAMS["riffusion"]
    sound = chirp(1, 44100) * np.linspace(0, 1, 44100, dtype=np.float32)
    picture = canvas_picture(mel, sound)
    settings = {"prompt": "a line", "audio_prompt": "a chirp", "spectrogram": mel.to_dict()}
    write_sample(tmp_path / "sample", picture, picture, sound / 2, 44100, settings)
    check.main(["--sample_dir", str(tmp_path)])
    numbers = json.loads((tmp_path / "sample" / "check.json").read_text())
    assert numbers["saved sound"]["correlation"] > 0.99 and numbers["Griffin-Lim"]["correlation"] > 0.97


def test_see_and_play_with_the_constants_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"spectrogram": MEL.to_dict(), "canvas_layout": "folded"}
    strip = torch.from_numpy(np.array(canvas_picture()))[None, None]
    folded = PIL.Image.fromarray(fold_canvas(strip)[0, 0].numpy())
    write_picture(tmp_path / "folded.png", folded, json.dumps(settings))
    play.main([str(tmp_path / "folded.png"), "--no-video"])
    audio, _ = soundfile.read(tmp_path / "folded.wav", dtype="float32")
    assert len(audio) == 16000
    see.main([str(tmp_path / "folded.wav"), "--output", str(tmp_path / "seen.png")])
    assert similarity(PIL.Image.open(tmp_path / "seen.png"), canvas_picture()) > 0.8


def test_play_takes_any_picture_and_a_vocoder_and_writes_where_one_is(tmp_path, auffusion_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "others").mkdir()
    picture = tmp_path / "others" / "any.jpg"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 30, 3), np.uint8)).save(picture)
    play.main([str(picture), "--vocoder", str(auffusion_folder)])
    assert list(picture.parent.iterdir()) == [picture]
    audio, rate = soundfile.read(tmp_path / "any.wav")
    assert rate == 16000 and len(audio) == round(30 * 256 / 50) * 160
    files = {"any.wav", "any-picture.png", "any-spectrogram.png", "any.mp4", "others"}
    assert {file.name for file in tmp_path.iterdir()} == files
    played = PIL.Image.open(tmp_path / "any-picture.png")
    assert played.size == (round(30 * 256 / 50), 256)
    with av.open(str(tmp_path / "any.mp4")) as video:
        assert video.duration / 1e6 == pytest.approx(len(audio) / rate, abs=0.1)


def test_the_spectrogram_of_a_played_picture_has_its_shape_and_its_grays(tmp_path):
    rows, columns = np.mgrid[:256, :256]
    disc = np.hypot(rows - 128, columns - 128) < 70
    square = (abs(rows - 128) < 30) & (abs(columns - 230) < 15)
    gray = np.where(disc, 255, np.where(square, 128, 0)).astype(np.uint8)
    PIL.Image.fromarray(gray).save(tmp_path / "logo.png")
    # Twice as long as by its columns, and still round.
    options = ["--audio_length_in_s", "5.12", "--no-video", "--output", str(tmp_path / "x.wav")]
    play.main([str(tmp_path / "logo.png"), *options])
    assert soundfile.info(tmp_path / "x.wav").duration == pytest.approx(5.12)
    drawn = PIL.Image.open(tmp_path / "x-spectrogram.png")
    assert drawn.size == (LEFT + 512 + RIGHT, TOP + 512 + BOTTOM)
    inside = np.asarray(drawn.crop((LEFT, TOP, LEFT + 512, TOP + 512)).resize((256, 256), PIL.Image.Resampling.BOX))
    for axis in (0, 1):
        ends = np.flatnonzero((inside > 200).sum(axis=axis) > 20)[[0, -1]]
        assert abs(ends - (58, 198)).max() <= 5
    assert 70 < np.median(inside[square]) < 150 and np.median(inside[:, :40]) < 10
    for wrong in ("0.01", "nan", "1000"):
        with pytest.raises(SystemExit, match="`audio_length_in_s` has to be in 0.07..328, but is"):
            play.main([str(tmp_path / "logo.png"), "--audio_length_in_s", wrong, "--output", str(tmp_path / "y.wav")])


@pytest.mark.parametrize("spectrogram", ["auffusion", "riffusion"])
@pytest.mark.parametrize("kind", ["paper", "RGBA", "LA", "palette", "gray", "16 bits"])
def test_a_dark_drawing_is_played_as_its_lines(tmp_path, capsys, kind, spectrogram):
    """On white paper or on nothing, under which a colour may be hidden: the ring sounds, not the ground."""
    rows, columns = np.mgrid[:256, :256]
    ring = np.abs(np.hypot(rows - 128, columns - 128) - 80) < 12
    gray = np.where(ring, 0, 255).astype(np.uint8)
    alpha = PIL.Image.fromarray(np.where(ring, 255, 0).astype(np.uint8))
    picture = PIL.Image.fromarray(gray)
    info = {}
    if kind in ("RGBA", "LA", "palette"):
        picture.putalpha(alpha)
        picture = picture.convert("RGBA") if kind != "LA" else picture
        picture = picture.quantize() if kind == "palette" else picture
    elif kind == "gray":
        info = {"transparency": 255}
    elif kind == "16 bits":
        picture, info = PIL.Image.fromarray(gray.astype(np.uint16) * 257), {"transparency": 65535}
    picture.save(tmp_path / "logo.png", **info)
    play.main(
        [str(tmp_path / "logo.png"), "--spectrogram", spectrogram, "--no-video", "--output", f"{tmp_path}/x.wav"]
    )
    mel = SPECTROGRAMS[spectrogram]
    played = np.asarray(PIL.Image.open(tmp_path / "x-picture.png"), float) / 255
    silent = np.abs(played - mel.silence)
    assert silent[:20].mean() < 0.05 and silent[:, :20].mean() < 0.05
    assert silent.mean() == pytest.approx(ring.mean(), abs=0.02)
    swapped = spectrogram == "auffusion"
    assert ("is taken for a drawing in dark" in capsys.readouterr().err) == swapped


def test_who_wants_light_and_dark_as_they_are_says_so(tmp_path):
    paper = PIL.Image.new("L", (64, 256), 255)
    paper.paste(0, (20, 100, 40, 120))
    paper.save(tmp_path / "paper.png")
    shown = {}
    for word in ("--invert", "--no-invert"):
        play.main([str(tmp_path / "paper.png"), word, "--no-video", "--output", str(tmp_path / "x.wav")])
        shown[word] = np.asarray(PIL.Image.open(tmp_path / "x-picture.png"))
    np.testing.assert_array_equal(shown["--no-invert"], np.asarray(paper))
    np.testing.assert_array_equal(shown["--invert"], 255 - np.asarray(paper))


@pytest.mark.parametrize(
    "command, arguments, words",
    [
        (play, ["missing.png"], "missing.png` can't be read as a picture"),
        (play, ["tiny.png"], "`picture` has to be at least"),
        (play, ["tiny.png", "--output", "sound.mp3"], "`--output` has to end in .wav"),
        (play, ["tiny.png", "--vocoder", "."], "has no vocoder"),
        (see, ["tiny.png"], "can't be read as a sound"),
        (see, ["short.wav"], "`sound` has to be longer"),
        (see, ["short.wav", "--params_from", "tiny.png"], "`params_from` has to be a file with settings"),
        (check, ["--sample_dir", "."], "`sample_dir` has to hold samples"),
    ],
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(tmp_path, monkeypatch, command, arguments, words):
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("L", (1, 256)).save("tiny.png")
    soundfile.write("short.wav", np.zeros(100), 16000)
    before = sorted(tmp_path.iterdir())
    if arguments[-1] == ".":
        PIL.Image.new("L", (64, 256)).save("tiny.png")
    with pytest.raises(SystemExit, match=words):
        command.main(arguments)
    assert sorted(tmp_path.iterdir()) == before
