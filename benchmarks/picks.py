"""
Ways to choose among many samples, at equal price in UNet rows, on the embedded checkpoint. Samples of 20 pairs of
prompts are made once and saved with their embeddings by the embedded CLIP and CLAP. The two classifiers of
`training.judges`, which steer nothing, judge them. A stopped run goes on.

    python -m benchmarks.picks --num_seeds 32
    python -m benchmarks.picks --num_seeds 16 --pairs fresh
    python -m benchmarks.picks --num_seeds 64 --settings "distilled TCD 4"
    python -m benchmarks.picks --num_seeds 32 --report     # of finished samples
"""

import argparse
from collections.abc import Iterator
from math import comb
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.frontier import PAIRS, Bench
from images_that_sound.pipelines.images_that_sound_files import written
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import MIXED_PAIRS, WORLD_PROMPTS
from images_that_sound.selection import CLAPScore, CLIPScore, choice_score, combined_score
from images_that_sound.selection.halving import counted_rows
from training.world import KINDS


SETTINGS = ("DDIM 25", "DDIM 10", "UniPC trailing 10")
# The ways to choose were tried on the first; the others were looked at only afterwards.
PAIR_SETS = {
    "mixed": [PAIRS.index(pair) for pair in MIXED_PAIRS],
    "fresh": [10 * i + (i + shift) % 10 for i in range(10) for shift in (6, 8)],
}
PAIR_SETS["all"] = sorted(PAIR_SETS["mixed"] + PAIR_SETS["fresh"])
# Price of a choice: three samples of the first setting.
ROWS = 288
# Seeds that nothing else uses; equal in all settings.
FIRST_SEED = 400_000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, default="outputs/picks", help="Keeps the judges and the samples.")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="Settings as in `benchmarks.frontier`.")
    parser.add_argument("--num_seeds", type=int, default=32, help="Samples of each pair.")
    parser.add_argument("--pairs", choices=PAIR_SETS, default="mixed", help="Default: %(default)s.")
    parser.add_argument("--report", action="store_true", help="Make nothing.")
    return parser.parse_args()


@torch.no_grad()
def denoise(bench: Bench, setting: str, pair: int, seeds: list[int]) -> dict[str, torch.Tensor]:
    """Latents, and UNet rows of each."""
    pipe, arguments = bench.set_up(setting)
    with counted_rows(pipe) as rows:
        latents = pipe(
            **prompts_of(pair, len(seeds)),
            generator=[torch.Generator().manual_seed(FIRST_SEED + seed * len(PAIRS) + pair) for seed in seeds],
            output_type="latent",
            **arguments,
        ).images
    return {"latents": latents, "rows": torch.full((len(seeds),), sum(rows) / len(seeds))}


def prompts_of(pair: int, count: int) -> dict[str, list[str]]:
    picture, sound = PAIRS[pair]
    return {
        "prompt": [WORLD_PROMPTS["picture"][picture]] * count,
        "audio_prompt": [WORLD_PROMPTS["sound"][sound]] * count,
    }


