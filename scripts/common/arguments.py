"""Command lines of the programs: what they share, and the values that they become. Nothing here is slow to import."""

import argparse
import ast
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ... import pipelines
from ...pipelines.images_that_sound_call import CallArgument, read_call
from ...selection import SCORES


# The file of each pipeline that a command calls.
FILES = {
    "ImagesThatSoundPipeline": "pipeline_images_that_sound.py",
    "ImagesThatSoundImprintPipeline": "pipeline_images_that_sound_imprint.py",
    "ImagesThatSoundSDSPipeline": "pipeline_images_that_sound_sds.py",
    "FactorizedColorizationPipeline": "pipeline_factorized_colorization.py",
}
# What a command decides by itself, of what its annotation would let through.
NOT_OFFERED = {
    *("denoising_start", "denoising_end", "num_images_per_prompt", "output_type", "return_dict"),
    *("checkpoint_dir", "checkpoint_every", "shared_timestep"),
}
TYPES: dict[str, Callable] = {"int": int, "float": float, "str": str, "dict": json.loads}
PUBLISHED_SCORES = {"clip_model": "openai/clip-vit-base-patch16", "clap_model": "laion/clap-htsat-unfused"}

Values = TypeVar("Values")


@dataclass(frozen=True, kw_only=True)
class Models:
    """
    What is loaded, and where it runs.

    Args:
        model (`str`): Repo or folder of the image side or of both, or a name of what ships with the package.
        audio_model (`str`): The audio side's, where it is another.
        spectrogram (`str` or `dict`): How the audio side draws, where it does not say so itself.
        device (`str`): Where to compute; `None` for an accelerator where there is one, else the CPU.
        dtype (`str`): Precision of the weights.
        enable_model_cpu_offload (`bool`): Whether only what is in use is kept on the device.
        device_map (`dict[str, str]`): Models that run on devices of their own.
    """

    model: str | None = "embedded"
    audio_model: str | None = None
    spectrogram: str | dict | None = None
    device: str | None = None
    dtype: str = "float32"
    enable_model_cpu_offload: bool = False
    device_map: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """
    Which samples are made, and where they go.

    Args:
        seed (`int`): Of the first; sample i has `seed + i`.
        num_samples (`int`): How many.
        num_images_per_prompt (`int`): How many are computed at once.
        output_dir (`Path`): Gets a folder for each.
        video (`bool`): Whether they get videos.

    Raises:
        ValueError: For numbers that do not make sense.
    """

    seed: int = 0
    num_samples: int = 1
    num_images_per_prompt: int = 1
    output_dir: Path = Path("outputs")
    video: bool = True

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_images_per_prompt"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"`{name}` has to be a positive integer, but is {getattr(self, name)!r}.")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ValueError(f"`seed` has to be an integer from 0 to 2**63 - 1, but is {self.seed!r}.")

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.num_samples))

    def folder(self, seed: int) -> Path:
        return self.output_dir / f"seed-{seed:06d}"

    @property
    def folders(self) -> list[Path]:
        return [self.folder(seed) for seed in self.seeds]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """
    What samples are scored by.

    Args:
        scores (`list[str]`): Names, among clip, clap and lift.
        clip_model (`str`): Repo or folder of CLIP, or embedded.
        clap_model (`str`): The same of CLAP.
    """

    scores: list[str]
    clip_model: str | None = None
    clap_model: str | None = None

    def for_samples_of(self, model: str | None) -> "Scores":
        """Samples of the embedded checkpoint are scored by its own scores, all others by the published ones."""
        default = dict.fromkeys(PUBLISHED_SCORES, "embedded") if model == "embedded" else PUBLISHED_SCORES
        return Scores(scores=self.scores, **{name: model or default[name] for name, model in self.models.items()})

    @property
    def models(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in PUBLISHED_SCORES}


@dataclass(frozen=True, kw_only=True)
class Request:
    """
    What a command that makes samples is asked for.

    Args:
        call (`dict`): JSON-ready arguments of the pipeline's call, the same for all samples.
        models ([`Models`]): What makes them.
        samples ([`Samples`]): Which ones.
        report_to (`str`): A tracker of accelerate.
    """

    call: dict[str, Any]
    models: Models
    samples: Samples
    report_to: str | None = None


def values_of(values_class: type[Values], args: argparse.Namespace, **given: Any) -> Values:
    """A dataclass of what was parsed, and of what is `given`."""
    parsed = {field.name: getattr(args, field.name) for field in fields(values_class) if hasattr(args, field.name)}
    return values_class(**{**parsed, **given})


# -------------------- Parsers --------------------


def new_parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"images-that-sound {command}", description=description)


def call_arguments(pipeline: str) -> dict[str, CallArgument]:
    """Arguments of a pipeline's call that a command line can give."""
    arguments = read_call(Path(pipelines.__path__[0], FILES[pipeline]), pipeline)
    return {name: each for name, each in arguments.items() if name not in NOT_OFFERED and parser_options(each)}


