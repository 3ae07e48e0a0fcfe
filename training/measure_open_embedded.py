"""
Measures a checkpoint of the open world: trains two judges on fresh draws, then counts how often they recognise what
the checkpoint makes, from prompts and seeds that it never saw: 500 pictures alone, 500 sounds alone, 500 random pairs
at equal weights. Draws a sheet of random words and one of nearest neighbours. Stopped, it goes on where it was.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import write_json

from .judges import HELD_OUT_SEED, JUDGE_SEED, half_overlaid, new_judge, share
from .loop import Run, make_data, train
from .open_world import KINDS, describe, draw
from .open_world.vocabulary import PICTURES, one_and_many, one_of


# Draws of this seed are used nowhere else.
PROMPT_SEED = 103
WIDTHS = (24, 48, 96, 160)
TASKS = ("picture_alone", "sound_alone", "composed", "words")


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="Folder of the checkpoint.")
    parser.add_argument("--work_dir", type=Path, required=True, help="Keeps the judges and the rows that are done.")
    parser.add_argument("--training_data", type=Path, help="Work folder of the training, for the nearest neighbours.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for numbers.json and the sheets.")
    parser.add_argument("--judge_draws", type=int, default=16000, help="Fresh draws of each modality.")
    parser.add_argument("--judge_steps", type=int, default=5000)
    parser.add_argument("--num_samples", type=int, default=500, help="Of each kind: alone, alone, composed.")
    parser.add_argument("--num_words", type=int, default=100, help="Of the sheet of random words.")
    parser.add_argument("--batch_size", type=int, default=10)
    return parser.parse_args(input_args)


# -------------------- Judges --------------------


def train_judges(run: Run) -> dict[str, torch.nn.Module]:
    """A judge for each modality, of draws that show or sound one kind of thing, in every layout and style."""
    data = make_data(run, draw, tuple(KINDS))
    return {kind: _train_judge(run, kind, data).eval() for kind in KINDS}


def _train_judge(run: Run, kind: str, data: dict) -> torch.nn.Module:
    torch.manual_seed(run.seed)
    judge = new_judge(len(KINDS[kind]), WIDTHS)
    canvases, labels = data[kind]
    (others,) = (data[each][0] for each in KINDS if each != kind)
    rows = np.array([row for row, label in enumerate(labels) if "other" not in label["attributes"]])
    targets = torch.tensor([KINDS[kind].index(label["name"]) for label in labels])

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, _ = run.generators(30, step)
        chosen = numbers.choice(rows, run.batch_size)
        overlay = others[numbers.integers(len(others), size=run.batch_size // 2)]
        batch = half_overlaid(torch.from_numpy(canvases[chosen]) / 255, torch.from_numpy(overlay) / 255)
        with run.autocast():
            logits = judge(batch[:, None])
        return torch.nn.functional.cross_entropy(logits.float(), targets[chosen])

    train(run, f"judge_{kind}", judge, loss_of_step, average_decay=0.99)
    return judge


@torch.no_grad()
def places(judge: torch.nn.Module, canvases: torch.Tensor, targets: list[int]) -> list[int]:
    """The place of each target among the classes that the judge names, best first, of canvases (B, H, W) in 0..1."""
    logits = torch.cat([judge(batch[:, None]) for batch in canvases.split(20)])
    return (logits > logits[torch.arange(len(targets)), targets][:, None]).sum(dim=1).tolist()


def held_out(judges: dict, num_draws: int) -> dict:
    """What the judges recognise of draws that nobody learned from."""
    report = {}
    for kind, judge in judges.items():
        rows = []
        for index, name, _ in single_draws(kind, HELD_OUT_SEED, num_draws):
            canvas = torch.from_numpy(draw(kind, HELD_OUT_SEED, index)[0].copy())[None] / 255
            rows += places(judge, canvas, [KINDS[kind].index(name)])
        report[f"judge_of_{kind}s"] = tops(rows)
    return report


def single_draws(kind: str, seed: int, count: int) -> list[tuple[int, str, dict]]:
    """The first draws of a seed that show one kind of thing: index, name and attributes."""
    found, index = [], 0
    while len(found) < count:
        _, name, attributes = draw(kind, seed, index)
        if "other" not in attributes:
            found.append((index, name, attributes))
        index += 1
    return found


def tops(rows: list[int]) -> dict:
    return {f"top_{top}": share(sum(place < top for place in rows), len(rows)) for top in (1, 5)}


# -------------------- Samples --------------------


def wordings(args: argparse.Namespace) -> dict[str, list[tuple]]:
    """For each task rows of picture, its prompt, sound, its prompt."""
    drawn = {}
    for kind in KINDS:
        numbers = np.random.default_rng([PROMPT_SEED, len(kind)])
        drawn[kind] = [
            (name, describe(kind, {"name": name, "attributes": attributes}, numbers))
            for _, name, attributes in single_draws(kind, PROMPT_SEED, 2 * args.num_samples)
        ]
    first, second = slice(0, args.num_samples), slice(args.num_samples, None)
    numbers = np.random.default_rng(PROMPT_SEED)
    words = numbers.choice(list(PICTURES), min(args.num_words, len(PICTURES)), replace=False).tolist()
    return {
        "picture_alone": [(*row, None, "") for row in drawn["picture"][first]],
        "sound_alone": [(None, "", *row) for row in drawn["sound"][first]],
        "composed": [(*one, *other) for one, other in zip(drawn["picture"][second], drawn["sound"][second])],
        "words": [(word, one_of(*one_and_many(PICTURES[word]["words"][0])), None, "") for word in words],
    }


def judge_samples(
    args: argparse.Namespace, pipe: ImagesThatSoundPipeline, judges: dict, task: str, wanted: list[tuple]
) -> list[dict]:
    """Rows with the places that the judges give to picture and sound; canvases are kept beside them."""
    file, folder = args.work_dir / f"{task}.jsonl", args.work_dir / task
    folder.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    options = {"picture_alone": 0.0, "words": 0.0, "sound_alone": 1.0}
    call = {"audio_weight": options[task], "image_guidance_start": 0.0} if task in options else {}
    for first in range(len(rows), len(wanted), args.batch_size):
        batch = wanted[first : first + args.batch_size]
        output = pipe(
            [row[1] or row[3] for row in batch],
            [row[3] or row[1] for row in batch],
            generator=[torch.Generator().manual_seed(30_000 + first + i) for i in range(len(batch))],
            output_type="pt",
            **call,
        )
        seen = output.images.float().mean(dim=1)
        heard = pipe.mel_spectrogram.audio_to_canvas(output.audios)[:, 0]
        found = {
            "picture": _places(judges, "picture", seen, batch, 0),
            "sound": _places(judges, "sound", heard, batch, 2),
        }
        new = [
            {
                "prompt": row[1],
                "audio_prompt": row[3],
                **{kind: (row[i], found[kind][k]) for i, kind in ((0, "picture"), (2, "sound"))},
            }
            for k, row in enumerate(batch)
        ]
        for i, canvas in enumerate(seen):
            PIL.Image.fromarray(canvas.mul(255).round().byte().numpy()).save(folder / f"{first + i:04d}.png")
        with open(file, "a") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in new)
        rows += new
        print(f"{task}: {len(rows)} of {len(wanted)}", flush=True)
    return rows


def _places(judges: dict, kind: str, canvases: torch.Tensor, batch: list[tuple], column: int) -> list[int | None]:
    if batch[0][column] is None:
        return [None] * len(batch)
    return places(judges[kind], canvases, [KINDS[kind].index(row[column]) for row in batch])


def summary(rows: dict[str, list[dict]]) -> dict:
    report = {
        "pictures_alone": tops([row["picture"][1] for row in rows["picture_alone"]]),
        "sounds_alone": tops([row["sound"][1] for row in rows["sound_alone"]]),
    }
    composed = [(row["picture"][1], row["sound"][1]) for row in rows["composed"]]
    for top in (1, 5):
        report[f"composed_top_{top}"] = {
            "picture": share(sum(seen < top for seen, _ in composed), len(composed)),
            "sound": share(sum(heard < top for _, heard in composed), len(composed)),
            "both": share(sum(seen < top and heard < top for seen, heard in composed), len(composed)),
        }
    return report


# -------------------- Sheets --------------------


def sheet(pictures: list[np.ndarray], captions: list[str], colors: list[str], columns: int) -> PIL.Image.Image:
    """Canvases in half their size, framed and with a caption each."""
    width, height = 264, 88
    image = PIL.Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "black")
    pen, font = PIL.ImageDraw.Draw(image), PIL.ImageFont.load_default(size=13)
    for i, (picture, caption, color) in enumerate(zip(pictures, captions, colors)):
        left, top = i % columns * width, i // columns * height
        pen.rectangle((left, top, left + 261, top + 69), fill=color)
        image.paste(PIL.Image.fromarray(picture).resize((256, 64)).convert("RGB"), (left + 3, top + 3))
        pen.text((left + 3, top + 70), caption[:42], font=font, fill="white")
    return image


def nearest(canvases: list[np.ndarray], draws: np.ndarray) -> list[int]:
    """For each canvas the index of the draw that differs least from it, at a quarter of the size."""

    def small(stack: np.ndarray) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(stack)[:, None].float(), 4).flatten(1)
        return pooled

    known = torch.cat([small(draws[i : i + 500]) for i in range(0, len(draws), 500)])
    return torch.cdist(small(np.stack(canvases)), known).argmin(dim=1).tolist()


def draw_sheets(args: argparse.Namespace, rows: dict[str, list[dict]], load: Callable[[str, int], np.ndarray]) -> None:
    def color(place: int) -> str:
        return "lime" if place == 0 else "orange" if place < 5 else "red"

    words = rows["words"]
    sheet(
        [load("words", i) for i in range(len(words))],
        [row["prompt"] for row in words],
        [color(row["picture"][1]) for row in words],
        columns=5,
    ).save(args.output / "words.png")
    if args.training_data is None:
        return
    files = sorted(args.training_data.glob("picture-*.npy"))
    draws = np.concatenate([np.load(file, allow_pickle=False) for file in files])
    count = min(20, len(rows["picture_alone"]))
    samples = [load("picture_alone", i) for i in range(count)]
    pairs = [each for sample, match in zip(samples, nearest(samples, draws)) for each in (sample, draws[match])]
    captions = [text for row in rows["picture_alone"][:count] for text in (row["prompt"], "closest training drawing")]
    sheet(pairs, captions, ["gray"] * len(pairs), columns=4).save(args.output / "nearest.png")


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    args.output.mkdir(parents=True, exist_ok=True)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    run = Run(
        output_dir=args.output,
        work_dir=args.work_dir,
        device="cpu",
        seed=JUDGE_SEED,
        num_draws=args.judge_draws,
        batch_size=32,
        learning_rate=2e-3,
        save_every=200,
        bfloat16=True,
        steps={f"judge_{kind}": args.judge_steps for kind in KINDS},
    )
    judges = train_judges(run)
    report = held_out(judges, args.num_samples)
    pipe = ImagesThatSoundPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    wanted = wordings(args)
    rows = {task: judge_samples(args, pipe, judges, task, wanted[task]) for task in TASKS}
    report |= summary(rows)
    write_json(args.output / "numbers.json", report)
    draw_sheets(args, rows, lambda task, i: np.asarray(PIL.Image.open(args.work_dir / task / f"{i:04d}.png")))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
