"""Command lines of the programs: what they share, and the values that they become. Nothing here is slow to import."""

import argparse
import ast
import difflib
import hashlib
import inspect
import io
import json
import re
import shlex
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ... import pipelines
from ...pipelines.images_that_sound_call import CallArgument, read_call
from ...selection import SCORES
from .files import parse_json
from .own_files import COMPONENTS, OwnFile, listed, own_files, recorded
from .presets import FEW_STEPS, SCHEDULERS
from .progress import prepare_environment, tell


# The file of each pipeline that is called or published by a command.
FILES = {
    "ImagesThatSoundPipeline": "pipeline_images_that_sound.py",
    "ImagesThatSoundImg2ImgPipeline": "pipeline_images_that_sound_img2img.py",
    "ImagesThatSoundImprintPipeline": "pipeline_images_that_sound_imprint.py",
    "ImagesThatSoundSDSPipeline": "pipeline_images_that_sound_sds.py",
    "FactorizedColorizationPipeline": "pipeline_factorized_colorization.py",
}
# What a command decides by itself, of what its annotation would let through.
NOT_OFFERED = {
    *("denoising_start", "denoising_end", "num_images_per_prompt", "output_type", "return_dict"),
    *("checkpoint_dir", "checkpoint_every", "shared_timestep"),
}
# More than any text encoder reads.
MAX_TEXT = 10_000
MAX_SAMPLES = 1_000_000


def json_dict(text: str) -> dict[str, Any]:
    """What argparse names by this function's name if it is refused."""
    return parse_json(text)


TYPES: dict[str, Callable] = {"int": int, "float": float, "str": str, "dict": json_dict}
DTYPES = ("float32", "float16", "bfloat16")
QUANTIZATIONS = ("torchao", "bitsandbytes_8bit", "bitsandbytes_4bit")
# What ships with the package, and is loaded because a file says so.
SHIPPED_MODELS = ("embedded", "embedded-colorization")
PUBLISHED_SCORES = {"clip_model": "openai/clip-vit-base-patch16", "clap_model": "laion/clap-htsat-unfused"}

# What libraries raise where a file can't be read or written, such as on a full disk, besides OSError.
FILE_ERRORS = (("soundfile", "LibsndfileError"), ("av.error", "FFmpegError"), ("safetensors", "SafetensorError"))
# Of commands, besides the arguments of their pipelines' calls.
OWN_NUMBERS = ("final_max_timestep",)
PROMPTS = ("prompt", "audio_prompt")
DEFAULTS = {
    **{"seed": 0, "num_samples": 1, "model": "embedded", "scores": ["clip", "clap"]},
    **{"dtype": "float32", "enable_layerwise_casting": False},
}
# What besides the arguments of the call makes samples, or searches, that can't share a folder with others.
MADE_BY = (
    *("model", "audio_model", "dtype", "spectrogram", "scheduler", "few_steps", *OWN_NUMBERS),
    *("enable_layerwise_casting", "quantization", "scores", "clip_model", "clap_model"),
)

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
        enable_model_cpu_offload (`bool`): Whether only the model in use is kept on the device.
        enable_group_offload (`bool`): Whether only the layers in use are.
        enable_layerwise_casting (`bool`): Whether the UNets' weights are kept in 8 bits, each layer's cast when used.
        quantization (`str`): Backend of diffusers that quantizes the UNets' linear layers, among `QUANTIZATIONS`.
        compile (`bool`): Whether the UNets' repeated blocks are compiled.
        device_map (`dict[str, str]`): Models that run on devices of their own.
        controlnet (`list[str]`): Repos or folders of ControlNets, or embedded.
        ip_adapter (`str`): Repo, folder or file of an IP-Adapter, perhaps with a weight: `REPO:0.6`.
        scheduler (`str`): One of `SCHEDULERS` instead of the checkpoint's.
        few_steps (`str`): One of `FEW_STEPS`, for both sides.
        lora (`list[str]`): Repos, folders or files of the image side's LoRAs, perhaps with weights.
        audio_lora (`list[str]`): The same of the audio side.
    """

    model: str | None = "embedded"
    audio_model: str | None = None
    spectrogram: str | dict | None = None
    device: str | None = None
    dtype: str = "float32"
    enable_model_cpu_offload: bool = False
    enable_group_offload: bool = False
    enable_layerwise_casting: bool = False
    quantization: str | None = None
    compile: bool = False
    device_map: dict[str, str] | None = None
    controlnet: list[str] | None = None
    ip_adapter: str | None = None
    scheduler: str | None = None
    few_steps: str | None = None
    lora: list[str] | None = None
    audio_lora: list[str] | None = None

    @property
    def components(self) -> dict[str, str | list[str] | None]:
        return {name: getattr(self, name) for name in COMPONENTS}


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
    output_dir: Path
    video: bool = True

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_images_per_prompt"):
            check_count(name, getattr(self, name))
        check_seed(self.seed, self.num_samples)

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
        files (`dict[str, list[OwnFile]]`): Arguments of the call that are read from files.
        recorded (`dict`): What settings say of the files and of the models besides.
        report_to (`str`): A tracker of accelerate.
    """

    call: dict[str, Any]
    models: Models
    samples: Samples
    files: dict[str, list[OwnFile]] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)
    report_to: str | None = None


