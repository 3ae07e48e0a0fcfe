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
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS as PROMPTS
from images_that_sound.selection import CLAPScore, CLIPScore

from .judges import HELD_OUT_SEED, recognised, share, train_judge
from .world import HEIGHT, KINDS, WIDTH, describe, draw, draw_waveform


# Draws of this seed are used nowhere else.
PROMPT_SEED = 103


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(EMBEDDED))
    parser.add_argument("--work_dir", type=Path, default="outputs/train_embedded", help="Keeps the trained judges.")
    parser.add_argument("--output", required=True, help="JSON file for the numbers.")
    parser.add_argument("--judge_draws", type=int, default=4000, help="Fresh draws of each modality.")
    parser.add_argument("--judge_steps", type=int, default=600)
    parser.add_argument("--num_alone", type=int, default=200, help="Samples of each side alone.")
    parser.add_argument("--seeds_per_pair", type=int, default=1, help="Composed samples of each of the 100 pairs.")
    parser.add_argument("--first_seed", type=int, default=20_000, help="First seed of the composed samples.")
    parser.add_argument("--contact_sheet", help="PNG file for a sheet of the composed samples.")
    parser.add_argument("--batch_size", type=int, default=10)
    return parser.parse_args(input_args)


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


def measure_alone(pipe: ImagesThatSoundPipeline, judges: dict, kind: str, num_samples: int, batch_size: int) -> dict:
    """One side alone, from the wordings of draws it never saw."""
    weights = {"picture": 0.0, "sound": 1.0}
    right, per_class = [], {}
    for first in range(0, num_samples, batch_size):
        indices = range(first, min(first + batch_size, num_samples))
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


def measure_composed(
    pipe: ImagesThatSoundPipeline, judges: dict, first_seed: int, seeds_per_pair: int, batch_size: int
) -> tuple[dict, list[torch.Tensor]]:
    """All pairs of a picture and a sound at equal weights; returns the numbers and the canvases (H, W)."""
    pairs = [(picture, sound) for picture in PROMPTS["picture"] for sound in PROMPTS["sound"]] * seeds_per_pair
    rows, canvases = [], []
    for first in range(0, len(pairs), batch_size):
        batch = pairs[first : first + batch_size]
        output = pipe(
            [PROMPTS["picture"][picture] for picture, _ in batch],
            [PROMPTS["sound"][sound] for _, sound in batch],
            generator=[torch.Generator().manual_seed(first_seed + first + i) for i in range(len(batch))],
            output_type="pt",
        )
        pictures = recognised(judges, pipe.mel_spectrogram, output, "picture", [picture for picture, _ in batch])
        sounds = recognised(judges, pipe.mel_spectrogram, output, "sound", [sound for _, sound in batch])
        canvases += list(output.images.float().mean(dim=1))
        rows += [(*pair, picture, sound) for pair, picture, sound in zip(batch, pictures, sounds)]
        print(f"composed: both in {sum(p and s for *_, p, s in rows)} of {len(rows)}", flush=True)
    report = {
        "picture": share(sum(row[2] for row in rows), len(rows)),
        "sound": share(sum(row[3] for row in rows), len(rows)),
        "both": share(sum(row[2] and row[3] for row in rows), len(rows)),
        "rows": rows,
    }
    return report, canvases


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


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    pipe = ImagesThatSoundPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    judges, report = {}, {"canvas": [HEIGHT, WIDTH]}
    for kind in KINDS:
        trained = train_judge(kind, args.work_dir, args.judge_draws, args.judge_steps)
        judges[kind], report[f"judge_of_{kind}s"] = trained
    report |= measure_scores(pipe.mel_spectrogram)
    for kind in KINDS:
        report[f"{kind}_alone"] = measure_alone(pipe, judges, kind, args.num_alone, args.batch_size)
    report["composed"], canvases = measure_composed(
        pipe, judges, args.first_seed, args.seeds_per_pair, args.batch_size
    )
    if args.contact_sheet:
        contact_sheet(report["composed"]["rows"][:100], canvases[:100]).save(args.contact_sheet)
    write_json(Path(args.output), report)
    print(json.dumps({name: report[name] for name in report if name != "composed"}, indent=1))
    print({name: report["composed"][name] for name in ("picture", "sound", "both")})


if __name__ == "__main__":
    main()
