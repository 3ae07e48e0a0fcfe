"""More of a sample: its pixels stay, what follows is new, and settings say so."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from images_that_sound.scripts import extend, generate
from images_that_sound.scripts.common.samples import find_samples, read_settings


QUICK = ["--num_inference_steps", "2", "--no-video", "--device", "cpu"]


def test_extensions_lie_beside_the_folder_of_their_samples(tmp_path, monkeypatch):
    (tmp_path / "bells" / "seed-000001").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "bells")
    assert extend.beside(Path("outputs/bells")) == Path("outputs/bells-extended")
    assert extend.beside(Path("seed-000001").parent) == tmp_path / "bells-extended"
    assert extend.beside(Path("..") / "bells") == Path("..") / "bells-extended"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A sample whose prompts change over time."""
    folder = tmp_path_factory.mktemp("samples")
    score = {"0": {"prompt": "kittens", "audio_prompt": "rain", "audio_weight": 0.4}, "0.64": {"prompt": "trains"}}
    (folder / "score.json").write_text(json.dumps(score))
    options = ["--width", "128", "--window_width", "64", "--score", str(folder / "score.json")]
    generate.main([*QUICK, *options, "--output_dir", str(folder), "--seed", "5"])
    return folder / "seed-000005"


def pixels(file):
    return np.asarray(PIL.Image.open(file).convert("L")).astype(int)


def test_a_sample_goes_on(sample, capsys):
    request = ["--sample_dir", str(sample), "--seconds", "0.5", *QUICK]
    extend.main(request)
    made = sample.parent.with_name(f"{sample.parent.name}-extended") / "seed-000005"
    assert find_samples(sample.parent) == [sample]
    for name in ("image.png", "spectrogram.png"):
        old, new = pixels(sample / name), pixels(made / name)
        assert new.shape == (128, 128 + 50)
        assert np.abs(new[:, : 128 - 16] - old[:, :-16]).max() <= 1
    audio, rate = soundfile.read(made / "audio.wav")
    assert len(audio) == (128 + 50) * rate // 100
    settings = read_settings(made / "image.png")
    assert settings["prompt"] == "trains" and settings["audio_prompt"] == "rain" and settings["audio_weight"] == 0.4
    assert settings["extended"]["extend_by_in_s"] == 0.5 and "score" not in settings
    capsys.readouterr()
    extend.main(request)
    assert "1 of 1 samples were there already." in capsys.readouterr().err
    with pytest.raises(ValueError, match="`params_from` was made by `extend`"):
        generate.parse_args(["--params_from", str(made / "settings.json")])


@pytest.mark.parametrize(
    "arguments, changed, message",
    [
        (["--params_from", "x.png"], {}, "`params_from` can't be given to `extend`"),
        ([], {"canvas_layout": "folded"}, "`sample_dir` has to hold a strip with an end"),
        ([], {"circular": True}, "`sample_dir` has to hold a strip with an end"),
        ([], {"model": "somebody/something"}, "`params_from` names models, which are loaded only if you name them"),
    ],
)
def test_other_samples_are_refused(sample, tmp_path, arguments, changed, message):
    folder = shutil.copytree(sample, tmp_path / "one")
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | changed))
    with pytest.raises(ValueError, match=message):
        extend.parse_args(["--sample_dir", str(folder), *arguments])


def test_one_sample_is_extended_at_a_time(sample, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(sample, tmp_path / name)
    with pytest.raises(ValueError, match="`sample_dir` has to be one sample, but .* holds several"):
        extend.parse_args(["--sample_dir", str(tmp_path)])
