"""Evaluates samples: mean and 95 % interval of each score, for each pair of prompts and over all."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from .common.border import run
from .common.files import check_own_file
from .common.parsers import (
    add_device_arguments,
    add_lift_arguments,
    add_options,
    add_score_arguments,
    new_parser,
)
from .common.values import Models, Request, Scores, values_of


def evaluate(
    sample_dir: Path, scores: Scores, models: Models, *, griffin_lim: bool = True, report_to: str | None = None
) -> Iterator[str]:
    """Scores what has no scores yet; yields the lines of a table."""
    from .common.samples import find_samples, sample_settings
    from .common.sampling import report_samples, start
    from .common.scoring import evaluate_samples, load_scorer_for, table

    folders = find_samples(sample_dir)
    check_own_file(sample_dir / "evaluation.json", '[\n  {\n    "prompt":')
    check_own_file(sample_dir / "evaluation.csv", "prompt,audio_prompt,num_samples,num_scored")
    accelerator, models = start(models, sample_dir, report_to, "sample_dir")
    scorer, scores = load_scorer_for(scores, models, [sample_settings(folder) for folder in folders])
    yield from table(evaluate_samples(sample_dir, scorer, scores.models, accelerator, griffin_lim=griffin_lim))
    report_samples(accelerator, folders)


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("evaluate", __doc__)
    parser.add_argument(
        "--sample_dir", type=Path, required=True, help="Every sample at or below it; gets evaluation.json, .csv."
    )
    parser.add_argument(
        "--griffin_lim",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Whether to score sounds by Griffin-Lim from the saved spectrograms too. Default: yes.",
    )
    add_score_arguments(parser)
    add_lift_arguments(parser)
    add_options(parser, Request, "report_to")
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    scores, models = values_of(Scores, args), values_of(Models, args)
    further = {"griffin_lim": args.griffin_lim, "report_to": args.report_to}
    run(lambda: evaluate(args.sample_dir, scores, models, **further))


if __name__ == "__main__":
    main()
