"""
Measures what the way from a sound to a canvas and back costs on each scale: sounds of the world are drawn in 8 bits as
Riffusion draws, and as the embedded checkpoint does, played, and judged beside the sounds themselves.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.signal
import torch

from images_that_sound.pipelines import SPECTROGRAMS, MelSpectrogram
from images_that_sound.scripts.common.files import write_json

from .judges import HELD_OUT_SEED, recognise, share, train_judge
from .world import SOUNDS, SPECTROGRAM, WIDTH, make_sound


SCALES = {"riffusion": SPECTROGRAMS["riffusion"], "embedded": SPECTROGRAM}


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", type=Path, default="outputs/train_embedded", help="Keeps the trained judge.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the numbers.")
    parser.add_argument("--judge_draws", type=int, default=4000)
    parser.add_argument("--judge_steps", type=int, default=600)
    parser.add_argument("--num_sounds", type=int, default=300)
    return parser.parse_args(input_args)


def resampled(audio: torch.Tensor, old: int, new: int) -> torch.Tensor:
    return torch.from_numpy(scipy.signal.resample_poly(audio.numpy(), new, old, axis=-1).astype(np.float32))


def through_canvas(audio: torch.Tensor, mel: MelSpectrogram) -> tuple[torch.Tensor, float]:
    """The sound `(1, N)` of the canvas of 8 bits of a sound, and how its own canvas correlates with that one."""
    canvas = mel.audio_to_canvas(audio).mul(255).round() / 255
    played = mel.canvas_to_audio(canvas)
    again = mel.audio_to_canvas(played)
    return played, float(torch.corrcoef(torch.stack([canvas.flatten(), again.flatten()]))[0, 1])


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    judge, accuracy = train_judge("sound", args.work_dir, args.judge_draws, args.judge_steps)
    rate, judged_rate = SCALES["riffusion"].sampling_rate, SPECTROGRAM.sampling_rate
    right, correlations = {"itself": [], **{name: [] for name in SCALES}}, {name: [] for name in SCALES}
    for index in range(args.num_sounds):
        generator = np.random.default_rng([HELD_OUT_SEED, 2, index])
        label = int(generator.integers(len(SOUNDS)))
        length_in_s = WIDTH / SPECTROGRAM.columns_per_second
        sound, _ = make_sound(list(SOUNDS)[label], generator, length_in_s, rate)
        sound = torch.from_numpy(sound.astype(np.float32))[None]
        heard = {"itself": (sound, rate)}
        for name, mel in SCALES.items():
            played, correlation = through_canvas(resampled(sound, rate, mel.sampling_rate), mel)
            heard[name] = (played, mel.sampling_rate)
            correlations[name].append(correlation)
        for name, (audio, own_rate) in heard.items():
            canvas = SPECTROGRAM.audio_to_canvas(resampled(audio, own_rate, judged_rate))[:, 0, :, :WIDTH]
            right[name].append(int(recognise(judge, canvas)) == label)
        if index % 20 == 19 or index == args.num_sounds - 1:
            report = {"judge": accuracy, **{name: share(sum(each), len(each)) for name, each in right.items()}}
            report["correlation"] = {name: [float(np.mean(v)), float(np.min(v))] for name, v in correlations.items()}
            write_json(args.output, report)
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
