"""What the commands share that make samples from seeds: arguments, loading, and going on where a run stopped."""

import argparse
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from accelerate import Accelerator
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import get_device

import images_that_sound.embedded
import images_that_sound.embedded_colorization
from images_that_sound.pipelines import audio_problems
from images_that_sound.scripts.hub import hub_errors
from images_that_sound.scripts.samples import check_writable, read_picture, read_settings, write_sample


EMBEDDED = Path(images_that_sound.embedded.__file__).parent
# What ships with the package, by the names that `--model` and its like take.
SHIPPED = {
    "embedded": EMBEDDED,
    "embedded-colorization": Path(images_that_sound.embedded_colorization.__file__).parent,
}


def add_arguments(parser: argparse.ArgumentParser, presets: dict, call_arguments: dict[str, tuple]) -> None:
    """Prompts, presets, arguments of the call, models, seeds and the output folder."""
    parser.add_argument("--prompt", help="What to see.")
    parser.add_argument("--audio_prompt", help="What to hear.")
    parser.add_argument("--example", choices=presets, help="Prompts, seed and number of a published example.")
    parser.add_argument("--params_from", help="A picture, sound or video made earlier, whose settings are repeated.")
    call = parser.add_argument_group("arguments of the call", "Left out, they are what the checkpoint wants.")
    for name, (kind, text) in call_arguments.items():
        call.add_argument(f"--{name}", type=kind, help=text)
    call.add_argument("--num_images_per_prompt", type=int, default=1, help="Samples computed at once.")
    parser.add_argument("--model", help="Repo or folder of the image side, or of both. Default: embedded.")
    parser.add_argument("--audio_model", help="Repo or folder of the audio side, such as Auffusion's, or embedded.")
    parser.add_argument("--num_samples", type=int, help="Sample i has seed + i. Default: 1, or the example's.")
    parser.add_argument("--seed", type=int, help="Default: 0, or the example's.")
    add_device_arguments(parser)
    parser.add_argument("--device_map", type=json.loads, help='JSON, such as {"unet_audio": "cuda:1"}.')
    parser.add_argument(
        "--video", action=argparse.BooleanOptionalAction, default=True, help="Whether to make videos. Default: yes."
    )
    parser.add_argument("--output_dir", default="outputs", help="Gets a folder for each sample. Default: %(default)s.")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=get_device(), help="Default: %(default)s.")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--enable_model_cpu_offload", action="store_true", help="Keep on the device what is in use.")


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands whose samples `accelerate launch` spreads over processes."""
    parser.add_argument("--report_to", help="A tracker of accelerate, such as tensorboard, for pictures and sounds.")


def new_accelerator(args: argparse.Namespace, **kwargs: Any) -> Accelerator:
    """
    This process among those of `accelerate launch`. Each of several gets an accelerator of its own, where `--device`
    does not name one.
    """
    device = torch.device(args.device)
    accelerator = Accelerator(cpu=device.type == "cpu", log_with=args.report_to, project_dir=args.output_dir, **kwargs)
    if accelerator.num_processes > 1 and device.index is None:
        args.device = str(accelerator.device)
    if args.report_to:
        accelerator.init_trackers("images-that-sound")
    return accelerator


def report_samples(accelerator: Accelerator, folders: list[Path]) -> None:
    """Once all processes are done, shows samples, and their scores where they have some, to the trackers."""
    if not accelerator.trackers:
        return
    accelerator.wait_for_everyone()
    for step, folder in enumerate(folders):
        if (folder / "scores.json").exists():
            accelerator.log(json.loads((folder / "scores.json").read_text(encoding="utf-8"))["scores"], step=step)
        picture = np.asarray(read_picture(folder / "image.png").convert("RGB"))[None]
        audio, sampling_rate = soundfile.read(folder / "audio.wav", dtype="float32")
        for tracker in accelerator.trackers:
            if hasattr(tracker, "log_images"):
                tracker.log_images({"image": picture}, step=step, dataformats="NHWC")
            if tracker.name == "tensorboard" and accelerator.is_main_process:
                tracker.tracker.add_audio("audio", torch.from_numpy(audio)[None], step, sample_rate=sampling_rate)
    accelerator.end_training()


def own_share(accelerator: Accelerator, items: list) -> list:
    """Every n-th item: what this one of n processes does, whatever the others do."""
    return items[accelerator.process_index :: accelerator.num_processes]


def fill_in(args: argparse.Namespace, presets: dict, **defaults: Any) -> None:
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
        known = presets[args.example]
    for name, value in {"seed": 0, "num_samples": 1, "model": "embedded", **defaults, **known}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def check_args(args: argparse.Namespace) -> None:
    """Raises `ValueError` for what the pipeline's own checks can't see."""
    for name in ("num_samples", "num_images_per_prompt"):
        if not isinstance(getattr(args, name), int) or getattr(args, name) < 1:
            raise ValueError(f"`{name}` has to be a positive integer, but is {getattr(args, name)!r}.")
    if not isinstance(args.seed, int) or not 0 <= args.seed < 2**63:
        raise ValueError(f"`seed` has to be an integer from 0 to 2**63 - 1, but is {args.seed!r}.")
    check_writable(args.output_dir)


def read_pipeline(args: argparse.Namespace, pipeline_class: type[DiffusionPipeline]) -> DiffusionPipeline:
    """The pipeline of `--model`, on no device yet."""
    try:
        with hub_errors(args.model, "model"):
            return pipeline_class.from_pretrained(
                SHIPPED.get(args.model, args.model), dtype=getattr(torch, args.dtype)
            )
    except OSError as error:
        raise ValueError(
            f"`model` has to be a repo or folder of a checkpoint, but {args.model} is none: {error}"
        ) from error


def load_pipeline(args: argparse.Namespace, pipeline_class: type[DiffusionPipeline]) -> DiffusionPipeline:
    """The pipeline of `--model`, with the audio side of `--audio_model`, where it is to run."""
    pipe = read_pipeline(args, pipeline_class)
    if args.audio_model is not None:
        with hub_errors(args.audio_model, "audio_model"):
            pipe.load_audio_prior(SHIPPED.get(args.audio_model, args.audio_model))
    return spread(args, on_device(args, pipe))


def on_device(args: argparse.Namespace, pipe: DiffusionPipeline) -> DiffusionPipeline:
    if args.enable_model_cpu_offload:
        pipe.enable_model_cpu_offload(device=args.device)
        return pipe
    return pipe.to(args.device)


def spread(args: argparse.Namespace, pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Moves the models of `--device_map` to devices of their own, to which accelerate carries what they are given."""
    for name, device in (args.device_map or {}).items():
        model = pipe.components.get(name)
        if args.enable_model_cpu_offload or not isinstance(model, torch.nn.Module):
            raise ValueError(
                f"`device_map` has to name models of the pipeline, without `enable_model_cpu_offload`, but is"
                f" {args.device_map}."
            )
        hook = AlignDevicesHook(execution_device=torch.device(device), io_same_device=True)
        add_hook_to_module(model.to(device), hook)
    return pipe


