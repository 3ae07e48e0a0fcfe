"""What every pipeline with an audio side shares: loading it and keeping its vocoder exact."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import EntryNotFoundError
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

from .images_that_sound_repo import SelfContainedRepoMixin
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_vocoder import load_hifigan_vocoder, read_vocoder_config


HUB_ARGUMENTS = {"cache_dir", "token", "force_download", "local_files_only"}


class AudioPriorLoaderMixin(SelfContainedRepoMixin):
    """Loads Auffusion's side into a pipeline that came from a Stable Diffusion repo."""

    def load_audio_prior(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        subfolder: str = "",
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Loads the audio side: `unet_audio`, `vocoder`, and `vae_audio` and `text_encoder_audio` where they differ from
        the image side's.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A Hub repo such as `auffusion/auffusion-full-no-adapter`, or a folder of the same layout: `unet`,
                `vae`, `text_encoder`, `tokenizer`, and `vocoder` either as Auffusion stores it (`config.json`,
                `vocoder.pt`) or as [`~transformers.SpeechT5HifiGan`]. Of a repo that holds both sides the audio side
                is loaded, and its spectrogram's constants and default arguments apply.
            subfolder (`str`, *optional*, defaults to `""`):
                Folder inside the repo that holds this layout.
            revision (`str`, *optional*):
                Branch, tag or commit of the repo.
            kwargs:
                `cache_dir`, `token`, `force_download`, `local_files_only`, as in `from_pretrained`.

        Raises:
            ValueError: If a part is missing or does not fit the image side, or if offloading is already enabled.
        """
        if getattr(self, "_all_hooks", None):
            raise ValueError("`load_audio_prior` has to be called before offloading is enabled.")
        if set(kwargs) - HUB_ARGUMENTS:
            raise ValueError(f"`load_audio_prior` takes {sorted(HUB_ARGUMENTS)} besides, but got {sorted(kwargs)}.")
        repo = Repo(pretrained_model_name_or_path, subfolder, {"revision": revision, **kwargs})

        vocoder = repo.load_vocoder()
        check_vocoder(vocoder, repo.spectrogram or self.mel_spectrogram)
        tokenizer = repo.load(CLIPTokenizer, "tokenizer")
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise ValueError(f"The tokenizer of `{repo}` differs from the image side's; one has to serve both.")
        unet = repo.load_audio(UNet2DConditionModel, "unet", dtype=self.unet.dtype)
        if unet.config.in_channels != self.unet.config.in_channels:
            raise ValueError(
                f"`unet_audio` of `{repo}` has to work in the image side's latents of {self.unet.config.in_channels}"
                f" channels, but takes {unet.config.in_channels}."
            )
        vae = repo.load_audio(AutoencoderKL, "vae", dtype=self.vae.dtype)
        text_encoder = repo.load_audio(CLIPTextModel, "text_encoder", dtype=self.text_encoder.dtype)
        device = self.device
        self._adopt_config(repo)
        self.register_modules(
            unet_audio=unet.to(device),
            vocoder=None if vocoder is None else vocoder.to(device),
            vae_audio=None if same_weights(vae, self.vae) else vae.to(device),
            text_encoder_audio=None if same_weights(text_encoder, self.text_encoder) else text_encoder.to(device),
        )

    def _adopt_config(self, repo: "Repo") -> None:
        """What a repo that holds both sides says of its spectrograms and of calls."""
        if repo.spectrogram is not None:
            self.mel_spectrogram = repo.spectrogram
            self._set_default_arguments(repo.index.get("default_arguments"))
            self.register_to_config(
                spectrogram=repo.spectrogram.to_dict(), default_arguments=repo.index.get("default_arguments")
            )

    def _set_default_arguments(self, default_arguments: dict | None) -> None:
        known = {k: v for k, v in (default_arguments or {}).items() if k in self._paper_arguments}
        self.default_arguments = {**self._paper_arguments, **known}

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> "AudioPriorLoaderMixin":
        """[`DiffusionPipeline.from_pretrained`], except that `dtype` leaves the vocoder in float32."""
        for name in ("dtype", "torch_dtype"):
            if isinstance(kwargs.get(name), torch.dtype):
                kwargs[name] = {"default": kwargs[name], "vocoder": torch.float32}
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> "AudioPriorLoaderMixin":
        """
        [`DiffusionPipeline.from_pipe`], except that optional components may be left out, and that the shared ones keep
        their precision where no `dtype` is given.
        """
        absent = {name: None for name in cls._optional_components if name not in pipeline.components}
        precision = {} if {"dtype", "torch_dtype"} & set(kwargs) else {"dtype": pipeline.unet.dtype}
        return super().from_pipe(pipeline, **{**absent, **precision, **kwargs})

    def to(self, *args: Any, **kwargs: Any) -> "AudioPriorLoaderMixin":
        """[`DiffusionPipeline.to`], except that the vocoder keeps its float32 weights, which half precision ruins."""
        weights = None if self.vocoder is None else {k: v.cpu() for k, v in self.vocoder.state_dict().items()}
        pipe = super().to(*args, **kwargs)
        if weights is not None and self.vocoder.dtype != torch.float32:
            self.vocoder.float().load_state_dict(weights)
        return pipe


def load_vocoder(
    pretrained_model_name_or_path: str | os.PathLike, subfolder: str = "", revision: str | None = None, **kwargs: Any
) -> SpeechT5HifiGan | None:
    """
    The vocoder alone of a repo or folder that [`AudioPriorLoaderMixin.load_audio_prior`] takes; `None` where a repo of
    both sides does without.
    """
    return Repo(pretrained_model_name_or_path, subfolder, {"revision": revision, **kwargs}).load_vocoder()


class Repo:
    """A Hub repo or folder in the layout of Stable Diffusion."""

    def __init__(self, name_or_path: str | os.PathLike, subfolder: str, kwargs: dict):
        self.name_or_path, self.subfolder, self.kwargs = str(name_or_path), subfolder, kwargs

    def __str__(self) -> str:
        return "/".join(filter(None, (self.name_or_path, self.subfolder)))

    def load(self, model_class: type, folder: str, **kwargs: Any) -> Any:
        subfolder = "/".join(filter(None, (self.subfolder, folder)))
        try:
            return model_class.from_pretrained(self.name_or_path, subfolder=subfolder, **self.kwargs, **kwargs)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"No {model_class.__name__} can be loaded from `{folder}` of `{self}`: {error}"
            ) from error

    @cached_property
    def index(self) -> dict:
        """The repo's `model_index.json`; empty where there is none."""
        file = self.find("model_index.json")
        return {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))

    @property
    def spectrogram(self) -> MelSpectrogram | None:
        """The constants that a repo of both sides names."""
        return MelSpectrogram.from_dict(self.index["spectrogram"]) if "spectrogram" in self.index else None

    def load_audio(self, model_class: type, folder: str, **kwargs: Any) -> Any:
        """The audio side's part, which in a repo of both sides has a folder of its own unless both share it."""
        own = self.index.get(f"{folder}_audio") or [None, None]
        return self.load(model_class, folder if own[0] is None else f"{folder}_audio", **kwargs)

    def find(self, name: str) -> str | None:
        path = "/".join(filter(None, (self.subfolder, name)))
        if os.path.isdir(self.name_or_path):
            local = os.path.join(self.name_or_path, path)
            return local if os.path.isfile(local) else None
        try:
            return hf_hub_download(self.name_or_path, path, **self.kwargs)
        except EntryNotFoundError:
            return None

    def load_vocoder(self) -> SpeechT5HifiGan | None:
        if self.index.get("vocoder") == [None, None]:
            return None
        config_file = self.find("vocoder/config.json")
        if config_file is None:
            raise ValueError(f"`{self}` has no vocoder: `vocoder/config.json` is missing, as in no Auffusion repo.")
        if "model_in_dim" in read_vocoder_config(config_file):
            return self.load(SpeechT5HifiGan, "vocoder", dtype=torch.float32).eval()
        checkpoint_file = self.find("vocoder/vocoder.pt")
        if checkpoint_file is None:
            raise ValueError(f"`{self}` has no vocoder: `vocoder/vocoder.pt` is missing.")
        return load_hifigan_vocoder(config_file, checkpoint_file)


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


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two models hold the same tensors under the same names."""
    first_state, second_state = first.state_dict(), second.state_dict()
    return first_state.keys() == second_state.keys() and all(
        first_state[name].shape == second_state[name].shape
        and torch.equal(first_state[name].cpu(), second_state[name].cpu())
        for name in first_state
    )
