"""The command `imprint` on the embedded checkpoint."""

import json

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch

from images_that_sound.pipelines import ImagesThatSoundImprintPipeline, MelSpectrogram
from images_that_sound.scripts import imprint
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import EMBEDDED_SEEDS, STABLE_DIFFUSION


QUICK = ["--width", "128", "--num_inference_steps", "2", "--num_audio_inference_steps", "2", "--device", "cpu"]


def test_samples_are_what_the_pipeline_makes(tmp_path, capsys):
    arguments = ["--prompt", "castle towers", "--audio_prompt", "bell ringing", "--seed", "3", "--num_samples", "2"]
    imprint.main([*QUICK, *arguments, "--magnitude_ratio", "0.7", "--output_dir", str(tmp_path)])

    pipe = ImagesThatSoundImprintPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(
        "castle towers",
        "bell ringing",
        width=128,
        num_inference_steps=2,
        num_audio_inference_steps=2,
        magnitude_ratio=0.7,
        generator=torch.Generator().manual_seed(4),
    )
    folder = tmp_path / "seed-000004"
    assert {file.name for file in folder.iterdir()} == {
        "image.png",
        "painted.png",
        "spectrogram.png",
        "spectrogram_stretched.png",
        "audio.wav",
        "video.mp4",
        "poster.png",
        "settings.json",
    }
    for name, expected in (("image", output.spectrograms[0]), ("painted", output.images[0])):
        written = np.asarray(PIL.Image.open(folder / f"{name}.png")).astype(int)
        assert np.abs(written - np.asarray(expected)).max() <= 1
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["magnitude_ratio"] == 0.7 and settings["invert_image"] is True and settings["seed"] == 4

    imprint.main(["--params_from", str(folder / "image.png"), "--output_dir", str(tmp_path), "--num_samples", "1"])
    assert "1 of 1 samples were there already." in capsys.readouterr().err


def test_own_picture_and_own_sound(tmp_path):
    PIL.Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (64, 1))).save(tmp_path / "ramp.png")
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 22050).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", audio, 22050)
    files = ["--image", str(tmp_path / "ramp.png"), "--audio", str(tmp_path / "noise.wav"), "--no-invert_image"]
    files += ["--resize_mode", "stretch"]
    imprint.main([*files, "--device", "cpu", "--output_dir", str(tmp_path / "out")])
    canvas = np.asarray(PIL.Image.open(tmp_path / "out" / "seed-000000" / "image.png")).astype(float)
    assert canvas.shape == (128, 100)
    assert canvas[:, :20].mean() > 1.5 * canvas[:, -20:].mean(), "bright parts of the picture take sound away"
    heard, rate = soundfile.read(tmp_path / "out" / "seed-000000" / "audio.wav", dtype="float32")
    again = MelSpectrogram(num_mel_bins=128).audio_to_canvas(torch.from_numpy(heard))[0].numpy()
    assert rate == 16000 and np.corrcoef(again.ravel(), canvas.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("example", imprint.IMPRINT_PRESETS)
def test_examples(example):
    assert imprint.parse_args(["--example", example]).samples.seeds == [EMBEDDED_SEEDS[example]]
    request = imprint.parse_args(["--example", example, "--model", STABLE_DIFFUSION])
    assert request.samples.seed == 1234 and request.samples.num_samples == 40
    assert request.call["magnitude_ratio"] == 0.5 and request.call["invert_image"] is True


def test_an_own_picture_takes_the_place_of_an_example_s_prompt(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    request = imprint.parse_args(["--example", "bell", "--image", str(tmp_path / "a.png")])
    assert request.files["image"][0].path == tmp_path / "a.png"
    assert (request.call["prompt"], request.call["audio_prompt"]) == (None, "bell ringing")
    assert request.samples.output_dir != imprint.parse_args(["--example", "bell"]).samples.output_dir


def test_seven_examples():
    assert len(imprint.IMPRINT_PRESETS) == 7


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "^error: `prompt` or `image` and `audio_prompt` or `audio` have to be given"),
        (
            ["--prompt", "a", "--audio_prompt", "b", "--image", __file__],
            "^error: `image` and `prompt` exclude each other",
        ),
        (["--prompt", "a", "--audio_prompt", "b", "--magnitude_ratio", "2"], "`magnitude_ratio`"),
        (["--audio_prompt", "b", "--image", "missing.png"], "can't be read as a picture"),
        (["--prompt", "a", "--audio", "missing.wav"], "can't be read as a sound"),
    ],
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(tmp_path, arguments, words):
    with pytest.raises(SystemExit, match=words):
        imprint.main([*arguments, "--device", "cpu", "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
