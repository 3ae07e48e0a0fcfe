"""One page that shows samples beside their sounds and scores, and that opens from disk without a network."""

import html
import os
from pathlib import Path

from .files import write_text


STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; background: #161616; color: #eee; }
h1 { font-size: 1.2rem; } p { max-width: 70ch; }
table { border-collapse: collapse; } td, th { padding: .4rem .7rem; text-align: right; vertical-align: middle; }
th { position: sticky; top: 0; background: #161616; } tr.best td { background: #20331f; }
th button { font: inherit; color: inherit; background: none; border: 0; cursor: pointer; text-decoration: underline; }
td.sample { text-align: left; } img { display: block; width: 512px; max-width: 60vw; } audio { width: 100%; }
"""
SCRIPT = """
const rows = document.querySelector("tbody");
document.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
  const descending = button.dataset.order !== "descending";
  document.querySelectorAll("th button").forEach((other) => { delete other.dataset.order; });
  button.dataset.order = descending ? "descending" : "ascending";
  const number = (row) => Number(row.querySelectorAll("td[data-value]")[column].dataset.value);
  const sorted = [...rows.children].sort((a, b) => (descending ? number(b) - number(a) : number(a) - number(b)));
  rows.append(...sorted);
}));
"""


def write_contact_sheet(path: Path, title: str, samples: list[dict], notes: list[str]) -> None:
    """
    Writes an HTML page of samples, which a click on a column's name sorts by it.

    Args:
        path (`Path`): Ends in `.html`; the page refers to the samples' files relative to it.
        title (`str`): Its heading.
        samples (`list[dict]`): In order: each sample's `folder` (`Path`), `seed` (`int`), `captions` (`list[str]`),
            `numbers` (`dict[str, float]`, the same names for all) and whether it is among the `best` (`bool`).
        notes (`list[str]`): Paragraphs above the table.
    """
    columns = ["seed", *samples[0]["numbers"]]
    head = "".join(f"<th><button>{html.escape(name)}</button></th>" for name in columns)
    body = "\n".join(_row(path.parent, sample) for sample in samples)
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>{paragraphs}\n"
        f"<table><thead><tr><th>sample</th>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
    write_text(path, page)


def _row(home: Path, sample: dict) -> str:
    base = html.escape(Path(os.path.relpath(sample["folder"], home)).as_posix())
    captions = "<br>".join(html.escape(caption) for caption in sample["captions"])
    cells = [f'<td data-value="{sample["seed"]}">{sample["seed"]}</td>']
    cells += [f'<td data-value="{value}">{value:.3f}</td>' for value in sample["numbers"].values()]
    return (
        f'<tr{" class=best" if sample["best"] else ""}><td class="sample"><a href="{base}/video.mp4">'
        f'<img src="{base}/image.png" alt="{html.escape(sample["captions"][0])}" loading="lazy"></a>'
        f'<audio controls preload="none" src="{base}/audio.wav"></audio>{captions}</td>{"".join(cells)}</tr>'
    )
