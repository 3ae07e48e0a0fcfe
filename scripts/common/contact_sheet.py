"""One page that shows samples beside their sounds and scores, and that opens from disk without a network."""

import html
import math
import os
from pathlib import Path
from urllib.parse import quote

from .files import write_text
from .video import seen_at_once


# By which a page is known as one of these.
BEGINNING = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="generator" content="images-that-sound rank">'
)
STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas); }
:root { --best: light-dark(#1a7f37, #3fb950); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem; background: Canvas; color: CanvasText; }
h1 { font-size: 1.3rem; margin: 0 0 .5rem; } p { margin: .2rem 0; max-width: 90ch; }
.badge { padding: 0 .45em; border-radius: 4px; background: var(--best); color: Canvas; font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; margin: .8rem 0; }
nav button { font: inherit; padding: .15rem .7rem; }
nav button[data-order=descending]::after { content: " ↓"; } nav button[data-order=ascending]::after { content: " ↑"; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
main { align-items: start; }
article { border: 2px solid var(--line); border-radius: 8px; padding: .6rem; min-width: 0; overflow-wrap: anywhere; }
article.best { border-color: var(--best); }
.canvas { overflow: hidden auto; max-height: 36rem; cursor: pointer; border-radius: 4px; }
.strips, .piece { position: relative; } .piece { overflow: hidden; }
.piece + .piece { border-top: 1px solid #8888; box-sizing: border-box; }
.canvas img { display: block; width: 100%; min-height: 2rem; } .piece img { position: absolute; }
.playhead { position: absolute; width: 3px; background: #ff4040; visibility: hidden; }
audio { display: block; width: 100%; height: 40px; margin: .5rem 0; }
dl { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .5rem 0 0; }
dl div { display: flex; gap: .4em; } dt, small { opacity: .75; } dd { margin: 0; font-variant-numeric: tabular-nums; }
.problem { color: light-dark(#b3261e, #ff8a80); }
"""
SCRIPT = """
const list = document.querySelector("main"), buttons = [...document.querySelectorAll("nav button")];
buttons.forEach((button, column) => button.addEventListener("click", () => {
  const descending = button.dataset.order !== "descending";
  buttons.forEach((other) => { delete other.dataset.order; });
  button.dataset.order = descending ? "descending" : "ascending";
  const number = (card) => Number(card.querySelectorAll("[data-value]")[column].dataset.value);
  list.append(...[...list.children].sort((a, b) => (descending ? number(b) - number(a) : number(a) - number(b))));
}));

const move = (audio) => {
  const canvas = audio.closest("article").querySelector(".canvas"), rows = Number(canvas.dataset.rows);
  const place = rows * audio.currentTime / audio.duration, row = Math.min(Math.floor(place), rows - 1);
  if (!Number.isNaN(place)) {
    Object.assign(canvas.querySelector(".playhead").style, {
      visibility: "visible", left: `${100 * (place - row)}%`, top: `${100 * row / rows}%`, height: `${100 / rows}%`,
    });
    const height = canvas.scrollHeight / rows, hidden = row * height - canvas.scrollTop;
    if (!audio.paused && (hidden < 0 || hidden + height > canvas.clientHeight)) { canvas.scrollTop = row * height; }
  }
};
const follow = (audio) => {
  move(audio);
  if (!audio.paused) { requestAnimationFrame(() => follow(audio)); }
};
document.querySelectorAll("audio").forEach((audio) => {
  audio.addEventListener("seeked", () => move(audio));
  audio.addEventListener("play", () => {
    document.querySelectorAll("audio").forEach((other) => { if (other !== audio) { other.pause(); } });
    follow(audio);
  });
});
list.addEventListener("click", (event) => {
  const canvas = event.target.closest(".canvas");
  if (!canvas) { return; }
  const audio = canvas.closest("article").querySelector("audio"), rows = Number(canvas.dataset.rows);
  const { left, width, top, height } = canvas.querySelector(".strips").getBoundingClientRect();
  const place = (Math.floor(rows * (event.clientY - top) / height) + (event.clientX - left) / width) / rows;
  const seek = () => { audio.currentTime = place * audio.duration; };
  if (audio.readyState) { seek(); } else { audio.addEventListener("loadedmetadata", seek, { once: true }); }
  audio.play();
});
"""


def write_contact_sheet(path: Path, title: str, samples: list[dict], notes: list[str], legend: str) -> None:
    """
    Writes an HTML page of samples, which a click on a number's name sorts by it.

    Args:
        path (`Path`): Ends in `.html`; the page refers to the samples' files relative to it.
        title (`str`): Its heading.
        samples (`list[dict]`): In order: each sample's `folder` (`Path`), `seed` (`int` or `None`), the `size` of its
            picture in pixels (`tuple[int, int]`), how many `strips` of it are played one after the other (`int`),
            `captions`, `problems` and `remarks` (`list[str]`), `numbers` with its places by them
            (`dict[str, tuple[float, int | None]]`, the same names for all), and whether it is among the `best`
            (`bool`).
        notes (`list[str]`): Paragraphs above the samples.
        legend (`str`): Meaning of the marks on the best.
    """
    buttons = "".join(f"<button>{html.escape(name)}</button>" for name in ("seed", *samples[0]["numbers"]))
    cards = "\n".join(_card(path.parent, sample) for sample in samples)
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    page = (
        f'{BEGINNING}<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>{paragraphs}"
        f'<p><span class="badge">best</span> {html.escape(legend)}</p>\n<nav>Sort by {buttons}</nav>\n'
        f"<main>\n{cards}\n</main><script>{SCRIPT}</script></body></html>\n"
    )
    write_text(path, page)


def _card(home: Path, sample: dict) -> str:
    base = quote(os.fsencode(Path(os.path.relpath(sample["folder"], home)).as_posix()))
    captions = [html.escape(str(caption)) for caption in sample["captions"]]
    said = [(kind, each) for kind in ("problem", "remark") for each in sample[f"{kind}s"]]
    lines = [*captions, *(f'<span class="{kind}">{html.escape(str(each))}</span>' for kind, each in said)]
    numbers = [_number("seed", sample["seed"], "", None)]
    numbers += [_number(name, value, ".3f", place) for name, (value, place) in sample["numbers"].items()]
    if sample["best"]:
        numbers.insert(0, '<div class="badge">best</div>')
    if (sample["folder"] / "video.mp4").exists():
        numbers.append(f'<div><a href="{base}/video.mp4">video</a></div>')
    rows, pieces = _pieces(f"{base}/image.png", captions[0], sample["size"], sample["strips"])
    return (
        f'<article{" class=best" if sample["best"] else ""}><div class="canvas" data-rows="{rows}">'
        f'<div class="strips">{pieces}<div class="playhead"></div></div></div>'
        f'<audio controls preload="none" src="{base}/audio.wav"></audio>{"<br>".join(lines)}'
        f"<dl>{''.join(numbers)}</dl></article>"
    )


def _pieces(source: str, text: str, size: tuple[int, int], strips: int) -> tuple[int, str]:
    """Rows of a picture that are played one after the other, and their HTML: strips that are long are broken."""
    width, height = size
    number = math.ceil(width / seen_at_once(height))
    image = f'<img src="{source}" alt="{text}" loading="lazy"'
    if number == 1:
        return strips, f"{image}>"
    shape = f"aspect-ratio: {width / number * strips:g} / {height}"
    pieces = [
        f'<div class="piece" style="{shape}">{image}'
        f' style="width: {number}00%; left: -{i}00%; top: -{strip}00%"></div>'
        for strip in range(strips)
        for i in range(number)
    ]
    return strips * number, "".join(pieces)


def _number(name: str, value: float | None, form: str, place: int | None) -> str:
    """A number with its name and its place; one that is none sorts below all."""
    known = value is not None and math.isfinite(value)
    data, text = (value, f"{value:{form}}") if known else ("-Infinity", "–")
    rank = "" if place is None else f" <small>place {place}</small>"
    return f'<div><dt>{html.escape(name)}</dt><dd data-value="{data}">{text}{rank}</dd></div>'
