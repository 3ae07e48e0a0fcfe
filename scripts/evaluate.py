"""Evaluates samples: mean and 95 % interval of each score, for each pair of prompts and over all."""

import argparse
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from images_that_sound.scripts.samples import find_samples, sample_settings, write_json, write_text
from images_that_sound.scripts.sampling import (
    add_device_arguments,
    add_process_arguments,
    new_accelerator,
    own_share,
    report_samples,
    run,
)
from images_that_sound.scripts.scoring import add_score_arguments, load_scorer_for, scores_of
from images_that_sound.selection import Scorer, mean_and_interval


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound evaluate", description=__doc__)
    parser.add_argument("--sample_dir", required=True, help="Every sample at or below it; gets evaluation.json, .csv.")
    parser.add_argument(
        "--griffin_lim",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Whether to score sounds by Griffin-Lim from the saved spectrograms too. Default: yes.",
    )
    add_score_arguments(parser)
    add_process_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    args.output_dir = args.sample_dir
    return args


def evaluate(args: argparse.Namespace, scorer: Scorer | None = None) -> Iterator[str]:
    """Scores what has no scores yet, by what `args` name unless it is loaded already; yields the lines of a table."""
    folders = find_samples(args.sample_dir)
    accelerator = new_accelerator(args)
    settings = [sample_settings(folder) for folder in folders]
    scorer = scorer or load_scorer_for(args, settings)
    for folder in own_share(accelerator, folders):
        scores_of(args, folder, scorer, args.griffin_lim)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        scores = [scores_of(args, folder, scorer, args.griffin_lim) for folder in folders]
        names = [name for name in (*scorer.names, "clap_griffin_lim") if name in scores[0]]
        rows = summary(settings, scores, names)
        write_json(Path(args.sample_dir) / "evaluation.json", rows)
        write_csv(Path(args.sample_dir) / "evaluation.csv", rows)
        yield from table(rows, names)
    report_samples(accelerator, folders)


def summary(settings: list[dict], scores: list[dict], names: list[str]) -> list[dict]:
    """A row for each pair of prompts and one for all: number of samples, mean and half the 95 % interval of scores."""
    groups: dict[tuple, list[dict]] = {}
    for each, score in zip(settings, scores):
        pair = (each.get("prompt") or each.get("image"), each.get("audio_prompt") or each.get("audio"))
        groups.setdefault(pair, []).append(score)
    rows = []
    for (prompt, audio_prompt), group in [*groups.items(), (("all", "all"), scores)]:
        row = {"prompt": prompt, "audio_prompt": audio_prompt, "num_samples": len(group)}
        for name in names:
            row[name], row[f"{name}_interval"] = mean_and_interval([score[name] for score in group])
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def table(rows: list[dict], names: list[str]) -> Iterator[str]:
    yield f"{'picture':<34} {'sound':<26} {'n':>5}" + "".join(f" {name:>17}" for name in names)
    for row in rows:
        cells = "".join(f" {row[name]:>8.3f} ± {row[name + '_interval']:>6.3f}" for name in names)
        yield f"{row['prompt'][:34]:<34} {row['audio_prompt'][:26]:<26} {row['num_samples']:>5}{cells}"


def main(input_args: list[str] | None = None) -> None:
    run(lambda: evaluate(parse_args(input_args)))


if __name__ == "__main__":
    main()
