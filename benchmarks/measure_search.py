"""
Measures what search by successive halving loses against full runs, on the embedded checkpoint: 20 pairs of prompts,
32 seeds each. Candidates are steered by the embedded CLIP and CLAP; the outcome is judged by the two classifiers of
`training.judges`, other models on other draws. Since a candidate that goes on is exactly what a full run with its
seed is, full runs that are scored on the way tell what any choice of rungs would have found; `--verify` compares one
pair with a search that is really run. A stopped run goes on.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.pipelines.images_that_sound_noise_shares import audio_noise_shares
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import MIXED_PAIRS, WORLD_PROMPTS
from images_that_sound.selection import (
    CLAPScore,
    CLIPScore,
    Halving,
    Scorer,
    best,
    combined_score,
    mean_and_interval,
    rungs_of,
)
from training.judges import train_judge
from training.world import KINDS


STEPS = 25
RUNG_STEPS = (5, 12)
# UNet rows of each step: with and without prompt, by each model that is not silent.
ROWS = [2 * ((share < 1) + (share > 0)) for share in audio_noise_shares(STEPS)]
# Fractions of the steps and shares of the candidates; the first is the command's default, at whole steps.
SCHEDULES = {
    "20 %: 3/10, 48 %: 1/10": ([0.2, 0.48], [0.3, 0.1]),
    "20 %: 1/4, 48 %: 1/8": ([0.2, 0.48], [0.25, 0.125]),
    "20 %: 1/2, 48 %: 1/8": ([0.2, 0.48], [0.5, 0.125]),
    "20 %: 1/8": ([0.2], [0.125]),
    "48 %: 1/8": ([0.48], [0.125]),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", default="measure_search", help="A file for each pair, and the judges.")
    parser.add_argument("--num_candidates", type=int, default=32)
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="Default: %(default)s.")
    parser.add_argument("--judge_draws", type=int, default=4000)
    parser.add_argument("--judge_steps", type=int, default=600)
    parser.add_argument("--verify", action="store_true", help="Run a search for the first pair, too.")
    return parser.parse_args()


@torch.no_grad()
def verdicts(judges: dict, kind: str, canvases: torch.Tensor, name: str) -> dict[str, list]:
    """The judge's probability that canvases (B, H, W) are what was asked for, and whether it finds that likeliest."""
    chances = judges[kind](canvases[:, None].float()).softmax(dim=1)
    target = KINDS[kind].index(name)
    return {kind: chances[:, target].tolist(), f"{kind}_recognised": (chances.argmax(dim=1) == target).tolist()}