def with_checkpoint_defaults(arguments: dict[str, Any], pipe: DiffusionPipeline) -> dict[str, Any]:
    """The arguments with the checkpoint's defaults written out, so that a sample's settings are complete."""
    filled = {
        name: value
        for name, value in pipe.default_arguments.items()
        if arguments.get(name) is None and name not in ("height", "width")
    }
    return {**arguments, **filled}


def complete_settings(args: argparse.Namespace, pipe: DiffusionPipeline, settings: dict[str, Any]) -> dict[str, Any]:
    """What a sample's files say of how it was made, besides its seed and problems."""
    return {
        **settings,
        "model": args.model,
        "audio_model": args.audio_model,
        "dtype": args.dtype,
        "spectrogram": pipe.mel_spectrogram.to_dict(),
        "versions": {name: version(name) for name in ("images-that-sound", "diffusers", "transformers", "torch")},
    }


def all_seeds(args: argparse.Namespace) -> list[int]:
    return list(range(args.seed, args.seed + args.num_samples))


def pending_seeds(args: argparse.Namespace, seeds: list[int], settings: dict) -> list[int]:
    """Seeds whose sample is not there yet. Raises `ValueError` for one that is there with other settings."""
    pending = []
    for seed in seeds:
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


def make_samples(
    args: argparse.Namespace,
    pipe: DiffusionPipeline,
    arguments: dict[str, Any],
    settings: dict[str, Any],
    pictures: Callable[[Any, int], dict],
    seeds: list[int],
    of_seeds: Callable[[list[int]], dict] = lambda seeds: {},
    accelerator: Accelerator | None = None,
) -> Iterator[Path]:
    """
    Makes the samples that are missing; yields the folder of each as it appears.

    Args:
        args (`argparse.Namespace`): Of `add_arguments`.
        pipe ([`DiffusionPipeline`]): Called with `arguments`.
        arguments (`dict`): Of the call, without the generators.
        settings (`dict`): JSON-ready, what a sample's files say of how it was made, besides what is the same for all.
        pictures (`Callable`): From the call's output and a row of it to the pictures that `write_sample` takes.
        seeds (`list[int]`): Of the samples, each made by this process unless it is there.
        of_seeds (`Callable`, *optional*): From the seeds of a call to arguments of that call alone.
        accelerator (`accelerate.Accelerator`, *optional*): Of processes that make each sample together; the first one
            writes it.
    """
    settings = complete_settings(args, pipe, settings)
    pending = pending_seeds(args, seeds, settings)
    print(f"{len(seeds) - len(pending)} of {len(seeds)} samples are there already.", flush=True)
    for first in range(0, len(pending), args.num_images_per_prompt):
        batch = pending[first : first + args.num_images_per_prompt]
        own = {"generator": [torch.Generator().manual_seed(seed) for seed in batch], **of_seeds(batch)}
        output = pipe(**arguments, **own, num_images_per_prompt=len(batch))
        for row, (seed, audio) in enumerate(zip(batch, output.audios)):
            folder = sample_folder(args, seed)
            sample_settings = {**settings, "seed": seed, "problems": audio_problems(audio)}
            if accelerator is None or accelerator.is_main_process:
                made = {"audio": audio, "sampling_rate": pipe.sampling_rate, "settings": sample_settings}
                write_sample(folder, **pictures(output, row), **made, video=args.video)
            if accelerator is not None:
                accelerator.wait_for_everyone()
            yield folder


def run(make: Callable[[], Iterator[Path | str]]) -> None:
    """Prints what `make` yields; an error of the user's is said in one line."""
    try:
        for path in make():
            print(path, flush=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
