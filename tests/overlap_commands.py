"""
Pairs of processes that work in one folder at the same time, and processes that are killed at any moment: nothing may
be lost, doubled, incomplete or different from what one undisturbed process makes.

    python tests/overlap_commands.py --num_pairs 200 --num_kills 50 --seed 0
"""

import argparse
import gc
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

import torch


# Before processes are forked, or each would import them.
for name in ("colors", "hiding", "sampling", "scoring", "spectrograms"):
    import_module(f"images_that_sound.scripts.common.{name}")


PROMPTS = ["--prompt", "a painting of trains, grayscale", "--audio_prompt", "train whistling"]
QUICK = [*PROMPTS, "--width", "64", "--device", "cpu", "--no-video", "--num_samples", "2"]
CANVAS = json.dumps({"hidden_size": 8, "num_frequencies": 4})
TRIES = ["--num_inference_steps", "1", "--start_diffusion_step", "0", "--num_images_per_prompt", "2"]
STEP = ["--num_inference_steps", "1"]
SOUND, PICTURE = "SAMPLES/seed-000000/audio.wav", "SAMPLES/seed-000000/image.png"
# Each with its arguments, in which FOLDER is the one to work in and SAMPLES one with samples.
COMMANDS: dict[str, list[str]] = {
    "generate": [*QUICK, *STEP, "--output_dir", "FOLDER"],
    "imprint": [*QUICK, *STEP, "--num_audio_inference_steps", "1", "--output_dir", "FOLDER"],
    "extend": ["--sample_dir", "SAMPLES/seed-000000", "--seconds", "0.3", *STEP, "--device", "cpu", "--no-video"]
    + ["--num_samples", "2", "--output_dir", "FOLDER"],
    "search": [*QUICK, "--num_inference_steps", "2", "--keep", "1", "--rungs", "0.5", "--shares", "1"]
    + ["--scheduler", "ddim", "--output_dir", "FOLDER"],
    "sds": [*QUICK, "--crop_width", "64", "--num_crops", "1", "--num_iterations", "3", "--canvas_kwargs", CANVAS]
    + ["--checkpoint_every", "1", "--preview_every", "1", "--output_dir", "FOLDER"],
    "compare": [*PROMPTS, "--methods", "ours", "imprint", "--num_samples", "2", "--width", "64", *STEP]
    + ["--device", "cpu", "--no-distances", "--output_dir", "FOLDER"],
    "hide": [SOUND, "--image", PICTURE, "--end_in_s", "0.3", "--min_frequency", "1000", "--max_frequency", "7000"]
    + ["--no-video", "--output", "FOLDER/hidden.wav"],
    "play": [PICTURE, "--no-video", "--output", "FOLDER/played.wav"],
    "see": [SOUND, "--output", "FOLDER/seen.png"],
    "rank": ["--device", "cpu", "--sample_dir", "FOLDER"],
    "evaluate": ["--device", "cpu", "--no-griffin_lim", "--sample_dir", "FOLDER"],
    "check": ["--sample_dir", "FOLDER"],
    "colorize": [*TRIES, "--device", "cpu", "--sample_dir", "FOLDER"],
}
MAINS = {name: import_module(f"images_that_sound.scripts.{name}").main for name in COMMANDS}
ON_SAMPLES = ("rank", "evaluate", "check", "colorize")


def start(command: str, folder: Path, log: Path) -> int:
    """The command in a process forked from this one, which has imported everything and computed nothing."""
    places = {"FOLDER": str(folder), "SAMPLES": str(folder.parent / "samples")}
    arguments = [re.sub("FOLDER|SAMPLES", lambda found: places[found[0]], word) for word in COMMANDS[command]]
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        torch.set_num_threads(1)
        MAINS[command](arguments)
        code = 0
    except SystemExit as exit:
        print(exit.code, flush=True)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def end(child: int, log: Path) -> str:
    """Waits for a process; returns what it printed if it failed."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "" if code == 0 else f"ended with {code}: {log.read_text(errors='replace')[-1500:]}"


def contents(folder: Path) -> dict[str, bytes]:
    """Files by their names, but for videos and what belongs to one process alone."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith((".mp4", ".csv"))}


