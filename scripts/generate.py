"""Makes images that sound: pictures whose spectrogram is played, each with its sound, a video and its settings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .common.border import run
from .common.own_files import add_reading_arguments
from .common.parsers import (
    add_component_arguments,
    add_options,
    add_sample_arguments,
    call_arguments,
    new_parser,
)
from .common.presets import EMBEDDED_PRESETS, GENERATE_PRESETS, RIFFUSION_PRESETS
from .common.requests import read_request
from .common.values import Models, Request


PRESETS = {**GENERATE_PRESETS, **RIFFUSION_PRESETS}
# Arguments that are nothing without one of some files.
NEEDS = [
    *((name, ("image", "audio")) for name in ("strength", "mask_image", "mask_start_in_s", "mask_end_in_s")),
    *(("invert", ("image",)), ("audio_start_in_s", ("audio",))),
    *(("resize_mode", ("image", "control_image")), ("magnitude_ratio", ("image",)), ("magnitude_ratio", ("audio",))),
    *(("controlnet", ("control_image",)), ("control_image", ("controlnet",))),
    ("controlnet_conditioning_scale", ("controlnet",)),
    *((name, ("controlnet",)) for name in ("control_guidance_start", "control_guidance_end")),
    *(("audio_controlnet", ("audio_control_image", "onsets")), ("audio_control_image", ("audio_controlnet",))),
    *((f"audio_{name}", ("audio_controlnet",)) for name in ("control_guidance_start", "control_guidance_end")),
    *((name, ("audio_controlnet",)) for name in ("onsets", "audio_controlnet_conditioning_scale")),
    *(
        pair
        for name in ("ip_adapter", "audio_ip_adapter")
        for pair in ((name, (f"{name}_image",)), (f"{name}_image", (name,)))
    ),
]


def parse_args(input_args: list[str] | None = None) -> Request:
    parser = new_parser("generate", __doc__)
    arguments = call_arguments("ImagesThatSoundPipeline")
    of_a_start = call_arguments("ImagesThatSoundImg2ImgPipeline")
    parser.add_argument("--image", help="A picture to begin with, instead of noise.")
    parser.add_argument("--audio", help="A sound to begin with. With --image, that is painted into it first.")
    parser.add_argument("--mask_image", help="A picture of the canvas' size: white is made anew, black stays.")
    add_reading_arguments(parser, "invert", "audio_start_in_s", "score")
    add_sample_arguments(parser, PRESETS, {**of_a_start, **arguments})
    add_options(parser, Models, "scheduler", "few_steps")
    add_component_arguments(parser)
    request = read_request(
        parser.parse_args(input_args),
        PRESETS,
        {**of_a_start, **arguments},
        embedded_presets=EMBEDDED_PRESETS,
        needs=NEEDS,
    )
    for prefix in ("", "audio_") if "onsets" not in request.recorded else ("",):
        names = (f"{prefix}controlnet", f"{prefix}control_image")
        numbers = [len(getattr(request.models, names[0]) or []), len(request.files.get(names[1], []))]
        if len(set(numbers)) > 1:
            raise ValueError("`{}` and `{}` have to be as many, but are {} and {}.".format(*names, *numbers))
    used = of_a_start if begins_with_a_file(request) else arguments
    return replace(request, call={name: request.call[name] for name in used})


def begins_with_a_file(request: Request) -> bool:
    return not request.files.keys().isdisjoint(("image", "audio"))


def generate(request: Request) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    from ..pipelines import ImagesThatSoundImg2ImgPipeline, ImagesThatSoundPipeline
    from .common.forecast import steps_of_both_sides
    from .common.inputs import with_files
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.sampling import complete_settings, make_samples, own_share, report_samples, say_unknown_words, start

    samples = request.samples
    accelerator, models = start(request.models, samples.output_dir, request.report_to)
    begun = begins_with_a_file(request)
    pipe = load_pipeline(models, ImagesThatSoundImg2ImgPipeline if begun else ImagesThatSoundPipeline)
    arguments = with_checkpoint_defaults(request.call, pipe)
    settings = complete_settings(models, pipe, {**arguments, **request.recorded})
    say_unknown_words(settings)
    arguments = with_files(arguments, request, pipe)
    seeds = own_share(accelerator, samples.seeds)
    yield from make_samples(
        pipe,
        samples,
        settings,
        arguments=arguments,
        seeds=seeds,
        steps_of=steps_of_both_sides(arguments),
        num_decoded=1 if pipe.audio_side.vae is pipe.vae else 2,
    )
    report_samples(accelerator, samples.folders)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: generate(parse_args(input_args)))


if __name__ == "__main__":
    main()
