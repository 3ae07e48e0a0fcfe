"""The command `colorize` on random weights."""

import json

import av
import numpy as np
import PIL.Image
import pytest

from images_that_sound.scripts import colorize
from images_that_sound.scripts.common.colors import colourful
from images_that_sound.scripts.common.samples import read_settings, write_sample


@pytest.fixture
def quick(fixtures_folder) -> list[str]:
    models = fixtures_folder / "models"
    arguments = ["--model", str(models / "deepfloyd-if-stage-1"), "--device", "cpu", "--start_diffusion_step", "1"]
    arguments += ["--super_resolution_model", str(models / "deepfloyd-if-stage-2"), "--num_inference_steps", "2"]
    return [*arguments, "--num_images_per_prompt", "2"]


@pytest.fixture
def samples(tmp_path):
    gray = PIL.Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1)))
    audio = 0.3 * np.sin(np.arange(3200) / 5).astype(np.float32)
    for name in ("one", "two"):
        settings = {"prompt": "a painting of furry kittens, grayscale, black background", "audio_prompt": "meow"}
        write_sample(tmp_path / "samples" / name, gray.convert("RGB"), gray, audio, 16000, settings)
    return tmp_path / "samples"


def test_every_sample_gets_its_tries(samples, quick, capsys):
    colorize.main([*quick, "--sample_dir", str(samples), "--exact_gray"])
    for name in ("one", "two"):
        made = sorted(file.name for file in (samples / name).glob("color-*"))
        assert made == [f"color-00000{i}.{kind}" for i in (0, 1) for kind in ("json", "mp4", "png")]
    folder = samples / "one"
    first, second = (PIL.Image.open(folder / f"color-00000{i}.png") for i in (0, 1))
    assert first.mode == "RGB" and first.size == (64, 32)
    assert np.abs(np.asarray(first).astype(int) - np.asarray(second)).mean() > 1
    made = json.loads((folder / "color-000001.json").read_text())
    assert made["prompt"] == "a colorful photo of furry kittens" and made["seed"] == 1
    assert read_settings(folder / "color-000001.png")["color"] == made
    ramp = np.arange(0, 256, 4) / 255
    difference = np.abs(np.asarray(second).mean(axis=2) / 255 - ramp).mean()
    assert difference == pytest.approx(made["gray_error"], abs=0.01)
    with av.open(str(folder / "color-000001.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 12
    upper = PIL.Image.fromarray(np.asarray(second)).resize((1024, 512), PIL.Image.Resampling.BICUBIC)
    assert np.abs(frames[0][:512, 100:].astype(int) - np.asarray(upper)[:, 100:]).mean() < 12
    lower = np.asarray(PIL.Image.open(folder / "spectrogram.png").resize((1024, 512)))
    assert np.abs(frames[0][512:1024, 100:, 0].astype(int) - lower[:, 100:]).mean() < 6

    capsys.readouterr()
    colorize.main([*quick, "--sample_dir", str(samples), "--exact_gray"])
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit, match="made with other settings"):
        colorize.main([*quick, "--sample_dir", str(samples)])


@pytest.mark.parametrize(
    "gray, colour",
    [
        ("a painting of castle towers, grayscale", "a colorful photo of castle towers"),
        (
            "a pond full of water lilies, grayscale, lithograph style",
            "a colorful photo of a pond full of water lilies",
        ),
        ("a painting of corgis, grayscale, black background", "a colorful photo of corgis"),
        ("a painting of trains, grayscale; a drawing of a dog", "a colorful photo of trains; a dog"),
    ],
)
def test_words_of_gray_are_left_out(gray, colour):
    assert colourful(gray) == colour


def test_bad_input_says_what_is_wrong(tmp_path, quick, samples):
    for arguments, words in (
        (["--sample_dir", str(tmp_path / "nothing")], "`sample_dir` has to hold samples"),
        (
            ["--sample_dir", str(samples), "--model", str(tmp_path / "none")],
            "neither a valid local path nor a valid repo",
        ),
        (["--sample_dir", str(samples), "--num_images_per_prompt", "0"], "`num_images_per_prompt`"),
        (["--sample_dir", str(samples), "--noise_level", "-1"], "`noise_level`"),
    ):
        with pytest.raises(SystemExit, match=words):
            colorize.main([*quick, *arguments])
    assert not list(samples.rglob("color-*"))


def test_prompts_of_the_published_examples(samples, quick):
    colorize.main([*quick, "--num_images_per_prompt", "1", "--sample_dir", str(samples), "--example", "bell"])
    made = json.loads((samples / "one" / "color-000000.json").read_text())
    assert made["prompt"] == "a colorful photo of a castle with bell towers"
    with pytest.raises(SystemExit, match="`--prompt` and `--example` exclude each other"):
        colorize.main(["--sample_dir", str(samples), "--example", "bell", "--prompt", "a castle"])
