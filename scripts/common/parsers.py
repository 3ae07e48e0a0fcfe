"""Command lines: the parser and the arguments that commands share. Nothing here is slow to import."""

import argparse
import ast
import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from ... import pipelines
from .border import one_line
from .call_arguments import CallArgument, read_call
from .files import parse_json
from .own_files import add_reading_arguments
from .values import PUBLISHED_SCORES, Look, Models, Request, Samples, Scores, json_dict, options_of, values_of


# The file of each pipeline that is called or published by a command.
FILES = {
    "ImagesThatSoundPipeline": "pipeline_images_that_sound.py",
    "ImagesThatSoundImg2ImgPipeline": "pipeline_images_that_sound_img2img.py",
    "ImagesThatSoundImprintPipeline": "pipeline_images_that_sound_imprint.py",
    "ImagesThatSoundSDSPipeline": "pipeline_images_that_sound_sds.py",
    "FactorizedColorizationPipeline": "pipeline_factorized_colorization.py",
}
# Arguments that a command decides by itself, although their annotation would let them through.
NOT_OFFERED = {
    *("denoising_start", "denoising_end", "num_images_per_prompt", "output_type", "return_dict"),
    *("checkpoint_dir", "checkpoint_every", "shared_timestep"),
}
DEFAULTS = {
    **{"seed": 0, "num_samples": 1, "model": "embedded", "scores": ["clip", "clap"]},
    **{"dtype": "float32", "enable_layerwise_casting": False},
    **{"mixed_precision": "no", "gradient_accumulation_steps": 1},
}


TYPES: dict[str, Callable] = {"int": int, "float": float, "str": str, "dict": json_dict}


class Parser(argparse.ArgumentParser):
    """Takes names of arguments unabbreviated, and says what may have been meant by one that is unknown."""

    words: list[str] = []

    def parse_args(
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        args = self.words = sys.argv[1:] if args is None else args
        for word in args:
            if not _is_text(word):
                self.error(f"arguments and names of files have to be text, but this is none: {word[:100]!r}")
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(" ".join(["unrecognized arguments:", *unknown]))
        return parsed

    def error(self, message: str) -> NoReturn:
        # Without the usage, in whose thirty lines nobody would find it.
        self.exit(2, f"{self.prog}: error: {one_line(' '.join([message, *self._hints()]))}\n")

    def _hints(self) -> list[str]:
        options = [option for action in self._actions for option in action.option_strings]
        names = [word.partition("=")[0] for word in self.words if word.startswith("--")]
        near = [difflib.get_close_matches(name, options, 1, cutoff=0.8) for name in names if name not in options]
        return [f"(did you mean {found[0]}?)" for found in near if found]


def _is_text(word: str) -> bool:
    """Whether settings can hold a word: not if it has halves of characters, as names of files may."""
    try:
        return bool(word.encode()) or not word
    except UnicodeEncodeError:
        return False


def new_parser(command: str, description: str) -> argparse.ArgumentParser:
    return Parser(prog=f"images-that-sound {command}", description=description, allow_abbrev=False)


def call_arguments(pipeline: str) -> dict[str, CallArgument]:
    """Arguments of a pipeline's call that a command line can give."""
    arguments = read_call(Path(pipelines.__path__[0], FILES[pipeline]), pipeline)
    return {name: each for name, each in arguments.items() if name not in NOT_OFFERED and parser_options(each)}


def parser_options(argument: CallArgument) -> dict[str, Any]:
    """Options of argparse for an argument of a call, by its annotation; none if no command line can give it."""
    annotation = ast.parse(argument.annotation or "None", mode="eval").body
    kinds = {ast.unparse(node).split("[")[0]: node for node in _alternatives(annotation)}
    if "Literal" in kinds:
        return {"choices": ast.literal_eval(kinds["Literal"].slice)}
    if "bool" in kinds:
        return {"action": argparse.BooleanOptionalAction}
    kind = next((name for name in TYPES if name in kinds), None)
    # Several texts are for several samples.
    several = {"nargs": "+"} if "list" in kinds and kind != "str" else {}
    if kind is None and several:
        kind = next((name for name in ("int", "float") if name == ast.unparse(kinds["list"].slice)), None)
    return {} if kind is None else {"type": TYPES[kind], **several}


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    """`int`, `list[int]` and `None` of `int | list[int] | None`."""
    if isinstance(annotation, ast.BinOp):
        return [*_alternatives(annotation.left), *_alternatives(annotation.right)]
    return [annotation]


def add_call_arguments(parser: argparse.ArgumentParser, arguments: dict[str, CallArgument]) -> None:
    """The arguments of a call; each that is not given is `None`."""
    group = parser.add_argument_group(
        "arguments of the call", "The checkpoint has defaults for those that are left out."
    )
    for name, argument in arguments.items():
        text = argument.description
        default = DEFAULTS.get(name, argument.default)
        if default not in (None, inspect.Parameter.empty):
            text += f" Default: {default}."
        place = parser if name in ("prompt", "audio_prompt") else group
        place.add_argument(f"--{name}", default=None, help=text.replace("%", "%%"), **parser_options(argument))


def add_sample_arguments(parser: argparse.ArgumentParser, presets: dict, arguments: dict[str, CallArgument]) -> None:
    """Prompts, presets, arguments of the call, models, seeds and the output folder."""
    add_call_arguments(parser, arguments)
    guesses = ", ".join(name for name, preset in presets.items() if "audio_model" in preset)
    for_riffusion = f" Guesses for Riffusion: {guesses}." if guesses else ""
    parser.add_argument(
        "--example", choices=presets, help=f"Prompts, seed and number of a published example.{for_riffusion}"
    )
    parser.add_argument(
        "--params_from", help="A picture, sound, video or settings.json made earlier, whose settings are repeated."
    )
    add_options(parser, Samples, "num_images_per_prompt")
    parser.add_argument("--model", help="Repo or folder of the image side, or of both. Default: embedded.")
    parser.add_argument("--audio_model", help="Repo or folder of the audio side, such as Auffusion's, or embedded.")
    add_spectrogram_argument(parser, "Spectrograms of the audio side. Default: those that are known of it.")
    add_options(parser, Samples, "num_samples", "seed")
    add_device_arguments(parser)
    add_options(parser, Models, "quantization", "device_map")
    add_video_arguments(parser)
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="Gets a folder for each sample. Default: a folder in outputs that is named by the command, the example or"
        " prompts, and the settings.",
    )
    add_options(parser, Request, "report_to")
    # Files and examples may name these, so that the command line's have to be known from defaults.
    unset = dict.fromkeys(("dtype", "enable_layerwise_casting", "num_samples", "seed"))
    parser.set_defaults(command=parser.prog.split()[-1], **unset)


