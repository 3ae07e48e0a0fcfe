"""Makes images that sound: pictures whose spectrogram is played, each with its sound, a video and its settings."""

import argparse
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import get_device

import images_that_sound.embedded
from images_that_sound.pipelines import ImagesThatSoundPipeline, audio_problems
from images_that_sound.scripts.presets import GENERATE_PRESETS
from images_that_sound.scripts.samples import check_writable, read_settings, write_sample


EMBEDDED = Path(images_that_sound.embedded.__file__).parent
CALL_ARGUMENTS = {
    "negative_prompt": (str, "What not to see."),
    "negative_audio_prompt": (str, "What not to hear."),
    "height": (int, "Pixels; the checkpoint's number of mel bins, twice that for the folded layout."),
    "width": (int, "Pixels, a multiple of 8; the sound lasts 0.01 s per column."),
    "audio_length_in_s": (float, "Length of the sound in seconds, instead of --width."),
    "num_inference_steps": (int, "Denoising steps."),
    "guidance_scale": (float, "Guidance of the image side."),
    "audio_guidance_scale": (float, "Guidance of the audio side."),
    "image_guidance_start": (float, "Fraction of the steps before which the image side is silent."),
    "audio_guidance_start": (float, "Fraction of the steps before which the audio side is silent."),
    "image_guidance_end": (float, "Fraction of the steps from which the image side is silent."),
    "audio_guidance_end": (float, "Fraction of the steps from which the audio side is silent."),
    "crop_right": (int, "Columns cut from the right end."),
    "eta": (float, "Share of fresh noise, for schedulers that take it."),
    "cross_attention_kwargs": (json.loads, "JSON for the attention processors."),
}


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images-that-sound generate", description=__doc__)
    parser.add_argument("--prompt", help="What to see.")
    parser.add_argument("--audio_prompt", help="What to hear.")
    parser.add_argument("--example", choices=GENERATE_PRESETS, help="Prompts, seed and number of a published example.")
    parser.add_argument("--params_from", help="A picture, sound or video made earlier, whose settings are repeated.")
    call = parser.add_argument_group("arguments of the call", "Left out, they are what the checkpoint wants.")
    for name, (kind, text) in CALL_ARGUMENTS.items():
        call.add_argument(f"--{name}", type=kind, help=text)
    call.add_argument("--audio_weight", type=float, nargs="+", help="The audio side's weight, one or one per step.")
    call.add_argument("--canvas_layout", choices=("strip", "folded"), help="Default: strip.")
    call.add_argument("--num_images_per_prompt", type=int, default=1, help="Samples computed at once.")
    parser.add_argument("--model", help="Repo or folder of the image side, or of both. Default: embedded.")
    parser.add_argument("--audio_model", help="Repo or folder of the audio side, such as Auffusion's.")
    parser.add_argument("--num_samples", type=int, help="Sample i has seed + i. Default: 1, or the example's.")
    parser.add_argument("--seed", type=int, help="Default: 0, or the example's.")
    parser.add_argument("--device", default=get_device(), help="Default: %(default)s.")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--enable_model_cpu_offload", action="store_true", help="Keep on the device what is in use.")
    parser.add_argument("--output_dir", default="outputs", help="Gets a folder for each sample. Default: %(default)s.")
    args = parser.parse_args(input_args)
    _fill_in(args)
    return args


def _fill_in(args: argparse.Namespace) -> None:
    """What was not given comes from `--params_from`, then from the example, then from the defaults."""
    if args.params_from and args.example:
        raise ValueError("`--params_from` and `--example` exclude each other.")
    known = {}
    if args.params_from:
        saved = read_settings(args.params_from)
        known = {
            name: saved.get(name) for name in vars(args) if name in saved and name not in ("device", "output_dir")
        }
    elif args.example:
        known = GENERATE_PRESETS[args.example]
    defaults = {"seed": 0, "num_samples": 1, "model": "embedded", "canvas_layout": "strip", "eta": 0.0}
    for name, value in {**defaults, **known}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if isinstance(args.audio_weight, list) and len(args.audio_weight) == 1:
        args.audio_weight = args.audio_weight[0]


