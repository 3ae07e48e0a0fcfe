"""A LoRA of own sounds: what is said of a folder and refused, what is drawn, and that the LoRA is diffusers'."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from images_that_sound.pipelines import SPECTROGRAMS, ImagesThatSoundImg2ImgPipeline
from images_that_sound.scripts import train_lora
from images_that_sound.scripts.common.lora_training import (
    Canvases,
    LoraTraining,
    card_of,
    drawn_windows,
    read_canvases,
)
from images_that_sound.scripts.common.models import EMBEDDED, load_pipeline
from images_that_sound.scripts.common.sound_folders import caption_of, captioned_sounds, windows_of
from images_that_sound.scripts.common.values import Models, Training
from images_that_sound.scripts.common.vocabulary import unknown_words


WIDTH = 64
WEIGHTS = "pytorch_lora_weights.safetensors"
QUICK = ["--max_train_steps", "2", "--train_batch_size", "1", "--rank", "2", "--width", str(WIDTH), "--device", "cpu"]


def tone(path: Path, seconds: float = 0.5, rate: int = 16000, level: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate), rate)


# -------------------- Folders --------------------


@pytest.mark.parametrize(
    "stem, caption",
    [
        ("dog_bark-03", "dog bark"),
        ("My Doorbell (2)", "my doorbell"),
        ("Ente quakt", "ente quakt"),
        ("20260101-1200", ""),
    ],
)
def test_words_of_a_file_s_name(stem, caption):
    assert caption_of(stem) == caption


def test_captions_come_from_metadata_then_texts_then_the_command_then_names(tmp_path):
    for name in ("a.wav", "b.wav", "sub/dog_bark-1.flac", ".hidden.wav"):
        tone(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.wav", "text": "a  gong\\n"}\n\n')
    (tmp_path / "b.txt").write_text("\ufeffbig drum", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no sound")
    found = {sound.name: sound.caption for sound in captioned_sounds(tmp_path)}
    assert found == {"a.wav": "a gong", "b.wav": "big drum", "sub/dog_bark-1.flac": "dog bark"}
    given = {sound.name: sound.caption for sound in captioned_sounds(tmp_path, "my dog")}
    assert given == {**found, "sub/dog_bark-1.flac": "my dog"}


@pytest.mark.parametrize(
    "metadata, message",
    [
        (b'{"file_name": "../a.wav", "text": "x"}', "line 1 .*path in this folder"),
        (b'{"file_name": "/etc/a.wav", "text": "x"}', "path in this folder"),
        (b'{"file_name": "\\\\\\\\host\\\\a.wav", "text": "x"}', "path in this folder"),
        (b'{"file_name": "a.wav"}', "texts as `file_name` and `text`"),
        (b'{"file_name": "a.wav", "text": ["x"]}', "texts as `file_name` and `text`"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "can't be read"),
        (b'{"file_name": "a.wav", "text": "' + b"x" * 20_000 + b'"}', "at most 10000 bytes"),
        (b'{"file_name": "a.wav", "text": "\\u001b[2J"}', "can't be printed"),
        (b'{"file_name": "a.wav", "text": "\\ud800"}', "can't be read"),
        (b'{"file_name": "a.wav", "text": "x"}\n' * 2, "line 2 .*a second time"),
        (b" " * (2**24 + 1), "at most 16777216 bytes"),
        (b"[" * 100_000, "can't be read"),
    ],
)
def test_metadata_of_strangers(tmp_path, metadata, message):
    tone(tmp_path / "a.wav")
    (tmp_path / "metadata.jsonl").write_bytes(metadata)
    with pytest.raises(ValueError, match=f"`audio_dir` holds .*{message}"):
        captioned_sounds(tmp_path)


def test_nothing_outside_of_the_folder_is_read(tmp_path, capsys):
    """Captions are published with the weights."""
    tone(tmp_path / "outside.wav")
    (tmp_path / "secret.txt").write_text("a password")
    folder = tmp_path / "sounds"
    tone(folder / "a.wav")
    (folder / "b.wav").symlink_to(tmp_path / "outside.wav")
    (folder / "c.wav").symlink_to("/dev/zero")
    os.mkfifo(folder / "d.wav")
    assert [sound.name for sound in captioned_sounds(folder)] == ["a.wav"]
    assert capsys.readouterr().err.count("is left out: it is no file of this folder") == 3
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match="a.txt, which has to be a text in this folder"):
        captioned_sounds(folder)
    (folder / "a.txt").unlink()
    (folder / "a.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="a.txt, which has to be text in UTF-8"):
        captioned_sounds(folder)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_sounds(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="`audio_dir` has to"):
        captioned_sounds(tmp_path / name)


@pytest.fixture(scope="module")
def pipe():
    pipe = ImagesThatSoundImg2ImgPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_each_fault_of_a_folder_is_said_in_a_line(pipe, tmp_path, capsys):
    tone(tmp_path / "good one.wav")
    tone(tmp_path / "low rate.wav", rate=8000)
    tone(tmp_path / "silent.wav", level=1e-5)
    tone(tmp_path / "001.wav")
    soundfile.write(tmp_path / "loud.wav", np.sign(np.sin(np.arange(8000))), 16000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "lost.wav", "text": "x"}')
    canvases = read_canvases(pipe, captioned_sounds(tmp_path), WIDTH, 0)
    assert canvases.captions == ["good one", "loud", "low rate"]
    lines = capsys.readouterr().err.splitlines()
    for start in (
        "lost.wav, which metadata.jsonl names, is missing",
        "001.wav is left out: it has no caption.",
        "broken.wav is left out: ",
        "silent.wav is left out: the sound is inaudible",
        "loud.wav is taken, but the sound is clipped",
        "low rate.wav is taken, but nothing is above 4000 Hz",
        "3 sounds: “good one” (1), “loud” (1), “low rate” (1).",
        "So few sounds",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match="all are left out"):
        read_canvases(pipe, [each for each in captioned_sounds(tmp_path) if each.name == "silent.wav"], WIDTH, 0)


# -------------------- Canvases --------------------


def test_windows_cover_a_long_sound_and_repeat_a_short_one():
    audio = np.arange(1, 1001, dtype=np.float32)
    windows = windows_of(audio, 300)
    assert all(len(window) == 300 for window in windows)
    assert sorted(set(np.concatenate(windows))) == audio.tolist()
    starts = np.array([window[0] for window in windows])
    assert (np.diff(starts) <= 150).all()
    assert np.array_equal(windows_of(audio[:120], 300)[0], np.concatenate([audio[:120], audio[:120], audio[:60]]))
    paused = np.concatenate([np.ones(300), np.full(900, 1e-3), np.ones(300)]).astype(np.float32)
    assert len(windows_of(paused, 300)) == 4


@pytest.mark.parametrize("name, cropped, silence", [("auffusion", 32, 0.0), ("riffusion", 0, 1.0)])
def test_canvases_are_drawn_by_each_side_s_own_constants(name, cropped, silence):
    mel = SPECTROGRAMS[name]
    audio = 0.1 * np.random.default_rng(0).standard_normal(2 * mel.sampling_rate).astype(np.float32)
    canvas = drawn_windows(audio, mel, 128, cropped)[:1]
    assert canvas.shape == (1, 1, mel.num_mel_bins, 128)
    drawn = 128 - cropped
    expected = mel.audio_to_canvas(torch.from_numpy(audio[: mel.num_samples(drawn)]))
    torch.testing.assert_close(canvas[0, :, :, :drawn], expected)
    assert (canvas[..., drawn:] == silence).all()


# -------------------- Training --------------------


def random_canvases(pipe) -> Canvases:
    latents = torch.randn(2, 4, 16, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeds = {text: pipe.encode_prompt(None, text)[2] for text in ("gong", "drum", "", "ocean waves")}
    return Canvases([*latents.split(1)], ["gong", "drum"], embeds, ["", "ocean waves"])


def new_training(**numbers) -> LoraTraining:
    pipe = ImagesThatSoundImg2ImgPipeline.from_pretrained(EMBEDDED)
    numbers = {"rank": 2, "train_batch_size": 2, "learning_rate": 1e-2, "max_train_steps": 4, **numbers}
    accumulation = numbers.get("gradient_accumulation_steps", 1)
    return LoraTraining(pipe, Training(**numbers), Accelerator(cpu=True, gradient_accumulation_steps=accumulation))


def test_a_stopped_training_goes_on_exactly(pipe, tmp_path):
    canvases = random_canvases(pipe)
    whole, resumed = (new_training(gradient_accumulation_steps=2, train_batch_size=1) for _ in range(2))
    whole.step(1, canvases)
    whole.save_state(tmp_path, 1)
    assert resumed.resume(tmp_path) == 1
    assert [whole.step(i, canvases) for i in (2, 3)] == [resumed.step(i, canvases) for i in (2, 3)]
    for training, name in ((whole, "whole"), (resumed, "resumed")):
        training.save_weights(tmp_path / name)
    expected, found = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "resumed"))
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(value.any() for name, value in expected.items() if "lora_B" in name)
    (tmp_path / "unfinished.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="Remove it to begin anew"):
        new_training().resume(tmp_path)


def test_the_loss_is_that_of_the_noise_and_what_is_kept_costs_nothing_at_first(pipe):
    """A new LoRA changes nothing, so that other prompts mean what they mean."""
    canvases = random_canvases(pipe)
    loss = new_training(prior_loss_weight=0.0).step(1, canvases)
    assert new_training(prior_loss_weight=5.0).step(1, canvases) == pytest.approx(loss, rel=1e-5)

    numbers = np.random.default_rng([0, 1, 0, 0])
    rows = numbers.integers(2, size=2)
    clean = torch.cat([canvases.latents[i] for i in rows])
    for _ in rows:
        numbers.integers(1)
    noise = torch.from_numpy(numbers.standard_normal(clean.shape, np.float32))
    timesteps = torch.from_numpy(numbers.integers(1000, size=2))
    signal = pipe.scheduler.alphas_cumprod[timesteps][:, None, None, None]
    embeds = torch.cat([canvases.embeds[canvases.captions[i]] for i in rows])
    with torch.no_grad():
        predicted = pipe.unet_audio(signal.sqrt() * clean + (1 - signal).sqrt() * noise, timesteps, embeds).sample
    assert loss == pytest.approx(float((predicted - noise).square().mean()), rel=1e-4)


def test_the_target_is_of_the_audio_side_s_kind(pipe):
    training = new_training()
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([300])
    signal = pipe.scheduler.alphas_cumprod[300]
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
    for kind, expected in (("epsilon", noise), ("v_prediction", velocity), ("sample", clean)):
        training.scheduler.register_to_config(prediction_type=kind)
        torch.testing.assert_close(training._target(clean, noise, timesteps), expected)
    training.pipe.unet_audio.delete_adapters("default")
    training.pipe.register_to_config(audio_prediction_type="v_prediction")
    again = LoraTraining(training.pipe, training.training, training.accelerator)
    assert again.scheduler.config.prediction_type == "v_prediction"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    tone(folder / "sounds" / "big gong-1.wav", seconds=1.0)
    call = ["--audio_dir", str(folder / "sounds"), "--output_dir", str(folder / "lora"), "--learning_rate", "0.01"]
    train_lora.main([*call, *QUICK, "--validation_steps", "2", "--report_to", "tensorboard"])
    return folder


def predictions(pipe, canvases: Canvases, unet) -> torch.Tensor:
    with torch.no_grad():
        return unet(canvases.latents[0], 500, canvases.embeds["gong"]).sample


def test_the_lora_acts_in_diffusers_own_pipeline_as_in_training(pipe, tmp_path):
    canvases, training = random_canvases(pipe), new_training()
    for number in (1, 2):
        training.step(number, canvases)
    expected = predictions(pipe, canvases, training.unet)
    training.save_weights(tmp_path)
    assert all(name.startswith("unet.") for name in load_file(tmp_path / WEIGHTS))

    side = ImagesThatSoundImg2ImgPipeline.from_pretrained(EMBEDDED).audio_side
    parts = {name: getattr(side, name) for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    stock = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, image_encoder=None)
    plain = predictions(pipe, canvases, stock.unet)
    stock.load_lora_weights(tmp_path)
    by_command = load_pipeline(Models(audio_lora=[str(tmp_path)], device="cpu"), ImagesThatSoundImg2ImgPipeline)
    for unet in (stock.unet, by_command.unet_audio):
        torch.testing.assert_close(predictions(pipe, canvases, unet), expected)
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_the_folder_of_a_lora(trained, capsys):
    files = {path.relative_to(trained / "lora").as_posix() for path in (trained / "lora").rglob("*") if path.is_file()}
    assert {WEIGHTS, "README.md", "settings.json", "vocabulary.json", "samples/step-000002.png"} <= files
    assert "unfinished.pt" not in files and any("tfevents" in name for name in files)
    sound, rate = soundfile.read(trained / "lora" / "samples" / "step-000002.wav")
    assert rate == 16000 and len(sound) == WIDTH * 160
    prompts = {"prompt": None, "audio_prompt": "big gong", "model": "embedded", "audio_model": None}
    assert unknown_words(prompts) and not unknown_words({**prompts, "audio_lora": [f"{trained / 'lora'}:0.8"]})

    call = ["--audio_dir", str(trained / "sounds"), "--output_dir", str(trained / "lora"), "--learning_rate", "0.01"]
    train_lora.main([*call, *QUICK])
    assert "was there already" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="begun with other settings"):
        train_lora.main([*call, *QUICK, "--seed", "1"])
    (trained / "foreign").mkdir(exist_ok=True)
    (trained / "foreign" / WEIGHTS).write_bytes(b"somebody's")
    with pytest.raises(SystemExit, match="was not made here"):
        train_lora.main([*call[:3], str(trained / "foreign"), *QUICK])


def test_an_audio_side_of_auffusion_s_layout(auffusion_folder, trained, tmp_path, capsys):
    call = ["--audio_dir", str(trained / "sounds"), "--output_dir", str(tmp_path), *QUICK]
    train_lora.main([*call, "--audio_model", str(auffusion_folder), "--max_train_steps", "1"])
    assert "does not know" not in capsys.readouterr().err
    stock = StableDiffusionPipeline.from_pretrained(auffusion_folder)
    stock.load_lora_weights(tmp_path)
    assert stock.get_active_adapters()
    card = (tmp_path / "README.md").read_text()
    assert "license: cc-by-nc-sa-4.0" in card and "    big gong (1)" in card


def test_a_card_shows_captions_as_they_are():
    card = card_of("nobody/auffusion-of-mine", ["# `a` [b](c)"], Training().for_model("x"))
    assert '\nbase_model: "nobody/auffusion-of-mine"\n' in card and "\n    # `a` [b](c) (1)\n" in card
    assert "license:" not in card_of("embedded", ["a"], Training().for_model("x"))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--rank", "0"], "`rank` has to be an integer from 1 to 1024"),
        (["--learning_rate", "nan"], "`learning_rate` has to be in"),
        (["--audio_prompt", "x" * 20_000], "`audio_prompt` has to be at most"),
        (["--width", "100000"], "`width` has to be an integer from 1 to 8192"),
    ],
)
def test_numbers_that_make_no_sense(arguments, words):
    with pytest.raises(ValueError, match=words):
        train_lora.parse_args(["--audio_dir", "a", "--output_dir", "b", *arguments])
