"""
Long canvases by the embedded checkpoint: in windows, in one piece, and as single canvases side by side. Two
classifiers that steer nothing judge every five seconds of 20 canvases of a minute, one for each of 20 pairs of
prompts. A stopped run goes on.

    python -m benchmarks.windows
    python -m benchmarks.windows --ways scores     # canvases of three parts of 7.68 s, each with its own prompts
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.scripts.common.files import read_json, write_json
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import share_and_interval
from training.judges import recognise, train_judge
from training.world import KINDS

from .frontier import PAIRS
from .picks import PAIR_SETS


WIDTH, PIECES, PART = 512, 12, 768
# Seeds that nothing else uses; equal for all ways.
FIRST_SEED = 900_000


def windows_of(width: int, stride: int) -> dict[str, int]:
    return {"window_width": width, "window_stride": stride, "audio_window_width": width, "audio_window_stride": stride}


WAYS = {"windows": {}, "one piece": windows_of(WIDTH * PIECES, WIDTH * PIECES), "single": {}}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, default="outputs/windows", help="Keeps the judges and the results.")
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, "scores"), default=("windows", "one piece", "single"))
    parser.add_argument("--num_canvases", type=int, default=20)
    return parser.parse_args()


@torch.no_grad()
def make(pipe: ImagesThatSoundPipeline, way: str, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (P, H, W) and sounds as canvases (P, H, W) of every piece of a canvas of a minute, in 0..1."""
    picture, sound = PAIRS[PAIR_SETS["all"][index % 20]]
    single = way == "single"
    output = pipe(
        [WORLD_PROMPTS["picture"][picture]] * (PIECES if single else 1),
        [WORLD_PROMPTS["sound"][sound]] * (PIECES if single else 1),
        width=WIDTH if single else WIDTH * PIECES,
        generator=torch.Generator().manual_seed(FIRST_SEED + index),
        output_type="pt",
        **WAYS[way],
    )
    canvases = output.images.mean(dim=1)
    audios = output.audios.reshape(PIECES, -1)
    return torch.cat(canvases.split(WIDTH, dim=-1)), pipe.mel_spectrogram.audio_to_canvas(audios)[:, 0]


@torch.no_grad()
def make_score(pipe: ImagesThatSoundPipeline, index: int) -> tuple[torch.Tensor, torch.Tensor, list[tuple[str, str]]]:
    """Pictures and sounds of the middle of each part, as from `make`, and the pairs of prompts of the parts."""
    pairs = [PAIRS[i] for i in np.random.default_rng([FIRST_SEED, index]).choice(len(PAIRS), 3, replace=False)]
    begins = [PART * i / pipe.mel_spectrogram.columns_per_second for i in range(3)]
    output = pipe(
        {begin: WORLD_PROMPTS["picture"][picture] for begin, (picture, _) in zip(begins, pairs)},
        {begin: WORLD_PROMPTS["sound"][sound] for begin, (_, sound) in zip(begins, pairs)},
        width=3 * PART,
        generator=torch.Generator().manual_seed(FIRST_SEED + index),
        output_type="pt",
    )
    firsts = [PART * i + (PART - WIDTH) // 2 for i in range(3)]
    hop = pipe.mel_spectrogram.hop_length
    pictures = torch.cat([output.images.mean(dim=1)[..., first : first + WIDTH] for first in firsts])
    audios = torch.cat([output.audios[:, first * hop : (first + WIDTH) * hop] for first in firsts])
    return pictures, pipe.mel_spectrogram.audio_to_canvas(audios)[:, 0], pairs


def steps_of(canvases: torch.Tensor) -> dict[str, float]:
    """Mean difference of neighbouring columns at multiples of half a window, and elsewhere, in 1/255."""
    steps = torch.cat(list(canvases), dim=-1).diff(dim=-1).abs().mean(dim=0) * 255
    border = torch.arange(1, len(steps) + 1) % (WIDTH // 2) == 0
    return {"border": float(steps[border].mean()), "elsewhere": float(steps[~border].mean())}


def sharpness_of(canvases: torch.Tensor) -> float:
    """Share of the canvas' energy in differences of neighbouring columns."""
    return float(canvases.diff(dim=-1).square().mean() / canvases.var())


def main() -> None:
    args = parse_args()
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    judges = {kind: train_judge(kind, args.work_dir)[0] for kind in KINDS}
    for way in args.ways:
        rows = []
        for index in range(args.num_canvases):
            file = args.work_dir / f"{way.replace(' ', '-')}-{index:02}.json"
            if not file.exists():
                begin = perf_counter()
                if way == "scores":
                    pictures, sounds, pairs = make_score(pipe, index)
                else:
                    pictures, sounds = make(pipe, way, index)
                    pairs = [PAIRS[PAIR_SETS["all"][index % 20]]] * PIECES
                seconds = perf_counter() - begin
                found = {}
                for (kind, canvases), names in zip((("picture", pictures), ("sound", sounds)), zip(*pairs)):
                    wanted = torch.tensor([KINDS[kind].index(name) for name in names])
                    found[kind] = (recognise(judges[kind], canvases) == wanted).tolist()
                write_json(
                    file,
                    {**found, "seconds": seconds, "steps": steps_of(pictures), "sharpness": sharpness_of(pictures)},
                )
            rows.append(read_json(file))
        report(way, rows)


def report(way: str, rows: list[dict]) -> None:
    found = {kind: [each for row in rows for each in row[kind]] for kind in KINDS}
    found["both"] = [all(each) for each in zip(*found.values())]
    words = []
    for kind, each in found.items():
        value, low, high = share_and_interval(sum(each), len(each))
        words.append(f"{kind} {value:.1%} ({low:.0%} to {high:.0%})")
    steps = {place: np.mean([row["steps"][place] for row in rows]) for place in ("border", "elsewhere")}
    sharpness, seconds = (np.mean([row[name] for row in rows]) for name in ("sharpness", "seconds"))
    print(
        f"{way}: {len(found['both'])} pieces: {', '.join(words)}; steps between columns at borders"
        f" {steps['border']:.2f}, elsewhere {steps['elsewhere']:.2f}; sharpness {sharpness:.4f}; {seconds:.0f} s each",
        flush=True,
    )


if __name__ == "__main__":
    main()
