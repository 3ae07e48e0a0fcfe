"""Makes images that sound: pictures whose spectrogram is played, each with its sound, a video and its settings."""

from collections.abc import Iterator
from pathlib import Path

from .common.arguments import Request, add_sample_arguments, call_arguments, new_parser, read_request, run
from .common.presets import EMBEDDED_PRESETS, GENERATE_PRESETS, RIFFUSION_PRESETS


PRESETS = {**GENERATE_PRESETS, **RIFFUSION_PRESETS}


def parse_args(input_args: list[str] | None = None) -> Request:
    parser, arguments = new_parser("generate", __doc__), call_arguments("ImagesThatSoundPipeline")
    add_sample_arguments(parser, PRESETS, arguments)
    return read_request(parser.parse_args(input_args), PRESETS, arguments, embedded_presets=EMBEDDED_PRESETS)


def generate(request: Request) -> Iterator[Path]:
    """Makes the samples that are missing; yields the folder of each as it appears."""
    from ..pipelines import ImagesThatSoundPipeline
    from .common.models import load_pipeline, with_checkpoint_defaults
    from .common.sampling import complete_settings, make_samples, own_share, report_samples, say_unknown_words, start

    samples = request.samples
    accelerator, models = start(request.models, samples.output_dir, request.report_to)
    pipe = load_pipeline(models, ImagesThatSoundPipeline)
    arguments = with_checkpoint_defaults(request.call, pipe)
    settings = complete_settings(models, pipe, arguments)
    say_unknown_words(settings)
    seeds = own_share(accelerator, samples.seeds)
    yield from make_samples(pipe, samples, settings, arguments=arguments, seeds=seeds)
    report_samples(accelerator, samples.folders)


def main(input_args: list[str] | None = None) -> None:
    run(lambda: generate(parse_args(input_args)))


if __name__ == "__main__":
    main()
