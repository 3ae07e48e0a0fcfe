"""LoRA of the audio side, and LoRAs with which few steps suffice on both sides."""

import copy
import os
import textwrap
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_module
from diffusers import DiffusionPipeline, LCMScheduler, SchedulerMixin, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import recurse_remove_peft_layers
from transformers import CLIPTextModel

from .images_that_sound_checks import check_integer, shown
from .images_that_sound_sides import Side


class AudioSidePipeline(StableDiffusionPipeline):
    """
    The audio side of a pipeline as stock Stable Diffusion, made of the same modules: LoRA, textual inversion and
    prompt encoding of that side are diffusers' own methods.

    It differs in three points. A text encoder that both sides share is copied before it takes a LoRA, and a tokenizer
    before it takes a textual inversion. In a LoRA file for both sides it reads the weights whose names begin with
    `unet_audio.`. Offloading stays the whole pipeline's.
    """

    _whole: DiffusionPipeline

    @classmethod
    def of(cls, whole: DiffusionPipeline, side: Side) -> "AudioSidePipeline":
        """The audio side `side` of the pipeline `whole`."""
        pipe = cls(
            vae=side.vae,
            text_encoder=side.text_encoder,
            tokenizer=side.tokenizer,
            unet=side.unet,
            # Its constructor would rewrite the config of a scheduler.
            scheduler=None,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe._whole = whole
        return pipe

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Enables it for both sides. Loading a LoRA does so after it has taken the hooks off."""
        self._whole.enable_model_cpu_offload(device=getattr(self._whole, "_offload_device", None))

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Enables it for both sides."""
        self._whole.enable_sequential_cpu_offload(device=getattr(self._whole, "_offload_device", None))

    def load_textual_inversion(self, *args: Any, **kwargs: Any) -> None:
        """[`TextualInversionLoaderMixin.load_textual_inversion`] into the audio side alone."""
        separate_tokenizers(self._whole)
        self.register_modules(tokenizer=self._whole.tokenizer_audio, text_encoder=self._whole.audio_side.text_encoder)
        super().load_textual_inversion(*args, **kwargs)

    def load_ip_adapter(self, *args: Any, **kwargs: Any) -> None:
        """[`IPAdapterMixin.load_ip_adapter`] into the audio UNet. The image encoder serves both sides."""
        names = ("image_encoder", "feature_extractor")
        self.register_modules(**{name: getattr(self._whole, name) for name in names})
        super().load_ip_adapter(*args, **kwargs)
        self._whole.register_modules(**{name: getattr(self, name) for name in names})

    @classmethod
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor], **kwargs: Any
    ) -> tuple:
        """[`StableDiffusionLoraLoaderMixin.lora_state_dict`], of a file for both sides the audio side's part."""
        state_dict, *others = super().lora_state_dict(pretrained_model_name_or_path_or_dict, **kwargs)
        return audio_part(state_dict), *others

    @classmethod
    def load_lora_into_text_encoder(
        cls, state_dict: dict, network_alphas: dict | None, text_encoder: CLIPTextModel, **kwargs: Any
    ) -> None:
        """[`StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder`] into the audio side's text encoder alone."""
        if not has_text_encoder_part(state_dict):
            return
        pipe = kwargs["_pipeline"]
        if separate_text_encoders(pipe._whole):
            text_encoder = pipe.text_encoder = pipe._whole.text_encoder_audio
        super().load_lora_into_text_encoder(state_dict, network_alphas, text_encoder, **kwargs)


