"""Ranks samples by how well they look and sound like their prompts, and shows them on one page."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from images_that_sound.scripts.contact_sheet import write_contact_sheet
from images_that_sound.scripts.samples import captions_of, find_samples, sample_settings, write_json
from images_that_sound.scripts.sampling import add_device_arguments, run
from images_that_sound.scripts.scoring import add_score_arguments, load_scorer_for, scores_of
from images_that_sound.selection import best, combined_score, top_by_all


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound rank", description=__doc__)
    parser.add_argument("--sample_dir", required=True, help="Every sample at or below it is scored.")
    parser.add_argument("--top", type=int, default=5, help="How many to name by each ranking. Default: %(default)s.")
    parser.add_argument(
        "--share", type=float, default=0.2, help="Top share by every score, the paper's rule. Default: %(default)s."
    )
    add_score_arguments(parser)
    add_device_arguments(parser)
    return parser.parse_args(input_args)


def rank(args: argparse.Namespace) -> Iterator[str]:
    """Scores all samples; yields the lines of the rankings."""
    if args.top < 1:
        raise ValueError(f"`top` has to be a positive integer, but is {args.top}.")
    folders = find_samples(args.sample_dir)
    settings = [sample_settings(folder) for folder in folders]
    scorer = load_scorer_for(args, settings)
    scores = [scores_of(args, folder, scorer) for folder in folders]
    columns = {name: [each[name] for each in scores] for name in scorer.names}
    combined = combined_score(columns)

    rankings = {f"by {name}": best(values, args.top) for name, values in columns.items()}
    rankings["by all, combined"] = best(combined, args.top)
    agreed = top_by_all(columns, args.share)
    rule = f"in the top {args.share:.0%} by each"
    for name, indices in {**rankings, rule: agreed}.items():
        if not indices:
            yield f"{name}: no sample. Make more of them, or take a larger --share."
        for place, i in enumerate(indices, start=1):
            numbers = ", ".join(f"{column} {values[i]:.3f}" for column, values in columns.items())
            yield f"{name}, {place}. {folders[i]}: {numbers}"

    named = {
        name: [str(folders[i].relative_to(args.sample_dir)) for i in indices]
        for name, indices in {**rankings, rule: agreed}.items()
    }
    write_json(Path(args.sample_dir) / "ranking.json", named)
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
    page = Path(args.sample_dir) / "index.html"
    write_contact_sheet(page, "Images that sound", samples, notes)
    yield str(page)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: rank(parse_args(input_args)))


if __name__ == "__main__":
    main()
