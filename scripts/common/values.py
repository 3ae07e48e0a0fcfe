"""Requests of a command as values: models, samples, scores, and a whole request."""

from argparse import BooleanOptionalAction, Namespace
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ...selection import SCORES
from .files import parse_json
from .own_files import COMPONENTS, OwnFile
from .presets import FEW_STEPS, LORA_DEFAULTS, SCHEDULERS


MAX_SAMPLES = 1_000_000
# Values of `Models` that decide how samples come out, besides what is added to a checkpoint. Samples of other values
# neither share a folder nor are continued.
MADE_BY = (
    *("model", "audio_model", "dtype", "enable_layerwise_casting", "quantization", "scheduler", "few_steps"),
    "spectrogram",
)
DTYPES = ("float32", "float16", "bfloat16")
QUANTIZATIONS = ("torchao", "bitsandbytes_8bit", "bitsandbytes_4bit")
PUBLISHED_SCORES = {"clip_model": "openai/clip-vit-base-patch16", "clap_model": "laion/clap-htsat-unfused"}

# Shapes of videos besides that of the picture, by their names, in pixels.
VIDEO_SIZES = {"16:9": (1280, 720), "1:1": (1080, 1080), "9:16": (1080, 1920)}
SIZES = ", ".join(f"{name} ({width}x{height})" for name, (width, height) in VIDEO_SIZES.items())
VIDEO_FORMATS = ("mp4", "gif", "webp")
JUDGE = "Repo, folder or embedded. Default: as the samples'"
Values = TypeVar("Values")


def json_dict(text: str) -> dict[str, Any]:
    """A JSON object. argparse names a refused one by this function's name."""
    return parse_json(text)