def note(expected: dict, pipe: ImagesThatSoundPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
    """A callback that keeps the latents that are expected in the end, as they are at the rungs."""
    if step + 1 in RUNG_STEPS:
        expected[step + 1] = tensors["pred_original_sample"]
    return {}


def run_pair(
    args: argparse.Namespace, pipe: ImagesThatSoundPipeline, scorer: Scorer, judges: dict, pair: tuple
) -> dict:
    """Full runs of all candidates: scores on the way and in the end, and the judges' verdicts."""
    prompt, audio_prompt = WORLD_PROMPTS["picture"][pair[0]], WORLD_PROMPTS["sound"][pair[1]]
    found: dict = {"scores": {str(step): {} for step in (*RUNG_STEPS, STEPS)}}

    def judge_all(step: int, output: object) -> None:
        audios = output.audios.numpy()
        count = len(audios)
        scores = scorer(output.images, audios, pipe.sampling_rate, [prompt] * count, [audio_prompt] * count)
        for name, values in scores.items():
            found["scores"][str(step)].setdefault(name, []).extend(values)

    for first in range(0, args.num_candidates, args.batch_size):
        seeds = range(first, min(first + args.batch_size, args.num_candidates))
        call = {"prompt": prompt, "audio_prompt": audio_prompt, "num_images_per_prompt": len(seeds)}
        expected: dict[int, torch.Tensor] = {}
        output = pipe(
            **call,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
            callback_on_step_end=partial(note, expected),
            callback_on_step_end_tensor_inputs=["pred_original_sample"],
        )
        for step, latents in expected.items():
            judge_all(step, pipe(**call, latents=latents, denoising_start=1.0, output_type="pt"))
        judge_all(STEPS, output)
        canvases = pipe.mel_spectrogram.audio_to_canvas(output.audios)[:, 0]
        judged = verdicts(judges, "picture", output.images.mean(dim=1), pair[0])
        for name, values in {**judged, **verdicts(judges, "sound", canvases, pair[1])}.items():
            found.setdefault(name, []).extend(values)
    return found


def halved(found: dict, num_candidates: int, keep: int, fractions: list[float], shares: list[float]) -> tuple:
    """The candidates that a search finds, and the UNet rows it spends."""
    left, spent, done = list(range(num_candidates)), 0, 0
    for rung in rungs_of(num_candidates, keep, fractions, shares):
        step = round(rung.fraction * STEPS)
        spent += len(left) * sum(ROWS[done:step])
        left = [left[i] for i in best(combined(found, step, left), rung.keep)]
        left, done = sorted(left), step
    spent += len(left) * sum(ROWS[done:])
    return [left[i] for i in best(combined(found, STEPS, left), keep)], spent


def combined(found: dict, step: int, candidates: list[int]) -> list[float]:
    scores = found["scores"][str(step)]
    return combined_score({name: [values[i] for i in candidates] for name, values in scores.items()})


def report(args: argparse.Namespace, results: dict[str, dict]) -> dict:
    """For each way to choose: the mean chance that both are recognised, over its best of each pair, and the cost."""
    everyone = list(range(args.num_candidates))
    full = args.num_candidates * sum(ROWS)
    rows = {}

    def add(name: str, chosen: dict[str, list[int]], share: float) -> None:
        values = []
        for pair, indices in chosen.items():
            both = np.array(results[pair]["picture"]) * np.array(results[pair]["sound"])
            values.append(float(both[indices].mean()))
        mean, interval = mean_and_interval(values)
        rows[name] = {"mean": mean, "interval": interval, "rows": share}

    truly = {
        pair: best(np.array(found["picture"]) * np.array(found["sound"]), args.keep) for pair, found in results.items()
    }
    add("the true best (by the judges) of full runs", truly, 1.0)
    chosen = {p: best(combined(f, STEPS, everyone), args.keep) for p, f in results.items()}
    add("the best by CLIP and CLAP of full runs", chosen, 1.0)
    for name, (fractions, shares) in SCHEDULES.items():
        halves = {p: halved(f, args.num_candidates, args.keep, fractions, shares) for p, f in results.items()}
        add(f"search, {name}", {p: h[0] for p, h in halves.items()}, next(iter(halves.values()))[1] / full)
    add(
        "full runs of so many seeds as a third pays for, the best by CLIP and CLAP",
        {p: best(combined(f, STEPS, everyone[: args.num_candidates // 3]), args.keep) for p, f in results.items()},
        (args.num_candidates // 3) / args.num_candidates,
    )
    add("any seeds", {pair: everyone for pair in results}, args.keep / args.num_candidates)
    return rows


def verify(args: argparse.Namespace, pipe: ImagesThatSoundPipeline, scorer: Scorer, found: dict) -> None:
    """A search that is really run finds what the full runs say."""
    picture, sound = MIXED_PAIRS[0]
    fractions, shares = next(iter(SCHEDULES.values()))
    arguments = {"prompt": WORLD_PROMPTS["picture"][picture], "audio_prompt": WORLD_PROMPTS["sound"][sound]}
    halving = Halving(pipe, arguments, scorer, Path(args.work_dir) / "verify", args.batch_size)
    rungs = rungs_of(args.num_candidates, args.keep, fractions, shares)
    rounds = halving(list(range(args.num_candidates)), rungs)
    left, spent = halved(found, args.num_candidates, rungs[-1].keep, fractions, shares)
    rows = sum(each["num_candidates"] * each["step_rows"] for each in rounds)
    print(f"a real search kept {rounds[-1]['kept']} for {rows} rows, the full runs say {sorted(left)} for {spent}")


def main() -> None:
    args = parse_args()
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, dtype=getattr(torch, args.dtype))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    judges = {kind: train_judge(kind, Path(args.work_dir), args.judge_draws, args.judge_steps)[0] for kind in KINDS}
    scorer = Scorer(
        CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32),
        CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32),
    )
    results = {}
    for picture, sound in MIXED_PAIRS:
        file = Path(args.work_dir) / f"{picture}-{sound}.json"
        if not file.exists():
            write_json(file, run_pair(args, pipe, scorer, judges, (picture, sound)))
        results[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        print(f"{len(results)} of {len(MIXED_PAIRS)} pairs", flush=True)
    if args.verify:
        verify(args, pipe, scorer, results["-".join(MIXED_PAIRS[0])])
    rows = report(args, results)
    write_json(Path(args.work_dir) / "report.json", rows)
    print(
        f"{'the best ' + str(args.keep) + ' of ' + str(args.num_candidates):<75} {'both recognised':>16} {'rows':>6}"
    )
    for name, row in rows.items():
        print(f"{name:<75} {row['mean']:>8.3f} ± {row['interval']:.3f} {row['rows']:>6.0%}")


if __name__ == "__main__":
    main()