def check_count(name: str, value: int) -> None:
    """Raises `ValueError` for a number of samples that is none, or is more than anybody can use."""
    if not isinstance(value, int) or not 1 <= value <= MAX_SAMPLES:
        raise ValueError(f"`{name}` has to be a positive integer of at most {MAX_SAMPLES}, but is {value!r}.")


def check_seed(seed: int, number: int) -> None:
    """Raises `ValueError` if a `number` of seeds from the first on are not all those of a generator."""
    if not isinstance(seed, int) or not 0 <= seed <= 2**63 - number:
        raise ValueError(f"`seed` has to be an integer from 0 to 2**63 - {number}, but is {seed!r}.")


def values_of(values_class: type[Values], args: argparse.Namespace, **given: Any) -> Values:
    """A dataclass of what was parsed, and of what is `given`."""
    parsed = {field.name: getattr(args, field.name) for field in fields(values_class) if hasattr(args, field.name)}
    return values_class(**{**parsed, **given})


# -------------------- Parsers --------------------


class Parser(argparse.ArgumentParser):
    """Takes names of arguments unabbreviated, and says what may have been meant by one that is unknown."""

    def parse_args(
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
            self.error(" ".join(["unrecognized arguments:", *unknown, *map(self._hint, names)]).strip())
        return parsed

    def error(self, message: str) -> NoReturn:
        # Without the usage, in whose thirty lines nobody would find it.
        self.exit(2, f"{self.prog}: error: {_one_line(message)}\n")

    def _hint(self, name: str) -> str:
        own = [option for action in self._actions for option in action.option_strings]
        if near := difflib.get_close_matches(name, own, 1, cutoff=0.8):
            return f"(did you mean {near[0]}?)"
        commands = _commands_with(name)
        return f"({name} is an argument of {', '.join(commands)})" if commands else ""


def _commands_with(option: str) -> list[str]:
    """The commands that have an argument, as their help says."""
    from ..cli import COMMANDS

    found = []
    for command in COMMANDS:
        with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
            import_module(f"...{command.replace('-', '_')}", __name__).main(["--help"])
        if re.search(rf"^  (--\S+, )?{re.escape(option)}\b", text.getvalue(), re.MULTILINE):
            found.append(command)
    return found


def new_parser(command: str, description: str) -> argparse.ArgumentParser:
    return Parser(prog=f"images-that-sound {command}", description=description, allow_abbrev=False)


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
    # Of texts, several are for several samples.
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
    guesses = ", ".join(name for name, preset in presets.items() if "audio_model" in preset)
    for_riffusion = f" Guesses for Riffusion: {guesses}." if guesses else ""
    parser.add_argument(
        "--example", choices=presets, help=f"Prompts, seed and number of a published example.{for_riffusion}"
    )
    parser.add_argument(
        "--params_from", help="A picture, sound, video or settings.json made earlier, whose settings are repeated."
    )
    parser.add_argument("--num_images_per_prompt", type=int, default=1, help="Samples computed at once.")
    parser.add_argument("--model", help="Repo or folder of the image side, or of both. Default: embedded.")
    parser.add_argument("--audio_model", help="Repo or folder of the audio side, such as Auffusion's, or embedded.")
    add_spectrogram_argument(parser, "How the audio side draws. Default: what is known of it.")
    parser.add_argument("--num_samples", type=int, help="Sample i has seed + i. Default: 1, or the example's.")
    parser.add_argument("--seed", type=int, help="Default: 0, or the example's.")
    add_device_arguments(parser)
    add_quantization_argument(parser)
    parser.set_defaults(dtype=None, enable_layerwise_casting=None)
    parser.add_argument("--device_map", type=json_dict, help='JSON, such as {"unet_audio": "cuda:1"}.')
    parser.add_argument(
        "--video", action=argparse.BooleanOptionalAction, default=True, help="Whether to make videos. Default: yes."
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="Gets a folder for each sample. Default: a folder in outputs that is named by the command, the example or"
        " prompts, and the settings.",
    )
    parser.set_defaults(command=parser.prog.split()[-1])
    add_process_arguments(parser)


def add_component_arguments(parser: argparse.ArgumentParser) -> None:
    """What a Stable Diffusion can have besides: ControlNets, an IP-Adapter, LoRAs."""
    group = parser.add_argument_group("what else is loaded", "Repos or folders, safetensors only.")
    group.add_argument("--controlnet", nargs="+", help="ControlNets of the image side.")
    group.add_argument("--control_image", nargs="+", help="What to guide by: a picture for each ControlNet.")
    group.add_argument(
        "--ip_adapter",
        help="An IP-Adapter of the image side, such as h94/IP-Adapter or h94/IP-Adapter/models/FILE.safetensors, and"
        " perhaps how strong it is: REPO:0.6.",
    )
    group.add_argument("--ip_adapter_image", help="A picture that the IP-Adapter takes as a prompt.")
    for name, side in (("lora", "image"), ("audio_lora", "audio")):
        group.add_argument(
            f"--{name}", nargs="+", help=f"LoRAs of the {side} side, and perhaps how strong: REPO:0.8, FILE:0.5."
        )


def add_scheduler_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scheduler", choices=SCHEDULERS, help="Default: the checkpoint's.")


def add_few_steps_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--few_steps",
        choices=FEW_STEPS,
        help="A LoRA for both sides that makes few steps without guidance do, with its scheduler.",
    )


