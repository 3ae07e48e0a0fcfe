"""Where commands meet the machine and the user: what goes wrong there is one line, and ends in order."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loopback_hub import LoopbackHub

from images_that_sound.scripts import generate, sds, search
from images_that_sound.scripts.common.border import run
from images_that_sound.scripts.common.loading_errors import checkpoint_errors
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.progress import tell


PROMPTS = ["--prompt", "a painting of trains, grayscale", "--audio_prompt", "train whistling"]
QUICK = [*PROMPTS, "--width", "64", "--num_inference_steps", "2", "--device", "cpu", "--no-video"]


def failing(error: BaseException):
    yield "a line"
    raise error


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("`a` is\n  wrong \x1b[2J"), "error: `a` is wrong ?[2J"),
        (OSError(28, "No space left on device", "file"), "error: [Errno 28] No space left on device: 'file'"),
        (MemoryError(), "error: MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: DefaultCPUAllocator: can't"),
    ],
)
def test_what_goes_wrong_outside_is_one_line(error, line, capsys):
    with pytest.raises(SystemExit) as exit:
        run(lambda: failing(error))
    assert str(exit.value).startswith(line) and str(exit.value).isprintable()
    assert capsys.readouterr().out == "a line\n"


def test_what_files_hold_can_not_write_elsewhere_on_a_terminal(capsys):
    """Titles, cursors, and halves of characters that no stream takes."""
    attack = "seed-1\x1b]0;title\x07\x1b[2J\udcff\u202e\ta"
    run(lambda: iter([attack, Path(attack)]))
    tell(attack)
    printed = capsys.readouterr()
    assert printed.out == 2 * "seed-1?]0;title??[2J??\ta\n" and printed.err == "seed-1?]0;title??[2J??\ta\n"


@pytest.mark.parametrize("error", [RuntimeError("shapes"), TypeError("x"), KeyError("x"), AttributeError("x")])
def test_faults_of_the_program_are_not_hidden(error):
    with pytest.raises(type(error)):
        run(lambda: failing(error))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--device", "cuda:99"], "`device` has to name a device of this machine, such as cpu, but is 'cuda:99'"),
        (["--device", "meta"], "`device` has to name a device"),
        (["--device", "toaster"], "`device` has to name a device"),
        (["--device_map", '{"unet": "toaster"}'], "`device_map` has to name a device"),
        (["--device_map", '{"unet": 1.5}'], "`device_map` has to name a device"),
        (["--prompt", "a" * 400_000], "`prompt` has to be at most 10000 bytes long, but has 400000"),
        (["--num_samples", "1000000000"], "`num_samples` has to be a positive integer of at most"),
        (["--seed", str(2**63)], "`seed` has to be an integer"),
        (["--model", "no/such/repo"], "`model` has to be a repo or folder of a checkpoint"),
    ],
)
def test_arguments_that_this_machine_has_no_use_for(tmp_path, arguments, words):
    with pytest.raises(SystemExit, match=f"error: {words}"):
        generate.main([*QUICK, "--output_dir", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command, arguments",
    [
        (generate, ["--device_map", '["unet"]']),
        (generate, ["--cross_attention_kwargs", "1"]),
        (sds, ["--optimizer_kwargs", "[]"]),
        (sds, ["--canvas_kwargs", "[" * 100_000]),
    ],
)
def test_json_of_the_wrong_kind(command, arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        command.main(arguments)
    assert exit.value.code == 2
    assert f"error: argument {arguments[0]}: invalid json_dict value" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, content",
    [
        ("model_index.json", b"{"),
        ("model_index.json", b"[]"),
        ("unet/config.json", b"[1]"),
        ("unet/config.json", b'{"sample_size": "x"}'),
        ("unet/diffusion_pytorch_model.safetensors", b"x" * 1000),
        ("scheduler/scheduler_config.json", b"null"),
        ("tokenizer/tokenizer.json", b"[]"),
        # Built before their weights are found missing, these would take hours.
        ("unet/config.json", b'{"_class_name": "UNet2DConditionModel", "layers_per_block": 10000000}'),
        ("vae/config.json", b'{"_class_name": "AutoencoderKL", "layers_per_block": [2, 10000000]}'),
        ("text_encoder/config.json", b'{"architectures": ["CLIPTextModel"], "num_hidden_layers": 10000000}'),
        (
            "scheduler/scheduler_config.json",
            b'{"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "trained_betas": [0.1, 0.2, 0.3]}',
        ),
    ],
)
def test_damaged_checkpoints(tmp_path, name, content):
    for file in EMBEDDED.rglob("*.*"):
        if file.is_file():
            target = tmp_path / "model" / file.relative_to(EMBEDDED)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file.resolve())
    damaged = tmp_path / "model" / name
    damaged.unlink()
    damaged.write_bytes(content)
    with pytest.raises(SystemExit, match="^error: `model` has to be a repo or folder of a checkpoint, but "):
        arguments = ["--output_dir", str(tmp_path / "out"), "--model", str(tmp_path / "model")]
        generate.main([*QUICK, *arguments, "--dtype", "bfloat16"])
    assert torch.get_default_dtype() == torch.float32, "what comes next in this process is computed as before"


DEEP = [
    {"layers_per_block": [2, -1]},
    {"num_hidden_layers": 10**7},
    {"text_config": {"num_hidden_layers": 10**7}},
    {"audio_config": {"depths": [2, 2, 10**7]}},
    {"transformer_layers_per_block": [1, [10**7]]},
    {"down_block_types": ["DownBlock2D"] * 10**4},
    {"resblock_kernel_sizes": [3] * 10**4},
]


@pytest.mark.parametrize("config", DEEP)
def test_configs_of_too_many_or_too_few_layers(tmp_path, config):
    for folder in ("", "unet", "models/image_encoder"):
        file = tmp_path / folder / "config.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(config))
        (tmp_path / "adapter.safetensors").touch()
        for source in (tmp_path, tmp_path / "adapter.safetensors"):
            with pytest.raises(ValueError, match=r"in `.*config.json` has to name [01] to 1000 layers"):
                with checkpoint_errors(str(source), "model"):
                    pytest.fail("loaded")
        file.unlink()


LOAD = """
from images_that_sound.scripts.common.loading_errors import checkpoint_errors
with checkpoint_errors("tester/deep/models/file.safetensors", "ip_adapter"):
    print("loaded")