def parser_options(argument: CallArgument) -> dict[str, Any]:
    """How argparse reads an argument of a call, by its annotation; nothing for what no command line can give."""
    annotation = ast.parse(argument.annotation or "None", mode="eval").body
    kinds = {ast.unparse(node).split("[")[0]: node for node in _alternatives(annotation)}
    if "Literal" in kinds:
        return {"choices": ast.literal_eval(kinds["Literal"].slice)}
    if "bool" in kinds:
        return {"action": argparse.BooleanOptionalAction}
    kind = next((name for name in TYPES if name in kinds), None)
    if kind is None:
        return {}
    several = {"nargs": "+"} if kind == "float" and "list" in kinds else {}
    return {"type": TYPES[kind], **several}


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    """`int`, `list[int]` and `None` of `int | list[int] | None`."""
    if isinstance(annotation, ast.BinOp):
        return [*_alternatives(annotation.left), *_alternatives(annotation.right)]
    return [annotation]


def add_call_arguments(parser: argparse.ArgumentParser, arguments: dict[str, CallArgument]) -> None:
    """The arguments of a call; each that is not given is `None`."""
    group = parser.add_argument_group("arguments of the call", "Left out, they are what the checkpoint wants.")
    for name, argument in arguments.items():
        text = argument.description
        if argument.default not in (None, inspect.Parameter.empty):
            text += f" Default: {argument.default}."
        place = parser if name in ("prompt", "audio_prompt") else group
        place.add_argument(f"--{name}", default=None, help=text.replace("%", "%%"), **parser_options(argument))


def add_sample_arguments(parser: argparse.ArgumentParser, presets: dict, arguments: dict[str, CallArgument]) -> None:
    """Prompts, presets, arguments of the call, models, seeds and the output folder."""
    add_call_arguments(parser, arguments)
    parser.add_argument(
        "--example", choices=presets, help="Prompts, seed and number of a published example, or of a guess."
    )
    parser.add_argument("--params_from", help="A picture, sound or video made earlier, whose settings are repeated.")
    parser.add_argument("--num_images_per_prompt", type=int, default=1, help="Samples computed at once.")
    parser.add_argument("--model", help="Repo or folder of the image side, or of both. Default: embedded.")
    parser.add_argument("--audio_model", help="Repo or folder of the audio side, such as Auffusion's, or embedded.")
    add_spectrogram_argument(parser, "How the audio side draws. Default: what is known of it.")
    parser.add_argument("--num_samples", type=int, help="Sample i has seed + i. Default: 1, or the example's.")
    parser.add_argument("--seed", type=int, help="Default: 0, or the example's.")
    add_device_arguments(parser)
    parser.add_argument("--device_map", type=json.loads, help='JSON, such as {"unet_audio": "cuda:1"}.')
    parser.add_argument(
        "--video", action=argparse.BooleanOptionalAction, default=True, help="Whether to make videos. Default: yes."
    )
    parser.add_argument(
        "--output_dir", type=Path, default="outputs", help="Gets a folder for each sample. Default: %(default)s."
    )
    add_process_arguments(parser)


def add_spectrogram_argument(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--spectrogram",
        type=lambda text: json.loads(text) if text.startswith("{") else text,
        help=f"{text} auffusion, riffusion or constants as JSON.",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="Default: an accelerator where there is one, else cpu.")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--enable_model_cpu_offload", action="store_true", help="Keep on the device what is in use.")


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands whose samples `accelerate launch` spreads over processes."""
    parser.add_argument("--report_to", help="A tracker of accelerate, such as tensorboard, for pictures and sounds.")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores", "`embedded` knows the world of the embedded checkpoint only.")
    group.add_argument("--scores", nargs="+", choices=SCORES, default=["clip", "clap"], help="Default: %(default)s.")
    for name, repo in PUBLISHED_SCORES.items():
        group.add_argument(f"--{name}", help=f"Repo, folder or embedded. Default: as the samples', or {repo}.")


# -------------------- Requests --------------------


def read_request(
    args: argparse.Namespace,
    presets: dict,
    arguments: dict[str, CallArgument],
    request_class: type[Values] = Request,
    **given: Any,
) -> Values:
    """
    The values of `add_sample_arguments`. What was not given comes from `--params_from`, then from the example, then
    from the defaults of the call.
    """
    known = {"seed": 0, "num_samples": 1, "model": "embedded", **_known(args, presets)}
    complete = argparse.Namespace(
        **{name: known.get(name) if value is None else value for name, value in vars(args).items()}
    )
    return values_of(
        request_class,
        complete,
        call=complete_call(arguments, vars(args), known),
        models=values_of(Models, complete),
        samples=values_of(Samples, complete),
        **given,
    )


def complete_call(arguments: dict[str, CallArgument], parsed: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call: what was parsed, where that is nothing what is known, and then the call's own default."""
    call = {}
    for name, argument in arguments.items():
        value = known.get(name, argument.default) if parsed.get(name) is None else parsed[name]
        if "nargs" in parser_options(argument) and isinstance(value, list) and len(value) == 1:
            value = value[0]
        call[name] = None if value is inspect.Parameter.empty else value
    return call


def _known(args: argparse.Namespace, presets: dict) -> dict[str, Any]:
    if args.params_from and args.example:
        raise ValueError("`--params_from` and `--example` exclude each other.")
    if not args.params_from:
        return presets.get(args.example, {})
    from .samples import read_settings

    saved = read_settings(args.params_from)
    return {name: saved[name] for name in vars(args) if name in saved and name not in ("device", "output_dir")}


def run(make: Callable[[], Iterator[Path | str]]) -> None:
    """Prints what `make` yields; an error of the user's is said in one line."""
    try:
        for path in make():
            print(path, flush=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