def add_spectrogram_argument(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--spectrogram",
        type=lambda text: parse_json(text) if text.startswith("{") else text,
        help=f"{text} auffusion, riffusion or constants as JSON.",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="Default: an accelerator where there is one, else cpu.")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="Of the weights. Default: float32.")
    offload = parser.add_mutually_exclusive_group()
    offload.add_argument("--enable_model_cpu_offload", action="store_true", help="Keep on the device what is in use.")
    offload.add_argument(
        "--enable_group_offload", action="store_true", help="The same by layers: less memory, slower."
    )
    parser.add_argument(
        "--enable_layerwise_casting", action="store_true", help="Keep the UNets' weights in 8 bits (float8_e4m3fn)."
    )
    parser.add_argument(
        "--compile", action="store_true", help="Compile the UNets' blocks: slow to begin, then faster."
    )


def add_quantization_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="Quantize the UNets' linear layers as they are loaded: by torchao (8 bits) or bitsandbytes (GPUs only).",
    )


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands whose samples `accelerate launch` spreads over processes."""
    parser.add_argument("--report_to", help="A tracker of accelerate, such as tensorboard, for pictures and sounds.")


def add_lift_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that may judge samples by the models that made them."""
    parser.add_argument("--model", help="For lift: what made the samples. Default: as the samples', if embedded.")
    parser.add_argument("--audio_model", help="For lift: the audio side's, where it is another.")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores", "`embedded` knows the world of the embedded checkpoint only.")
    group.add_argument("--scores", nargs="+", choices=SCORES, default=DEFAULTS["scores"], help="Default: %(default)s.")
    for name, repo in PUBLISHED_SCORES.items():
        group.add_argument(f"--{name}", help=f"Repo, folder or embedded. Default: as the samples', or {repo}.")


# -------------------- Requests --------------------


