"""Ranks samples by how well they look and sound like their prompts, and shows them on one page."""

from collections.abc import Iterator
from pathlib import Path

from .common.border import run
from .common.files import check_own_file, check_writable, write_json
from .common.parsers import add_device_arguments, add_lift_arguments, add_score_arguments, new_parser
from .common.values import Models, Scores, check_count, values_of


BY_PROBABILITY = "Combined is how sure the models are of a sample's prompts among those of the examples: 1 is certain."
BY_RANKS = "Combined is the mean of a sample's ranks by the other scores: 1 is the best by each, 0 the worst by each."


def rank(sample_dir: Path, scores: Scores, models: Models, *, top: int = 5, share: float = 0.2) -> Iterator[str]:
    """Scores all samples; yields the lines of a table of the best."""
    check_count("top", top)
    from tqdm import tqdm

    from ..selection import best, best_of, top_by_all
    from .common.contact_sheet import BEGINNING, write_contact_sheet
    from .common.samples import captions_of, find_samples, read_picture, sample_settings, strips_of
    from .common.scoring import choice_scores, load_scorer_for, problems_of, remarks_of, scores_of

    folders = find_samples(sample_dir)
    check_writable(sample_dir, "sample_dir")
    page = sample_dir / "index.html"
    check_own_file(page, BEGINNING)
    check_own_file(sample_dir / "ranking.json", '{\n  "by ')
    settings = [sample_settings(folder) for folder in folders]
    scorer, scores = load_scorer_for(scores, models, settings)
    found = [scores_of(folder, scorer, scores.models) for folder in tqdm(folders, desc="Scoring")]
    columns = {name: [each[name] for each in found] for name in scorer.names}
    combined = choice_scores(found, scorer)
    remarks = [remarks_of(folder) for folder in folders]

    agreed, rule = top_by_all(columns, share), f"in the top {share:.0%} by each"
    rankings = {f"by {name}": best_of(values, top) for name, values in columns.items()}
    rankings |= {"by all, combined": best_of(combined, top), rule: agreed}
    named = {name: [str(folders[i].relative_to(sample_dir)) for i in indices] for name, indices in rankings.items()}
    write_json(sample_dir / "ranking.json", named)

    order, columns = best(combined, len(folders)), {"combined": combined, **columns}
    places = {name: places_of(values) for name, values in columns.items()}
    shown = [i for i in order if any(i in indices for indices in rankings.values())]
    yield from table(folders, columns, places, remarks, shown, agreed)
    if agreed:
        yield f"* {rule} score"
    else:
        yield f"{rule}: no sample. Make more of them, or take a larger --share."
    unplaced = len(folders) - len(places["combined"])
    if unplaced:
        yield f"Without a place because of problems: {unplaced} of {len(folders)} samples. The page says which."
    winners = rankings["by all, combined"][: max(round(share * len(folders)), 1)]
    notes = [
        f"{len(folders)} samples, the best by all scores first. A click into a picture plays from there.",
        f"{len(agreed)} of them are {rule} score." if agreed else f"None is {rule} score.",
        BY_RANKS if "lift" in scores.scores else BY_PROBABILITY,
    ]
    cards = [
        {
            "folder": folders[i],
            "seed": settings[i].get("seed"),
            "size": read_picture(folders[i] / "image.png").size,
            "strips": strips_of(settings[i]),
            "captions": captions_of(settings[i]),
            "problems": problems_of(folders[i]),
            "remarks": remarks[i],
            "numbers": {name: (values[i], places[name].get(i)) for name, values in columns.items()},
            "best": i in winners,
        }
        for i in order
    ]
    write_contact_sheet(
        page, "Images that sound", cards, notes, f"the best {len(winners)} of {len(folders)} by all scores combined"
    )
    yield str(page)


def places_of(values: list[float]) -> dict[int, int]:
    """The place of each sample by a score, counted from 1; none for `nan`."""
    from ..selection import best_of

    return {i: place for place, i in enumerate(best_of(values, len(values)), start=1)}


def table(
    folders: list[Path],
    columns: dict[str, list[float]],
    places: dict[str, dict],
    remarks: list[list[str]],
    shown: list[int],
    marked: list[int],
) -> Iterator[str]:
    """A line for each sample: place and number by all, scores and its place by each, and remarks."""
    names = [name for name in columns if name != "combined"]
    yield "place  combined" + "".join(f"{name:>18}" for name in names) + "   sample"
    for i in shown:
        each = {name: places[name].get(i, "–") for name in columns}
        cells = "".join(f"{columns[name][i]:>10.3f} {f'({each[name]}.)':>7}" for name in names)
        said = (" *" if i in marked else "") + "".join(f", {remark}" for remark in remarks[i])
        yield f"{each['combined']:>4}.{columns['combined'][i]:>10.3f}{cells}   {folders[i]}{said}"


def main(input_args: list[str] | None = None) -> None:
    parser = new_parser("rank", __doc__)
    parser.add_argument("--sample_dir", type=Path, required=True, help="Every sample at or below it is scored.")
    parser.add_argument(
        "--top", type=int, default=5, help="Number of samples to name by each ranking. Default: %(default)s."
    )
    parser.add_argument(
        "--share", type=float, default=0.2, help="Top share by every score, the paper's rule. Default: %(default)s."
    )
    add_score_arguments(parser)
    add_lift_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    scores, models = values_of(Scores, args), values_of(Models, args)
    run(lambda: rank(args.sample_dir, scores, models, top=args.top, share=args.share))


if __name__ == "__main__":
    main()