@torch.no_grad()
def look(bench: Bench, pair: int, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits of the judges, and embeddings by CLIP (B, K, D) and CLAP (B, D), for latents (B, C, H / 8, W / 8)."""
    bench.set_up(SETTINGS[0])
    # A call with no step left decodes.
    call = {**prompts_of(pair, len(latents)), "denoising_start": 1.0, "output_type": "pt"}
    output = bench.pipe(**call, latents=latents)
    heard = bench.pipe.mel_spectrogram.audio_to_canvas(output.audios)
    return {
        "picture": bench.judges["picture"](output.images.float().mean(dim=1, keepdim=True)),
        "sound": bench.judges["sound"](heard),
        "clip": bench.scores["picture"].embed_canvases(output.images.float()),
        "clap": bench.scores["sound"].embed_audios(output.audios.numpy(), bench.pipe.sampling_rate),
    }


def save(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with written(file) as path:
        save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, path)


def name_of(pair: int, first: int) -> str:
    return f"{pair:03d}-{first:03d}-{first + 15:03d}.safetensors"


def make(bench: Bench, work_dir: Path, setting: str, pair: int, seeds: list[int]) -> None:
    file = work_dir / setting / name_of(pair, seeds[0])
    if not file.exists():
        tensors = denoise(bench, setting, pair, seeds)
        save(file, {**tensors, **look(bench, pair, tensors["latents"])})


# -------------------- Report --------------------


class Choice:
    """Samples of a pair: whether both judges find them `good`, and the scores to choose by."""

    def __init__(self, tensors: dict[str, torch.Tensor], pair: int, clip: CLIPScore, clap: CLAPScore):
        self.pair, prompts = pair, prompts_of(pair, len(tensors["clap"]))
        targets = [KINDS[kind].index(name) for kind, name in zip(("picture", "sound"), PAIRS[pair])]
        picture, sound = (tensors[kind].argmax(dim=1) == each for kind, each in zip(("picture", "sound"), targets))
        seen = clip.compare(tensors["clip"].mean(dim=1), prompts["prompt"], list(WORLD_PROMPTS["picture"].values()))
        heard = clap.compare(tensors["clap"], prompts["audio_prompt"], list(WORLD_PROMPTS["sound"].values()))
        self.good = (picture & sound).double().numpy()
        self.cosines = {"clip": seen[0].numpy(), "clap": heard[0].numpy()}
        sure = {"clip_log_probability": seen[1].numpy(), "clap_log_probability": heard[1].numpy()}
        self.scores = np.array(choice_score({**self.cosines, **sure}))

    def by(self, scores: np.ndarray, k: int) -> float:
        """Share of all sets of k whose best one by the scores is good."""
        number = len(self.good)
        sets = [comb(number - 1 - place, k - 1) for place in range(number)]
        return float(np.dot(sets, self.good[np.argsort(-scores, kind="stable")]) / comb(number, k))

    def shares(self, k: int) -> dict[str, float]:
        """Share of good samples among the kept ones of k, by each way to choose."""
        return {
            "any": self.good.mean(),
            "ranks": self.by_ranks(k),
            "cosines": self.by(sum(self.cosines.values()), k),
            "probability": self.by(self.scores, k),
            "oracle": self.by(self.good, k),
        }

    def by_ranks(self, k: int, draws: int = 4000) -> float:
        """The same by ranks within a set, over random sets."""
        return float(np.mean([self.good[each[self._first_by_ranks(each)]] for each in self.sets(k, draws)]))

    def _first_by_ranks(self, indices: np.ndarray) -> int:
        return int(np.argmax(combined_score({name: values[indices] for name, values in self.cosines.items()})))

    def sets(self, k: int, draws: int) -> np.ndarray:
        return np.random.default_rng(self.pair).random((draws, len(self.good))).argsort(axis=1)[:, :k]

    def best_in(self, sets: np.ndarray) -> np.ndarray:
        return sets[np.arange(len(sets)), self.scores[sets].argmax(axis=1)]


def choices_of(args: argparse.Namespace, setting: str, clip: CLIPScore, clap: CLAPScore) -> tuple[dict, float]:
    """A `Choice` for each pair whose samples are all there, and UNet rows of a sample."""
    found, rows = {}, 0.0
    for pair in PAIR_SETS[args.pairs]:
        files = [args.work_dir / setting / name_of(pair, first) for first in range(0, args.num_seeds, 16)]
        if all(file.exists() for file in files):
            loaded = [load_file(file) for file in files]
            tensors = {name: torch.cat([each[name] for each in loaded]) for name in loaded[0]}
            found[pair], rows = Choice(tensors, pair, clip, clap), float(tensors["rows"][0])
    return found, rows


def with_interval(values: list[float]) -> str:
    """Mean in per cent, and a 95 % interval by drawing pairs again."""
    values = 100 * np.asarray(values)
    draws = np.random.default_rng(0).integers(len(values), size=(4000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.1f} ({low:.1f} to {high:.1f})"


def report(args: argparse.Namespace) -> Iterator[str]:
    """Lines of two tables: good ones among the kept samples, and the gain of cheap samples over full ones alone."""
    clip = CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32)
    clap = CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32)
    found = {setting: choices_of(args, setting, clip, clap) for setting in args.settings}
    yield "| one of k | pairs | any | ranks | cosines | probability | oracle | probability - ranks |"
    yield "|---|---|---|---|---|---|---|---|"
    for setting, (choices, rows) in found.items():
        if choices:
            shares = [choice.shares(int(ROWS / rows)) for choice in choices.values()]
            columns = [[each[way] for each in shares] for way in shares[0]]
            gain = [each["probability"] - each["ranks"] for each in shares]
            cells = " | ".join(with_interval(values) for values in (*columns, gain))
            yield f"| {int(ROWS / rows)} of {setting} | {len(shares)} | {cells} |"
    full, full_rows = found[args.settings[0]]
    yield f"\n| cheap ones, and the best one's seed by {args.settings[0]} | the full run | the better of both | gain |"
    yield "|---|---|---|---|"
    for setting in args.settings[1:]:
        cheap, rows = found[setting]
        if both := [pair for pair in cheap if pair in full]:
            k, most = int((ROWS - full_rows) / rows), int(ROWS / full_rows)
            shares = [cheap_first(cheap[pair], full[pair], k) for pair in both]
            gain = [each[1] - full[pair].by(full[pair].scores, most) for pair, each in zip(both, shares)]
            cells = [with_interval(values) for values in (*zip(*shares), gain)]
            yield f"| {k} of {setting} | {' | '.join(cells)} |"


def cheap_first(cheap: Choice, full: Choice, k: int, draws: int = 2000) -> tuple[float, float]:
    """Share of good samples: full runs of the best of k cheap ones' seeds, and the better of both."""
    first = cheap.best_in(cheap.sets(k, draws))
    better = np.where(full.scores[first] > cheap.scores[first], full.good[first], cheap.good[first])
    return float(full.good[first].mean()), float(better.mean())


def main() -> None:
    args = parse_args()
    if args.report:
        print(*report(args), sep="\n")
        return
    args.work_dir.mkdir(parents=True, exist_ok=True)
    bench = Bench("bfloat16", args.work_dir)
    for setting in args.settings:
        for pair in PAIR_SETS[args.pairs]:
            for first in range(0, args.num_seeds, 16):
                make(bench, args.work_dir, setting, pair, list(range(first, first + 16)))
        print(f"{setting}: done", flush=True)
    print(*report(args), sep="\n")


if __name__ == "__main__":
    main()