def read_request(
    args: argparse.Namespace,
    presets: dict,
    arguments: dict[str, CallArgument],
    request_class: type[Values] = Request,
    embedded_presets: dict | None = None,
    instead: dict[str, str] | None = None,
    needs: list[tuple[str, tuple[str, ...]]] | None = None,
    **given: Any,
) -> Values:
    """
    The values of `add_sample_arguments`. What was not given comes from `--params_from`, then from the example, where
    the embedded checkpoint makes it first from `embedded_presets`, then from the defaults of the call. `instead` says
    which file stands in for which prompt, and `needs` which arguments are nothing without one of some files.
    """
    if {args.model, args.audio_model} <= {None, "embedded"}:
        presets = {name: preset | (embedded_presets or {}).get(name, {}) for name, preset in presets.items()}
    saved, instead = _saved(args), instead or {}
    known = DEFAULTS | _known(args, presets, arguments, saved, [field.name for field in fields(request_class)])
    components = {name: known.get(name) if value is None else value for name, value in _components(args).items()}
    # What is given counts more than a file made earlier, a prompt too where a file stands in for it.
    own = {name: saved[name] for name in saved if getattr(args, instead.get(name, name), None) is None}
    files = own_files(args, own, args.params_from)
    present = files.keys() | {name for name, value in components.items() if value is not None}
    for name, any_of in needs or []:
        if (name in present or getattr(args, name, None) is not None) and not present & set(any_of):
            raise ValueError(f"`{name}` can't be given without {' or '.join(f'`{each}`' for each in any_of)}.")
    replaced = [prompt for file, prompt in instead.items() if file in files]
    known = {name: value for name, value in known.items() if name.removeprefix("negative_") not in replaced}
    complete = argparse.Namespace(
        **{name: known.get(name) if value is None else value for name, value in vars(args).items()}
    )
    call = complete_call(arguments, vars(args), known)
    _check_prompts(call, files, instead)
    own_parts = recorded(files, _components(complete))
    if complete.output_dir is None:
        usual = {name: each.default for name, each in arguments.items()} | DEFAULTS | presets.get(args.example, {})
        complete.output_dir = _default_folder(complete, {**call, **own_parts}, files, usual)
    return values_of(
        request_class,
        complete,
        call=call,
        models=values_of(Models, complete),
        samples=values_of(Samples, complete),
        files=files,
        recorded=own_parts,
        **given,
    )


def complete_call(arguments: dict[str, CallArgument], parsed: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call: what was parsed, where that is nothing what is known, and then the call's own default."""
    call = {}
    for name, argument in arguments.items():
        value = known.get(name, argument.default) if parsed.get(name) is None else parsed[name]
        if argument.annotation.startswith("float | list") and isinstance(value, list) and len(value) == 1:
            value = value[0]
        call[name] = None if value is inspect.Parameter.empty else value
        if isinstance(value, str):
            _check_text(name, value)
    return call


def _check_prompts(call: dict[str, Any], files: dict[str, list[OwnFile]], instead: dict[str, str]) -> None:
    """Raises `ValueError` unless a prompt, or a file in its place, says what to see and what to hear."""
    missing, file_of = [], {prompt: file for file, prompt in instead.items()}
    for name in PROMPTS:
        file = file_of.get(name)
        given = [each for each in (name, f"negative_{name}") if call.get(each) is not None]
        if file in files:
            if given:
                raise ValueError(f"`{file}` and `{given[0]}` exclude each other, but both are given.")
        elif call[name] is None:
            missing.append(f"`{name}` or `{file}`" if file else f"`{name}`")
        elif not call[name].strip():
            raise ValueError(f"`{name}` may not be empty, but is {call[name]!r}.")
    if missing:
        have = "has" if len(missing) == 1 else "have"
        raise ValueError(f"{' and '.join(missing)} {have} to be given. --example bell is one way to.")


def _default_folder(
    args: argparse.Namespace, settings: dict[str, Any], files: dict[str, list[OwnFile]], usual: dict[str, Any]
) -> Path:
    """
    Where samples go that were given no folder: named by what can be read, and by a hash of all that is not `usual`, so
    that nothing that is made in another way goes there.
    """
    made_by = {**{name: getattr(args, name, None) for name in MADE_BY}, **settings}
    unusual = {name: value for name, value in made_by.items() if value is not None and value != usual.get(name)}
    words = [args.command, args.example]
    if args.example is None:
        words += [_slug(settings[name]) for name in PROMPTS if settings[name]]
    if args.example is None or files:
        words += [_slug(Path(file.name).stem) for own in files.values() for file in own]
    if unusual:
        words.append(hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:8])
    return Path("outputs", "-".join(filter(None, words)))


