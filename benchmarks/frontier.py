"""
Cost and success of a sample: schedulers and numbers of steps on the embedded checkpoint, over all 100 pairs of its
pictures and sounds. The two classifiers of `training.judges`, which steer nothing, judge the samples. Every setting
starts from the same noise. A stopped run goes on, also to more settings or seeds.

    python -m benchmarks.frontier --settings "DDIM 25" "UniPC trailing 10" --num_seeds 3
    python -m benchmarks.frontier --num_seeds 0 --plot frontier.png      # only the report of finished samples
"""

import argparse
import copy
import json
import time
from functools import cached_property
from pathlib import Path

import torch
from diffusers import SchedulerMixin

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED, new_scheduler
from images_that_sound.scripts.common.presets import SCHEDULERS, WORLD_PROMPTS
from images_that_sound.selection import CLAPScore, CLIPScore, share_and_interval
from images_that_sound.selection.halving import counted_rows
from training.judges import train_judge
from training.world import KINDS


PAIRS = [(picture, sound) for picture in WORLD_PROMPTS["picture"] for sound in WORLD_PROMPTS["sound"]]
# Seeds that nothing else uses; equal in all settings.
FIRST_SEED = 300_000
BATCH_SIZE = 20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, default="outputs/frontier", help="Keeps the judges and the verdicts.")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=[],
        help="Settings such as 'UniPC trailing 10': a scheduler, another spacing of timesteps if wanted, the steps,"
        " and arguments of the call such as guidance_scale=7.5. 'distilled' before them loads the LoRAs that ship."
        f" Schedulers: {', '.join(SCHEDULERS)}.",
    )
    parser.add_argument("--num_seeds", type=int, default=1, help="Samples of each pair.")
    parser.add_argument("--pairs", type=int, nargs="+", default=range(len(PAIRS)), help="Numbers of some of the 100.")
    parser.add_argument("--plot", type=Path, help="PNG file for the curves.")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="Default: %(default)s.")
    return parser.parse_args()


def read_setting(setting: str, config: dict) -> tuple[SchedulerMixin, dict[str, float]]:
    """The scheduler that a setting names, and the arguments of the call."""
    words = setting.split()
    arguments = {name: float(value) for name, _, value in (word.partition("=") for word in words if "=" in word)}
    *names, steps = [word for word in words if "=" not in word]
    spacing = {"timestep_spacing": names.pop()} if names[-1] in ("leading", "trailing", "linspace") else {}
    scheduler = new_scheduler("-".join(names).lower(), {**config, **spacing})
    return scheduler, {"num_inference_steps": int(steps), **arguments}


class Bench:
    """The checkpoint, its scores and the judges; turns a batch of pairs and seeds into verdicts."""

    def __init__(self, dtype: str, work_dir: Path):
        self.pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED, dtype=getattr(torch, dtype))
        self.pipe.set_progress_bar_config(disable=True)
        self.config = self.pipe.scheduler.config
        self.judges = {kind: train_judge(kind, work_dir)[0] for kind in KINDS}
        self.scores = {
            "picture": CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32),
            "sound": CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32),
        }
        prompts = [prompt for kind in KINDS for prompt in WORLD_PROMPTS[kind].values()]
        self.prompts = {kind: score.embed_prompts(prompts) for kind, score in self.scores.items()}

    @cached_property
    def distilled(self) -> ImagesThatSoundPipeline:
        pipe = copy.deepcopy(self.pipe)
        pipe.load_few_step_lora_weights(EMBEDDED / "lcm_lora")
        return pipe

    def set_up(self, setting: str) -> tuple[ImagesThatSoundPipeline, dict[str, float]]:
        """The pipeline of a setting, and the arguments of the call."""
        plain = setting.removeprefix("distilled ")
        pipe = self.pipe if plain == setting else self.distilled
        pipe.scheduler, arguments = read_setting(plain, self.config)
        return pipe, arguments

    @torch.no_grad()
    def __call__(self, setting: str, pairs: list[tuple[str, str]], seeds: list[int]) -> list[dict]:
        pipe, arguments = self.set_up(setting)
        start = time.process_time()
        with counted_rows(pipe) as rows:
            output = pipe(
                [WORLD_PROMPTS["picture"][picture] for picture, _ in pairs],
                [WORLD_PROMPTS["sound"][sound] for _, sound in pairs],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="pt",
                **arguments,
            )
        seconds = (time.process_time() - start) / len(pairs)
        heard = self.pipe.mel_spectrogram.audio_to_canvas(output.audios)
        pictures = output.images.float().mean(dim=1, keepdim=True)
        chances = {
            kind: self.judges[kind](each).softmax(dim=1) for kind, each in (("picture", pictures), ("sound", heard))
        }
        embeds = {
            "picture": self.scores["picture"].embed_canvases(output.images.float()),  # of each window
            "sound": self.scores["sound"].embed_audios(output.audios.numpy(), self.pipe.sampling_rate),
        }
        cosines = {kind: embeds[kind] @ self.prompts[kind].T for kind in KINDS}
        cosines["picture"] = cosines["picture"].mean(dim=1)
        return [
            {
                "pair": PAIRS.index(pair),
                "seed": seed,
                "rows": sum(rows) / len(pairs),
                "seconds": seconds,
                **{kind: chances[kind][row].tolist() for kind in KINDS},
                **{f"{kind}_cosines": cosines[kind][row].tolist() for kind in KINDS},
            }
            for row, (pair, seed) in enumerate(zip(pairs, seeds))
        ]


