"""Samples spread over processes: each made once, whatever becomes of the others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from images_that_sound.scripts import compare as compare_module
from images_that_sound.scripts import evaluate, generate
from images_that_sound.scripts import search as search_module


QUICK = ["--width", "128", "--num_inference_steps", "3", "--no-video", "--device", "cpu"]
PROMPTS = ["--prompt", "a painting of trains, grayscale", "--audio_prompt", "train whistling"]


def launch(command: str, *arguments: str) -> subprocess.Popen:
    """Starts a command in two processes on the CPU."""
    # `accelerate launch --cpu` starts a single one, whatever `--num_processes` says.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.Popen(
        [*launcher, "-m", f"images_that_sound.scripts.{command}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )


def same_sample(folder: Path, other: Path) -> bool:
    """Equal settings, and pictures up to the rounding of another number of threads."""
    pictures = [np.asarray(PIL.Image.open(each / "image.png"), int) for each in (folder, other)]
    settings = [(each / "settings.json").read_bytes() for each in (folder, other)]
    return settings[0] == settings[1] and np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    generate.main([*QUICK, *PROMPTS, "--num_samples", "6", "--output_dir", str(folder)])
    return folder


def test_a_killed_process_leaves_the_others_work_and_a_rerun_fills_the_gap(alone, tmp_path, capsys):
    arguments = [*QUICK, *PROMPTS, "--num_samples", "6", "--output_dir", str(tmp_path)]
    process = launch("generate", *arguments)
    deadline = time.time() + 200
    while not list(tmp_path.glob("seed-*")) and time.time() < deadline:
        time.sleep(0.05)
    started = subprocess.run(
        ["pgrep", "-f", f"^{sys.executable}.*scripts.generate.*{tmp_path}"], capture_output=True, text=True
    ).stdout.split()
    workers = [int(pid) for pid in started if int(pid) != process.pid]
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode != 0
    whole = sorted(folder.name for folder in tmp_path.glob("seed-*"))
    assert 1 <= len(whole) < 6
    for name in whole:
        assert same_sample(tmp_path / name, alone / name)
    times = {name: (tmp_path / name / "settings.json").stat().st_mtime_ns for name in whole}
    generate.main(arguments)
    made = capsys.readouterr().out.splitlines()
    assert sorted(made) == sorted(str(tmp_path / f.name) for f in alone.iterdir() if f.name not in whole)
    assert all(same_sample(tmp_path / folder.name, folder) for folder in alone.iterdir())
    assert {name: (tmp_path / name / "settings.json").stat().st_mtime_ns for name in whole} == times


TWO_PROCESSES = """
import json, sys, torch
from accelerate import debug_launcher
from images_that_sound.scripts import compare, evaluate, search

def main(search_arguments, evaluate_arguments, compare_arguments):
    torch.set_num_threads(1)
    search.main(search_arguments)
    evaluate.main(evaluate_arguments)
    compare.main(compare_arguments)

debug_launcher(main, tuple(map(json.loads, sys.argv[1:])))
"""


def test_search_evaluate_and_compare_in_two_processes(run_fresh, tmp_path, stable_diffusion_folder, auffusion_folder):
    search = [*QUICK, *PROMPTS, "--num_samples", "5", "--keep", "1", "--rungs", "0.34", "--shares", "0.4"]
    search += ["--scheduler", "ddim"]
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    search_module.main([*search, "--output_dir", one])
    evaluate.main(["--sample_dir", one, "--device", "cpu"])
    compared = tmp_path / "compared"
    comparison = ["--model", str(stable_diffusion_folder), "--audio_model", str(auffusion_folder), "--device", "cpu"]
    comparison += ["--methods", "image", "ours", "--clip_model", "embedded", "--clap_model", "embedded"]
    comparison += ["--prompt", "a castle", "--audio_prompt", "bell ringing", "a dog barking", "--num_samples", "1"]
    comparison += ["--width", "256", "--num_inference_steps", "1", "--output_dir", str(compared)]
    compare_module.main([*comparison, "--pairs", "picture-0-sound-0"])
    made = {path: path.stat().st_mtime_ns for path in compared.glob("*/*/*/image.png")}
    arguments = [*search, "--output_dir", two], ["--sample_dir", two, "--device", "cpu"], comparison
    process = run_fresh(TWO_PROCESSES, *map(json.dumps, arguments), directory=tmp_path)
    assert process.returncode == 0, process.stderr
    # Made before, by one process, is the share of the first of two.
    assert "2 of 2 samples were there already." in process.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == made
    rows = json.loads((compared / "comparison.json").read_text())
    assert [row["num_samples"] for row in rows] == [2, 2]
    reports, evaluations = (
        [json.loads((tmp_path / name / file).read_text()) for name in ("one", "two")]
        for file in ("search.json", "evaluation.json")
    )
    assert [each["kept"] for each in reports[0]["rungs"]] == [each["kept"] for each in reports[1]["rungs"]]
    assert reports[0]["best"] == reports[1]["best"]
    assert evaluations[0][-1]["clip"] == pytest.approx(evaluations[1][-1]["clip"], abs=1e-3)
