"""
Measures what becomes of a given picture in the embedded checkpoint: drawings that nothing else saw, each with a sound
prompt, begun with at several strengths, told to the ControlNet by their lines, or imprinted. Two judges that steer
nothing say how often picture and sound are recognised, the correlation of canvases how much of the picture is left. A
stopped run goes on with the settings that its output lacks.
"""

import argparse
import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import ControlNetModel, DDIMScheduler

from images_that_sound.pipelines import (
    ImagesThatSoundImg2ImgPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipelineOutput,
)
from images_that_sound.pipelines.images_that_sound_canvas import imprint
from images_that_sound.scripts.common.control_lines import lines_of
from images_that_sound.scripts.common.files import write_json
from images_that_sound.scripts.common.models import EMBEDDED, EMBEDDED_CONTROLNET
from images_that_sound.scripts.common.presets import WORLD_PROMPTS
from images_that_sound.selection import mean_and_interval

from .judges import recognised, share, train_judge
from .world import HEIGHT, KINDS, SUBJECTS, WIDTH, describe, draw_picture


# Draws of this seed are used nowhere else.
SEED = 107
FIRST_NOISE_SEED = 30_000
GENERIC_PROMPT = "a picture"
# Steps of DDIM.
STEPS = 25
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# By curve and number: the method, and what its call is told.
SETTINGS = {
    **{f"imprint {ratio}": ("imprint", {"magnitude_ratio": ratio}) for ratio in SHARES},
    **{f"img2img {strength}": ("begin", {"strength": strength}) for strength in SHARES},
    # From noise alone.
    **{
        f"ControlNet {weight}": ("begin", {"strength": 1.0, "with_lines": True, "audio_weight": weight})
        for weight in (0.4, 0.5, 0.6, 0.7)
    },
    **{
        f"ControlNet, no words {weight}": (
            "begin",
            {"strength": 1.0, "with_lines": True, "audio_weight": weight, "prompt": GENERIC_PROMPT},
        )
        for weight in (0.4, 0.5, 0.6, 0.7)
    },
    **{
        f"ControlNet and img2img {strength}": ("begin", {"strength": strength, "with_lines": True})
        for strength in (0.7, 0.8, 0.9)
    },
}


@dataclass(frozen=True)
class Pair:
    """A drawing (1, H, W) of a subject in 0..1, a prompt that is true of it, the name of a sound, and a seed."""

    subject: str
    sound: str
    drawing: torch.Tensor
    prompt: str
    seed: int

    def lines(self) -> torch.Tensor:
        lines = lines_of(PIL.Image.fromarray((255 * self.drawing[0]).round().byte().numpy()))
        return torch.from_numpy(np.array(lines))[None].expand(3, -1, -1) / 255


def new_pairs(count: int) -> list[Pair]:
    """A drawing for each pair of ten subjects and ten sounds, again and again."""
    return [_new_pair(index) for index in range(count)]


