"""The commands one after the other on Stable Diffusion beside Riffusion, with random weights."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
import soundfile

from images_that_sound.pipelines import SPECTROGRAMS
from images_that_sound.scripts import check, generate, rank


PROMPTS = ["--prompt", "a woodcut of a castle", "--audio_prompt", "church organ", "--num_inference_steps", "1"]


@pytest.fixture(scope="module")
def sample_dir(tmp_path_factory, stable_diffusion_folder, riffusion_folder):
    folder = tmp_path_factory.mktemp("pair")
    models = ["--model", str(stable_diffusion_folder), "--audio_model", str(riffusion_folder)]
    generate.main([*models, *PROMPTS, "--num_samples", "2", "--output_dir", str(folder)])
    return folder


def test_samples_are_square_and_at_the_sampling_rate_of_the_audio_side(sample_dir):
    folder = sample_dir / "seed-000001"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["spectrogram"] == SPECTROGRAMS["riffusion"].to_dict()
    assert settings["guidance_scale"] == 7.0 and settings["crop_right"] == 0
    assert PIL.Image.open(folder / "spectrogram.png").size == PIL.Image.open(folder / "image.png").size == (512, 512)
    info = soundfile.info(folder / "audio.wav")
    assert info.samplerate == 44100 and info.frames == 511 * 441
    assert (folder / "video.mp4").stat().st_size > 0


def test_they_are_checked_and_ranked(sample_dir):
    check.main(["--sample_dir", str(sample_dir / "seed-000000")])
    numbers = json.loads((sample_dir / "seed-000000" / "check.json").read_text())
    assert set(numbers) == {"saved sound", "Griffin-Lim"}
    assert numbers["saved sound"]["correlation"] == pytest.approx(numbers["Griffin-Lim"]["correlation"], abs=0.01)
    rank.main(["--sample_dir", str(sample_dir), "--clip_model", "embedded", "--clap_model", "embedded"])
    for name in ("seed-000000", "seed-000001"):
        scores = json.loads((sample_dir / name / "scores.json").read_text())["scores"]
        assert all(np.isfinite(scores[score]) for score in ("clip", "clap"))


def test_a_picture_of_an_audio_side_of_any_name_is_made_again(stable_diffusion_folder, riffusion_folder, tmp_path):
    audio_folder = shutil.copytree(riffusion_folder, tmp_path / "model")
    models = ["--model", str(stable_diffusion_folder), "--audio_model", str(audio_folder), "--no-video"]
    for name, arguments in (
        ("first", [*PROMPTS, "--width", "128", "--spectrogram", "riffusion"]),
        ("again", ["--params_from", str(tmp_path / "first" / "seed-000000" / "image.png")]),
    ):
        generate.main([*models, *arguments, "--output_dir", str(tmp_path / name)])
    first, again = (tmp_path / name / "seed-000000" for name in ("first", "again"))
    for name in ("image.png", "audio.wav"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_how_an_audio_side_draws_that_is_not_named_is_refused():
    with pytest.raises(SystemExit, match="`spectrogram` says how `audio_model` draws"):
        generate.main([*PROMPTS, "--spectrogram", "riffusion"])
