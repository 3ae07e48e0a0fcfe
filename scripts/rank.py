"""Ranks samples by how well they look and sound like their prompts, and shows them on one page."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .common.arguments import (
    Models,
    Scores,
    add_device_arguments,
    add_score_arguments,
    new_parser,
    run,
    values_of,
)
from .common.files import write_json


@dataclass(frozen=True, kw_only=True)
class RankRequest:
    """
    Args:
        sample_dir (`Path`): Every sample at or below it is scored.
        top (`int`): How many to name by each ranking.
        share (`float`): Top share by every score.
        scores ([`Scores`]): What scores.
        models ([`Models`]): Where that runs.
    """

    sample_dir: Path
    top: int
    share: float
    scores: Scores
    models: Models

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"`top` has to be a positive integer, but is {self.top}.")


def parse_args(input_args: list[str] | None = None) -> RankRequest:
    parser = new_parser("rank", __doc__)
    parser.add_argument("--sample_dir", type=Path, required=True, help="Every sample at or below it is scored.")
    parser.add_argument("--top", type=int, default=5, help="How many to name by each ranking. Default: %(default)s.")
    parser.add_argument(
        "--share", type=float, default=0.2, help="Top share by every score, the paper's rule. Default: %(default)s."
    )
    add_score_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    return values_of(RankRequest, args, scores=values_of(Scores, args), models=values_of(Models, args))


def rank(request: RankRequest) -> Iterator[str]:
    """Scores all samples; yields the lines of the rankings."""
    from ..selection import best, combined_score, top_by_all
    from .common.contact_sheet import write_contact_sheet
    from .common.samples import captions_of, find_samples, sample_settings
    from .common.scoring import load_scorer_for, scores_of

    folders = find_samples(request.sample_dir)
    settings = [sample_settings(folder) for folder in folders]
    scorer, judges = load_scorer_for(request.scores, request.models, settings)
    scores = [scores_of(folder, scorer, judges.models) for folder in folders]
    columns = {name: [each[name] for each in scores] for name in scorer.names}
    combined = combined_score(columns)

    agreed, rule = top_by_all(columns, request.share), f"in the top {request.share:.0%} by each"
    rankings = {f"by {name}": best(values, request.top) for name, values in columns.items()}
    rankings |= {"by all, combined": best(combined, request.top), rule: agreed}
    for name, indices in rankings.items():
        if not indices:
            yield f"{name}: no sample. Make more of them, or take a larger --share."
        for place, i in enumerate(indices, start=1):
            numbers = ", ".join(f"{column} {values[i]:.3f}" for column, values in columns.items())
            yield f"{name}, {place}. {folders[i]}: {numbers}"

    named = {
        name: [str(folders[i].relative_to(request.sample_dir)) for i in indices] for name, indices in rankings.items()
    }
    write_json(request.sample_dir / "ranking.json", named)
    samples = [
        {
            "folder": folders[i],
            "seed": settings[i]["seed"],
            "captions": captions_of(settings[i]),
            "numbers": {"combined": combined[i], **{name: values[i] for name, values in columns.items()}},
            "best": i in rankings["by all, combined"],
        }
        for i in best(combined, len(folders))
    ]
    notes = [
        f"{len(folders)} samples, the best by all scores first; a click on a column's name sorts by it.",
        f"{len(agreed)} of them are {rule} score." if agreed else f"None is {rule} score.",
    ]
    page = request.sample_dir / "index.html"
    write_contact_sheet(page, "Images that sound", samples, notes)
    yield str(page)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: rank(parse_args(input_args)))


if __name__ == "__main__":
    main()