def is_recognised(sample: dict, kind: str) -> bool:
    target = KINDS[kind].index(PAIRS[sample["pair"]][kind == "sound"])
    return max(range(len(sample[kind])), key=sample[kind].__getitem__) == target


def run(bench: Bench, setting: str, folder: Path, seeds: range, pairs: list[int]) -> None:
    """Makes the samples of a setting that are missing, and writes their verdicts."""
    for number in seeds:
        for first in range(0, len(pairs), BATCH_SIZE):
            batch = pairs[first : first + BATCH_SIZE]
            file = folder / f"{number:03d}-{batch[0]:03d}-{batch[-1]:03d}.json"
            if not file.exists():
                noise = [FIRST_SEED + number * len(PAIRS) + pair for pair in batch]
                write_json(file, bench(setting, [PAIRS[pair] for pair in batch], noise))


def read_samples(folder: Path) -> list[dict]:
    return [sample for file in sorted(folder.glob("*.json")) for sample in json.loads(file.read_text())]


def report(work_dir: Path) -> dict[str, dict]:
    """By setting: UNet rows, CPU seconds and the shares recognised, with 95 % intervals."""
    found = {}
    for folder in sorted(work_dir.glob("* [0-9]*")):
        samples = read_samples(folder)
        seen, heard = ([is_recognised(sample, kind) for sample in samples] for kind in ("picture", "sound"))
        both = [a and b for a, b in zip(seen, heard)]
        found[folder.name] = {
            **{name: sum(sample[name] for sample in samples) / len(samples) for name in ("rows", "seconds")},
            "samples": len(samples),
            **{
                name: share_and_interval(sum(values), len(values))
                for name, values in (("picture", seen), ("sound", heard), ("both", both))
            },
        }
    return dict(sorted(found.items(), key=lambda each: each[1]["rows"]))


def plot(found: dict[str, dict], path: Path) -> None:
    """How often both are recognised, with 95 % intervals, over the UNet rows of a sample, one curve a scheduler."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    curves: dict[str, list[dict]] = {}
    for setting, row in found.items():
        scheduler, _, steps = setting.rpartition(" ")
        if steps.isdigit():
            curves.setdefault(scheduler, []).append(row)
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for number, (scheduler, rows) in enumerate(sorted(curves.items())):
        # Side by side if they cost the same.
        x = [row["rows"] * 1.006 ** (number - len(curves) / 2) for row in rows]
        y, low, high = zip(*(row["both"] for row in rows))
        errors = [[a - b for a, b in zip(y, low)], [b - a for a, b in zip(y, high)]]
        axes.errorbar(x, y, errors, fmt="o-", capsize=2, elinewidth=0.7, label=scheduler)
    axes.set(xscale="log", xlabel="UNet rows of a sample", ylabel="picture and sound recognised", ylim=(0.2, 0.8))
    ticks = sorted({round(row["rows"]) for rows in curves.values() for row in rows})
    axes.set_xticks(ticks, map(str, ticks), minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=100)


def main() -> None:
    args = parse_args()
    if args.num_seeds:
        args.work_dir.mkdir(parents=True, exist_ok=True)
        bench = Bench(args.dtype, args.work_dir)
        for setting in args.settings:
            run(bench, setting, args.work_dir / setting, range(args.num_seeds), list(args.pairs))
            print(f"{setting}: done", flush=True)
    found = report(args.work_dir)
    write_json(args.work_dir / "report.json", found)
    if args.plot:
        plot(found, args.plot)
    print(f"{'':<44} {'rows':>5} {'CPU s':>6} {'samples':>7} {'picture':>8} {'sound':>6} {'both':>5}")
    for setting, row in found.items():
        shares = " ".join(f"{row[name][0]:>6.0%}" for name in ("picture", "sound"))
        value, low, high = row["both"]
        print(
            f"{setting:<44} {row['rows']:>5.0f} {row['seconds']:>6.2f} {row['samples']:>7} {shares} {value:>6.1%}"
            f" ({low:.0%} to {high:.0%})"
        )


if __name__ == "__main__":
    main()
