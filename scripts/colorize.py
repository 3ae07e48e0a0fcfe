"""Colours the pictures of samples made here, several tries each, with videos of colours above spectrogram."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .common.border import run
from .common.files import check_writable
from .common.parsers import add_call_arguments, add_device_arguments, call_arguments, new_parser
from .common.presets import COLORIZE_PRESETS
from .common.progress import tell
from .common.requests import complete_call
from .common.values import Models, check_count, check_seed, values_of


def colorize(
    sample_dir: Path, call: dict[str, Any], models: Models, super_resolution_model: str | None, seeds: list[int]
) -> Iterator[Path]:
    """Makes the tries that are missing; yields each colour picture as it appears."""
    from tqdm import tqdm

    from .common.colors import Painter, tries_to_make
    from .common.forecast import ColorForecast
    from .common.samples import find_samples, sample_settings

    folders = find_samples(sample_dir)
    check_writable(sample_dir, "sample_dir")
    painter = Painter(models, super_resolution_model, [sample_settings(folder) for folder in folders])
    forecast, num_there = ColorForecast(tries_to_make(folders, seeds), call), len(folders) * len(seeds)
    for folder in tqdm(folders, desc="Samples", disable=len(folders) == 1):
        for path in painter(folder, call, seeds, forecast):
            num_there -= 1
            yield path
    if num_there:
        tell(f"{num_there} of {len(folders) * len(seeds)} colour pictures were there already.")


def main(input_args: list[str] | None = None) -> None:
    run(lambda: colorize(**parse_args(input_args)))


def parse_args(input_args: list[str] | None = None) -> dict[str, Any]:
    """Arguments of `colorize`."""
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
    check_count("num_images_per_prompt", args.num_images_per_prompt)
    check_seed(args.seed, args.num_images_per_prompt)
    if args.prompt is not None and args.example is not None:
        raise ValueError("`--prompt` and `--example` exclude each other.")
    return {
        "sample_dir": args.sample_dir,
        "call": complete_call(arguments, vars(args), COLORIZE_PRESETS.get(args.example, {})),
        "models": values_of(Models, args),
        "super_resolution_model": args.super_resolution_model,
        "seeds": list(range(args.seed, args.seed + args.num_images_per_prompt)),
    }


if __name__ == "__main__":
    main()
