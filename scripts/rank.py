"""Ranks samples by how well they look and sound like their prompts, and shows them on one page."""

from collections.abc import Iterator
from pathlib import Path

from .common.arguments import (
    Models,
    Scores,
    add_device_arguments,
    add_lift_arguments,
    add_score_arguments,
    check_count,
    new_parser,
    run,
    values_of,
)
from .common.files import check_writable, write_json


def rank(sample_dir: Path, scores: Scores, models: Models, *, top: int = 5, share: float = 0.2) -> Iterator[str]:
    """Scores all samples; yields the lines of the rankings."""
    check_count("top", top)
    from ..selection import best, best_of, combined_score, top_by_all
    from .common.contact_sheet import write_contact_sheet
    from .common.samples import captions_of, find_samples, sample_settings
    from .common.scoring import load_scorer_for, problems_of, remarks_of, scores_of

    folders = find_samples(sample_dir)
    check_writable(sample_dir, "sample_dir")
    settings = [sample_settings(folder) for folder in folders]
    scorer, scores = load_scorer_for(scores, models, settings)
    found = [scores_of(folder, scorer, scores.models) for folder in folders]
    columns = {name: [each[name] for each in found] for name in scorer.names}
    combined = combined_score(columns)
    remarks = [remarks_of(folder) for folder in folders]

    agreed, rule = top_by_all(columns, share), f"in the top {share:.0%} by each"
    rankings = {f"by {name}": best_of(values, top) for name, values in columns.items()}
    rankings |= {"by all, combined": best_of(combined, top), rule: agreed}
    for name, indices in rankings.items():
        if not indices:
            hint = " Make more of them, or take a larger --share." if name == rule else ""
            yield f"{name}: no sample.{hint}"
        for place, i in enumerate(indices, start=1):
            said = [*(f"{column} {values[i]:.3f}" for column, values in columns.items()), *remarks[i]]
            yield f"{name}, {place}. {folders[i]}: {', '.join(said)}"

    named = {name: [str(folders[i].relative_to(sample_dir)) for i in indices] for name, indices in rankings.items()}
    write_json(sample_dir / "ranking.json", named)
    samples = [
        {
            "folder": folders[i],
            "seed": settings[i].get("seed"),
            "captions": [
                *captions_of(settings[i]),
                *(f"problem: {each}" for each in problems_of(folders[i])),
                *(f"remark: {each}" for each in remarks[i]),
            ],
            "numbers": {"combined": combined[i], **{name: values[i] for name, values in columns.items()}},
            "best": i in rankings["by all, combined"],
        }
        for i in best(combined, len(folders))
    ]
    notes = [
        f"{len(folders)} samples, the best by all scores first; a click on a column's name sorts by it.",
        f"{len(agreed)} of them are {rule} score." if agreed else f"None is {rule} score.",
    ]
    page = sample_dir / "index.html"
    write_contact_sheet(page, "Images that sound", samples, notes)
    yield str(page)


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("rank", __doc__)
    parser.add_argument("--sample_dir", type=Path, required=True, help="Every sample at or below it is scored.")
    parser.add_argument("--top", type=int, default=5, help="How many to name by each ranking. Default: %(default)s.")
    parser.add_argument(
        "--share", type=float, default=0.2, help="Top share by every score, the paper's rule. Default: %(default)s."
    )
    add_score_arguments(parser)
    add_lift_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    own = {"top": args.top, "share": args.share}
    run(lambda: rank(args.sample_dir, values_of(Scores, args), values_of(Models, args), **own))


if __name__ == "__main__":
    main()
