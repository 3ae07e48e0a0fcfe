"""
Measures the embedded checkpoint: trains two judges on fresh draws of the world, then counts how often they recognise
what the checkpoint makes, from prompts and seeds that it never saw. Sounds are judged from the final waveform.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.scripts.presets import WORLD_PROMPTS as PROMPTS
from images_that_sound.scripts.sampling import EMBEDDED
from images_that_sound.scripts.train_embedded import HEIGHT, KINDS, WIDTH, describe, draw, draw_waveform
from images_that_sound.selection import CLAPScore, CLIPScore, share_and_interval


# Draws of these seeds are used nowhere else: training of the checkpoint takes seed 0.
JUDGE_SEED, HELD_OUT_SEED, PROMPT_SEED = 101, 102, 103


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(EMBEDDED))
    parser.add_argument("--work_dir", default="train_embedded", help="Keeps the trained judges.")
    parser.add_argument("--output", required=True, help="JSON file for the numbers.")
    parser.add_argument("--judge_draws", type=int, default=4000, help="Fresh draws of each modality.")
    parser.add_argument("--judge_steps", type=int, default=600)
    parser.add_argument("--num_alone", type=int, default=200, help="Samples of each side alone.")
    parser.add_argument("--seeds_per_pair", type=int, default=1, help="Composed samples of each of the 100 pairs.")
    parser.add_argument("--first_seed", type=int, default=20_000, help="Of the composed samples.")
    parser.add_argument("--contact_sheet", help="PNG file for a sheet of the composed samples.")
    parser.add_argument("--batch_size", type=int, default=10)
    return parser.parse_args(input_args)


# -------------------- Judges --------------------


def new_judge(num_classes: int) -> torch.nn.Module:
    """A small convolutional classifier of canvases (B, 1, 128, 512) in 0..1."""
    layers, channels = [torch.nn.AvgPool2d(2)], 1
    for width in (16, 32, 64, 96):
        layers += [torch.nn.Conv2d(channels, width, 3, 2, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
        channels = width
    head = [torch.nn.Conv2d(channels, 128, 3, 1, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    return torch.nn.Sequential(*layers, *head, torch.nn.Flatten(), torch.nn.Linear(128, num_classes))


def draws(kind: str, seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    canvases, labels = [], []
    for index in range(count):
        canvas, name, _ = draw(kind, seed, index)
        canvases.append(torch.from_numpy(canvas.copy()))
        labels.append(KINDS[kind].index(name))
    return torch.stack(canvases), torch.tensor(labels)


def train_judge(args: argparse.Namespace, kind: str) -> tuple[torch.nn.Module, float]:
    """
    Learns on fresh draws, half of them plain, half blurred, noisy and faintly overlaid with a draw of the other
    modality, since a canvas that is both is what it has to read. Returns the judge and its accuracy on plain held-out
    draws.
    """
    judge = new_judge(len(KINDS[kind]))
    file = Path(args.work_dir) / f"judge-{kind}.pt"
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
    else:
        _fit_judge(args, kind, judge)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(judge.state_dict(), file)
    canvases, labels = draws(kind, HELD_OUT_SEED, 500)
    return judge.eval(), float((recognise(judge.eval(), canvases / 255) == labels).float().mean())


def _fit_judge(args: argparse.Namespace, kind: str, judge: torch.nn.Module) -> None:
    canvases, labels = draws(kind, JUDGE_SEED, args.judge_draws)
    others, _ = draws("sound" if kind == "picture" else "picture", JUDGE_SEED, args.judge_draws // 4)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=args.judge_steps)
    for step in range(args.judge_steps):
        rows = torch.randint(len(canvases), (32,))
        batch = canvases[rows] / 255
        overlay = others[torch.randint(len(others), (16,))] / 255
        weight = 0.5 * torch.rand(16, 1, 1)
        mixed = (1 - weight) * batch[16:] + weight * overlay + 0.1 * weight * torch.randn_like(overlay)
        blur = int(torch.randint(4, ())) * 2 + 1
        mixed = torch.nn.functional.avg_pool2d(mixed[:, None], blur, 1, blur // 2, count_include_pad=False)[:, 0]
        batch = torch.cat([batch[:16], mixed])
        loss = torch.nn.functional.cross_entropy(judge(batch[:, None]), labels[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"judge of {kind}s, step {step + 1}: loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def recognise(judge: torch.nn.Module, canvases: torch.Tensor) -> torch.Tensor:
    """Class numbers (B,) of canvases (B, H, W) in 0..1."""
    return torch.cat([judge(batch[:, None]).argmax(dim=1) for batch in canvases.split(50)])


# -------------------- Scores --------------------


@torch.no_grad()
def measure_scores(mel: MelSpectrogram, num_draws: int = 500) -> dict:
    """How often the embedded CLIP and CLAP find the right one of ten prompts for held-out draws (zero-shot)."""
    scores = {
        "picture": CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32),
        "sound": CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32),
    }
    report = {}
    for kind, score in scores.items():
        names, prompts = list(PROMPTS[kind]), score.embed_prompts(list(PROMPTS[kind].values()))
        right = 0
        for index in range(num_draws):
            if kind == "picture":
                canvas, name, _ = draw(kind, HELD_OUT_SEED, index)
                embeddings = score.embed_canvases(torch.from_numpy(canvas.copy())[None, None] / 255)[0]
            else:
                audio, name, _ = draw_waveform(np.random.default_rng([HELD_OUT_SEED, 1, index]))
                embeddings = score.embed_audios(audio[None], mel.sampling_rate)
            right += names[int((embeddings @ prompts.T).mean(dim=0).argmax())] == name
        report[f"zero_shot_{kind}s"] = share(right, num_draws)
        print(f"zero-shot {kind}s: {right} of {num_draws}", flush=True)
    return report


# -------------------- Samples --------------------


def recognised(judges: dict, mel: MelSpectrogram, output: object, kind: str, names: list[str]) -> list[bool]:
    """For each sample whether it is recognised: pictures from their pixels, sounds from their waveforms."""
    if kind == "picture":
        canvases = output.images.float().mean(dim=1)
    else:
        canvases = mel.audio_to_canvas(output.audios)[:, 0]
    targets = torch.tensor([KINDS[kind].index(name) for name in names])
    return (recognise(judges[kind], canvases) == targets).tolist()


def measure_alone(args: argparse.Namespace, pipe: ImagesThatSoundPipeline, judges: dict, kind: str) -> dict:
    """One side alone, from the wordings of draws it never saw."""
    weights = {"picture": 0.0, "sound": 1.0}
    right, per_class = [], {}
    for first in range(0, args.num_alone, args.batch_size):
        indices = range(first, min(first + args.batch_size, args.num_alone))
        labels = [dict(zip(("name", "attributes"), draw(kind, PROMPT_SEED, i)[1:])) for i in indices]
        prompts = [describe(kind, label, np.random.default_rng([PROMPT_SEED, i])) for i, label in zip(indices, labels)]
        output = pipe(
            prompts,
            prompts,
            audio_weight=weights[kind],
            image_guidance_start=0.0,
            generator=[torch.Generator().manual_seed(10_000 + i) for i in indices],
            output_type="pt",
        )
        names = [label["name"] for label in labels]
        results = recognised(judges, pipe.mel_spectrogram, output, kind, names)
        right += results
        for name, result in zip(names, results):
            per_class.setdefault(name, []).append(result)
        print(f"{kind} alone: {sum(right)} of {len(right)}", flush=True)
    return {**share(sum(right), len(right)), "per_class": {name: float(np.mean(v)) for name, v in per_class.items()}}


def measure_composed(args: argparse.Namespace, pipe: ImagesThatSoundPipeline, judges: dict, **call: object) -> dict:
    """All pairs of a picture and a sound at equal weights."""
    pairs = [(picture, sound) for picture in PROMPTS["picture"] for sound in PROMPTS["sound"]] * args.seeds_per_pair
    rows, canvases = [], []
    for first in range(0, len(pairs), args.batch_size):
        batch = pairs[first : first + args.batch_size]
        output = pipe(
            [PROMPTS["picture"][picture] for picture, _ in batch],
            [PROMPTS["sound"][sound] for _, sound in batch],
            generator=[torch.Generator().manual_seed(args.first_seed + first + i) for i in range(len(batch))],
            output_type="pt",
            **call,
        )
        pictures = recognised(judges, pipe.mel_spectrogram, output, "picture", [picture for picture, _ in batch])
        sounds = recognised(judges, pipe.mel_spectrogram, output, "sound", [sound for _, sound in batch])
        canvases += list(output.images.float().mean(dim=1))
        rows += [(*pair, picture, sound) for pair, picture, sound in zip(batch, pictures, sounds)]
        print(f"composed: both in {sum(p and s for *_, p, s in rows)} of {len(rows)}", flush=True)
    if args.contact_sheet:
        contact_sheet(rows[:100], canvases[:100]).save(args.contact_sheet)
    return {
        "picture": share(sum(row[2] for row in rows), len(rows)),
        "sound": share(sum(row[3] for row in rows), len(rows)),
        "both": share(sum(row[2] and row[3] for row in rows), len(rows)),
        "rows": rows,
    }


def contact_sheet(rows: list[tuple], canvases: list[torch.Tensor]) -> PIL.Image.Image:
    """All pairs, pictures down and sounds across, framed by what the judges recognised."""
    colours = {(True, True): "lime", (True, False): "orange", (False, True): "deepskyblue", (False, False): "red"}
    cell_width, cell_height, margin = 264, 72, 60
    sheet = PIL.Image.new("RGB", (margin + 10 * cell_width, 24 + 10 * cell_height + 30), "black")
    pen, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(size=15)
    for i, ((picture, sound, seen, heard), canvas) in enumerate(zip(rows, canvases)):
        left, top = margin + i % 10 * cell_width, 24 + i // 10 * cell_height
        pen.rectangle((left, top, left + cell_width - 3, top + cell_height - 3), fill=colours[seen, heard])
        small = PIL.Image.fromarray(canvas.mul(255).round().byte().numpy()).resize((256, 64))
        sheet.paste(small.convert("RGB"), (left + 3, top + 3))
        if i < 10:
            pen.text((left + 4, 2), sound, font=font, fill="white")
        if i % 10 == 0:
            pen.text((4, top + 24), picture, font=font, fill="white")
    legend = "green: both recognised   orange: only the picture   blue: only the sound   red: neither"
    pen.text((margin, 24 + 10 * cell_height + 6), legend, font=font, fill="white")
    return sheet


def share(count: int, total: int) -> dict:
    """A share with its 95 % interval."""
    value, low, high = share_and_interval(count, total)
    return {"count": count, "total": total, "share": value, "interval": [low, high]}


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    pipe = ImagesThatSoundPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    judges, report = {}, {"canvas": [HEIGHT, WIDTH]}
    for kind in KINDS:
        judges[kind], report[f"judge_of_{kind}s"] = train_judge(args, kind)
    report |= measure_scores(pipe.mel_spectrogram)
    for kind in KINDS:
        report[f"{kind}_alone"] = measure_alone(args, pipe, judges, kind)
    report["composed"] = measure_composed(args, pipe, judges)
    Path(args.output).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({name: report[name] for name in report if name != "composed"}, indent=1))
    print({name: report["composed"][name] for name in ("picture", "sound", "both")})


if __name__ == "__main__":
    main()
