"""Reading the audio side of images that sound from Auffusion's repo, Riffusion's, or one that holds both sides."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from safetensors import SafetensorError
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from .images_that_sound_checks import check_integer, shown
from .images_that_sound_spectrogram import SPECTROGRAMS, MelSpectrogram, find_spectrogram


HUB_ARGUMENTS = {"cache_dir", "token", "force_download", "local_files_only"}

# Default call arguments of models, by the names of their spectrograms, if they differ from the paper's.
HABITS = {
    "riffusion": {
        "height": 512,
        "width": 512,
        "crop_right": 0,
        "num_inference_steps": 30,
        "num_audio_inference_steps": 30,
        "guidance_scale": 7.0,
        "audio_guidance_scale": 7.0,
    }
}


def load_vocoder(
    pretrained_model_name_or_path: str | os.PathLike,
    subfolder: str = "",
    revision: str | None = None,
    spectrogram: str | dict | MelSpectrogram | None = None,
    **kwargs: Any,
) -> SpeechT5HifiGan | None:
    """
    The vocoder alone of a repo or folder that `load_audio_prior` of the pipelines takes, for the spectrograms that it
    reads; `None` for a repo without one.
    """
    kwargs["revision"] = revision
    repo = AudioPriorRepo(pretrained_model_name_or_path, subfolder, kwargs, spectrogram)
    check_vocoder(vocoder := repo.load_vocoder(), repo.spectrogram)
    return vocoder


class AudioPriorRepo:
    """A Hub repo, folder or single file in the layout of Stable Diffusion, whose parts are the audio side's."""

    # Quantization of the UNet, precision and variant of all models.
    quantization_config: Any = None
    dtype: torch.dtype | None = None
    variant: str | None = None

    def __init__(
        self,
        name_or_path: str | os.PathLike,
        subfolder: str,
        kwargs: dict,
        spectrogram: str | dict | MelSpectrogram | None = None,
        vocoder_reads: MelSpectrogram = SPECTROGRAMS["auffusion"],
    ):
        if not isinstance(name_or_path, (str, os.PathLike)) or not isinstance(subfolder, str):
            raise ValueError(
                "`pretrained_model_name_or_path` and `subfolder` have to be a repo or folder and a folder in it, but"
                f" are {name_or_path!r} and {subfolder!r}."
            )
        self.name_or_path, self.subfolder, self.kwargs = str(name_or_path), subfolder, kwargs
        self.vocoder_reads = vocoder_reads
        self.given = None if spectrogram is None else find_spectrogram(spectrogram)
        self.is_file = os.path.isfile(self.name_or_path)
        if self.is_file and subfolder:
            raise ValueError(f"`subfolder` has to be empty for a file, but is {subfolder!r}.")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.name_or_path, self.subfolder)))

    def load(self, model_class: type, folder: str, **kwargs: Any) -> Any:
        if self.is_file:
            if kwargs.pop("quantization_config", None) is not None:
                raise ValueError(f"`quantization_config` can't be used with a single file, but `{self}` is one.")
            part = self.single_file.components[folder]
            return part if kwargs.get("dtype", torch.float32) == torch.float32 else part.to(**kwargs)
        subfolder = "/".join(filter(None, (self.subfolder, folder)))
        if self.variant is not None and issubclass(model_class, torch.nn.Module) and folder != "vocoder":
            kwargs["variant"] = self.variant
        try:
            return model_class.from_pretrained(self.name_or_path, subfolder=subfolder, **self.kwargs, **kwargs)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"No {model_class.__name__} can be loaded from `{folder}` of `{self}`: {error}"
            ) from error

    @cached_property
    def single_file(self) -> DiffusionPipeline:
        """Pipeline in a file of all weights; `ValueError` if diffusers can't read it."""
        kwargs = {name: value for name, value in self.kwargs.items() if name != "revision"}
        errors = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, SingleFileComponentError)
        try:
            return StableDiffusionPipeline.from_single_file(self.name_or_path, dtype=torch.float32, **kwargs)
        except errors as error:
            raise ValueError(f"`{self}` can't be read as a single file of Stable Diffusion: {error}") from error

    @cached_property
    def index(self) -> dict:
        """The repo's `model_index.json`, empty if it has none."""
        file = self.find("model_index.json")
        return {} if file is None else read_json_object(file)

    @cached_property
    def scheduler_config(self) -> dict | None:
        """Config of the repo's scheduler, `None` if it holds none."""
        if self.is_file:
            return dict(self.single_file.scheduler.config)
        file = self.find("scheduler/scheduler_config.json")
        return None if file is None else read_json_object(file)

    @cached_property
    def spectrogram(self) -> MelSpectrogram:
        """The given constants, else those that the repo names, else those that are known of its kind."""
        if self.given is not None:
            return self.given
        if "spectrogram" in self.index:
            return MelSpectrogram.from_dict(self.index["spectrogram"])
        if self.vocoder_config is not None:
            return self.vocoder_reads
        is_local = self.is_file or os.path.isdir(self.name_or_path)
        if "riffusion" in (Path(self.name_or_path).name if is_local else self.name_or_path).lower():
            return SPECTROGRAMS["riffusion"]
        raise ValueError(
            f"`{self}` has no vocoder: `vocoder/config.json` is missing, as in no Auffusion repo, and neither"
            " `model_index.json` nor the name of a Riffusion says how its spectrograms are drawn. Say so by"
            f" `spectrogram`, a name among {sorted(SPECTROGRAMS)} or a dict of constants."
        )

    @property
    def default_arguments(self) -> dict | None:
        """Call arguments that the repo wants, or that are known of its kind."""
        if "spectrogram" in self.index and self.spectrogram == MelSpectrogram.from_dict(self.index["spectrogram"]):
            return self.index.get("default_arguments")
        names = [name for name, known in SPECTROGRAMS.items() if known == self.spectrogram]
        return HABITS.get(names[0]) if names else {"height": self.spectrogram.num_mel_bins}

    @cached_property
    def vocoder_config(self) -> str | None:
        return self.find("vocoder/config.json")

    def load_audio(self, model_class: type, folder: str, **kwargs: Any) -> Any:
        """The audio side's part, which in a repo of both sides has a folder of its own unless both share it."""
        shared = self.index.get(f"{folder}_audio") in (None, [None, None])
        return self.load(model_class, folder if shared else f"{folder}_audio", **kwargs)

    def find(self, name: str) -> str | None:
        """The path of a file; `None` if the repo is known to hold none, `ValueError` if that is not known."""
        path = "/".join(filter(None, (self.subfolder, name)))
        if self.is_file:
            return None
        if os.path.isdir(self.name_or_path):
            local = os.path.join(self.name_or_path, path)
            return local if os.path.isfile(local) else None
        try:
            return hf_hub_download(self.name_or_path, path, **self.kwargs)
        except RemoteEntryNotFoundError:
            return None
        except LocalEntryNotFoundError as error:
            known = {name: self.kwargs.get(name) for name in ("cache_dir", "revision")}
            if try_to_load_from_cache(self.name_or_path, path, **known) is _CACHED_NO_EXIST:
                return None
            raise ValueError(
                f"The Hub did not answer whether `{self.name_or_path}` holds `{path}`, which is not in the cache"
                f" either: {error.__cause__ or error}"
            ) from error
        except OSError as error:
            raise ValueError(f"`{path}` of `{self.name_or_path}` can't be read from the Hub: {error}") from error

    def load_vocoder(self) -> SpeechT5HifiGan | None:
        if self.index.get("vocoder") == [None, None]:
            return None
        config_file = self.vocoder_config
        if config_file is None:
            return None
        if "model_in_dim" in read_json_object(config_file):
            return self.load(SpeechT5HifiGan, "vocoder", dtype=torch.float32).eval()
        checkpoint_file = self.find("vocoder/vocoder.pt")
        if checkpoint_file is None:
            raise ValueError(f"`{self}` has no vocoder: `vocoder/vocoder.pt` is missing.")
        return load_hifigan_vocoder(config_file, checkpoint_file)

    def load_onset_controlnet(self, unet: UNet2DConditionModel, weight_name: str) -> ControlNetModel:
        """
        FoleyCrafter's temporal adapter: a copy of the audio UNet that sees one channel of the canvas' size, -1 or 1.
        """
        file = self.find(weight_name)
        if file is None:
            raise ValueError(f"`{self}` has to hold `{weight_name}`, but holds none.")
        weights = read_tensors(file)
        weights = weights.get("state_dict", weights)
        controlnet = ControlNetModel.from_unet(unet, conditioning_channels=1, load_weights_from_unet=False)
        try:
            controlnet.load_state_dict({name.removeprefix("module."): each for name, each in weights.items()})
        except (RuntimeError, AttributeError) as error:
            raise ValueError(f"`{file}` does not fit `unet_audio`: {error}") from error
        return controlnet.to(unet.dtype).eval()


