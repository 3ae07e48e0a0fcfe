"""Attacks on the commands, at length: random command lines, kills at any moment, and models made to do harm."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzz_commands import copy_with, fuzz

from images_that_sound.scripts.common.models import EMBEDDED


pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


def test_two_hundred_random_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcomes = fuzz(200, 2, tmp_path)
    assert not [(text, lines) for text, lines in outcomes.items() if text.startswith("!")]


def test_kills_change_no_byte_of_what_a_rerun_makes():
    command = [sys.executable, TESTS / "overlap_commands.py", "--num_pairs", "0", "--num_kills", "36"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout.count("as alone") == 36, process.stdout


# -------------------- Models --------------------


class Attack:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


CODE = b"import os\nos.mkdir('owned')\n"
UNET = json.loads((EMBEDDED / "unet" / "config.json").read_text())
TEXT_ENCODER = json.loads((EMBEDDED / "text_encoder" / "config.json").read_text())
INDEX = json.loads((EMBEDDED / "model_index.json").read_text())
SCHEDULER = json.loads((EMBEDDED / "scheduler" / "scheduler_config.json").read_text())
TOKENIZER = json.loads((EMBEDDED / "tokenizer" / "tokenizer_config.json").read_text())
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
# A header that is longer than any file, and one that puts a tensor beyond the end.
HEADERS = [(2**62).to_bytes(8, "little") + b"{}", (76).to_bytes(8, "little") + b" " * 76]
REMOTE = {"auto_map": {"AutoModel": "evil.Model", "CLIPTextModel": "evil.Model", "AutoTokenizer": "evil.T"}}

# Files that are changed, by what is wrong with them.
HOSTILE: dict[str, dict[str, object]] = {
    **{f"pickled {part}": {f"{part}/{WEIGHTS[part]}.safetensors": None, f"{part}/{name}": "saved"}
       for part, name in (("unet", "diffusion_pytorch_model.bin"), ("vae", "diffusion_pytorch_model.bin"),
                          ("text_encoder", "pytorch_model.bin"))},
    **{f"weights that are a pickle, {part}": {f"{part}/{name}.safetensors": "pickled"}
       for part, name in WEIGHTS.items()},
    **{f"weights cut off, {part}": {f"{part}/{name}.safetensors": b"\x08"} for part, name in WEIGHTS.items()},
    **{f"header {i}": {"unet/diffusion_pytorch_model.safetensors": header} for i, header in enumerate(HEADERS)},
    "a function instead of a class": {"model_index.json": {**INDEX, "unet": ["os", "mkdir"]}},
    "a command instead of a class": {"model_index.json": {**INDEX, "scheduler": ["subprocess", "Popen"]}},
    "a class of the repo": {"model_index.json": {**INDEX, "unet": ["evil", "Model"]}, "evil.py": CODE,
                            "unet/evil.py": CODE},
    "a pipeline of the repo": {"model_index.json": {**INDEX, "_class_name": ["evil", "Pipe"]}, "evil.py": CODE},
    "code for a text encoder": {"text_encoder/config.json": {**TEXT_ENCODER, **REMOTE}, "text_encoder/evil.py": CODE},
    "code for a tokenizer": {"tokenizer/tokenizer_config.json": {**TOKENIZER, **REMOTE}, "tokenizer/evil.py": CODE},
    **{f"a UNet with {name} {value!r:.30}": {"unet/config.json": {**UNET, name: value}} for name, value in (
        ("layers_per_block", 10**7), ("layers_per_block", -1), ("layers_per_block", "x"),
        ("block_out_channels", [10**9, 10**9]), ("block_out_channels", []), ("cross_attention_dim", 10**12),
        ("in_channels", 0), ("in_channels", 10**9), ("sample_size", -1), ("attention_head_dim", 0),
        ("down_block_types", ["DownBlock2D"] * 10**4), ("down_block_types", ["os.system"]),
        ("_class_name", "AutoencoderKL"), ("norm_num_groups", 0), ("act_fn", "__import__('os').mkdir('owned')"),
    )},
    **{f"a text encoder with {name} {value}": {"text_encoder/config.json": {**TEXT_ENCODER, name: value}}
       for name, value in (("num_hidden_layers", 10**7), ("hidden_size", 10**9), ("vocab_size", 10**12),
                           ("num_attention_heads", 0), ("max_position_embeddings", -1))},
    **{f"a scheduler with {name} {value!r:.30}": {"scheduler/scheduler_config.json": {**SCHEDULER, name: value}}
       for name, value in (("num_train_timesteps", 10**11), ("num_train_timesteps", 0), ("trained_betas", [0.1] * 3),
                           ("beta_schedule", "__import__('os')"), ("_class_name", "Popen"))},
    "numbers that are none": {"unet/config.json": b'{"sample_size": NaN, "in_channels": Infinity}'},
    "brackets": {"unet/config.json": b"[" * 10**5},
    "an endless config": {"unet/config.json": Path("/dev/zero")},
    "an endless index": {"model_index.json": Path("/dev/zero")},
    "a tokenizer of a million words": {"tokenizer/tokenizer.json": b'{"model": ' + b'["a",' * 10**5},
    "nothing": dict.fromkeys(("model_index.json",)),
}  # fmt: skip
RUN = """
import os, resource, sys
from images_that_sound.scripts import generate
limit = 6 * 2**30 + int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
generate.main(sys.argv[1:])
"""
PROMPTS = ["--prompt", "a painting of trains, grayscale", "--audio_prompt", "train whistling"]
QUICK = [*PROMPTS, "--width", "64", "--num_inference_steps", "1", "--device", "cpu", "--no-video"]


def test_the_attack_itself_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps({"weight": Attack()}))
    assert Path("owned").is_dir()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models_end_in_one_line_and_execute_nothing(name, tmp_path, run_fresh):
    """As the image side and as the audio side, within five minutes and 6 GB."""
    make(tmp_path / "model", HOSTILE[name])
    for argument in ("--model", "--audio_model"):
        arguments = [*QUICK, argument, str(tmp_path / "model"), "--output_dir", argument.strip("-")]
        process = run_fresh(RUN, *arguments, directory=tmp_path)
        assert process.returncode in (0, 1), process.stderr[-2000:]
        assert process.returncode == 0 or process.stderr.splitlines()[-1].startswith("error: "), process.stderr[-2000:]
        assert not (tmp_path / "owned").exists()


def make(folder: Path, changes: dict[str, object]) -> None:
    """The embedded checkpoint with some files changed, added, or, if they are `None`, left out."""
    copy_with(folder, "README.md", b"")
    for name, content in changes.items():
        file = folder / name
        file.unlink(missing_ok=True)
        if content == "pickled":
            file.write_bytes(pickle.dumps({"weight": Attack()}))
        elif content == "saved":
            torch.save({"weight": Attack()}, file)
        elif isinstance(content, Path):
            file.symlink_to(content)
        elif content is not None:
            file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
