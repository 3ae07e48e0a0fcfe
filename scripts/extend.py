"""Paints more of a sample to its right: picture and sound go on, by the same prompts or by others."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common.border import run
from .common.parsers import add_options, add_sample_arguments, call_arguments, new_parser
from .common.requests import read_request
from .common.values import Models, Request


# Arguments of the call that decide on the size, which follows from the sample.
SIZES = ("height", "width", "audio_length_in_s", "canvas_layout", "circular")
# Settings of a sample that say how it began and where it ends, which is over.
OF_THE_BEGINNING = (
    *("image", "audio", "mask_image", "onsets"),
    *(f"{side}{name}" for side in ("", "audio_") for name in ("control_image", "controlnet")),
    *(f"{side}{name}" for side in ("", "audio_") for name in ("ip_adapter", "ip_adapter_image")),
)


@dataclass(frozen=True, kw_only=True)
class Extension(Request):
    """
    A request for more of a sample.

    Args:
        sample_dir (`Path`): Folder of the sample.
        seconds (`float`): Length of the new part.
    """

    sample_dir: Path
    seconds: float


def parse_args(input_args: list[str] | None = None) -> Extension:
    parser, arguments = new_parser("extend", __doc__), call_arguments("ImagesThatSoundPipeline")
    arguments = {name: each for name, each in arguments.items() if name not in SIZES}
    parser.add_argument("--sample_dir", type=Path, required=True, help="Folder of the sample, which stays as it is.")
    parser.add_argument("--seconds", type=float, default=5.0, help="Length of the new part. Default: %(default)s.")
    add_sample_arguments(parser, {}, arguments)
    add_options(parser, Models, "scheduler", "few_steps", "lora", "audio_lora")
    args = parser.parse_args(input_args)

    from .common.samples import find_samples, sample_settings

    if args.params_from is not None:
        raise ValueError("`params_from` can't be given to `extend`: settings that are left out are the sample's.")
    if find_samples(args.sample_dir) != [args.sample_dir]:
        raise ValueError(f"`sample_dir` has to be one sample, but {args.sample_dir} holds several.")
    saved = going_on(sample_settings(args.sample_dir))
    args.params_from = str(args.sample_dir / "settings.json")
    if args.output_dir is None:
        args.output_dir = beside(args.sample_dir.parent)
    return read_request(args, {}, arguments, Extension, saved=saved, sample_dir=args.sample_dir, seconds=args.seconds)


def beside(folder: Path) -> Path:
    """A folder beside that of the samples, in which `rank` would find both."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}-extended")


def going_on(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a sample that its extension has too. Of prompts over time, the last ones go on."""
    from .common.own_files import values_over_time

    if settings.get("circular") or settings.get("canvas_layout") == "folded":
        raise ValueError("`sample_dir` has to hold a strip with an end, but its canvas is folded or circular.")
    last = {name: values[max(values)] for name, values in values_over_time(settings.get("score") or {}).items()}
    left_out = (*OF_THE_BEGINNING, *SIZES, "score")
    return {name: value for name, value in {**settings, **last}.items() if name not in left_out}


def extend(request: Extension) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    from ..pipelines import ImagesThatSoundImg2ImgPipeline
    from .common.forecast import steps_of_both_sides
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.own_files import sha256_of
    from .common.samples import read_picture
    from .common.sampling import complete_settings, make_samples, own_share, say_unknown_words, start

    samples = request.samples
    accelerator, models = start(request.models, samples.output_dir, request.report_to)
    pipe = load_pipeline(models, ImagesThatSoundImg2ImgPipeline)
    arguments = with_checkpoint_defaults(request.call, pipe)
    picture, spectrogram = (request.sample_dir / f"{name}.png" for name in ("image", "spectrogram"))
    extended = {
        "sample": request.sample_dir.name,
        "sha256": sha256_of(picture, "picture"),
        "extend_by_in_s": request.seconds,
    }
    settings = complete_settings(models, pipe, {**arguments, **request.recorded, "extended": extended})
    say_unknown_words(settings)
    given = {"image": read_picture(picture), "spectrogram": read_picture(spectrogram)}
    yield from make_samples(
        pipe,
        samples,
        settings,
        arguments={**arguments, **given, "extend_by_in_s": request.seconds},
        seeds=own_share(accelerator, samples.seeds),
        call=pipe.extend,
        steps_of=steps_of_both_sides(arguments),
    )


def main(input_args: list[str] | None = None) -> None:
    run(lambda: extend(parse_args(input_args)))


if __name__ == "__main__":
    main()
