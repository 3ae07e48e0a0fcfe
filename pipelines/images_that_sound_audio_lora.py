"""LoRA of the audio side by diffusers' own loader, beside the image side's."""

import os
import textwrap
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from transformers import CLIPTextModel

from .images_that_sound_checks import shown


AUDIO_MODULES = ["unet_audio", "text_encoder_audio"]


class AudioLoraLoader(StableDiffusionLoraLoaderMixin):
    """
    The audio side of a pipeline as [`StableDiffusionLoraLoaderMixin`] wants to see a pipeline: for loading, its
    modules have Stable Diffusion's names, and everywhere else their own.
    """

    _lora_loadable_modules = AUDIO_MODULES

    def __init__(self, pipe: DiffusionPipeline):
        self.pipe = pipe
        shared = pipe.text_encoder_audio is pipe.text_encoder
        self.unet = self.unet_audio = pipe.unet_audio
        self.text_encoder = self.text_encoder_audio = None if shared else pipe.text_encoder_audio

    def __getattr__(self, name: str) -> Any:
        # What the loader asks of a pipeline whose models may be offloaded.
        return getattr(self.pipe, name)

    def enable_model_cpu_offload(self) -> None:
        """Puts the hooks, which loading takes off, on again, for the device that they were for."""
        self.pipe.enable_model_cpu_offload(device=self.pipe._offload_device)

    def check_names(self, adapter_names: str | list[str] | None) -> None:
        """Raises `ValueError` unless they are names of loaded adapters."""
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names or []
        loaded = sorted({name for listed in self.get_list_adapters().values() for name in listed})
        if not isinstance(names, list) or not all(name in loaded for name in names):
            raise ValueError(
                f"`adapter_names` has to name adapters of the audio side, where {loaded or 'none'} are loaded, but is"
                f" {shown(adapter_names)}."
            )

    def lora_state_dict(self, weights: str | os.PathLike | dict[str, torch.Tensor], **kwargs: Any) -> tuple:
        """What [`StableDiffusionLoraLoaderMixin.lora_state_dict`] reads; raises `ValueError` where it doesn't fit."""
        state_dict, network_alphas, metadata = super().lora_state_dict(weights, **kwargs)
        # A file for both sides has keys of either.
        own = {key.replace("unet_audio.", "unet.", 1): value for key, value in state_dict.items() if "_audio." in key}
        state_dict = own or state_dict
        parts = sorted({key.split(".")[0] for key in state_dict} & {self.unet_name, self.text_encoder_name})
        if not parts:
            raise ValueError(
                "`pretrained_model_name_or_path_or_dict` has to hold a LoRA of Stable Diffusion, whose keys begin with"
                f" 'unet.', 'text_encoder.' or 'lora_', but has {shown(sorted(state_dict))}."
            )
        if self.text_encoder_name in parts and self.text_encoder is None:
            raise ValueError(
                "`pretrained_model_name_or_path_or_dict` holds weights for a text encoder, but that of the audio side"
                " is the image side's, which they would change. Give it one of its own first, by"
                " `pipe.register_modules(text_encoder_audio=copy.deepcopy(pipe.text_encoder))`."
            )
        try:
            self._load_into_empty(parts, state_dict, network_alphas=network_alphas, metadata=metadata)
        except Exception as error:  # diffusers, transformers, PEFT and torch raise different ones
            names = " and ".join(f"`{part}_audio`" for part in parts)
            raise ValueError(
                f"`pretrained_model_name_or_path_or_dict` has to be a LoRA for the architecture of {names}, but does"
                f" not fit: {textwrap.shorten(str(error), 400)}"
            ) from error
        return state_dict, network_alphas, metadata

    def load_lora_into_text_encoder(self, state_dict: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> None:
        """Loads what is for one; where nothing is, as in most LoRAs, diffusers would warn of it."""
        if any(key.startswith(f"{self.text_encoder_name}.") for key in state_dict):
            super().load_lora_into_text_encoder(state_dict, *args, **kwargs)

    def _load_into_empty(self, parts: list[str], state_dict: dict[str, torch.Tensor], **read: Any) -> None:
        """Loads shapes into models without weights: in real ones what fits by half would leave something behind."""
        state_dict = {key: value.to("meta") for key, value in state_dict.items()}
        with torch.device("meta"):
            if self.unet_name in parts:
                unet = UNet2DConditionModel.from_config(self.unet.config)
                self.load_lora_into_unet(state_dict, unet=unet, low_cpu_mem_usage=True, **read)
            if self.text_encoder_name in parts:
                encoder = CLIPTextModel(self.text_encoder.config)
                self.load_lora_into_text_encoder(state_dict, text_encoder=encoder, low_cpu_mem_usage=True, **read)


class AudioLoraMixin:
    """
    LoRA for the audio side of a [`DiffusionPipeline`]: for `unet_audio`, and for `text_encoder_audio` where there is
    one. They are apart from the image side's, so that both sides may have adapters of the same name.
    """

    def load_audio_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        [`~StableDiffusionLoraLoaderMixin.load_lora_weights`] for the audio side: a LoRA of Auffusion, Riffusion or
        another spectrogram model, in any form that Stable Diffusion's have.

        Args:
            pretrained_model_name_or_path_or_dict (`str`, `os.PathLike` or `dict[str, torch.Tensor]`):
                A Hub repo, a folder, a file, or the weights by their names.
            adapter_name (`str`, *optional*):
                What the other methods call it; `default_0` and so on where left out.
            hotswap (`bool`, *optional*, defaults to `False`):
                Whether to put it in the place of the adapter of this name.
            kwargs:
                `weight_name`, `subfolder`, `revision` and the rest that
                [`~StableDiffusionLoraLoaderMixin.lora_state_dict`] takes.

        Raises:
            ValueError: If there is no audio side yet, if the LoRA does not fit its architecture, if it holds weights
                for a text encoder where the audio side has no own, or if the name is taken. The models are then as
                they were.
        """
        self._check_audio_prior()
        loader = AudioLoraLoader(self)
        taken = [name for names in loader.get_list_adapters().values() for name in names]
        if adapter_name in taken and not hotswap:
            raise ValueError(
                f"`adapter_name` has to be another than those of the audio side's adapters {sorted(set(taken))}, but"
                f" is {shown(adapter_name)}."
            )
        loader.load_lora_weights(pretrained_model_name_or_path_or_dict, adapter_name, hotswap, **kwargs)

    def unload_audio_lora_weights(self) -> None:
        """Takes all of the audio side's LoRAs away. What is fused stays unless `unfuse_audio_lora` is called first."""
        AudioLoraLoader(self).unload_lora_weights()

    def set_audio_adapters(
        self,
        adapter_names: str | list[str],
        adapter_weights: float | dict | list[float] | list[dict] | None = None,
    ) -> None:
        """
        [`~StableDiffusionLoraLoaderMixin.set_adapters`] for the audio side: the adapters that act from now on.

        Args:
            adapter_names (`str` or `list[str]`): One or several loaded adapters.
            adapter_weights (`float`, `dict` or a list of either, *optional*):
                Their weights, one for all or one each, 1 where left out; a dict has one for each of `unet_audio` and
                `text_encoder_audio`.

        Raises:
            ValueError: For a name that is not loaded, or another number of weights than of names.
        """
        loader = AudioLoraLoader(self)
        loader.check_names(adapter_names)
        loader.set_adapters(adapter_names, adapter_weights)

    def get_active_audio_adapters(self) -> list[str]:
        """Names of the audio side's adapters that act."""
        return AudioLoraLoader(self).get_active_adapters()

    def get_list_audio_adapters(self) -> dict[str, list[str]]:
        """Names of the audio side's adapters, by its models `unet_audio` and `text_encoder_audio`."""
        return AudioLoraLoader(self).get_list_adapters()

    def delete_audio_adapters(self, adapter_names: str | list[str]) -> None:
        """Takes adapters of the audio side away; raises `ValueError` for a name that is not loaded."""
        loader = AudioLoraLoader(self)
        loader.check_names(adapter_names)
        loader.delete_adapters(adapter_names)

    def enable_audio_lora(self) -> None:
        """Undoes `disable_audio_lora`."""
        AudioLoraLoader(self).enable_lora()

    def disable_audio_lora(self) -> None:
        """Leaves the audio side's LoRAs out, but loaded."""
        AudioLoraLoader(self).disable_lora()

    def fuse_audio_lora(
        self,
        components: list[str] = AUDIO_MODULES,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
    ) -> None:
        """
        [`~StableDiffusionLoraLoaderMixin.fuse_lora`] for the audio side: adds LoRAs to the weights themselves. Then
        `unload_audio_lora_weights` leaves plain models, which `save_pretrained` writes.

        Args:
            components (`list[str]`, defaults to `["unet_audio", "text_encoder_audio"]`): In what to fuse.
            lora_scale (`float`, defaults to 1.0): Scale of the LoRAs.
            safe_fusing (`bool`, defaults to `False`): Whether to refuse weights that are not finite.
            adapter_names (`list[str]`, *optional*): Which to fuse; those that act where left out.

        Raises:
            ValueError: For components or names that the audio side does not have.
        """
        loader = AudioLoraLoader(self)
        loader.check_names(adapter_names)
        loader.fuse_lora(components, lora_scale, safe_fusing, adapter_names)

    def unfuse_audio_lora(self, components: list[str] = AUDIO_MODULES) -> None:
        """Undoes `fuse_audio_lora`, to the rounding of the weights."""
        AudioLoraLoader(self).unfuse_lora(components)