def differences(folder: Path, expected: dict[str, bytes]) -> list[str]:
    found = contents(folder)
    found = {name: content for name, content in found.items() if ".part/" not in name}
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def incomplete(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Files that are there under their names and are not as they should be, in the middle of a run."""
    found = contents(folder)
    # Of a stopped optimisation; what it goes on from differs from moment to moment.
    passing = (".part/", ".unfinished/")
    wrong = [n for n in found if not any(p in n for p in passing) and found[n] != expected.get(n)]
    samples = {
        name.split("/")[0] for name in found if name.startswith("seed-") and not any(p in name for p in passing)
    }
    wrong += [n for n in expected if n.split("/")[0] in samples and "color" not in n and n not in found and _made(n)]
    return sorted(wrong)


def _made(name: str) -> bool:
    """Whether a file belongs to a sample from the beginning, and is not added to it later."""
    return name.endswith(
        ("/image.png", "/spectrogram.png", "/spectrogram_stretched.png", "/audio.wav", "/settings.json")
    )


class Trials:
    """Commands on folders below one, each compared with what an undisturbed process made."""

    def __init__(self, root: Path, seed: int):
        self.root, self.numbers, self.logs = root, random.Random(seed), [root / "first.log", root / "second.log"]
        self.expected, self.seconds = {}, {}
        samples = root / "samples"
        self._alone("generate", samples)
        for command in COMMANDS:
            folder = samples if command == "generate" else self.folder(command)
            if command != "generate":
                self._alone(command, folder)
            self.expected[command] = contents(folder)
            if folder != samples:
                shutil.rmtree(folder)

    def _alone(self, command: str, folder: Path) -> None:
        before = time.perf_counter()
        problem = end(start(command, folder, self.logs[0]), self.logs[0])
        self.seconds[command] = time.perf_counter() - before
        if problem:
            raise SystemExit(f"{command} alone {problem}")

    def folder(self, command: str) -> Path:
        folder = self.root / "work"
        if command in ON_SAMPLES:
            shutil.copytree(self.root / "samples", folder)
        return folder

    def pair(self, command: str) -> list[str]:
        """Two processes, the second one a moment later."""
        folder = self.folder(command)
        first = start(command, folder, self.logs[0])
        time.sleep(self.numbers.choice([0, self.numbers.random() * self.seconds[command]]))
        second = start(command, folder, self.logs[1])
        problems = [end(child, log) for child, log in zip((first, second), self.logs)]
        problems += [f"differs: {name}" for name in differences(folder, self.expected[command])]
        problems += [f"left behind: {path}" for path in folder.rglob("*.part")]
        shutil.rmtree(folder)
        return list(filter(None, problems))

    def kill(self, command: str) -> list[str]:
        """A process that is killed, and one that goes on."""
        folder = self.folder(command)
        child = start(command, folder, self.logs[0])
        time.sleep(self.numbers.random() * self.seconds[command])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        problems = [f"incomplete: {name}" for name in incomplete(folder, self.expected[command])]
        problems.append(end(start(command, folder, self.logs[1]), self.logs[1]))
        problems += [f"differs: {name}" for name in differences(folder, self.expected[command])]
        shutil.rmtree(folder)
        return list(filter(None, problems))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=200)
    parser.add_argument("--num_kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Or each child would spend seconds on collecting, in the end, what it was born with.
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        trials, failed = Trials(Path(folder), args.seed), 0
        for kind, count in (("pair", args.num_pairs), ("kill", args.num_kills)):
            for index in range(count):
                command = args.commands[index % len(args.commands)]
                problems = getattr(trials, kind)(command)
                failed += bool(problems)
                print(f"{kind} {index + 1} of {count}, {command}: {'; '.join(problems) or 'as alone'}", flush=True)
    print(f"{args.num_pairs} pairs and {args.num_kills} kills, {failed} with problems.")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
