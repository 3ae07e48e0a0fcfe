"""Optimises canvases against an image model and a spectrogram model; hours each, continued where a run stopped."""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import torch
from accelerate import Accelerator

from images_that_sound.pipelines import ImagesThatSoundSDSPipeline
from images_that_sound.schedulers import ScoreDistillationScheduler
from images_that_sound.scripts.generate import pictures_of
from images_that_sound.scripts.presets import SDS_PRESETS
from images_that_sound.scripts.samples import write_audio, write_picture
from images_that_sound.scripts.sampling import (
    add_arguments,
    add_process_arguments,
    all_seeds,
    check_args,
    fill_in,
    load_pipeline,
    make_samples,
    new_accelerator,
    run,
    sample_folder,
    with_checkpoint_defaults,
)


CALL_ARGUMENTS = {
    "negative_prompt": (str, "What not to see."),
    "negative_audio_prompt": (str, "What not to hear."),
    "height": (int, "Pixels; the checkpoint's number of mel bins."),
    "width": (int, "Pixels, a multiple of 8; the sound lasts 0.01 s per column."),
    "num_iterations": (int, "Steps of the optimiser."),
    "guidance_scale": (float, "Guidance of the image side. Default: 80."),
    "audio_guidance_scale": (float, "Guidance of the audio side. Default: 10."),
    "image_weight": (float, "Weight of the image loss. Default: 0.4."),
    "audio_weight": (float, "Weight of the audio loss. Default: 1."),
    "image_start_step": (int, "Iteration before which the image side is silent."),
    "num_crops": (int, "Random crops that the image side sees at each iteration."),
    "crop_width": (int, "Columns of a crop."),
    "canvas": (str, "fourier or pixels. Default: fourier."),
    "canvas_kwargs": (json.loads, "JSON for the canvas."),
    "optimizer": (str, "Name of a class of torch.optim. Default: AdamW."),
    "learning_rate": (float, "Default: 1e-4."),
    "optimizer_kwargs": (json.loads, 'JSON for the optimiser. Default for AdamW: {"weight_decay": 1e-3}.'),
    "crop_right": (int, "Columns cut from the right end."),
}
DEFAULTS = {
    "guidance_scale": 80.0,
    "audio_guidance_scale": 10.0,
    "image_weight": 0.4,
    "audio_weight": 1.0,
    "canvas": "fourier",
    "optimizer": "AdamW",
    "learning_rate": 1e-4,
}


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound sds", description=__doc__)
    add_arguments(parser, SDS_PRESETS, CALL_ARGUMENTS)
    parser.add_argument("--final_max_timestep", type=float, help="Fraction to which the largest timestep falls.")
    parser.add_argument("--checkpoint_every", type=int, default=1000, help="Default: %(default)s.")
    parser.add_argument("--preview_every", type=int, default=1000, help="Iterations between previews; 0 for none.")
    add_process_arguments(parser)
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    args = parser.parse_args(input_args)
    fill_in(args, SDS_PRESETS, **DEFAULTS)
    return args


def sds(args: argparse.Namespace) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    check_args(args)
    for name in ("checkpoint_every", "gradient_accumulation_steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"`{name}` has to be a positive integer, but is {getattr(args, name)}.")
    accelerator = new_accelerator(
        args,
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
    )
    args.num_images_per_prompt = 1
    args.device = str(accelerator.device)
    pipe = load_pipeline(args, ImagesThatSoundSDSPipeline)
    names = ["prompt", "audio_prompt", *CALL_ARGUMENTS]
    settings = with_checkpoint_defaults({name: getattr(args, name) for name in names}, pipe)
    settings["final_max_timestep"] = args.final_max_timestep
    arguments = {name: value for name, value in settings.items() if name != "final_max_timestep"}
    arguments["timestep_scheduler"] = ScoreDistillationScheduler(final_max_timestep=args.final_max_timestep)

    def of_seed(seeds: list[int]) -> dict:
        folder = unfinished_folder(args, seeds[0])
        return {
            "accelerator": accelerator,
            "checkpoint_dir": folder,
            "checkpoint_every": args.checkpoint_every,
            "callback_on_step_end": lambda pipe, iteration, sample, tensors: report(
                args, accelerator, pipe, folder, iteration, tensors
            ),
            "callback_on_step_end_tensor_inputs": ["canvas", "image_loss", "audio_loss"],
        }

    for folder in make_samples(args, pipe, arguments, settings, pictures_of, all_seeds(args), of_seed, accelerator):
        if accelerator.is_main_process:
            shutil.rmtree(unfinished_folder(args, int(folder.name.removeprefix("seed-"))), ignore_errors=True)
            yield folder
    accelerator.end_training()


def unfinished_folder(args: argparse.Namespace, seed: int) -> Path:
    folder = sample_folder(args, seed)
    return folder.with_name(f"{folder.name}.unfinished")


@torch.no_grad()
def report(
    args: argparse.Namespace,
    accelerator: Accelerator,
    pipe: ImagesThatSoundSDSPipeline,
    folder: Path,
    iteration: int,
    tensors: dict,
) -> None:
    """Losses to the trackers, and now and then a preview: `preview.png` and `preview.wav` of the unfinished canvas."""
    losses = {name: value for name, value in tensors.items() if name != "canvas" and value is not None}
    accelerator.log(losses, step=iteration)
    if not accelerator.is_main_process or not args.preview_every or (iteration + 1) % args.preview_every:
        return
    gray = tensors["canvas"].float().mean(dim=1, keepdim=True)
    picture = PIL.Image.fromarray(gray[0, 0].mul(255).round().byte().cpu().numpy())
    folder.mkdir(parents=True, exist_ok=True)
    write_picture(folder / ".preview.part.png", picture, json.dumps({"spectrogram": pipe.mel_spectrogram.to_dict()}))
    audio = pipe.mel_spectrogram.canvas_to_audio(gray, pipe.vocoder)[0].cpu().numpy()
    write_audio(folder / ".preview.part.wav", audio, pipe.sampling_rate)
    for suffix in (".png", ".wav"):
        os.replace(folder / f".preview.part{suffix}", folder / f"preview{suffix}")
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            tracker.log_images({"canvas": gray.permute(0, 2, 3, 1).cpu().numpy()}, step=iteration, dataformats="NHWC")


def main(input_args: list[str] | None = None) -> None:
    run(lambda: sds(parse_args(input_args)))


if __name__ == "__main__":
    main()
