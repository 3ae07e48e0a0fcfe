"""
Random command lines, honest and not: each has to succeed or to say in one line what is wrong.

    python tests/fuzz_commands.py --num_commands 2000 --seed 0
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import os
import random
import re
import signal
import tempfile
import traceback
from importlib import import_module
from pathlib import Path

import numpy as np
import PIL.Image
import soundfile

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts.cli import COMMANDS
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.parsers import FILES, call_arguments, parser_options
from images_that_sound.scripts.common.samples import write_picture, write_sample


# Those of `generate` that begin with a file are all the others' too.
CALLS = dict(zip(("search", "generate", "imprint", "sds", "colorize"), FILES))
CALLS["extend"] = CALLS["search"]
INTEGERS = ["0", "-1", "1", "2", "7", "3.5", "x", "", "99999999999999999999", "1_0"]
FLOATS = ["0", "1", "-1", "0.5", "nan", "inf", "-inf", "1e400", "1e30", "x", ""]
TEXTS = ["", " ", "a", "é" * 50, "a" * 400_000, "\udcff", "\x1b[2J", "a\nb", "../a", "bell ringing", "\0"]
DICTS = ["{}", "[]", "1", "null", "[" * 100_000, '{"scale": 0.5}', '{"scale": "x"}', '{"a": NaN}', '["unet"]', "{"]
DICTS += ['{"unet": "cuda:9"}', '{"unet": "cpu"}', '{"vae": 1}', '{"lr": "x"}', '{"hidden_size": 0}', '{"": {}}']
DEVICES = ["cpu", "cpu:0", "cuda", "cuda:9", "meta", "foo", "", "mps", "xpu", "cpu:x", "hpu"]
PATHS = [
    "missing",
    "",
    ".",
    "..",
    "text",
    "dangling",
    "looped",
    "x" * 300,
    "x/" * 3000,
    "/proc/nothing",
    "a\0b",
    "dir",
]
PATHS += ["samples", "samples/one", "samples/one/image.png", "samples/one/audio.wav", "samples/one/settings.json"]
PATHS += ["gray16.png", "tiny.png", "cut.png", "noise.png", "list.json", "broken.wav", "zero.wav", "http://x/y.mp4"]
MODELS = ["embedded", "embedded-colorization", "damaged", "wrong-json", "truncated", "no-such/repo", *PATHS[:8]]
WORDS = [*TEXTS[:4], *INTEGERS[:5], "--", "-h", "--version", "clip", "lift", "all"]


def make_world(folder: Path) -> None:
    """Files that commands may be given."""
    numbers = np.random.default_rng(0)
    picture = PIL.Image.fromarray(numbers.integers(0, 255, (128, 64), np.uint8))
    for seed, name in enumerate(("one", "two")):
        settings = {"prompt": "a painting of trains, grayscale", "audio_prompt": "train whistling", "seed": seed}
        settings |= {"model": "embedded", "audio_model": None, "problems": [], "dtype": "float32"}
        settings["spectrogram"] = MelSpectrogram(num_mel_bins=128).to_dict()
        sound = numbers.uniform(-0.5, 0.5, 64 * 160).astype(np.float32)
        write_sample(folder / "samples" / name, picture, picture, sound, 16000, settings, video=False)
    PIL.Image.fromarray(numbers.integers(0, 65535, (64, 64), np.uint16)).save(folder / "gray16.png")
    PIL.Image.new("L", (1, 1)).save(folder / "tiny.png")
    (folder / "cut.png").write_bytes((folder / "gray16.png").read_bytes()[:600])
    (folder / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + numbers.bytes(500))
    write_picture(folder / "odd.png", picture, json.dumps({"prompt": 3, "seed": "x"}))
    (folder / "text").write_text("words")
    (folder / "list.json").write_text("[1]")
    (folder / "dangling").symlink_to("gone")
    (folder / "looped").symlink_to("looped")
    (folder / "dir").mkdir()
    soundfile.write(folder / "zero.wav", np.zeros(0), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF" + numbers.bytes(200))
    for name, file, content in (
        ("damaged", "unet/diffusion_pytorch_model.safetensors", numbers.bytes(1000)),
        ("wrong-json", "unet/config.json", b"[1]"),
        ("truncated", "model_index.json", b'{"_class_name": '),
    ):
        copy_with(folder / name, file, content)


def copy_with(folder: Path, changed: str, content: bytes) -> None:
    """The embedded checkpoint, linked but for one file."""
    for source in EMBEDDED.rglob("*"):
        target = folder / source.relative_to(EMBEDDED)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
    (folder / changed).unlink()
    (folder / changed).write_bytes(content)


def options_of(command: str, fresh: str) -> dict[str, list]:
    """Values to draw for each option of a command; `None` stands for a flag."""
    options: dict[str, list] = {}
    if command in CALLS:
        for name, argument in call_arguments(CALLS[command]).items():
            options[f"--{name}"] = values_of_kind(parser_options(argument))
        options |= {"--seed": INTEGERS, "--num_images_per_prompt": INTEGERS, "--model": MODELS}
    if command in ("generate", "imprint", "sds", "search", "extend"):
        options |= {"--params_from": PATHS, "--example": ["bell", "x"], "--num_samples": ["0", "2", "x", "1" * 30]}
        options |= {"--audio_model": MODELS, "--device_map": DICTS, "--output_dir": [*[fresh] * 10, *PATHS]}
        options |= {"--report_to": ["tensorboard", "x", ""]}
    if command in ("rank", "evaluate", "search"):
        options |= {"--scores": ["clip", "clap", "lift", "x"], "--clip_model": MODELS, "--clap_model": MODELS}
    if command in ("rank", "evaluate"):
        options |= {"--model": MODELS, "--audio_model": MODELS}
    if command in ("rank", "evaluate", "check", "colorize", "extend"):
        options["--sample_dir"] = ["samples", "samples/one", *PATHS]
    if command in (*CALLS, "rank", "evaluate", "compare"):
        options |= {"--device": DEVICES, "--dtype": ["float16", "bfloat16", "float64"]}
        options |= dict.fromkeys(("--enable_model_cpu_offload", "--enable_group_offload"), [None])
        options["--enable_layerwise_casting"] = [None]
    if command in ("generate", "imprint", "sds", "search", "compare"):
        options["--quantization"] = ["torchao", "bitsandbytes_8bit", "gguf"]
    return options | {
        "generate": {"--image": PATHS, "--audio": PATHS, "--mask_image": PATHS}
        | {"--controlnet": MODELS, "--control_image": PATHS, "--ip_adapter": MODELS, "--ip_adapter_image": PATHS}
        | {"--lora": [*MODELS, "dir:0.5", "a:b"], "--audio_lora": MODELS},
        "imprint": {"--image": PATHS, "--audio": PATHS},
        "extend": {"--seconds": FLOATS, "--lora": MODELS},
        "hide": {"--image": PATHS, "--output": [*PATHS, f"{fresh}.wav", f"{fresh}.flac"], "--invert": [None]}
        | dict.fromkeys(("--start_in_s", "--end_in_s", "--min_frequency", "--max_frequency", "--strength"), FLOATS)
        | {"--frequency_scale": ["linear", "logarithmic", "mel", "x"]},
        "sds": {"--final_max_timestep": FLOATS, "--checkpoint_every": INTEGERS, "--preview_every": INTEGERS}
        | {"--mixed_precision": ["bf16", "fp16", "x"], "--gradient_accumulation_steps": INTEGERS},
        "rank": {"--top": INTEGERS, "--share": FLOATS},
        "search": {"--keep": INTEGERS, "--rungs": FLOATS, "--shares": FLOATS},
        "colorize": {"--super_resolution_model": MODELS, "--example": ["bell", "x"]},
        "check": {"--vocoder": MODELS},
        "train-lora": {"--audio_dir": ["samples", *PATHS], "--output_dir": PATHS, "--audio_model": MODELS}
        | {"--audio_prompt": TEXTS, "--validation_prompt": TEXTS, "--mixed_precision": ["fp16", "x"]}
        | dict.fromkeys(("--learning_rate", "--prior_loss_weight"), FLOATS)
        | dict.fromkeys(("--rank", "--width", "--seed", "--train_batch_size", "--validation_steps"), ["0", "1", "x"]),
        "play": {"--vocoder": MODELS, "--output": [*PATHS, f"{fresh}.wav"]},
        "see": {"--params_from": PATHS, "--output": [*PATHS, f"{fresh}.png"]},
        "compare": {
            "--methods": WORDS,
            "--pairs": WORDS,
            "--num_samples": ["0", "x"],
            "--num_sds_iterations": INTEGERS,
            "--sds_model": MODELS,
            "--prompt": TEXTS,
        }
        | {"--output_dir": PATHS, "--seed": INTEGERS},
        "publish": {"--namespace": TEXTS, "--repo": WORDS, "--source_dir": PATHS, "--output_dir": PATHS}
        | {"--license": ["mit", "x"], "--dtype": ["float16"], "--private": [None]},
    }.get(command, {})


def values_of_kind(options: dict) -> list:
    if "choices" in options:
        return [*options["choices"], "x"]
    return {"int": INTEGERS, "float": FLOATS, "str": TEXTS, "json_dict": DICTS}.get(
        getattr(options.get("type"), "__name__", ""), [None]
    )


QUICK = {"--width": "64", "--num_inference_steps": "1", "--no-video": None, "--device": "cpu"}
PROMPTS = {"--prompt": "a painting of trains, grayscale", "--audio_prompt": "train whistling"}
CANVAS = json.dumps({"hidden_size": 8, "num_frequencies": 4})
# Arguments that succeed quickly. Those of `compare` and `publish`, which take minutes, end at the first check.
HONEST = {
    "hide": {
        "samples/one/audio.wav": None,
        "--image": "samples/one/image.png",
        "--end_in_s": "0.5",
        "--no-video": None,
    }
    | {"--min_frequency": "1000", "--max_frequency": "7000"},
    "generate": {**QUICK, **PROMPTS},
    "imprint": {**QUICK, **PROMPTS, "--num_audio_inference_steps": "1"},
    "extend": {"--sample_dir": "samples/one", "--seconds": "0.3", "--num_inference_steps": "1", "--no-video": None},
    "search": {**QUICK, **PROMPTS, "--num_inference_steps": "2", "--num_samples": "2", "--keep": "1", "--rungs": "0.5"}
    | {"--shares": "0.5"},
    "sds": {**PROMPTS, "--width": "64", "--crop_width": "64", "--num_iterations": "1", "--canvas_kwargs": CANVAS}
    | {"--no-video": None, "--device": "cpu", "--num_crops": "1"},
    "colorize": {"--sample_dir": "samples/one", "--num_images_per_prompt": "1", "--device": "cpu"}
    | {"--num_inference_steps": "1", "--start_diffusion_step": "0"},
    "rank": {"--sample_dir": "samples", "--device": "cpu"},
    "evaluate": {"--sample_dir": "samples", "--device": "cpu"},
    "check": {"--sample_dir": "samples"},
    "train-lora": {"--audio_dir": "samples", "--output_dir": "my_lora", "--max_train_steps": "1", "--width": "64"}
    | {"--train_batch_size": "1", "--device": "cpu"},
    "play": {"samples/one/image.png": None},
    "see": {"samples/one/audio.wav": None},
    "compare": {"--pairs": "castle-drum"},
    "publish": {"--namespace": "somebody", "--dry_run": None, "--source_dir": "missing"},
}


def draw(numbers: random.Random, index: int) -> list[str]:
    """A command line: an honest one with up to four options changed, left out or added."""
    command, fresh = numbers.choice(list(COMMANDS)), f"out-{index}"
    options = options_of(command, fresh)
    arguments = dict(HONEST[command])
    if "--output_dir" in options and command in CALLS:
        arguments["--output_dir"] = fresh
    if command in ("play", "see") and numbers.random() < 0.7:
        arguments = {numbers.choice(PATHS): None, "--output": f"{fresh}.{'wav' if command == 'play' else 'png'}"}
    for name in numbers.sample(list(options), min(numbers.randrange(5), len(options))):
        arguments[name] = numbers.choice(options[name])
    if command == "hide":
        arguments.setdefault("--output", f"{fresh}.wav")
    if numbers.random() < 0.05:
        arguments.pop(numbers.choice(list(arguments)))
    if numbers.random() < 0.05:
        arguments[numbers.choice(WORDS)] = None
    if command in ("compare", "publish"):
        arguments |= HONEST[command]
    return [command, *(name if value is None else f"{name}={value}" for name, value in arguments.items())]


def outcome_of(line: list[str]) -> str:
    """What a command line ended with: nothing, or a message; or, if it should not have, a text that begins with !."""
    module = import_module(f"images_that_sound.scripts.{line[0].replace('-', '_')}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            module.main(line[1:])
    except SystemExit as exit:
        if exit.code in (None, 0):
            return ""
        # Of this process itself.
        if exit.code in (128 + signal.SIGTERM, 128 + signal.SIGHUP, 128 + signal.SIGINT):
            raise
        if exit.code == 2 and re.search(r": error: [^\n]*\n$", errors.getvalue(), re.DOTALL):
            return errors.getvalue().splitlines()[-1]
        text = str(exit.code)
        return text if text.startswith("error: ") and text.isprintable() else f"! {text}"
    except BaseException:
        return f"! {traceback.format_exc()}"
    return ""


def fuzz(num_commands: int, seed: int, folder: Path) -> dict[str, list[list[str]]]:
    """Runs command lines in a folder of their own; returns the lines by what they ended with."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, outcomes = random.Random(seed), collections.defaultdict(list)
    with contextlib.chdir(folder):
        make_world(folder)
        for index in range(num_commands):
            line = draw(numbers, index)
            outcome = outcome_of(line)
            outcomes[outcome].append([word[:200] for word in line])
            print(f"{index + 1} of {num_commands}, {line[0]}: {outcome[:2000]}", flush=True)
        left = [str(path) for path in folder.rglob("*.part")]
    if left:
        outcomes[f"! left behind: {left}"] = []
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_commands", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = fuzz(args.num_commands, args.seed, Path(folder))
    bad = {text: lines for text, lines in outcomes.items() if text.startswith("!")}
    for text, lines in bad.items():
        print(f"{text}\n    {lines}")
    succeeded, failed = len(outcomes.get("", [])), sum(map(len, bad.values()))
    print(f"{args.num_commands} commands: {succeeded} succeeded, {failed} ended in another way than an error line.")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