def check_vocoder(vocoder: SpeechT5HifiGan | None, spectrogram: MelSpectrogram) -> None:
    """Raises `ValueError` if there is a vocoder that reads other spectrograms than the pipeline paints."""
    if vocoder is None:
        return
    samples_per_frame = 1
    for rate in vocoder.config.upsample_rates:
        samples_per_frame *= rate
    for name, value, expected in (
        ("model_in_dim", vocoder.config.model_in_dim, spectrogram.num_mel_bins),
        ("sampling_rate", vocoder.config.sampling_rate, spectrogram.sampling_rate),
        ("upsample_rates", samples_per_frame, spectrogram.hop_length),
    ):
        if value != expected:
            raise ValueError(
                f"`{name}` of `vocoder` amounts to {value}, but the pipeline's spectrograms need {expected}."
            )


def same_weights(audio: torch.nn.Module, image: torch.nn.Module) -> bool:
    """
    Whether a model holds the same tensors under the same names as another, which may have been rounded on its way: to
    the precision that it is kept in, and before that to the one in which its file has it.

    Args:
        audio (`torch.nn.Module`): As its file has it, or in float32.
        image (`torch.nn.Module`): In any precision.
    """
    audio_state, image_state = audio.state_dict(), getattr(image, "_orig_mod", image).state_dict()
    if {name: value.shape for name, value in audio_state.items()} != {
        name: value.shape for name, value in image_state.items()
    }:
        return False
    return any(
        all(
            torch.equal(_rounded(value, stored, image_state[name]), image_state[name])
            for name, value in audio_state.items()
        )
        for stored in (torch.float32, torch.float16, torch.bfloat16)
    )


