"""The command: files, settings, resuming, and errors that leave nothing behind. Files are judged by decoding them."""

import inspect
import json
import os
import re
import subprocess
import sys
import wave
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import PIL.Image
import pytest
import scipy.signal
import soundfile
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.scripts import generate
from images_that_sound.scripts.common.files import json_text
from images_that_sound.scripts.common.models import EMBEDDED, load_pipeline
from images_that_sound.scripts.common.own_files import values_over_time
from images_that_sound.scripts.common.presets import EMBEDDED_SEEDS, GENERATE_PRESETS, STABLE_DIFFUSION
from images_that_sound.scripts.common.samples import read_settings, write_audio
from images_that_sound.scripts.common.values import Models
from training.world import SPECTROGRAM


FILES = {
    "image.png",
    "spectrogram.png",
    "spectrogram_stretched.png",
    "audio.wav",
    "poster.png",
    "video.mp4",
    "settings.json",
}
QUICK = ["--width", "128", "--num_inference_steps", "2"]
PROMPTS = ["--prompt", "a painting of castle towers, grayscale", "--audio_prompt", "bell ringing"]


def run(output_dir: Path, *arguments: str) -> None:
    generate.main([*QUICK, "--output_dir", str(output_dir), *arguments])


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """Two samples from the embedded checkpoint."""
    folder = tmp_path_factory.mktemp("samples")
    run(folder, *PROMPTS, "--num_samples", "2", "--seed", "7")
    return folder


def test_each_sample_has_its_files(samples):
    assert sorted(file.name for file in samples.iterdir()) == ["seed-000007", "seed-000008"]
    for folder in samples.iterdir():
        assert {file.name for file in folder.iterdir()} == FILES


def test_a_score_is_drawn_as_the_pipeline_draws_prompts_over_time(tmp_path):
    score = {"0": {"prompt": "castle towers", "audio_prompt": "bell ringing"}, "0.64": {"prompt": "furry kittens"}}
    (tmp_path / "score.json").write_text(json.dumps(score))
    options = ["--window_width", "64", "--window_stride", "64", "--no-video", "--seed", "8"]
    run(tmp_path / "made", "--score", str(tmp_path / "score.json"), *options)
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    call = {"width": 128, "num_inference_steps": 2, "window_width": 64, "window_stride": 64}
    output = pipe(
        {0: "castle towers", 0.64: "furry kittens"},
        {0: "bell ringing"},
        **call,
        generator=torch.Generator().manual_seed(8),
    )
    picture = np.asarray(PIL.Image.open(tmp_path / "made" / "seed-000008" / "image.png"))
    assert np.abs(picture.astype(int) - np.asarray(output.images[0])).max() <= 1
    file = tmp_path / "made" / "seed-000008" / "settings.json"
    settings = read_settings(file)
    assert settings["score"] == score and settings["prompt"] == "castle towers; furry kittens"
    # The settings repeat it; a prompt takes its place.
    again = generate.parse_args(["--params_from", str(file)])
    assert again.recorded["score"] == score and again.call["prompt"] == settings["prompt"]
    other = generate.parse_args(["--params_from", str(file), "--prompt", "a pond"])
    assert "score" not in other.recorded and other.call["prompt"] == "a pond"