def option(text: str, default: Any = None, **options: Any) -> Any:
    """A field that is an option of commands: its help, its default, and how argparse reads it."""
    made = {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
    return field(**made, metadata={"help": text, "default": default, **options})


def options_of(values_class: type) -> dict[str, dict[str, Any]]:
    """How argparse reads the fields that are options, by their names."""
    return {each.name: dict(each.metadata) for each in fields(values_class) if each.metadata}


@dataclass(frozen=True, kw_only=True)
class Models:
    """
    Models to load, and their device.

    Args:
        model (`str`): Repo or folder of the image side or of both, or a name of what ships with the package.
        audio_model (`str`): Repo or folder of the audio side, if it is another.
        spectrogram (`str` or `dict`): Spectrograms of the audio side, if it does not name them itself.
    """

    model: str | None = "embedded"
    audio_model: str | None = None
    spectrogram: str | dict | None = None
    device: str | None = option("Device to compute on. Default: an accelerator if there is one, else cpu.")
    dtype: str = option("Precision of the weights. Default: float32.", "float32", choices=DTYPES)
    enable_model_cpu_offload: bool = option("Keep on the device only the model in use.", False, action="store_true")
    enable_group_offload: bool = option("The same by layers: less memory, slower.", False, action="store_true")
    enable_layerwise_casting: bool = option(
        "Keep the UNets' weights in 8 bits (float8_e4m3fn).", False, action="store_true"
    )
    quantization: str | None = option(
        "Quantize the UNets' linear layers as they are loaded: by torchao (8 bits) or bitsandbytes (GPUs only).",
        choices=QUANTIZATIONS,
    )
    compile: bool = option("Compile the UNets' blocks: slow to begin, then faster.", False, action="store_true")
    device_map: dict[str, str] | None = option('JSON, such as {"unet_audio": "cuda:1"}.', type=json_dict)
    controlnet: list[str] | None = option("ControlNets of the image side.", nargs="+")
    audio_controlnet: list[str] | None = option(
        "ControlNets of the audio side, or FoleyCrafter's temporal adapter for --onsets:"
        " ymzhang319/FoleyCrafter/temporal_adapter.ckpt.",
        nargs="+",
    )
    ip_adapter: str | None = option(
        "An IP-Adapter of the image side, such as h94/IP-Adapter or h94/IP-Adapter/models/FILE.safetensors, and"
        " perhaps how strong it is: REPO:0.6."
    )
    audio_ip_adapter: str | None = option("An IP-Adapter of the audio side, as for --ip_adapter.")
    scheduler: str | None = option("Default: the checkpoint's.", choices=SCHEDULERS)
    few_steps: str | None = option(
        "A LoRA for both sides so that a few steps without guidance suffice, with its scheduler.", choices=FEW_STEPS
    )
    lora: list[str] | None = option("LoRAs of the image side, and perhaps how strong: REPO:0.8, FILE:0.5.", nargs="+")
    audio_lora: list[str] | None = option(
        "LoRAs of the audio side, and perhaps how strong: REPO:0.8, FILE:0.5.", nargs="+"
    )

    @property
    def components(self) -> dict[str, str | list[str] | None]:
        return {name: getattr(self, name) for name in COMPONENTS}


@dataclass(frozen=True, kw_only=True)
class Look:
    """Look of a video. Only mp4 has the sound."""

    video_shape: str = option(
        f"strip, as large as the picture, or {SIZES}. Default: strip.", "strip", choices=("strip", *VIDEO_SIZES)
    )
    video_format: list[str] = option(
        "mp4, with the sound, or gif or webp, small and without sound, or several. Default: mp4.",
        ["mp4"],
        choices=VIDEO_FORMATS,
        nargs="+",
    )
    captions: bool = option("Whether videos show the prompts. Default: yes.", True, action=BooleanOptionalAction)


STRIP = Look()


@dataclass(frozen=True, kw_only=True)
class Samples(Look):
    """Samples to make, and their folder. Raises `ValueError` for numbers that do not make sense."""

    seed: int = option("Default: 0, or the example's.", 0, type=int)
    num_samples: int = option("Sample i has seed + i. Default: 1, or the example's.", 1, type=int)
    num_images_per_prompt: int = option("Samples computed at once.", 1, type=int)
    output_dir: Path
    video: bool = option("Whether to make videos. Default: yes.", True, action=BooleanOptionalAction)

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_images_per_prompt"):
            check_count(name, getattr(self, name))
        check_seed(self.seed, self.num_samples)

    @property
    def look(self) -> Look | None:
        """The look of their videos; `None` if they get none."""
        return Look(**{each.name: getattr(self, each.name) for each in fields(Look)}) if self.video else None

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
    Scores of samples.

    Args:
        lift_by (`dict`): Models that lifts are judged by, and their precision, as settings hold them.
    """

    scores: list[str] = option("Default: %(default)s.", ["clip", "clap"], nargs="+", choices=SCORES)
    clip_model: str | None = option(f"{JUDGE}, or {PUBLISHED_SCORES['clip_model']}.")
    clap_model: str | None = option(f"{JUDGE}, or {PUBLISHED_SCORES['clap_model']}.")
    lift_by: dict[str, Any] | None = None

    def for_samples_of(self, model: str | None) -> "Scores":
        """Samples of the embedded checkpoint are scored by its own scores, all others by the published ones."""
        default = dict.fromkeys(PUBLISHED_SCORES, "embedded") if model == "embedded" else PUBLISHED_SCORES
        return replace(self, **{name: getattr(self, name) or default[name] for name in PUBLISHED_SCORES})

    @property
    def models(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*PUBLISHED_SCORES, "lift_by")}


@dataclass(frozen=True, kw_only=True)
class Request:
    """
    Request of a command that makes samples.

    Args:
        call (`dict`): JSON-ready arguments of the pipeline's call, the same for all samples.
        models ([`Models`]): Models that make them.
        samples ([`Samples`]): Samples to make.
        files (`dict[str, list[OwnFile]]`): Arguments of the call that are read from files.
        recorded (`dict`): Further settings about the files and the models.
    """

    call: dict[str, Any]
    models: Models
    samples: Samples
    files: dict[str, list[OwnFile]] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)
    report_to: str | None = option("A tracker of accelerate, such as tensorboard, for pictures and sounds.")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Numbers of a LoRA's training. Raises `ValueError` for one that does not make sense."""

    rank: int = option("Rank of the LoRA's matrices. Default: %(default)s.", 8, type=int)
    learning_rate: float | None = option("Default: 1e-4; 2e-3 for the embedded checkpoint.", type=float)
    max_train_steps: int | None = option("Default: 1000; 120 for the embedded checkpoint.", type=int)
    train_batch_size: int = option("Canvases of a step. Default: %(default)s.", 4, type=int)
    gradient_accumulation_steps: int = option("Batches of a step. Default: %(default)s.", 1, type=int)
    gradient_checkpointing: bool = option("Compute more to keep less in memory.", False, action="store_true")
    mixed_precision: str = option(
        "Precision of the frozen weights and of most computations. Default: no (float32).",
        "no",
        choices=("no", "fp16", "bf16"),
    )
    prior_loss_weight: float = option(
        "Weight of what other prompts are to keep meaning; 0 to train by the sounds alone. Default: %(default)s.",
        1.0,
        type=float,
    )
    width: int | None = option("Columns of a canvas. Default: the checkpoint's.", type=int)
    seed: int = option("Default: %(default)s.", 0, type=int)
    checkpointing_steps: int | None = option(
        "Steps between states from which a stopped run goes on. Default: 100; 40 for the embedded checkpoint.",
        type=int,
    )
    validation_prompt: str | None = option("Prompt of the samples on the way. Default: the most frequent caption.")
    validation_steps: int | None = option("Steps between samples on the way. Default: as above.", type=int)

    def __post_init__(self) -> None:
        for name in ("max_train_steps", "gradient_accumulation_steps", "checkpointing_steps", "validation_steps"):
            self._check(name, MAX_SAMPLES)
        # More would take a machine's memory before anything is learned.
        for name, most in (("rank", 1024), ("train_batch_size", 1024), ("width", 8192)):
            self._check(name, most)
        for name, least in (("learning_rate", 1e-12), ("prior_loss_weight", 0.0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1000:
                raise ValueError(f"`{name}` has to be in {least:g}..1000, but is {value!r}.")
        check_seed(self.seed, 1)

    def _check(self, name: str, most: int) -> None:
        value = getattr(self, name)
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"`{name}` has to be an integer from 1 to {most}, but is {value!r}.")

    def for_model(self, model: str) -> "Training":
        """The same with the defaults of an audio model for what is left open."""
        defaults = LORA_DEFAULTS["embedded" if model == "embedded" else "others"]
        given = {name: getattr(self, name) for name in defaults}
        return replace(self, **{name: defaults[name] if each is None else each for name, each in given.items()})


def check_count(name: str, value: int) -> None:
    """Raises `ValueError` for a number of samples that is none, or is more than anybody can use."""
    if not isinstance(value, int) or not 1 <= value <= MAX_SAMPLES:
        raise ValueError(f"`{name}` has to be a positive integer of at most {MAX_SAMPLES}, but is {value!r}.")


def check_seed(seed: int, number: int) -> None:
    """Raises `ValueError` if a `number` of seeds from the first on are not all those of a generator."""
    if not isinstance(seed, int) or not 0 <= seed <= 2**63 - number:
        raise ValueError(f"`seed` has to be an integer from 0 to 2**63 - {number}, but is {seed!r}.")


def values_of(values_class: type[Values], args: Namespace, **given: Any) -> Values:
    """A dataclass of the parsed values and the `given` ones."""
    parsed = {field.name: getattr(args, field.name) for field in fields(values_class) if hasattr(args, field.name)}
    return values_class(**{**parsed, **given})
