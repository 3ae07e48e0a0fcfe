"""Paints pictures into spectrograms, the baseline: made ones or one's own, each with its sound, video and settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common.arguments import Request, add_sample_arguments, call_arguments, new_parser, read_request, run
from .common.presets import IMPRINT_PRESETS


if TYPE_CHECKING:
    from ..pipelines import ImagesThatSoundImprintPipeline


@dataclass(frozen=True, kw_only=True)
class ImprintRequest(Request):
    """A request that may name files, of a picture to paint and of a sound to paint into, instead of prompts."""

    image: str | None = None
    audio: str | None = None


def parse_args(input_args: list[str] | None = None) -> ImprintRequest:
    parser, arguments = new_parser("imprint", __doc__), call_arguments("ImagesThatSoundImprintPipeline")
    parser.add_argument("--image", help="A picture to paint, instead of --prompt.")
    parser.add_argument("--audio", help="A sound to paint into, instead of --audio_prompt.")
    add_sample_arguments(parser, IMPRINT_PRESETS, arguments)
    return read_request(parser.parse_args(input_args), IMPRINT_PRESETS, arguments, ImprintRequest)


def imprint(request: ImprintRequest) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    from ..pipelines import ImagesThatSoundImprintPipeline
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.samples import read_audio, read_picture
    from .common.sampling import (
        complete_settings,
        imprinted_pictures_of,
        make_samples,
        own_share,
        report_samples,
        start,
    )

    samples = request.samples
    accelerator, models = start(request.models, samples.output_dir, request.report_to)
    pipe = load_pipeline(models, ImagesThatSoundImprintPipeline, needs_audio_side=request.audio is None)
    arguments = with_checkpoint_defaults(request.call, pipe)
    files = {"image": request.image, "audio": request.audio}
    settings = complete_settings(models, pipe, {**arguments, **files})
    if request.image is not None:
        arguments["image"] = read_picture(request.image)
    if request.audio is not None:
        arguments["audio"] = read_audio(request.audio, pipe.sampling_rate)
    if request.image is not None and accelerator.is_main_process:
        warn_of_stretching(request.image, arguments["image"].size, canvas_size(pipe, arguments))
    yield from make_samples(
        pipe,
        samples,
        settings,
        arguments=arguments,
        seeds=own_share(accelerator, samples.seeds),
        pictures=imprinted_pictures_of,
    )
    report_samples(accelerator, samples.folders)


def canvas_size(pipe: "ImagesThatSoundImprintPipeline", arguments: dict[str, Any]) -> tuple[int, int]:
    """Width and height to which a call with these arguments resizes a given picture."""
    width, seconds, crop_right = (arguments[name] for name in ("width", "audio_length_in_s", "crop_right"))
    if arguments.get("audio") is not None:
        width, seconds, crop_right = None, len(arguments["audio"]) / pipe.sampling_rate, 0
    height, width, cut_columns = pipe.resolve_size(arguments["height"], width, seconds, crop_right)
    return width - cut_columns, height


def warn_of_stretching(path: str, size: tuple[int, int], canvas: tuple[int, int]) -> None:
    """Says what becomes of a picture whose proportions differ from the canvas's by more than a tenth."""
    stretching = (canvas[0] * size[1]) / (canvas[1] * size[0])
    if not 1 / 1.1 < stretching < 1.1:
        sizes = " and is stretched to ".join(f"{width} x {height}" for width, height in (size, canvas))
        print(f"warning: {Path(path).name} is {sizes}.", flush=True)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: imprint(parse_args(input_args)))


if __name__ == "__main__":
    main()
