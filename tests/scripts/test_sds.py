"""The command `sds` on random weights: files, previews, trackers, and going on after being stopped."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts import sds


@pytest.fixture
def quick(fixtures_folder) -> list[str]:
    models = fixtures_folder / "models"
    arguments = ["--model", str(models / "deepfloyd-if-stage-1"), "--audio_model", str(models / "auffusion")]
    arguments += ["--prompt", "castle towers", "--audio_prompt", "bell ringing", "--width", "64", "--crop_width", "64"]
    arguments += ["--crop_right", "0", "--num_crops", "1", "--num_iterations", "4", "--image_start_step", "2"]
    canvas = json.dumps({"num_frequencies": 4, "hidden_size": 8})
    return [*arguments, "--canvas_kwargs", canvas, "--learning_rate", "1e-2", "--device", "cpu"]


def canvas(folder) -> np.ndarray:
    return np.asarray(PIL.Image.open(folder / "spectrogram.png"))


def test_a_stopped_run_goes_on_to_the_same_files_by_the_same_models_alone(tmp_path, quick, monkeypatch):
    shutil.copytree(quick[1], tmp_path / "elsewhere")
    sds.main([*quick, "--output_dir", str(tmp_path / "whole")])
    assert [folder.name for folder in (tmp_path / "whole").iterdir()] == ["seed-000000"]

    stopped = [*quick, "--output_dir", str(tmp_path / "stopped"), "--checkpoint_every", "1", "--preview_every", "2"]
    report = sds.report

    def stop(accelerator, pipe, folder, iteration, tensors, **kwargs):
        report(accelerator, pipe, folder, iteration, tensors, **kwargs)
        if iteration == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(sds, "report", stop)
        sds.main(stopped)
    unfinished = tmp_path / "stopped" / "seed-000000.unfinished"
    expected = {"sample-0.pt", "settings.json", "preview.png", "preview.wav"}
    assert {file.name for file in unfinished.iterdir()} == expected
    assert PIL.Image.open(unfinished / "preview.png").size == (64, 256)

    other = json.dumps({**MelSpectrogram().to_dict(), "max_frequency": 7000})
    for more in (["--dtype", "bfloat16"], ["--spectrogram", other], ["--model", str(tmp_path / "elsewhere")]):
        with pytest.raises(SystemExit, match="seed-000000.unfinished, begun with other settings"):
            sds.main([*stopped, *more])
    sds.main(stopped)
    assert [folder.name for folder in (tmp_path / "stopped").iterdir()] == ["seed-000000"]
    first, second = (canvas(tmp_path / name / "seed-000000") for name in ("whole", "stopped"))
    assert np.array_equal(first, second)


def test_losses_and_previews_reach_the_tracker(tmp_path, quick):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sds.main([*quick, "--output_dir", str(tmp_path), "--report_to", "tensorboard", "--preview_every", "4"])
    events = event_accumulator.EventAccumulator(str(tmp_path / "images-that-sound"))
    events.Reload()
    assert [event.step for event in events.Scalars("audio_loss")] == [0, 1, 2, 3]
    assert [event.step for event in events.Scalars("image_loss")] == [2, 3]
    assert [event.step for event in events.Images("canvas")] == [3]


@pytest.mark.parametrize("example", sds.SDS_PRESETS)
def test_examples(example):
    request = sds.parse_args(["--example", example])
    names = ("guidance_scale", "audio_guidance_scale", "image_weight", "learning_rate")
    assert [request.call[name] for name in names] == [80, 10, 0.4, 1e-4]
    assert request.samples.seed == 1234 and request.samples.num_samples == 1


def test_bad_input_says_what_is_wrong_and_keeps_nothing(tmp_path, quick):
    for arguments, words in (
        (["--optimizer", "Foo"], "`optimizer`"),
        (["--num_iterations", "0"], "`num_iterations`"),
        (["--checkpoint_every", "0"], "`checkpoint_every`"),
    ):
        with pytest.raises(SystemExit, match=words):
            sds.main([*quick, *arguments, "--output_dir", str(tmp_path / "out")])
    assert not list(tmp_path.glob("out/seed-*/sample-*"))
    sds.main([*quick, "--output_dir", str(tmp_path / "out")])


def test_how_gradients_are_computed_is_repeated(tmp_path, quick):
    sds.main([*quick, "--gradient_accumulation_steps", "2", "--output_dir", str(tmp_path)])
    request = sds.parse_args(["--params_from", str(tmp_path / "seed-000000" / "image.png"), *quick[:4]])
    assert (request.mixed_precision, request.gradient_accumulation_steps) == ("no", 2)
    folders = [sds.parse_args([*quick, *more]).samples.output_dir for more in ([], ["--mixed_precision", "bf16"])]
    assert folders[0] != folders[1]
    with pytest.raises(SystemExit, match="made with other settings"):
        sds.main([*quick, "--output_dir", str(tmp_path)])


def test_an_unfinished_run_of_other_settings_is_named_by_the_commands_own_argument(tmp_path, quick):
    (tmp_path / "seed-000000.unfinished").mkdir()
    (tmp_path / "seed-000000.unfinished" / "sample-0.pt").write_bytes(b"x")
    with pytest.raises(SystemExit, match="^error: `output_dir` holds .*sample-0.pt, which is no checkpoint"):
        sds.main([*quick, "--output_dir", str(tmp_path)])


def test_whoever_comes_second_drops_its_own(tmp_path, quick, monkeypatch):
    """Another process finishes the sample, and takes the checkpoints away, while this one is at it."""
    arguments = [*quick, "--output_dir", str(tmp_path), "--checkpoint_every", "1"]
    report, passed = sds.report, []

    def overtaken(accelerator, pipe, folder, iteration, tensors, **kwargs):
        report(accelerator, pipe, folder, iteration, tensors, **kwargs)
        if not passed:
            passed.append(iteration)
            sds.main(arguments)
            passed.append((tmp_path / "seed-000000" / "audio.wav").stat().st_mtime_ns)
            raise FileNotFoundError(folder)

    monkeypatch.setattr(sds, "report", overtaken)
    sds.main(arguments)
    assert [folder.name for folder in tmp_path.iterdir()] == ["seed-000000"]
    assert passed[1] == (tmp_path / "seed-000000" / "audio.wav").stat().st_mtime_ns
