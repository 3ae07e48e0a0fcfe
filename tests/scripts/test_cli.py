"""The console command: help and refusals come at once, and arguments are those of the pipelines' calls."""

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from images_that_sound.scripts.cli import COMMANDS
from images_that_sound.scripts.common.call_arguments import CallArgument
from images_that_sound.scripts.common.parsers import add_call_arguments, parser_options


SLOW = {"torch", "diffusers", "transformers", "gradio", "scipy", "av"}
RUN = """
import json, sys
sys.argv[1:] = json.loads(sys.argv[1])
from images_that_sound.scripts.cli import main
try:
    main()
except SystemExit as error:
    print("ended with", error.code)
print("imported", json.dumps(sorted(sys.modules)))
"""


def run_command(*arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the modules that it took."""
    command = [sys.executable, "-c", RUN, json.dumps(arguments)]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed, _, modules = process.stdout.rpartition("imported ")
    return printed, set(json.loads(modules))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_at_once(command):
    printed, modules = run_command(command, "--help")
    assert printed.startswith(f"usage: images-that-sound {command} ") and printed.endswith("ended with 0\n")
    assert not SLOW & modules


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--version"], f"images-that-sound {version('images-that-sound')}"),
        ([], "images-that-sound COMMAND --help says more"),
        (["paint"], "error: 'paint' is no command."),
        (["generate", "--width", "wide"], "argument --width: invalid int value: 'wide'"),
        (["sds", "--canvas_kwargs", "{"], "argument --canvas_kwargs: invalid json_dict value"),
        (
            ["search", "--example", "bell", "--num_samples", "0"],
            "error: `num_samples` has to be a positive integer of at most 1000000, but is 0.",
        ),
        (
            ["rank", "--sample_dir", ".", "--top", "0"],
            "error: `top` has to be a positive integer of at most 1000000, but is 0.",
        ),
        (["colorize", "--sample_dir", ".", "--prompt", "a", "--example", "bell"], "exclude each other"),
        (["generate"], "error: `prompt` and `audio_prompt` have to be given. --example bell is one way to."),
        (
            ["search", "--image", "a.png"],
            "error: unrecognized arguments: --image a.png",
        ),
        (["generate", "--strength", "0.5"], "error: `strength` can't be given without `image` or `audio`."),
        (
            ["hide", "a.wav", "--img", "b.png"],
            "arguments are required: --image (did you mean --image?)",
        ),
        (["search", "--promt=a"], "error: unrecognized arguments: --promt=a (did you mean --prompt?)"),
        (
            ["play", "a\udcff.png"],
            "error: arguments and names of files have to be text, but this is none: 'a\\udcff.png'",
        ),
        (["sds", "--nonsense"], "error: unrecognized arguments: --nonsense\n"),
        (["sds", "--nonsense=a\n\x1b[2Jb"], "error: unrecognized arguments: --nonsense=a ?[2Jb"),
    ],
)
def test_refusals_come_at_once(arguments, words):
    printed, modules = run_command(*arguments)
    assert words in printed
    assert not SLOW & modules


PROGRAMS = {
    "command": ["-m", "images_that_sound.scripts.see", "no-such.wav"],
    "page": [str(Path(__file__).parents[2] / "demo" / "app.py"), "--help"],
}


@pytest.mark.skipif(sys.platform != "linux", reason="Torch brings GNU's OpenMP on Linux only")
@pytest.mark.parametrize(
    "program, given, spins",
    [
        ("command", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("page", {}, "1000"),
        ("command", {"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"),
    ],
)
def test_threads_that_wait_spin_briefly_unless_the_user_wants_it_otherwise(program, given, spins):
    """By what GNU's OpenMP itself says when it is loaded."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    env = {**others, **given, "OMP_DISPLAY_ENV": "verbose"}
    process = subprocess.run([sys.executable, *PROGRAMS[program]], env=env, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in process.stderr


@pytest.mark.parametrize(
    "annotation, words, value",
    [
        ("int | None", ["3"], 3),
        ("float", ["0.5"], 0.5),
        ("float | list[float] | Any | None", ["0.5", "1"], [0.5, 1.0]),
        ("str | list[str] | None", ["a word"], "a word"),
        ("str | Callable[..., torch.nn.Module]", ["pixels"], "pixels"),
        ("dict[str, Any] | None", ['{"a": [1]}'], {"a": [1]}),
        ("bool", [], True),
        ("Literal['strip', 'folded']", ["folded"], "folded"),
    ],
)
def test_annotations_say_what_a_command_line_takes(annotation, words, value):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_call_arguments(parser, {"name": CallArgument("name", annotation, None, "Up to 100 % of it.")})
    assert parser.parse_args(["--name", *words]).name == value
    assert "Up to 100 % of it." in " ".join(parser.format_help().split())
    if annotation.startswith("Literal"):
        with pytest.raises(argparse.ArgumentError, match="invalid choice: 'round'"):
            parser.parse_args(["--name", "round"])


@pytest.mark.parametrize(
    "annotation",
    ["", "torch.Tensor | None", "list[str]", "torch.Generator | list[torch.Generator] | None", "Any", "np.ndarray"],
)
def test_what_no_command_line_can_give_is_left_out(annotation):
    assert parser_options(CallArgument("name", annotation, None, "")) == {}
