"""Optimises canvases against an image model and a spectrogram model; hours each. A stopped run goes on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .common.border import run
from .common.files import json_text, written
from .common.parsers import add_options, add_sample_arguments, call_arguments, new_parser
from .common.presets import SDS_PRESETS
from .common.requests import read_request
from .common.values import Request, option


if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..pipelines import ImagesThatSoundSDSPipeline


@dataclass(frozen=True, kw_only=True)
class SDSRequest(Request):
    """A request for an optimisation."""

    final_max_timestep: float | None = option("Fraction to which the largest timestep falls.", type=float)
    checkpoint_every: int = option("Default: %(default)s.", 1000, type=int)
    preview_every: int = option("Iterations between previews; 0 for none.", 1000, type=int)
    mixed_precision: str = option("Default: no.", "no", choices=("no", "fp16", "bf16"))
    gradient_accumulation_steps: int = option("Default: 1.", 1, type=int)

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` has to be a positive integer, but is {getattr(self, name)}.")


def parse_args(input_args: list[str] | None = None) -> SDSRequest:
    parser, arguments = new_parser("sds", __doc__), call_arguments("ImagesThatSoundSDSPipeline")
    add_sample_arguments(parser, SDS_PRESETS, arguments)
    add_options(parser, SDSRequest, "final_max_timestep", "checkpoint_every", "preview_every")
    add_options(parser, SDSRequest, "mixed_precision", "gradient_accumulation_steps")
    parser.set_defaults(mixed_precision=None, gradient_accumulation_steps=None)
    return read_request(parser.parse_args(input_args), SDS_PRESETS, arguments, SDSRequest)


def sds(request: SDSRequest) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    from ..pipelines import ImagesThatSoundSDSPipeline
    from ..schedulers import ScoreDistillationScheduler
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.sampling import complete_settings, make_samples, say_unknown_words, start
    from .common.unfinished import finished, precision_of, state_of

    samples = replace(request.samples, num_images_per_prompt=1)
    accelerator, models = start(
        request.models,
        samples.output_dir,
        request.report_to,
        mixed_precision=request.mixed_precision,
        gradient_accumulation_steps=request.gradient_accumulation_steps,
    )
    models = replace(models, device=str(accelerator.device))
    pipe = load_pipeline(models, ImagesThatSoundSDSPipeline)
    pipe.set_progress_bar_config(desc="Optimising")
    arguments = with_checkpoint_defaults(request.call, pipe)
    timesteps = {"final_max_timestep": request.final_max_timestep}
    settings = complete_settings(models, pipe, {**arguments, **timesteps, **precision_of(accelerator)})
    say_unknown_words(settings)

    def of_seeds(seeds: list[int]) -> dict:
        state = state_of(samples, seeds[0], settings, accelerator)
        return {
            **state,
            "checkpoint_every": request.checkpoint_every,
            "callback_on_step_end": lambda pipe, iteration, sample, tensors: report(
                accelerator, pipe, state["checkpoint_dir"], iteration, tensors, preview_every=request.preview_every
            ),
            "callback_on_step_end_tensor_inputs": ["canvas", "image_loss", "audio_loss"],
        }

    made = make_samples(
        pipe,
        samples,
        settings,
        arguments={**arguments, "timestep_scheduler": ScoreDistillationScheduler(**timesteps)},
        seeds=samples.seeds,
        of_seeds=of_seeds,
        accelerator=accelerator,
    )
    yield from finished(samples, made, accelerator)
    accelerator.end_training()


def report(
    accelerator: "Accelerator",
    pipe: "ImagesThatSoundSDSPipeline",
    folder: Path,
    iteration: int,
    tensors: dict,
    *,
    preview_every: int,
) -> None:
    """Losses to the trackers, and now and then a preview: `preview.png` and `preview.wav` of the unfinished canvas."""
    import torch

    from .common.canvases import picture_of
    from .common.loudness import levelled
    from .common.samples import write_audio, write_picture

    losses = {name: value for name, value in tensors.items() if name != "canvas" and value is not None}
    accelerator.log(losses, step=iteration)
    if not accelerator.is_main_process or not preview_every or (iteration + 1) % preview_every:
        return
    with torch.no_grad():
        gray = tensors["canvas"].float().mean(dim=1, keepdim=True)
        audio = pipe.mel_spectrogram.canvas_to_audio(gray, pipe.vocoder)[0].cpu().numpy()
    with written(folder / "preview.png") as file:
        write_picture(file, picture_of(gray[0, 0]), json_text({"spectrogram": pipe.mel_spectrogram.to_dict()}))
    with written(folder / "preview.wav") as file:
        write_audio(file, levelled(audio, pipe.sampling_rate)[0], pipe.sampling_rate)
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            tracker.log_images({"canvas": gray.permute(0, 2, 3, 1).cpu().numpy()}, step=iteration, dataformats="NHWC")


def main(input_args: list[str] | None = None) -> None:
    run(lambda: sds(parse_args(input_args)))


if __name__ == "__main__":
    main()