def _rounded(value: torch.Tensor, stored: torch.dtype, like: torch.Tensor) -> torch.Tensor:
    return (value.to(stored) if value.is_floating_point() else value).to(like)


# -------------------- Vocoder --------------------


def load_hifigan_vocoder(config_file: str | Path, checkpoint_file: str | Path) -> SpeechT5HifiGan:
    """
    Converts a HiFi-GAN generator of the original layout (`config.json` and `{"generator": state_dict}` with weight
    norm) to a float32 `SpeechT5HifiGan` that computes the same waveform. Nothing in the checkpoint is executed.

    Args:
        config_file (`str` or `Path`): The vocoder's `config.json`.
        checkpoint_file (`str` or `Path`): The vocoder's weights, such as `vocoder.pt`.

    Returns:
        [`~transformers.SpeechT5HifiGan`]: Takes log-mel of shape `(B, T, M)`, returns waveforms of shape `(B, N)`.

    Raises:
        ValueError: If the config can't be represented, or the checkpoint can't be read as plain tensors or does not
            fit the config.
    """
    config = _read_hifigan_config(config_file)
    weights = _read_generator(checkpoint_file)
    kernel_sizes = [k + (k - u) % 2 for k, u in zip(config["upsample_kernel_sizes"], config["upsample_rates"])]
    odd = {i for i, (k, u) in enumerate(zip(config["upsample_kernel_sizes"], config["upsample_rates"])) if (k - u) % 2}
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=config["num_mels"],
            sampling_rate=config["sampling_rate"],
            upsample_initial_channel=config["upsample_initial_channel"],
            upsample_rates=config["upsample_rates"],
            upsample_kernel_sizes=kernel_sizes,
            resblock_kernel_sizes=config["resblock_kernel_sizes"],
            resblock_dilation_sizes=config["resblock_dilation_sizes"],
            leaky_relu_slope=0.1,
            normalize_before=False,
        )
    )
    state_dict = _convert(weights, odd, checkpoint_file)
    try:
        missing, unexpected = vocoder.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise ValueError(f"`{checkpoint_file}` does not fit `{config_file}`: {error}") from error
    missing = set(missing) - {"mean", "scale"}
    if missing or unexpected:
        raise ValueError(
            f"`{checkpoint_file}` does not fit `{config_file}`: missing {sorted(missing)}, unexpected"
            f" {sorted(unexpected)}."
        )
    return vocoder.eval()


