"""Finds the best of many seeds for a part of the price: candidates are judged on the way, the worse ones dropped."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.generate import call_arguments, complete, new_parser, pictures_of
from images_that_sound.scripts.samples import write_json
from images_that_sound.scripts.sampling import (
    all_seeds,
    check_args,
    load_pipeline,
    make_samples,
    new_accelerator,
    own_share,
    report_samples,
    run,
    sample_folder,
)
from images_that_sound.scripts.scoring import add_score_arguments, fill_in_score_models, load_scorer, scores_of
from images_that_sound.selection import Halving, best, combined_score, rungs_of


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser("search", __doc__)
    add_score_arguments(parser)
    group = parser.add_argument_group("search", "--num_samples candidates, of which the best are finished.")
    group.add_argument("--keep", type=int, default=3, help="The best so many are wanted. Default: %(default)s.")
    group.add_argument(
        "--rungs",
        type=float,
        nargs="+",
        default=[0.2, 0.5],
        help="Fractions of the steps at which to judge. Default: %(default)s.",
    )
    group.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.3, 0.1],
        help="Of the candidates, that go on after each rung. Default: %(default)s.",
    )
    args = complete(parser.parse_args(input_args))
    fill_in_score_models(args, args.model)
    return args


def search(args: argparse.Namespace) -> Iterator[str]:
    """Makes the best samples; yields the lines of a report."""
    check_args(args)
    rungs = rungs_of(args.num_samples, args.keep, args.rungs, args.shares)
    accelerator = new_accelerator(args)
    pipe = load_pipeline(args, ImagesThatSoundPipeline)
    scorer = load_scorer(args, pipe)
    arguments = call_arguments(args, pipe)
    folder = search_folder(args, {**arguments, "model": args.model, "audio_model": args.audio_model})
    halving = Halving(pipe, arguments, scorer, folder, args.num_images_per_prompt)
    report = halving(all_seeds(args), rungs)
    finalists = report[-1]["kept"]

    mine = own_share(accelerator, finalists)
    for path in make_samples(
        args, pipe, arguments, arguments, pictures_of, mine, lambda seeds: halving.resume(seeds, 1.0)
    ):
        yield str(path)
    for seed in mine:
        scores_of(args, sample_folder(args, seed), scorer)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        scores = {seed: scores_of(args, sample_folder(args, seed), scorer) for seed in finalists}
        yield from write_report(args, report, scores)
    report_samples(accelerator, [sample_folder(args, seed) for seed in finalists])


def search_folder(args: argparse.Namespace, settings: dict) -> Path:
    """Where candidates are kept on the way. Raises `ValueError` if they were made with other settings."""
    folder = Path(args.output_dir) / ".search"
    settings = {**settings, "scores": args.scores, "clip_model": args.clip_model, "clap_model": args.clap_model}
    file = folder / "settings.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"`output_dir` holds {folder}, a search with other settings. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)
    return folder


def write_report(args: argparse.Namespace, report: list[dict], scores: dict[int, dict]) -> Iterator[str]:
    """Writes `search.json`: what happened at each rung, the finalists' scores, the best, and what it cost."""
    seeds = list(scores)
    columns = {name: [scores[seed][name] for seed in seeds] for name in scores[seeds[0]]}
    order = [seeds[i] for i in best(combined_score(columns), len(seeds))]
    spent = sum(rung["num_candidates"] * (rung["step_rows"] + rung["judge_rows"]) for rung in report)
    total = args.num_samples * sum(rung["step_rows"] for rung in report)
    summary = {
        "best": order[: args.keep],
        "finalists": {str(seed): scores[seed] for seed in order},
        "rungs": report,
        "unet_rows": spent,
        "unet_rows_of_full_runs": total,
    }
    write_json(Path(args.output_dir) / "search.json", summary)
    for place, seed in enumerate(order[: args.keep], start=1):
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in scores[seed].items())
        yield f"{place}. {sample_folder(args, seed)}: {numbers}"
    yield f"{spent:.0f} UNet rows instead of {total:.0f} ({spent / total:.0%})."


def main(input_args: list[str] | None = None) -> None:
    run(lambda: search(parse_args(input_args)))


if __name__ == "__main__":
    main()