def check_args(args: argparse.Namespace) -> None:
    """Raises `ValueError` for what the pipeline's own checks can't see."""
    for name in ("num_samples", "num_images_per_prompt"):
        if not isinstance(getattr(args, name), int) or getattr(args, name) < 1:
            raise ValueError(f"`{name}` has to be a positive integer, but is {getattr(args, name)!r}.")
    if not isinstance(args.seed, int) or not 0 <= args.seed < 2**63:
        raise ValueError(f"`seed` has to be an integer from 0 to 2**63 - 1, but is {args.seed!r}.")
    check_writable(args.output_dir)


def load_pipeline(args: argparse.Namespace) -> ImagesThatSoundPipeline:
    folder = EMBEDDED if args.model == "embedded" else args.model
    dtype = getattr(torch, args.dtype)
    try:
        pipe = ImagesThatSoundPipeline.from_pretrained(folder, dtype=dtype)
    except OSError as error:
        raise ValueError(
            f"`model` has to be a repo or folder of a checkpoint, but {args.model} is none: {error}"
        ) from error
    if args.audio_model is not None:
        pipe.load_audio_prior(args.audio_model)
    if args.enable_model_cpu_offload:
        pipe.enable_model_cpu_offload(device=args.device)
    else:
        pipe.to(args.device)
    return pipe


def call_arguments(args: argparse.Namespace, pipe: ImagesThatSoundPipeline) -> dict[str, Any]:
    """What the call gets, with the checkpoint's defaults written out, so that a sample's settings are complete."""
    names = ["prompt", "audio_prompt", "audio_weight", "canvas_layout", *CALL_ARGUMENTS]
    arguments = {name: getattr(args, name) for name in names}
    for name, value in pipe.default_arguments.items():
        if arguments[name] is None and name not in ("height", "width"):
            arguments[name] = value
    return arguments


def pending_seeds(args: argparse.Namespace, settings: dict) -> list[int]:
    """Seeds whose sample is not there yet. Raises `ValueError` for one that is there with other settings."""
    pending = []
    for seed in range(args.seed, args.seed + args.num_samples):
        file = sample_folder(args, seed) / "settings.json"
        if not file.exists():
            pending.append(seed)
            continue
        saved = json.loads(file.read_text(encoding="utf-8"))
        if any(saved.get(name) != value for name, value in settings.items() if name != "versions"):
            raise ValueError(f"`output_dir` holds {file.parent}, made with other settings. Name another folder.")
    return pending


def sample_folder(args: argparse.Namespace, seed: int) -> Path:
    return Path(args.output_dir) / f"seed-{seed:06d}"


def generate(args: argparse.Namespace) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    check_args(args)
    pipe = load_pipeline(args)
    arguments = call_arguments(args, pipe)
    settings = {
        **arguments,
        "model": args.model,
        "audio_model": args.audio_model,
        "dtype": args.dtype,
        "spectrogram": pipe.mel_spectrogram.to_dict(),
        "versions": {name: version(name) for name in ("images-that-sound", "diffusers", "transformers", "torch")},
    }
    seeds = pending_seeds(args, settings)
    print(f"{args.num_samples - len(seeds)} of {args.num_samples} samples are there already.", flush=True)
    for first in range(0, len(seeds), args.num_images_per_prompt):
        batch = seeds[first : first + args.num_images_per_prompt]
        generators = [torch.Generator().manual_seed(seed) for seed in batch]
        output = pipe(**arguments, num_images_per_prompt=len(batch), generator=generators)
        for seed, picture, spectrogram, audio in zip(batch, output.images, output.spectrograms, output.audios):
            folder = sample_folder(args, seed)
            sample_settings = {**settings, "seed": seed, "problems": audio_problems(audio)}
            write_sample(folder, picture, spectrogram, audio, pipe.sampling_rate, sample_settings)
            yield folder


def main(input_args: list[str] | None = None) -> None:
    try:
        for folder in generate(parse_args(input_args)):
            print(folder, flush=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
