"""Evaluates samples: mean and 95 % interval of each score, for each pair of prompts and over all."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .common.arguments import (
    Models,
    Scores,
    add_device_arguments,
    add_process_arguments,
    add_score_arguments,
    new_parser,
    run,
    values_of,
)


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """
    Args:
        sample_dir (`Path`): Every sample at or below it is scored.
        griffin_lim (`bool`): Whether to score sounds by Griffin-Lim from the saved spectrograms too.
        scores ([`Scores`]): What scores.
        models ([`Models`]): Where that runs.
        report_to (`str`): A tracker of accelerate.
    """

    sample_dir: Path
    griffin_lim: bool
    scores: Scores
    models: Models
    report_to: str | None


def parse_args(input_args: list[str] | None = None) -> EvaluateRequest:
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
    add_process_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    return values_of(EvaluateRequest, args, scores=values_of(Scores, args), models=values_of(Models, args))


def evaluate(request: EvaluateRequest) -> Iterator[str]:
    """Scores what has no scores yet; yields the lines of a table."""
    from .common.samples import find_samples, sample_settings
    from .common.sampling import report_samples, start
    from .common.scoring import evaluate_samples, load_scorer_for, table

    folders = find_samples(request.sample_dir)
    accelerator, models = start(request.models, request.sample_dir, request.report_to)
    settings = [sample_settings(folder) for folder in folders]
    scorer, scores = load_scorer_for(request.scores, models, settings)
    rows = evaluate_samples(request.sample_dir, scorer, scores.models, accelerator, griffin_lim=request.griffin_lim)
    yield from table(rows)
    report_samples(accelerator, folders)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: evaluate(parse_args(input_args)))


if __name__ == "__main__":
    main()