def _slug(text: str) -> str:
    """What every file system takes of a text, shortened."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return "-".join(re.findall("[a-z0-9]+", plain))[:40].strip("-")


def _check_text(name: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` has to be text, but holds what is none: {text[:100]!r}.") from error
    if size > MAX_TEXT:
        raise ValueError(f"`{name}` has to be at most {MAX_TEXT} bytes long, but has {size}.")


def _saved(args: argparse.Namespace) -> dict[str, Any]:
    """The settings in the file of `--params_from`."""
    if args.params_from and args.example:
        raise ValueError("`--params_from` and `--example` exclude each other.")
    if not args.params_from:
        return {}
    from .samples import read_settings

    return read_settings(args.params_from)


def _components(args: argparse.Namespace) -> dict[str, str | list[str] | None]:
    return {name: getattr(args, name) for name in COMPONENTS if hasattr(args, name)}


def _known(
    args: argparse.Namespace, presets: dict, arguments: dict[str, CallArgument], saved: dict[str, Any], own: list[str]
) -> dict[str, Any]:
    """
    What the example or `saved`, the settings in a file, says. Of a file, which anybody may have made, that is the
    arguments of the call and `own` ones of the command as the command line could give them, the seed, the precision,
    models that ship, and how the audio side draws, where it is the same.
    """
    if not args.params_from:
        return presets.get(args.example, {})
    kinds = {name: parser_options(argument) for name, argument in arguments.items()}
    kinds |= {"seed": {"type": int}, "dtype": {"choices": DTYPES}}
    kinds |= {"enable_layerwise_casting": {}, "quantization": {"choices": QUANTIZATIONS}}
    kinds |= {"scheduler": {"choices": SCHEDULERS}, "few_steps": {"choices": FEW_STEPS}}
    kinds |= {name: {"type": float} for name in OWN_NUMBERS if name in own}
    known = {name: saved[name] for name in kinds if saved.get(name) is not None}
    for name, value in known.items():
        _check_kind(name, value, kinds[name])
    if args.model in (None, saved.get("model")):
        left = [name for name in ("model", "audio_model", *COMPONENTS) if getattr(args, name, None) is None]
        models = shipped_models({name: saved.get(name) for name in left}, "params_from")
        if foreign := [name for name in models if not hasattr(args, name)]:
            raise ValueError(f"`params_from` was made with `{foreign[0]}`, which this command can't take.")
        known |= models
    audio_model = args.audio_model or known.get("audio_model")
    if audio_model is not None and audio_model == saved.get("audio_model"):
        known["spectrogram"] = saved.get("spectrogram")
    return known


def _check_kind(name: str, value: Any, options: dict[str, Any]) -> None:
    """Raises `ValueError` for what the command line could not give."""
    if "choices" in options:
        right = value in options["choices"]
    elif "type" not in options:
        right = isinstance(value, bool)
    else:
        kind = {json_dict: dict, float: (int, float)}.get(options["type"], options["type"])
        values = value if "nargs" in options and isinstance(value, list) else [value]
        right = all(isinstance(each, kind) and not isinstance(each, bool) for each in values)
    if not right:
        raise ValueError(f"`params_from` holds a `{name}` that is none: {str(value)[:100]!r}.")


def shipped_models(models: dict[str, str | list[str] | None], argument: str) -> dict[str, str | list[str]]:
    """
    The models that files given by `argument` name. Raises `ValueError` for others than those that ship with the
    package: nothing is loaded because a file says so.
    """
    named = {name: model for name, model in models.items() if model is not None}
    if not all(set(listed(model)) <= set(COMPONENTS.get(name, SHIPPED_MODELS)) for name, model in named.items()):
        once_more = " ".join(f"--{name} {shlex.join(listed(model))}" for name, model in named.items())
        raise ValueError(f"`{argument}` names models, which are loaded only if you name them once more: {once_more}")
    return named


# -------------------- The border --------------------


def run(make: Callable[[], Iterator[Path | str]]) -> None:
    """
    Prints what `make` yields. What goes wrong outside of the program, the user's input, files, devices, memory, is
    said in one line; anything else is a fault of the program and passes as it is.
    """
    prepare_environment()
    try:
        with _ended_in_order():
            for path in make():
                tell(path, sys.stdout)
    except Exception as error:
        if not _is_from_outside(error):
            raise
        raise SystemExit(f"error: {_one_line(error)}") from error


@contextmanager
def arguments_named(**names: str) -> Iterator[None]:
    """Lets a `ValueError` raised inside speak of what the command has: of each name, what it is there."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        for name, own in names.items():
            text = text.replace(f"`{name}`", f"`{own}`")
        raise ValueError(text) from error


def _is_from_outside(error: Exception) -> bool:
    # What is not imported can't have been raised.
    foreign = tuple(getattr(sys.modules[module], name) for module, name in FILE_ERRORS if module in sys.modules)
    if isinstance(error, (ValueError, OSError, MemoryError, *foreign)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    from accelerate.utils.memory import should_reduce_batch_size

    return should_reduce_batch_size(error) or "PytorchStreamWriter" in str(error)


def _one_line(error: Exception | str) -> str:
    """The message without what could write elsewhere on a terminal."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets SIGTERM end the program as an exception would, so that nothing half-written is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