def _new_pair(index: int) -> Pair:
    numbers = np.random.default_rng([SEED, index])
    subject, sound = SUBJECTS[index // 10 % 10], list(WORLD_PROMPTS["sound"])[index % 10]
    picture, attributes = draw_picture(subject, numbers, HEIGHT, WIDTH)
    prompt = describe("picture", {"name": subject, "attributes": attributes}, numbers)
    return Pair(subject, sound, torch.from_numpy(np.array(picture))[None] / 255, prompt, FIRST_NOISE_SEED + index)


class Methods:
    """Ways from a batch of pairs to an output with `images` (B, C, H, W) and `audios` (B, N)."""

    def __init__(self, pairs: list[Pair], batch_size: int, dtype: torch.dtype) -> None:
        self.batches = [pairs[first : first + batch_size] for first in range(0, len(pairs), batch_size)]
        self.dtype = dtype

    def make(self, method: str, arguments: dict) -> list[ImagesThatSoundPipelineOutput]:
        return [getattr(self, method)(index, **arguments) for index in range(len(self.batches))]

    @cached_property
    def imprint_pipe(self) -> ImagesThatSoundImprintPipeline:
        return self._quiet(ImagesThatSoundImprintPipeline)

    @cached_property
    def img2img_pipe(self) -> ImagesThatSoundImg2ImgPipeline:
        return self._quiet(ImagesThatSoundImg2ImgPipeline)

    @cached_property
    def guided_pipe(self) -> ImagesThatSoundImg2ImgPipeline:
        controlnet = ControlNetModel.from_pretrained(EMBEDDED_CONTROLNET, dtype=self.dtype)
        return self._quiet(ImagesThatSoundImg2ImgPipeline, controlnet=controlnet)

    def _quiet(self, pipeline_class: type, **components: object) -> object:
        pipe = pipeline_class.from_pretrained(EMBEDDED, dtype=self.dtype, **components)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def sounds(self) -> list[torch.Tensor]:
        """Spectrograms (B, 1, H, W) of the audio side alone, the same for all ratios of imprint."""
        return [
            self.imprint_pipe(
                image=drawings_of(batch), magnitude_ratio=0.0, num_audio_inference_steps=STEPS, **self._shared(batch)
            ).spectrograms
            for batch in self.batches
        ]

    def imprint(self, index: int, magnitude_ratio: float) -> ImagesThatSoundPipelineOutput:
        """The same as a call of the pipeline, but the sound is made once for all ratios."""
        canvases = imprint(self.sounds[index], drawings_of(self.batches[index]), magnitude_ratio)
        return ImagesThatSoundPipelineOutput(canvases, canvases, self.imprint_pipe.play(canvases))

    def begin(self, index: int, with_lines: bool = False, **arguments: object) -> ImagesThatSoundPipelineOutput:
        batch = self.batches[index]
        pipe = self.guided_pipe if with_lines else self.img2img_pipe
        lines = {"control_image": torch.stack([pair.lines() for pair in batch])} if with_lines else {}
        return pipe(
            **{"prompt": [pair.prompt for pair in batch], **lines, **arguments},
            image=drawings_of(batch),
            num_inference_steps=STEPS,
            **self._shared(batch),
        )

    def _shared(self, batch: list[Pair]) -> dict:
        return {
            "audio_prompt": [WORLD_PROMPTS["sound"][pair.sound] for pair in batch],
            "generator": [torch.Generator().manual_seed(pair.seed) for pair in batch],
            "output_type": "pt",
        }


def drawings_of(pairs: list[Pair]) -> torch.Tensor:
    return torch.stack([pair.drawing for pair in pairs])


def judged(methods: Methods, judges: dict, method: str, arguments: dict) -> dict:
    """Counts, and the mean correlation of made and given canvases with its 95 % interval."""
    start = time.time()
    rows, mel = [], methods.imprint_pipe.mel_spectrogram
    for batch, output in zip(methods.batches, methods.make(method, arguments)):
        seen = recognised(judges, mel, output, "picture", [pair.subject for pair in batch])
        heard = recognised(judges, mel, output, "sound", [pair.sound for pair in batch])
        canvases = output.images.float().mean(dim=1)
        for pair, canvas, is_seen, is_heard in zip(batch, canvases, seen, heard):
            left = float(torch.corrcoef(torch.stack([canvas.flatten(), pair.drawing.flatten()]))[0, 1])
            rows.append((pair.subject, pair.sound, is_seen, is_heard, round(left, 4)))
    mean, half_interval = mean_and_interval([row[4] for row in rows])
    return {
        "picture": share(sum(row[2] for row in rows), len(rows)),
        "sound": share(sum(row[3] for row in rows), len(rows)),
        "both": share(sum(row[2] and row[3] for row in rows), len(rows)),
        "correlation": {"mean": mean, "half_interval": half_interval},
        "arguments": arguments,
        "seconds": round(time.time() - start, 1),
        "rows": rows,
    }


# -------------------- Curves --------------------


def curves_of(report: dict) -> dict[str, list[tuple[str, dict]]]:
    """The settings by method, each with what it is at, in their order."""
    curves = {}
    for name in SETTINGS:
        if name in report:
            method, at = name.rsplit(" ", 1)
            curves.setdefault(method, []).append((at, report[name]))
    return curves


def where_heard(curve: list[tuple[str, dict]], heard: float = 0.8) -> dict[str, float] | None:
    """The picture's share and correlation if the sound's share is `heard`, between the settings beside it."""
    sounds, pictures, left = np.array(sorted(coordinates(numbers) for _, numbers in curve)).T
    if not sounds[0] <= heard <= sounds[-1]:
        return None
    return {"picture": float(np.interp(heard, sounds, pictures)), "correlation": float(np.interp(heard, sounds, left))}


def coordinates(numbers: dict) -> tuple[float, float, float]:
    return numbers["sound"]["share"], numbers["picture"]["share"], numbers["correlation"]["mean"]


def plot(report: dict, path: Path) -> None:
    """How often the picture is recognised, and how much of it is left, over how often the sound is."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5), layout="constrained")
    titles = ("picture recognised", "correlation with the given picture")
    for panel, (axes, title) in enumerate(zip(figure.subplots(1, 2), titles)):
        for method, curve in curves_of(report).items():
            points = [coordinates(numbers) for _, numbers in curve]
            heard, seen = [point[0] for point in points], [point[1 + panel] for point in points]
            axes.plot(heard, seen, "o-", label=method)
            for (at, _), *place in zip(curve, heard, seen):
                axes.annotate(at, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set(title=title, xlabel="sound recognised", xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(loc="lower left")
    figure.savefig(path, dpi=100)


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", type=Path, default="outputs/measure_starts", help="Keeps the trained judges.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the numbers.")
    parser.add_argument("--plot", type=Path, help="PNG file for the curves.")
    parser.add_argument("--num_pairs", type=int, default=100)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), help="Default: all.")
    parser.add_argument("--batch_size", type=int, default=10)
    parser.add_argument("--dtype", default="bfloat16", help="Precision of the networks.")
    return parser.parse_args(input_args)


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    judges = {kind: train_judge(kind, args.work_dir)[0] for kind in KINDS}
    methods = Methods(new_pairs(args.num_pairs), args.batch_size, getattr(torch, args.dtype))
    report = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name in args.settings:
        if name not in report:
            report[name] = judged(methods, judges, *SETTINGS[name])
            write_json(args.output, report)
        numbers = {key: round(report[name][key]["share"], 3) for key in ("picture", "sound", "both")}
        print(name, numbers, round(report[name]["correlation"]["mean"], 3), report[name]["seconds"], flush=True)
    for method, curve in curves_of(report).items():
        print(f"{method}, if the sound is recognised in 80 %:", where_heard(curve))
    if args.plot:
        plot(report, args.plot)


if __name__ == "__main__":
    main()
