"""Paints pictures, generated or yours, into spectrograms, the baseline: each with its sound, video and settings."""

from collections.abc import Iterator
from pathlib import Path

from .common.border import run
from .common.own_files import add_reading_arguments
from .common.parsers import add_sample_arguments, call_arguments, new_parser
from .common.presets import EMBEDDED_PRESETS, IMPRINT_PRESETS
from .common.requests import read_request
from .common.values import Request


# Which file stands in for which prompt.
INSTEAD = {"image": "prompt", "audio": "audio_prompt"}
# Arguments that are nothing without a file.
NEEDS = [("invert", ("image",)), ("audio_start_in_s", ("audio",))]


def parse_args(input_args: list[str] | None = None) -> Request:
    parser, arguments = new_parser("imprint", __doc__), call_arguments("ImagesThatSoundImprintPipeline")
    parser.add_argument("--image", help="A picture to paint, instead of --prompt.")
    parser.add_argument("--audio", help="A sound to paint into, instead of --audio_prompt.")
    add_reading_arguments(parser, "invert", "audio_start_in_s", "score")
    add_sample_arguments(parser, IMPRINT_PRESETS, arguments)
    args = parser.parse_args(input_args)
    return read_request(
        args, IMPRINT_PRESETS, arguments, embedded_presets=EMBEDDED_PRESETS, instead=INSTEAD, needs=NEEDS
    )


def imprint(request: Request) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    from ..pipelines import ImagesThatSoundImprintPipeline
    from .common.inputs import with_files
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.sampling import (
        complete_settings,
        imprinted_pictures_of,
        make_samples,
        own_share,
        report_samples,
        say_unknown_words,
        start,
    )

    samples = request.samples
    accelerator, models = start(request.models, samples.output_dir, request.report_to)
    pipe = load_pipeline(models, ImagesThatSoundImprintPipeline, needs_audio_side="audio" not in request.files)
    arguments = with_checkpoint_defaults(request.call, pipe)
    settings = complete_settings(models, pipe, {**arguments, **request.recorded})
    say_unknown_words(settings)
    num_audio_steps = arguments["num_audio_inference_steps"]
    arguments = with_files(arguments, request, pipe)
    yield from make_samples(
        pipe,
        samples,
        settings,
        arguments=arguments,
        seeds=own_share(accelerator, samples.seeds),
        pictures=imprinted_pictures_of,
        # The picture's steps, then the spectrogram's, unless a file stands for either.
        steps_of=lambda pipe: [1] * (pipe.num_timesteps + (0 if request.files else num_audio_steps)),
        num_decoded=2 - len(request.files),
    )
    report_samples(accelerator, samples.folders)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: imprint(parse_args(input_args)))


if __name__ == "__main__":
    main()
