"""Requests of a command as values: models, samples, scores, and a whole request."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from .own_files import COMPONENTS, OwnFile


MAX_SAMPLES = 1_000_000
# Values of `Models` that decide how samples come out, besides what is added to a checkpoint. Samples of other values
# neither share a folder nor are continued.
MADE_BY = (
    *("model", "audio_model", "dtype", "enable_layerwise_casting", "quantization", "scheduler", "few_steps"),
    "spectrogram",
)
PUBLISHED_SCORES = {"clip_model": "openai/clip-vit-base-patch16", "clap_model": "laion/clap-htsat-unfused"}

# Shapes of videos besides that of the picture, by their names, in pixels.
VIDEO_SIZES = {"16:9": (1280, 720), "1:1": (1080, 1080), "9:16": (1080, 1920)}
VIDEO_FORMATS = ("mp4", "gif", "webp")
Values = TypeVar("Values")


@dataclass(frozen=True, kw_only=True)
class Models:
    """
    Models to load, and their device.

    Args:
        model (`str`): Repo or folder of the image side or of both, or a name of what ships with the package.
        audio_model (`str`): Repo or folder of the audio side, if it is another.
        spectrogram (`str` or `dict`): Spectrograms of the audio side, if it does not name them itself.
        device (`str`): Device to compute on; `None` for an accelerator if there is one, else the CPU.
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
class Look:
    """
    Look of a video.

    Args:
        video_shape (`str`): `"strip"`, as large as the picture, or one of `VIDEO_SIZES`.
        video_format (`list[str]`): Some of `VIDEO_FORMATS`; gif and webp are small and without sound.
        captions (`bool`): Whether the prompts are below the picture.
    """

    video_shape: str = "strip"
    video_format: list[str] = field(default_factory=lambda: ["mp4"])
    captions: bool = True


STRIP = Look()


@dataclass(frozen=True, kw_only=True)
class Samples(Look):
    """
    Samples to make, and their folder.

    Args:
        seed (`int`): Seed of the first sample; sample i has `seed + i`.
        num_samples (`int`): Number of samples.
        num_images_per_prompt (`int`): Number of samples that are computed at once.
        output_dir (`Path`): Gets a folder for each.
        video (`bool`): Whether they get videos, which have the look of [`Look`].

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
    Request of a command that makes samples.

    Args:
        call (`dict`): JSON-ready arguments of the pipeline's call, the same for all samples.
        models ([`Models`]): Models that make them.
        samples ([`Samples`]): Samples to make.
        files (`dict[str, list[OwnFile]]`): Arguments of the call that are read from files.
        recorded (`dict`): Further settings about the files and the models.
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
    """A dataclass of the parsed values and the `given` ones."""
    parsed = {field.name: getattr(args, field.name) for field in fields(values_class) if hasattr(args, field.name)}
    return values_class(**{**parsed, **given})