def add_options(parser: argparse._ActionsContainer, values_class: type, *names: str) -> None:
    """The named fields of a dataclass, each made by `option`."""
    options = options_of(values_class)
    for name in names:
        parser.add_argument(f"--{name}", **options[name])


def add_invert_argument(parser: argparse.ArgumentParser) -> None:
    """For commands that read one kind of pictures."""
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="Whether to swap light and dark. Default: yes for a drawing on a light ground, such as paper.",
    )


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Samples, "video", "video_shape", "video_format", "captions")


def with_look(args: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_video_arguments` as one argument `video`, and all others."""
    look = values_of(Look, args) if args.video else None
    looks = [field.name for field in fields(Look)]
    return {**{name: value for name, value in vars(args).items() if name not in looks}, "video": look}


def add_component_arguments(parser: argparse.ArgumentParser) -> None:
    """Additions to either side: ControlNets, IP-Adapters, LoRAs."""
    group = parser.add_argument_group("additions", "Repos or folders, of safetensors unless said otherwise.")
    add_options(group, Models, "controlnet")
    group.add_argument("--control_image", nargs="+", help="A picture for each ControlNet, by which it guides.")
    add_options(group, Models, "ip_adapter")
    group.add_argument("--ip_adapter_image", help="A picture that the IP-Adapter takes as a prompt.")
    add_options(group, Models, "audio_controlnet")
    group.add_argument("--audio_control_image", nargs="+", help="A picture for each ControlNet of the audio side.")
    add_reading_arguments(group, "onsets")
    add_options(group, Models, "audio_ip_adapter")
    group.add_argument("--audio_ip_adapter_image", help="A picture that says what is heard.")
    add_options(group, Models, "lora", "audio_lora")


def add_spectrogram_argument(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--spectrogram",
        type=lambda text: parse_json(text) if text.startswith("{") else text,
        help=f"{text} auffusion, riffusion or constants as JSON.",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Models, "device", "dtype")
    add_options(parser.add_mutually_exclusive_group(), Models, "enable_model_cpu_offload", "enable_group_offload")
    add_options(parser, Models, "enable_layerwise_casting", "compile")


def add_lift_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that may judge samples by the models that made them."""
    parser.add_argument(
        "--model", help="For lift: the model that made the samples. Default: as the samples', if embedded."
    )
    parser.add_argument("--audio_model", help="For lift: the audio side's model, if it is another.")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores", "`embedded` knows the world of the embedded checkpoint only.")
    add_options(group, Scores, "scores", *PUBLISHED_SCORES)