def audio_part(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a LoRA file for both sides that are the audio side's, or all if the file is for one side."""
    part = {key.replace("_audio.", ".", 1): value for key, value in state_dict.items() if "_audio." in key}
    return part or state_dict


def has_text_encoder_part(state_dict: dict[str, torch.Tensor]) -> bool:
    """Whether a LoRA has weights for a text encoder, without which diffusers warns."""
    return any(key.startswith("text_encoder.") for key in state_dict)


def separate_text_encoders(pipe: DiffusionPipeline) -> bool:
    """
    Gives the audio side a copy of the text encoder if it shares the image side's, so that a LoRA of one side does not
    change how the other side's prompts are read. Says whether there was something to do.
    """
    if getattr(pipe, "unet_audio", None) is None or pipe.text_encoder_audio is not None:
        return False
    if not isinstance(pipe.text_encoder, CLIPTextModel):
        return False
    text_encoder = copy.deepcopy(pipe.text_encoder)
    remove_hook_from_module(text_encoder, recurse=True)
    if hasattr(text_encoder, "peft_config"):
        recurse_remove_peft_layers(text_encoder)
    pipe.register_modules(text_encoder_audio=text_encoder)
    return True


def separate_tokenizers(pipe: DiffusionPipeline) -> None:
    """
    Gives the audio side copies of the tokenizer and the text encoder that it shares with the image side, so that each
    side can learn words that the other does not know.
    """
    separate_text_encoders(pipe)
    if pipe.tokenizer_audio is None:
        pipe.register_modules(tokenizer_audio=copy.deepcopy(pipe.tokenizer))


def check_lora(
    weights: str | os.PathLike | dict[str, torch.Tensor], side: Side, is_audio: bool = False, **kwargs: Any
) -> None:
    """
    Raises `ValueError` unless a LoRA fits a side. diffusers finds out while it loads, and leaves a part behind.

    Args:
        weights (`str`, `os.PathLike` or `dict[str, torch.Tensor]`): A Hub repo, a folder, a file, or the weights.
        side ([`Side`]): The models it is for.
        is_audio (`bool`): Whether it is the audio side, which reads its own part of a file for both sides.
        kwargs: Passed to [`StableDiffusionLoraLoaderMixin.lora_state_dict`].
    """
    loader = AudioSidePipeline if is_audio else StableDiffusionLoraLoaderMixin
    try:
        state_dict, network_alphas, metadata = loader.lora_state_dict(
            weights.copy() if isinstance(weights, dict) else weights, return_lora_metadata=True, **kwargs
        )
    except ValueError as error:
        if "correctly renamed" not in str(error):
            raise
        raise ValueError(
            "`pretrained_model_name_or_path_or_dict` has to hold a LoRA, but holds another kind of adapter, such as"
            " LoHa, LoKr or full differences, which diffusers can't load."
        ) from error
    read = {"network_alphas": network_alphas, "metadata": metadata, "low_cpu_mem_usage": True}
    parts = sorted({key.split(".")[0] for key in state_dict} & {"unet", "text_encoder"})
    if not parts:
        raise ValueError(
            "`pretrained_model_name_or_path_or_dict` has to hold a LoRA of Stable Diffusion, whose keys begin with"
            f" 'unet.', 'text_encoder.' or 'lora_', but has {shown(sorted(state_dict))}."
        )
    # Models without weights take the shapes.
    state_dict = {key: value.to("meta") for key, value in state_dict.items()}
    try:
        with torch.device("meta"):
            if "unet" in parts:
                unet = UNet2DConditionModel.from_config(side.unet.config)
                StableDiffusionLoraLoaderMixin.load_lora_into_unet(state_dict, unet=unet, **read)
            if "text_encoder" in parts:
                encoder = CLIPTextModel(side.text_encoder.config)
                StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(state_dict, text_encoder=encoder, **read)
    except Exception as error:  # diffusers, transformers, PEFT and torch raise different ones
        names = " and ".join(f"`{part}{'_audio' if is_audio else ''}`" for part in parts)
        raise ValueError(
            f"`pretrained_model_name_or_path_or_dict` has to be a LoRA for the architecture of {names}, but does"
            f" not fit: {textwrap.shorten(str(error), 400)}"
        ) from error


class FewStepsMixin:
    """LoRA of both sides of a [`DiffusionPipeline`] whose two UNets share an architecture."""

    @classmethod
    def load_lora_into_text_encoder(
        cls, state_dict: dict, network_alphas: dict | None, text_encoder: CLIPTextModel, **kwargs: Any
    ) -> None:
        """[`StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder`], which leaves the audio side as it is."""
        if has_text_encoder_part(state_dict):
            separate_text_encoders(kwargs["_pipeline"])
        super().load_lora_into_text_encoder(state_dict, network_alphas, text_encoder, **kwargs)

    def fuse_lora(self, components: list[str] = ["unet", "text_encoder"], *args: Any, **kwargs: Any) -> None:
        """[`StableDiffusionLoraLoaderMixin.fuse_lora`], which leaves the audio side as it is."""
        if "text_encoder" in components and hasattr(self.text_encoder, "peft_config"):
            separate_text_encoders(self)
        super().fuse_lora(components, *args, **kwargs)

    def load_few_step_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        scheduler: SchedulerMixin | None = None,
        num_inference_steps: int = 8,
        adapter_name: str = "few_steps",
        **kwargs: Any,
    ) -> None:
        """
        Loads a LoRA into both sides so that a few steps without guidance suffice. Sets the scheduler that it wants,
        and the defaults of calls: `num_inference_steps`, no guidance, both sides from the first step.

        LCM-LoRA ([arXiv 2311.05556](https://arxiv.org/abs/2311.05556)) wants [`LCMScheduler`], TCD
        ([arXiv 2402.19159](https://arxiv.org/abs/2402.19159)) [`TCDScheduler`], Hyper-SD
        ([arXiv 2404.13686](https://arxiv.org/abs/2404.13686)) [`DDIMScheduler`] with `timestep_spacing="trailing"`.

        Args:
            pretrained_model_name_or_path_or_dict (`str`, `os.PathLike` or `dict[str, torch.Tensor]`): A Hub repo such
                as `latent-consistency/lcm-lora-sdv1-5`, a folder, a file, or weights by their names. Weights whose
                names begin with `unet_audio.` are the audio side's; without such, both sides load all.
            scheduler ([`~diffusers.SchedulerMixin`], *optional*): Replaces the pipeline's scheduler; [`LCMScheduler`]
                with its config by default.
            num_inference_steps (`int`, defaults to 8): Default number of steps.
            adapter_name (`str`, defaults to `"few_steps"`): Name of the adapter on either side.
            kwargs:
                `weight_name`, `subfolder`, `revision` and the other arguments of `load_lora_weights`, for both sides.

        Raises:
            ValueError: If there is no audio side yet, the LoRA does not fit a side, or the name is taken. The pipeline
                is then as it was.
        """
        self._check_audio_prior()
        num_inference_steps = check_integer("num_inference_steps", num_inference_steps)
        if scheduler is None:
            scheduler = LCMScheduler.from_config(self.scheduler.config)
        elif not isinstance(scheduler, SchedulerMixin):
            raise ValueError(f"`scheduler` has to be a scheduler of diffusers, but is {shown(scheduler)}.")
        audio = self.audio
        for pipe in (self, audio):
            taken = sorted({name for names in pipe.get_list_adapters().values() for name in names})
            if adapter_name in taken:
                raise ValueError(f"`adapter_name` has to be another than {taken}, but is {shown(adapter_name)}.")
        for side in (self.image_side, self.audio_side):
            check_lora(pretrained_model_name_or_path_or_dict, side, side.unet is self.unet_audio, **kwargs)
        for pipe in (self, audio):
            pipe.load_lora_weights(pretrained_model_name_or_path_or_dict, adapter_name, **kwargs)
        self.scheduler = scheduler
        self.set_default_arguments(
            {
                **(self.config.default_arguments or {}),
                "num_inference_steps": num_inference_steps,
                "guidance_scale": 1.0,
                "audio_guidance_scale": 1.0,
                "image_guidance_start": 0.0,
            }
        )
