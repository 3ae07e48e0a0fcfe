"""Colours the pictures of samples made here, several tries each, with videos of colours above spectrogram."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .common.arguments import (
    Models,
    add_call_arguments,
    add_device_arguments,
    call_arguments,
    new_parser,
    run,
    values_of,
)
from .common.presets import COLORIZE_PRESETS


@dataclass(frozen=True, kw_only=True)
class ColorizeRequest:
    """
    Args:
        sample_dir (`Path`): Every sample at or below it is coloured.
        call (`dict`): JSON-ready arguments of the pipeline's call; without a prompt, the samples' own tell it.
        models ([`Models`]): Stage I, or both; by default what fits the samples.
        super_resolution_model (`str`): Stage II.
        seed (`int`): Try i has `seed + i`.
        num_images_per_prompt (`int`): Tries for each sample.
    """

    sample_dir: Path
    call: dict[str, Any]
    models: Models
    super_resolution_model: str | None = None
    seed: int = 0
    num_images_per_prompt: int = 4

    @property
    def made_by(self) -> dict[str, str | None]:
        """What the files of a try say of the models."""
        return {"model": self.models.model, "super_resolution_model": self.super_resolution_model}

    def __post_init__(self) -> None:
        if self.num_images_per_prompt < 1:
            raise ValueError(
                f"`num_images_per_prompt` has to be a positive integer, but is {self.num_images_per_prompt}."
            )


def parse_args(input_args: list[str] | None = None) -> ColorizeRequest:
    parser, arguments = new_parser("colorize", __doc__), call_arguments("FactorizedColorizationPipeline")
    parser.add_argument("--sample_dir", type=Path, required=True, help="Every sample at or below it is coloured.")
    add_call_arguments(parser, arguments)
    parser.add_argument("--example", choices=COLORIZE_PRESETS, help="The prompt of a published example.")
    parser.add_argument("--num_images_per_prompt", type=int, default=4, help="Tries for each. Default: %(default)s.")
    parser.add_argument("--seed", type=int, default=0, help="Try i has seed + i. Default: %(default)s.")
    parser.add_argument(
        "--model",
        help="Stage I, or both. Default: DeepFloyd/IF-I-M-v1.0; for samples of the embedded checkpoint,"
        " embedded-colorization, which knows its world only.",
    )
    parser.add_argument("--super_resolution_model", help="Stage II. Default for DeepFloyd's stage I: its stage II.")
    add_device_arguments(parser)
    args = parser.parse_args(input_args)
    if args.prompt is not None and args.example is not None:
        raise ValueError("`--prompt` and `--example` exclude each other.")
    given = {name: getattr(args, name) for name in arguments if getattr(args, name) is not None}
    call = {**default_call(), **COLORIZE_PRESETS.get(args.example, {}), **given}
    return values_of(ColorizeRequest, args, call=call, models=values_of(Models, args))


def default_call() -> dict[str, Any]:
    """Arguments of the pipeline's call as they are where nothing is given."""
    arguments = call_arguments("FactorizedColorizationPipeline")
    return {name: each.default for name, each in arguments.items() if each.default is not inspect.Parameter.empty}


def with_models_for(request: ColorizeRequest, samples: list[dict]) -> ColorizeRequest:
    """The request with the models that it leaves open, by what made the samples."""
    model, second = request.models.model, request.super_resolution_model
    if model is None:
        embedded = all(sample.get("model") == "embedded" for sample in samples)
        model = "embedded-colorization" if embedded else "DeepFloyd/IF-I-M-v1.0"
    if second is None and model.startswith("DeepFloyd/IF-I-"):
        second = "DeepFloyd/IF-II-M-v1.0"
    return replace(request, models=replace(request.models, model=model), super_resolution_model=second)


def colorize(request: ColorizeRequest) -> Iterator[Path]:
    """Makes the tries that are missing; yields each colour picture as it appears."""
    from .common.colors import load_colorization, make_tries
    from .common.samples import find_samples, sample_settings

    folders = find_samples(request.sample_dir)
    request = with_models_for(request, [sample_settings(folder) for folder in folders])
    pipe = load_colorization(request.models, request.super_resolution_model)
    seeds = range(request.seed, request.seed + request.num_images_per_prompt)
    for folder in folders:
        yield from make_tries(pipe, folder, request.call, request.made_by, list(seeds))


def main(input_args: list[str] | None = None) -> None:
    run(lambda: colorize(parse_args(input_args)))


if __name__ == "__main__":
    main()
