"""
Measures the loss on the way from a sound to a canvas in Riffusion's scale and back: sounds of the world are drawn
in 8 bits and played, and a judge that hears in the world's scale says what they are, before and after.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.signal
import torch

from images_that_sound.pipelines import SPECTROGRAMS
from images_that_sound.scripts.common.files import write_json

from .judges import HELD_OUT_SEED, recognise, share, train_judge
from .world import SOUNDS, SPECTROGRAM, WIDTH, make_sound


MEL = SPECTROGRAMS["riffusion"]


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", type=Path, default="outputs/train_embedded", help="Keeps the trained judge.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the numbers.")
    parser.add_argument("--judge_draws", type=int, default=4000)
    parser.add_argument("--judge_steps", type=int, default=600)
    parser.add_argument("--num_sounds", type=int, default=300)
    return parser.parse_args(input_args)


def draw_sound(index: int) -> tuple[int, torch.Tensor]:
    """The number of a class, and a held-out sound `(1, N)` of it."""
    generator = np.random.default_rng([HELD_OUT_SEED, 2, index])
    label = int(generator.integers(len(SOUNDS)))
    length_in_s = WIDTH / SPECTROGRAM.columns_per_second
    sound, _ = make_sound(list(SOUNDS)[label], generator, length_in_s, MEL.sampling_rate)
    return label, torch.from_numpy(sound.astype(np.float32))[None]


def heard(judge: torch.nn.Module, sound: torch.Tensor) -> int:
    """The class that the judge hears in a sound `(1, N)`."""
    rates = SPECTROGRAM.sampling_rate, MEL.sampling_rate
    resampled = scipy.signal.resample_poly(sound.numpy(), *rates, axis=-1).astype(np.float32)
    return int(recognise(judge, SPECTROGRAM.audio_to_canvas(torch.from_numpy(resampled))[:, 0, :, :WIDTH]))


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    judge, accuracy = train_judge("sound", args.work_dir, args.judge_draws, args.judge_steps)
    before, after, correlations = [], [], []
    for index in range(args.num_sounds):
        label, sound = draw_sound(index)
        canvas = MEL.audio_to_canvas(sound).mul(255).round() / 255
        played = MEL.canvas_to_audio(canvas)
        again = MEL.audio_to_canvas(played)
        columns = min(canvas.shape[-1], again.shape[-1])
        pair = [each[..., :columns].flatten() for each in (canvas, again)]
        correlations.append(float(torch.corrcoef(torch.stack(pair))[0, 1]))
        before.append(heard(judge, sound) == label)
        after.append(heard(judge, played) == label)
        if index % 20 == 19 or index == args.num_sounds - 1:
            report = {
                "judge": accuracy,
                "before": share(sum(before), index + 1),
                "after": share(sum(after), index + 1),
            }
            report |= {"correlation": float(np.mean(correlations)), "least_correlation": min(correlations)}
            write_json(args.output, report)
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
