"""
Measures ways to play the embedded checkpoint's canvases against 60 rounds of Griffin-Lim, on what the checkpoint
composes and on held-out sounds: what a judge recognises, how close the sound's own canvas is to the one it was played
from, as `check` says it, and the time of one thread.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import SpeechT5HifiGan

from images_that_sound.pipelines import ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.scripts.common.canvases import heard_canvas
from images_that_sound.scripts.common.files import write_json, written
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import mean_and_interval

from .judges import HELD_OUT_SEED, recognise, share, train_judge
from .world import HEIGHT, KINDS, SPECTROGRAM, draw


# As canvases of as many rows are played where a checkpoint does not say otherwise.
LONG = MelSpectrogram(num_mel_bins=HEIGHT)


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocoder", help="Folder of a vocoder.")
    parser.add_argument("--work_dir", type=Path, default="outputs/train_embedded", help="Keeps judge and canvases.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the numbers.")
    parser.add_argument("--judge_draws", type=int, default=4000)
    parser.add_argument("--judge_steps", type=int, default=600)
    parser.add_argument("--seeds_per_pair", type=int, default=3, help="Composed canvases of each of the 100 pairs.")
    parser.add_argument("--first_seed", type=int, default=50_000, help="Of the composed canvases.")
    parser.add_argument("--num_inference_steps", type=int, default=10, help="Default: %(default)s.")
    parser.add_argument("--num_sounds", type=int, default=200, help="Canvases of held-out sounds.")
    return parser.parse_args(input_args)


def composed_canvases(args: argparse.Namespace) -> Iterator[tuple[torch.Tensor, str]]:
    """Canvases `(1, 1, M, T)` of all pairs in 8 bits, each with what it is to sound like."""
    pipe = ImagesThatSoundPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    sounds = WORLD_PROMPTS["sound"]
    for row, picture in enumerate(list(WORLD_PROMPTS["picture"].values()) * args.seeds_per_pair):
        first_seed = args.first_seed + row * len(sounds)
        path = args.work_dir / f"composed-{args.num_inference_steps}-{first_seed}.npy"
        if not path.exists():
            canvases = compose(pipe, picture, list(sounds.values()), first_seed, args.num_inference_steps)
            with written(path) as file:
                np.save(file, canvases)
        for canvas, name in zip(np.load(path, allow_pickle=False), sounds):
            yield torch.from_numpy(canvas)[None] / 255, name


def compose(pipe: ImagesThatSoundPipeline, picture: str, sounds: list[str], first_seed: int, steps: int) -> np.ndarray:
    """Canvases `(B, 1, M, T)` as uint8 of one picture with each of the sounds; nothing is played."""
    generator = [torch.Generator().manual_seed(first_seed + i) for i in range(len(sounds))]
    latents = pipe(picture, sounds, num_inference_steps=steps, generator=generator, output_type="latent").images
    return pipe.decode_latents(latents, pipe.vae).mean(dim=1, keepdim=True).mul(255).round().byte().numpy()


def sound_canvases(args: argparse.Namespace) -> Iterator[tuple[torch.Tensor, str]]:
    """Canvases `(1, 1, M, T)` of sounds that no training had, each with what it sounds like."""
    for index in range(args.num_sounds):
        canvas, name, _ = draw("sound", HELD_OUT_SEED, 10_000 + index)
        yield torch.from_numpy(canvas.copy())[None, None] / 255, name


@torch.no_grad()
def measure(
    canvas: torch.Tensor, name: str, mel: MelSpectrogram, vocoder: SpeechT5HifiGan | None, judge: torch.nn.Module
) -> dict[str, float]:
    """Whether a canvas' sound is recognised, how close it is to the canvas, and the processor's seconds."""
    start = time.process_time()
    audio = mel.canvas_to_audio(canvas, vocoder)
    seconds = time.process_time() - start
    heard = int(recognise(judge, SPECTROGRAM.audio_to_canvas(audio)[:, 0]))
    closeness = heard_canvas(canvas, audio[0], SPECTROGRAM)[1]
    return {"recognised": heard == KINDS["sound"].index(name), "seconds": seconds, **closeness}


def summary(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict]:
    """Of each player; the gains are over the first one on the same canvases, with half of a 95 % interval."""
    columns = {
        player: {key: np.array([row[key] for row in rows[player]], float) for key in rows[player][0]}
        for player in rows
    }
    first, report = next(iter(columns.values())), {}
    for player, values in columns.items():
        report[player] = {
            "recognised": share(int(values["recognised"].sum()), len(values["recognised"])),
            "correlation": values["correlation"].mean(),
            "least_correlation": values["correlation"].min(),
            "log_mel_distance_in_db": values["log_mel_distance_in_db"].mean(),
            "seconds": float(np.median(values["seconds"])),
            "share_of_time": float(np.median(values["seconds"] / first["seconds"])),
        }
        for key in ("recognised", "correlation"):
            report[player][f"gain_in_{key}"] = mean_and_interval(values[key] - first[key])
    return report


def measure_all(
    canvases: Iterable[tuple[torch.Tensor, str]], players: dict[str, tuple], judge: torch.nn.Module
) -> Iterator[dict[str, dict]]:
    """After every tenth canvas the numbers of each player."""
    rows = {player: [] for player in players}
    for count, (canvas, name) in enumerate(canvases, start=1):
        for player, (mel, vocoder) in players.items():
            rows[player].append(measure(canvas, name, mel, vocoder, judge))
        if count % 10 == 0:
            yield summary(rows)


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    torch.set_num_threads(1)
    players = {"60 rounds": (LONG, None), "Griffin-Lim": (SPECTROGRAM, None)}
    if args.vocoder:
        vocoder = SpeechT5HifiGan.from_pretrained(args.vocoder, dtype=torch.float32).eval()
        players["vocoder"] = (SPECTROGRAM, vocoder)
    judge, accuracy = train_judge("sound", args.work_dir, args.judge_draws, args.judge_steps)
    report = {"judge": accuracy}
    for kind, canvases in (("sounds", sound_canvases(args)), ("composed", composed_canvases(args))):
        for numbers in measure_all(canvases, players, judge):
            report[kind] = numbers
            write_json(args.output, report)
            print(f"{kind}: {json.dumps(numbers)}", flush=True)


if __name__ == "__main__":
    main()