@pytest.mark.parametrize(
    "content, message",
    [
        ({"0": "a castle"}, "`score` has to hold, for each second, prompts .* holds '0': a castle"),
        ({"soon": {"prompt": "a castle"}}, "`score` has to hold, for each second, prompts .* holds 'soon'"),
        ({"0": {"prompt": 3}}, "`score` has to hold, for each second, prompts"),
        ({"0": {"sound": "a bell"}}, "`score` has to hold, for each second, prompts"),
        ({"0": {"prompt": "a castle", "audio_weight": True}}, "`score` has to hold, for each second, prompts .*True"),
        ({"0": {"prompt": "a castle"}}, "`audio_prompt` has to be given"),
    ],
)
def test_other_scores_are_refused(tmp_path, content, message):
    (tmp_path / "score.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        generate.parse_args(["--score", str(tmp_path / "score.json")])


def test_a_score_that_is_a_list_is_told_what_a_score_looks_like(tmp_path, capsys):
    (tmp_path / "score.json").write_text(json.dumps([{"prompt": "a castle"}]))
    with pytest.raises(SystemExit):
        generate.parse_args(["--score", str(tmp_path / "score.json")])
    said = capsys.readouterr().err
    example = re.search("curly brackets: ({.*})", said)[1]
    assert "is no score" in said and list(values_over_time(json.loads(example))["prompt"]) == [0, 10]


def test_a_score_excludes_prompts(tmp_path):
    (tmp_path / "score.json").write_text(json.dumps({"0": {"prompt": "a castle", "audio_prompt": "a bell"}}))
    with pytest.raises(ValueError, match="`score` and `prompt` exclude each other"):
        generate.parse_args(["--score", str(tmp_path / "score.json"), "--prompt", "a pond"])


def test_files_hold_what_the_pipeline_returns(samples):
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    output = pipe(PROMPTS[1], PROMPTS[3], width=128, num_inference_steps=2, generator=torch.Generator().manual_seed(8))
    folder = samples / "seed-000008"
    picture = np.asarray(PIL.Image.open(folder / "image.png"))
    assert np.abs(picture.astype(int) - np.asarray(output.images[0])).max() <= 1
    spectrogram = PIL.Image.open(folder / "spectrogram.png")
    assert spectrogram.mode == "L" and spectrogram.size == (128, 128)
    audio, rate = soundfile.read(folder / "audio.wav", dtype="float32")
    assert rate == 16000 and len(audio) == 128 * 160
    gain = json.loads((folder / "settings.json").read_text())["gain_in_db"]
    np.testing.assert_allclose(audio / 10 ** (gain / 20), output.audios[0], atol=2e-4)


def test_settings_travel_in_every_file(samples):
    folder = samples / "seed-000007"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["seed"] == 7 and settings["prompt"] == PROMPTS[1] and settings["num_inference_steps"] == 2
    assert MelSpectrogram.from_dict(settings["spectrogram"]) == SPECTROGRAM
    for name in FILES - {"settings.json"}:
        assert read_settings(folder / name) == settings


def test_long_settings_travel_in_a_sound_that_others_read(tmp_path):
    """libsndfile leaves out a comment of more than 2,047 bytes."""
    audio, settings = np.sin(np.arange(999) / 9).astype(np.float32) / 2, {"prompt": "é" * 9000}
    write_audio(tmp_path / "a.wav", audio, 16000, json_text(settings))
    assert read_settings(tmp_path / "a.wav") == settings
    heard, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 16000 and np.abs(heard - audio).max() < 1e-6
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnframes() == 999 and file.getsampwidth() == 3


def test_video_decodes_with_playhead_captions_and_sound(samples):
    with av.open(str(samples / "seed-000007" / "video.mp4")) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264" and video.codec_context.pix_fmt == "yuv420p"
        assert sound.codec_context.name == "aac"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
    assert len(frames) == round(1.28 * 60)
    side = 512  # the picture of 128 x 128 pixels is enlarged four times
    assert frames[0].shape[1] == side < frames[0].shape[0]
    reds = [np.clip(f[:side, :, 0].astype(int) - f[:side, :, 1], 0, None).mean(axis=0) for f in frames]
    playheads = [int(red.argmax()) for red in reds]
    expected = [i / len(frames) * side for i in range(len(frames))]
    assert np.abs(np.array(playheads) - expected).max() < 8
    assert frames[0][side:].max() > 200, "captions are written in white below the picture"
    with av.open(str(samples / "seed-000007" / "video.mp4")) as container:
        samples_heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    audio, _ = soundfile.read(samples / "seed-000007" / "audio.wav", dtype="float32")
    assert len(samples_heard) >= len(audio)
    lag = scipy.signal.correlate(samples_heard, audio, "valid").argmax()
    heard = samples_heard[lag : lag + len(audio)]
    assert np.corrcoef(heard, audio[: len(heard)])[0, 1] > 0.9


def test_a_second_run_makes_only_what_is_missing(samples, tmp_path, capsys):
    run(tmp_path, *PROMPTS, "--seed", "8")
    assert "already" not in "".join(capsys.readouterr())
    written = (tmp_path / "seed-000008" / "audio.wav").stat().st_mtime_ns
    run(tmp_path, *PROMPTS, "--seed", "7", "--num_samples", "2", "--num_images_per_prompt", "2")
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'seed-000007'}\n" and "1 of 2 samples were there already." in printed.err
    assert (tmp_path / "seed-000008" / "audio.wav").stat().st_mtime_ns == written
    first, again = (PIL.Image.open(folder / "seed-000007" / "image.png") for folder in (samples, tmp_path))
    assert np.abs(np.asarray(first).astype(int) - np.asarray(again)).max() <= 1