def read_json_object(config_file: str | Path) -> dict:
    """Reads a JSON object, such as a vocoder's `config.json`; raises `ValueError` if it is none."""
    try:
        config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`{config_file}` is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"`{config_file}` has to hold a JSON object, but holds {config!r}.")
    return config


def _read_hifigan_config(config_file: str | Path) -> dict:
    config = read_json_object(config_file)
    needed = (
        "num_mels",
        "sampling_rate",
        "upsample_initial_channel",
        "upsample_rates",
        "upsample_kernel_sizes",
        "resblock_kernel_sizes",
        "resblock_dilation_sizes",
    )
    absent = [name for name in needed if name not in config]
    if absent:
        raise ValueError(f"`{config_file}` lacks {absent}, without which no vocoder can be built.")
    if str(config.get("resblock", "1")) != "1":
        raise ValueError(
            f"`resblock` in `{config_file}` is {config['resblock']!r}, but only '1' can be represented by"
            " `SpeechT5HifiGan`."
        )
    for name in needed:
        if isinstance(config[name], list) != name.endswith(("rates", "sizes")):
            raise ValueError(f"`{name}` in `{config_file}` may not be {shown(config[name])}.")
        # A wider one than any would take memory before its weights are found not to fit.
        most = 2048 if name == "upsample_initial_channel" else 10**6
        for number in np.ravel(np.array(config[name], dtype=object)).tolist():
            check_integer(f"{name}` in `{config_file}", number, most=most)
    _check_upsampling(config, config_file)
    return config


def _check_upsampling(config: dict, config_file: str | Path) -> None:
    rates, kernel_sizes = config["upsample_rates"], config["upsample_kernel_sizes"]
    if len(rates) != len(kernel_sizes) or any(kernel < rate for rate, kernel in zip(rates, kernel_sizes)):
        raise ValueError(
            f"`upsample_kernel_sizes` in `{config_file}` has to name one kernel for each of `upsample_rates`, none"
            f" smaller than its rate, but they are {kernel_sizes} and {rates}."
        )


def read_tensors(checkpoint_file: str | Path) -> dict[str, Any]:
    """Reads a file of plain tensors in dicts. Nothing in it is executed; raises `ValueError` for another file."""
    try:
        checkpoint = torch.load(checkpoint_file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything in the reader
        raise ValueError(
            f"`{checkpoint_file}` can't be read as a file of plain tensors. It was not executed. The reader says:"
            f" {error}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"`{checkpoint_file}` has to hold a dict of tensors.")
    return checkpoint


def _read_generator(checkpoint_file: str | Path) -> dict[str, torch.Tensor]:
    weights = read_tensors(checkpoint_file).get("generator")
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f"`{checkpoint_file}` has to hold a dict of tensors under 'generator'.")
    return weights


def _convert(weights: dict[str, torch.Tensor], odd: set[int], checkpoint_file: str | Path) -> dict[str, torch.Tensor]:
    converted = {}
    for name in {key.rsplit(".", 1)[0] for key in weights}:
        weight = _fold_weight_norm(weights, name, checkpoint_file).float()
        target = name.replace("ups.", "upsampler.", 1) if name.startswith("ups.") else name
        if name.startswith("ups.") and int(name.split(".")[1]) in odd:
            # HiFi-GAN trims odd kernels unevenly; one zero tap makes the trim even and the output the same.
            weight = torch.nn.functional.pad(weight, (0, 1))
        converted[f"{target}.weight"] = weight
        if f"{name}.bias" in weights:
            converted[f"{target}.bias"] = weights[f"{name}.bias"].float()
    return converted


def _fold_weight_norm(weights: dict[str, torch.Tensor], name: str, checkpoint_file: str | Path) -> torch.Tensor:
    if f"{name}.weight" in weights:
        return weights[f"{name}.weight"]
    if f"{name}.weight_g" not in weights or f"{name}.weight_v" not in weights:
        raise ValueError(f"`{checkpoint_file}` has neither '{name}.weight' nor '{name}.weight_g' and '.weight_v'.")
    direction = weights[f"{name}.weight_v"].float()
    norm = direction.norm(dim=tuple(range(1, direction.dim())), keepdim=True)
    return weights[f"{name}.weight_g"].float() * direction / norm