"""


def test_configs_of_too_many_layers_on_the_hub(tmp_path):
    folder = tmp_path / "repo" / "models" / "image_encoder"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(DEEP[-1]))
    hub = LoopbackHub({})
    hub.put("tester/deep", tmp_path / "repo")
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    process = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True)
    hub.shutdown()
    assert "config.json` has to name 0 to 1000 layers" in process.stderr and not process.stdout


@pytest.mark.parametrize(
    "command, more",
    [
        (generate, []),
        (search, ["--num_samples", "2", "--keep", "1", "--scheduler", "ddim", "--rungs", "0.5", "--shares", "1"]),
    ],
)
def test_a_full_disk_leaves_nothing_half(tmp_path, command, more):
    """Files may not grow beyond 2 kB, of which Python and the libraries learn as of a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(SystemExit, match="^error: "):
            command.main([*QUICK, *more, "--output_dir", str(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.iterdir()} <= {".search"}
    command.main([*QUICK, *more, "--output_dir", str(tmp_path)])
    assert list(tmp_path.glob("seed-*/settings.json"))


WAITING = """
import sys, time
from pathlib import Path
from images_that_sound.scripts.common.border import run
from images_that_sound.scripts.common.files import written

def make():
    with written(Path(sys.argv[1]) / "folder") as folder:
        folder.mkdir()
        yield "begun"
        time.sleep(100)

run(make)
"""


@pytest.mark.parametrize("number, said", [("SIGTERM", ""), ("SIGHUP", ""), ("SIGINT", "stopped\n")])
def test_signals_end_in_order(tmp_path, number, said):
    """Asked to end, with its terminal closed, and by Ctrl-C."""
    number, pipe = getattr(signal, number), subprocess.PIPE
    # A shell that started the tests behind itself, or nohup, may have let them ignore what a terminal's command heeds.
    code = f"import signal\nsignal.signal({int(number)}, signal.default_int_handler)\n{WAITING}"
    if number != signal.SIGINT:
        code = code.replace("default_int_handler", "SIG_DFL")
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "begun\n" and list(tmp_path.iterdir())
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == said
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())


def test_nohup_keeps_a_command_running(tmp_path):
    command = ["nohup", sys.executable, "-c", WAITING, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_settings_hold_no_bare_nan(tmp_path):
    generate.main([*QUICK, "--output_dir", str(tmp_path)])
    text = Path(tmp_path, "seed-000000", "settings.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["problems"] == []