def test_an_interrupted_run_leaves_no_half_sample(tmp_path):
    """Killed at some moment of the second sample, the run is continued without loss or doubling."""
    command = [
        sys.executable,
        generate.__file__,
        *QUICK,
        *PROMPTS,
        "--num_samples",
        "3",
        "--output_dir",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "seed-000000" in line:
            process.kill()
            break
    process.wait()
    complete = [folder for folder in tmp_path.iterdir() if not folder.name.startswith(".")]
    for folder in complete:
        assert {file.name for file in folder.iterdir()} == FILES
    run(tmp_path, *PROMPTS, "--num_samples", "3")
    assert sorted(os.listdir(tmp_path)) == ["seed-000000", "seed-000001", "seed-000002"]


def test_params_from_repeats_a_picture(samples, tmp_path):
    run(tmp_path, "--params_from", str(samples / "seed-000008" / "image.png"))
    first, again = (PIL.Image.open(folder / "seed-000008" / "image.png") for folder in (samples, tmp_path))
    assert np.array_equal(np.asarray(first), np.asarray(again))


def test_words_that_the_checkpoint_does_not_know_are_said(tmp_path, capsys):
    run(tmp_path / "known", *PROMPTS)
    assert "Unknown" not in capsys.readouterr().err
    run(tmp_path / "unknown", "--prompt", "a dragon", "--audio_prompt", "bell ringing", "--num_samples", "2")
    said = [line for line in capsys.readouterr().err.splitlines() if "Unknown" in line]
    assert len(said) == 2 and all("“dragon”" in line for line in said), "before the work and beside the result"


@pytest.mark.parametrize("example", generate.PRESETS)
def test_examples_give_prompts_and_seed(example):
    preset = generate.PRESETS[example]
    models = {"model": STABLE_DIFFUSION, "audio_model": "some/audio", **preset}
    request = generate.parse_args(
        ["--example", example, "--model", models["model"], "--audio_model", models["audio_model"]]
    )
    given = {**request.call, **vars(request.models), **vars(request.samples)}
    assert {name: given[name] for name in preset} == preset
    assert generate.parse_args(["--example", example, "--seed", "1", "--num_samples", "2"]).samples.seeds == [1, 2]


@pytest.mark.parametrize("example", GENERATE_PRESETS)
def test_examples_of_the_embedded_checkpoint_are_one_sample_of_its_own_seed(example):
    for models in ([], ["--model", "embedded"]):
        request = generate.parse_args(["--example", example, *models])
        assert request.samples.seeds == [EMBEDDED_SEEDS[example]]
        assert request.call["prompt"] == GENERATE_PRESETS[example]["prompt"]
    published = generate.parse_args(["--example", example, "--audio_model", "some/audio"]).samples
    assert (published.seed, published.num_samples) == tuple(
        GENERATE_PRESETS[example][name] for name in ("seed", "num_samples")
    )


def bad_inputs() -> dict[str, tuple[list[str], list[str]]]:
    """Arguments, and what the message has to name."""
    return {
        "no prompt": ([], ["`prompt` and `audio_prompt` have to be given", "--example"]),
        "missing prompt": (["--audio_prompt", "bell"], ["`prompt` has to be given"]),
        "empty prompt": (["--prompt", "", "--audio_prompt", "bell"], ["`prompt`", "empty"]),
        "width": ([*PROMPTS, "--width", "100"], ["`width`", "100", "multiple of 8"]),
        "height": ([*PROMPTS, "--height", "64"], ["`height`", "64", "128"]),
        "weight": ([*PROMPTS, "--audio_weight", "1.5"], ["`audio_weight`", "1.5", "between 0 and 1"]),
        "start after end": (
            [*PROMPTS, "--image_guidance_start", "0.8", "--image_guidance_end", "0.2"],
            ["`image_guidance_start`", "0.8", "0.2"],
        ),
        "nobody speaks": ([*PROMPTS, "--audio_guidance_start", "0.5", "--image_guidance_start", "0.5"], ["No side"]),
        "no checkpoint": ([*PROMPTS, "--model", "no-such-folder"], ["`model`", "no-such-folder"]),
        "number of samples": ([*PROMPTS, "--num_samples", "0"], ["`num_samples`", "0"]),
        "negative seed": ([*PROMPTS, "--seed", "-1"], ["`seed`", "-1"]),
        "no picture": (["--params_from", "no-such.png"], ["no-such.png"]),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_is_named_and_nothing_is_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, named = bad_inputs()[name]
    with pytest.raises(SystemExit) as error:
        run(tmp_path / "outputs", *arguments)
    assert str(error.value).startswith("error: ")
    for word in named:
        assert word in str(error.value)
    assert not (tmp_path / "outputs").exists()


def test_a_model_without_an_audio_side(tmp_path, stable_diffusion_folder):
    with pytest.raises(SystemExit, match="^error: `audio_model` has to be given, such as auffusion/"):
        run(tmp_path / "out", *PROMPTS, "--model", str(stable_diffusion_folder))
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="`output_dir`"):
        run(tmp_path / "file" / "outputs", *PROMPTS)


def default_folder(*arguments: str) -> str:
    folder = generate.parse_args(list(arguments)).samples.output_dir
    assert folder.parent == Path("outputs") and re.fullmatch("[a-z0-9-]{1,120}", folder.name)
    return folder.name


def test_default_folders_are_named_by_what_is_made():
    assert default_folder("--example", "bell") == "generate-bell"
    same = ["--seed", "6", "--num_samples", "2", "--num_images_per_prompt", "2", "--device", "cpu", "--no-video"]
    usual = ["--dtype", "float32", "--canvas_layout", "strip"]
    assert default_folder("--example", "bell", *same, *usual) == "generate-bell"
    folder = default_folder("--prompt", "Ein Schloß, gemalt", "--audio_prompt", "Glockenläuten")
    assert re.fullmatch("generate-ein-schlo-gemalt-glockenlauten-[0-9a-f]{8}", folder)
    assert default_folder("--prompt", "Ein Schloß, gemalt", "--audio_prompt", "Glockenläuten", *same) == folder


def test_default_folders_are_never_shared():
    prompts = ["a cat", "A cat", "a cat!", "../a cat", "cat", "猫", "犬", "con", "a" * 300, "a" * 301, "a/cat"]
    lines = [["--prompt", prompt, "--audio_prompt", "meow"] for prompt in prompts]
    lines += [["--prompt", "a", "--audio_prompt", "cat meow"], ["--prompt", "bell", "--audio_prompt", "meow"]]
    settings = [[], ["--audio_weight", "0.6"], ["--audio_weight", "0.7"], ["--dtype", "bfloat16"], ["--eta", "1"]]
    settings += [["--model", "x"], ["--audio_model", "x"], ["--spectrogram", "riffusion"], ["--negative_prompt", "b"]]
    lines += [["--example", name, *more] for name in ("bell", "tiger") for more in settings]
    folders = [default_folder(*line) for line in lines]
    assert len({name.casefold() for name in folders}) == len(lines)


def test_examples_with_one_seed_do_not_clash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [*QUICK, "--no-video", "--num_samples", "1", "--seed", "0"]
    for arguments in (["--example", "bell"], ["--example", "tiger"], ["--example", "bell", "--audio_weight", "0.7"]):
        generate.main([*quick, *arguments])
    made = {path: path.stat().st_mtime_ns for path in Path("outputs").glob("*/seed-000000/audio.wav")}
    assert len(made) == 3
    generate.main([*quick, "--example", "tiger"])
    assert {path: path.stat().st_mtime_ns for path in Path("outputs").glob("*/*/audio.wav")} == made


def test_a_folder_of_other_settings_is_not_mixed(samples):
    with pytest.raises(SystemExit, match="`output_dir`.*other settings"):
        run(samples, "--prompt", "a painting of tigers", "--audio_prompt", "bell ringing", "--seed", "7")


def test_pictures_without_settings(tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n????")
    for name in ("plain.png", "broken.png"):
        with pytest.raises(SystemExit, match=name):
            run(tmp_path / "outputs", "--params_from", str(tmp_path / name))


def test_arguments_are_those_of_the_call():
    parameters = set(inspect.signature(ImagesThatSoundPipeline.__call__).parameters) - {"self"}
    tensors_and_objects = {
        *("generator", "latents", "prompt_embeds", "negative_prompt_embeds"),
        *("audio_prompt_embeds", "negative_audio_prompt_embeds", "output_type", "return_dict"),
        *("callback_on_step_end", "callback_on_step_end_tensor_inputs", "ip_adapter_image_embeds"),
        *("audio_onsets", "audio_ip_adapter_image_embeds"),
        # Read from files.
        *("control_image", "ip_adapter_image", "audio_control_image", "audio_ip_adapter_image"),
        # For a call in parts.
        *("denoising_start", "denoising_end"),
    }
    assert set(generate.parse_args(PROMPTS).call) == parameters - tensors_and_objects - {"num_images_per_prompt"}


def test_a_model_on_a_device_of_its_own_gives_the_same(samples, tmp_path):
    """The only device here is the CPU; what is tested is that accelerate carries everything to and fro."""
    run(tmp_path, *PROMPTS, "--seed", "7", "--device_map", '{"unet_audio": "cpu:0", "vae": "cpu"}')
    for name in ("image.png", "audio.wav"):
        assert (tmp_path / "seed-000007" / name).read_bytes() == (samples / "seed-000007" / name).read_bytes()
    for value in ('{"tokenizer": "cpu"}', '{"nothing": "cpu"}'):
        with pytest.raises(SystemExit, match="`device_map` has to name models of the pipeline"):
            run(tmp_path / "other", *PROMPTS, "--device_map", value)


def test_options_for_memory_and_speed_reach_both_sides(samples, tmp_path):
    run(tmp_path, *PROMPTS, "--seed", "7", "--enable_group_offload")
    for name in ("image.png", "audio.wav"):
        assert (tmp_path / "seed-000007" / name).read_bytes() == (samples / "seed-000007" / name).read_bytes()
    with pytest.raises(SystemExit, match="made with other settings"):
        run(samples, *PROMPTS, "--seed", "7", "--enable_layerwise_casting")
    models = Models(enable_group_offload=True, enable_layerwise_casting=True, compile=True, device="cpu")
    pipe = load_pipeline(models, ImagesThatSoundPipeline)
    for unet in (pipe.unet, pipe.unet_audio):
        linear = unet.mid_block.attentions[0].proj_in
        assert linear.weight.dtype == torch.float8_e4m3fn and unet.dtype == torch.float32
        assert linear._diffusers_hook.get_hook("group_offloading")
        # Compiling itself takes minutes on a CPU.
        assert unet.mid_block.attentions[0].transformer_blocks[0]._compiled_call_impl


def test_quantization_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    sys.modules["bitsandbytes"].__spec__ = ModuleSpec("bitsandbytes", None)
    for options, lack in (
        (["torchao"], "`quantization` by torchao needs torchao: pip install torchao"),
        (["bitsandbytes_4bit", "--device", "cpu"], "`quantization` by bitsandbytes_4bit needs a GPU"),
        (["torchao", "--enable_layerwise_casting"], "`quantization` and `enable_layerwise_casting` exclude each"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {lack}"):
            run(tmp_path, *PROMPTS, "--quantization", *options)


def test_samples_without_videos(tmp_path):
    run(tmp_path, *PROMPTS, "--no-video")
    assert {file.name for file in (tmp_path / "seed-000000").iterdir()} == FILES - {"video.mp4", "poster.png"}
