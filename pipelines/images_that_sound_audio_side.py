"""What every pipeline with an audio side shares: loading it, reading prompts, playing canvases, defaults, reports."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput, logging, scale_lora_layers, unscale_lora_layers
from transformers import CLIPTextModel, PreTrainedModel

from .images_that_sound_audio_lora import AudioLoraMixin
from .images_that_sound_audio_prior import HUB_ARGUMENTS, AudioPriorRepo, check_vocoder, same_weights
from .images_that_sound_checks import (
    check_generator,
    check_not_offloaded,
    check_number,
    check_tensor,
    shown,
)
from .images_that_sound_precision import exact_vocoder, kept_in_float32
from .images_that_sound_prompts import Prompts, common_batch_size, tokenize
from .images_that_sound_saving import SelfContainedSavingMixin
from .images_that_sound_side import Side, is_guided
from .images_that_sound_spectrogram import SPECTROGRAMS, MelSpectrogram, audio_problems


logger = logging.get_logger(__name__)

# What the audio side can have of its own, by the image side's names.
SHARED_PARTS = ("text_encoder", "tokenizer", "vae", "scheduler")


@dataclass
class ImagesThatSoundPipelineOutput(BaseOutput):
    """
    What the pipelines with an audio side return.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, H, W, 3)` or `torch.Tensor` of shape
            `(B, 3, H, W)`): Pictures in 0..1 as the image side's VAE decodes them; or latents of shape
            `(B, C, H / 8, W / 8)`.
        spectrograms (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, M, T, 1)` or `torch.Tensor` of shape
            `(B, 1, M, T)`): Gray canvases in 0..1: a row per mel bin, low frequencies at the bottom, a column per
            `hop_length` samples. `None` for latents.
        audios (`np.ndarray` or `torch.Tensor` of shape `(B, N)`): Float32 waveforms in -1..1 at `pipe.sampling_rate`.
            `None` for latents.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    spectrograms: list[PIL.Image.Image] | np.ndarray | torch.Tensor | None
    audios: np.ndarray | torch.Tensor | None


class AudioSideMixin(SelfContainedSavingMixin, AudioLoraMixin):
    """
    A [`DiffusionPipeline`] with an image side and an audio side. It inherits this before [`DiffusionPipeline`], and
    names in `_paper_arguments` what its call does where neither the caller nor the checkpoint says otherwise; those
    are the arguments that a checkpoint may set.
    """

    _optional_components = ["unet_audio", "vocoder", "vae_audio", "text_encoder_audio"]
    _callback_tensor_inputs = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "audio_prompt_embeds",
        "negative_audio_prompt_embeds",
    ]
    _paper_arguments: dict[str, Any] = {}

    # What the properties say before the first call.
    _guidance_scale = _audio_guidance_scale = 1.0
    _guidance_rescale = _audio_guidance_rescale = 0.0
    _cross_attention_kwargs: dict[str, Any] | None = None
    _interrupt = False
    _num_timesteps = 0

    def _register(self, spectrogram: dict | None, default_arguments: dict | None, **modules: Any) -> None:
        """What the constructors have in common."""
        self.mel_spectrogram = MelSpectrogram.from_dict(spectrogram or {})
        check_vocoder(modules["vocoder"], self.mel_spectrogram)
        self.register_modules(**{**modules, "vocoder": exact_vocoder(modules["vocoder"])})
        self._set_default_arguments(default_arguments)
        self.register_to_config(spectrogram=self.mel_spectrogram.to_dict(), default_arguments=default_arguments)
        vae = self.audio_side.vae
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    def _set_default_arguments(self, default_arguments: dict | None) -> None:
        if not isinstance(default_arguments, (dict, type(None))):
            raise ValueError(f"`default_arguments` has to be a dict of call arguments, but is {default_arguments!r}.")
        # A checkpoint names those of all pipelines that it serves.
        own = {name: value for name, value in (default_arguments or {}).items() if name in self._paper_arguments}
        self.default_arguments = {**self._paper_arguments, **own}

    def resolve_default(self, name: str, value: Any) -> Any:
        """An argument of the call, or what the checkpoint, else the paper, has for it where it is `None`."""
        return self.default_arguments[name] if value is None else value

    def resolve_guidance(
        self, guidance_scale: float | None, audio_guidance_scale: float | None
    ) -> tuple[float, float]:
        """Both sides' guidance, by `resolve_default`; raises `ValueError` for what is no number."""
        scales = {"guidance_scale": guidance_scale, "audio_guidance_scale": audio_guidance_scale}
        return tuple(check_number(name, self.resolve_default(name, scale)) for name, scale in scales.items())

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the returned waveforms."""
        return self.mel_spectrogram.sampling_rate

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def audio_guidance_scale(self) -> float:
        return self._audio_guidance_scale

    @property
    def guidance_rescale(self) -> float:
        return self._guidance_rescale

    @property
    def audio_guidance_rescale(self) -> float:
        return self._audio_guidance_rescale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return is_guided(self.unet, self._guidance_scale)

    @property
    def do_audio_classifier_free_guidance(self) -> bool:
        return is_guided(self.unet_audio, self._audio_guidance_scale)

    @property
    def cross_attention_kwargs(self) -> dict | None:
        return self._cross_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    @property
    def image_side(self) -> Side:
        """The image side, guided as the call at work asks for."""
        parts = {name: getattr(self, name) for name in SHARED_PARTS}
        scales = {"guidance_scale": self.guidance_scale, "guidance_rescale": self.guidance_rescale}
        return Side(unet=self.unet, **scales, **parts)

    @property
    def audio_side(self) -> Side:
        """The audio side, guided as the call at work asks for; what it has no own of is the image side's."""
        own = {name: getattr(self, f"{name}_audio", None) for name in SHARED_PARTS}
        parts = {name: getattr(self, name) if part is None else part for name, part in own.items()}
        scales = {"guidance_scale": self.audio_guidance_scale, "guidance_rescale": self.audio_guidance_rescale}
        return Side(unet=self.unet_audio, **scales, **parts)

    def load_audio_prior(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        subfolder: str = "",
        revision: str | None = None,
        spectrogram: str | dict | MelSpectrogram | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Loads the audio side: `unet_audio`, `vocoder`, and what of it differs from the image side's, such as
        `vae_audio` and `text_encoder_audio`. How its spectrograms are drawn, and what it wants for call arguments left
        out, apply from then on.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A Hub repo such as `auffusion/auffusion-full-no-adapter`, or a folder of the same layout: `unet`,
                `vae`, `text_encoder`, `tokenizer`, and `vocoder` either as Auffusion stores it (`config.json`,
                `vocoder.pt`) or as [`~transformers.SpeechT5HifiGan`]; or such as `riffusion/riffusion-model-v1`, whose
                name says what it is, and which has no vocoder; or a single file (`.safetensors`, `.ckpt`) of such a
                model, as [`StableDiffusionPipeline.from_single_file`] reads it. Of a repo that holds both sides the
                audio side is loaded.
            subfolder (`str`, *optional*, defaults to `""`):
                Folder inside the repo that holds this layout.
            revision (`str`, *optional*):
                Branch, tag or commit of the repo.
            spectrogram (`str`, `dict` or [`MelSpectrogram`], *optional*):
                How the repo's spectrograms are drawn, where that is not what it says itself or what is known of its
                kind: `"auffusion"`, `"riffusion"`, or constants.
            kwargs:
                `cache_dir`, `token`, `force_download`, `local_files_only`, as in `from_pretrained`.

        Raises:
            ValueError: If a part is missing or does not fit the image side, if nothing says how the repo's
                spectrograms are drawn, or if offloading is already enabled.
        """
        check_not_offloaded(self, "load_audio_prior")
        if set(kwargs) - HUB_ARGUMENTS:
            raise ValueError(f"`load_audio_prior` takes {sorted(HUB_ARGUMENTS)} besides, but got {sorted(kwargs)}.")
        kwargs["revision"] = revision
        # The first audio side gets the constants that the pipeline was made with, if it has none of its own.
        reads = self.mel_spectrogram if self.unet_audio is None else SPECTROGRAMS["auffusion"]
        repo = AudioPriorRepo(pretrained_model_name_or_path, subfolder, kwargs, spectrogram, vocoder_reads=reads)
        default_arguments, vocoder = repo.default_arguments, repo.load_vocoder()
        check_vocoder(vocoder, repo.spectrogram)
        modules = {**self._load_audio_modules(repo), "vocoder": vocoder}
        if default_arguments is not None or repo.spectrogram != self.mel_spectrogram:
            self._set_default_arguments(default_arguments)
            self.mel_spectrogram = repo.spectrogram
            self.register_to_config(spectrogram=repo.spectrogram.to_dict(), default_arguments=default_arguments)
        for module in modules.values():
            if isinstance(module, torch.nn.Module):
                module.to(self.device)
        self.register_modules(**modules)

    def _load_audio_modules(self, repo: AudioPriorRepo) -> dict[str, Any]:
        """The audio side's modules but for the vocoder, `None` for those that equal the image side's."""
        modules = {"unet_audio": repo.load_audio(UNet2DConditionModel, "unet", dtype=self.unet.dtype)}
        for name, model_class in (("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
            # Unrounded, since what is rounded twice differs from what is rounded once.
            audio, image = repo.load_audio(model_class, name, dtype=torch.float32), getattr(self, name)
            shared = image is not None and same_weights(audio, image)
            dtype = self.unet.dtype if image is None else image.dtype
            modules[f"{name}_audio"] = None if shared else audio.to(dtype)
        return modules

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "AudioSideMixin":
        """[`DiffusionPipeline.from_pretrained`], except that `dtype` leaves the vocoder in float32."""
        for name in ("dtype", "torch_dtype"):
            dtype = kwargs.get(name)
            if isinstance(dtype, torch.dtype):
                dtype = {"default": dtype}
            if isinstance(dtype, dict):
                kwargs[name] = {**dtype, "vocoder": torch.float32}
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> "AudioSideMixin":
        """
        [`DiffusionPipeline.from_pipe`], except that optional components may be left out, and that the shared ones keep
        their precision where no `dtype` is given.
        """
        absent = {name: None for name in cls._optional_components if name not in pipeline.components}
        precision = {} if {"dtype", "torch_dtype"} & set(kwargs) else {"dtype": pipeline.unet.dtype}
        return super().from_pipe(pipeline, **{**absent, **precision, **kwargs})

    def to(self, *args: Any, **kwargs: Any) -> "AudioSideMixin":
        """[`DiffusionPipeline.to`], except that the vocoder keeps its float32 weights, which half precision ruins."""
        with kept_in_float32([] if self.vocoder is None else [self.vocoder]):
            return super().to(*args, **kwargs)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        audio_prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        do_audio_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
        audio_clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """
        Encodes both prompts, each with its side's text encoder. Prompts over the tokenizer's length are cut, with a
        warning.

        Args:
            prompt (`str` or `list[str]`): What to see; `None` where `prompt_embeds` are given, or nothing is to be.
            audio_prompt (`str` or `list[str]`): What to hear; `None` where `audio_prompt_embeds` are given, or nothing
                is to be.
            device (`torch.device`, *optional*): Where the embeddings go.
            num_images_per_prompt (`int`, defaults to 1): Repetitions of each prompt.
            do_classifier_free_guidance (`bool`, defaults to `True`): Whether the image side needs the negative prompt.
            do_audio_classifier_free_guidance (`bool`, defaults to `True`): The same for the audio side.
            negative_prompt (`str` or `list[str]`, *optional*): What not to see.
            negative_audio_prompt (`str` or `list[str]`, *optional*): What not to hear.
            prompt_embeds, ... (`torch.Tensor` of shape `(B, L, D)`, *optional*): Made before, used as they are.
            lora_scale (`float`, *optional*): Scale of the LoRA layers of the text encoders.
            clip_skip (`int`, *optional*): How many of the text encoder's last layers `prompt` is not read by.
            audio_clip_skip (`int`, *optional*): The same for `audio_prompt`.

        Returns:
            Tuple of the image side's embeddings, its negative ones, and the same of the audio side, each of shape
            `(B * num_images_per_prompt, L, D)`; negative ones are `None` where no guidance
            needs them, all of a side for which nothing is given.
        """
        image_prompts = Prompts("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, clip_skip)
        audio_embeds = (audio_prompt_embeds, negative_audio_prompt_embeds)
        audio_prompts = Prompts("audio_prompt", audio_prompt, negative_audio_prompt, *audio_embeds, audio_clip_skip)
        guided = (do_classifier_free_guidance, do_audio_classifier_free_guidance)
        prompt_embeds, negative_prompt_embeds, audio_prompt_embeds, negative_audio_prompt_embeds = self.encode_sides(
            image_prompts, audio_prompts, num_images_per_prompt, guided, lora_scale=lora_scale, device=device
        ).values()
        return prompt_embeds, negative_prompt_embeds, audio_prompt_embeds, negative_audio_prompt_embeds

    def encode_image_prompt(
        self, prompt: str | list[str] | None = None, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The image side's half of [`encode_prompt`]: embeddings and negative ones."""
        return self.encode_prompt(prompt, None, *args, **kwargs)[:2]

    def encode_audio_prompt(
        self, audio_prompt: str | list[str] | None = None, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The audio side's half of [`encode_prompt`]: embeddings and negative ones."""
        return self.encode_prompt(None, audio_prompt, *args, **kwargs)[2:]

    def encode_sides(
        self,
        image_prompts: Prompts,
        audio_prompts: Prompts,
        num_images_per_prompt: int,
        guided: tuple[bool, bool],
        *,
        lora_scale: float | None = None,
        device: torch.device | None = None,
    ) -> dict[str, torch.Tensor | None]:
        """What [`encode_prompt`] returns, by name; whether each side is guided decides on its negative embeddings."""
        embeds, audio_encoder = {}, self.audio_side.text_encoder
        # A LoRA is the image side's, also where its text encoder reads the audio prompts.
        shared = audio_encoder is self.text_encoder
        audio_lora = _lora_silenced(audio_encoder) if shared else _lora_scaled(audio_encoder, lora_scale)
        for prompts, side, with_negative, lora in (
            (image_prompts, self.image_side, guided[0], _lora_scaled(self.text_encoder, lora_scale)),
            (audio_prompts, self.audio_side, guided[1], audio_lora),
        ):
            pair = (None, None)
            if prompts.are_given:
                with lora:
                    pair = self._encode_side(side, prompts, device, num_images_per_prompt, with_negative)
            embeds[f"{prompts.name}_embeds"], embeds[f"negative_{prompts.name}_embeds"] = pair
        return embeds

    def _with_negatives(self, embeds: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
        """Embeddings of `encode_sides`, each side's as its `predict_noise` takes them."""
        sides = {"prompt_embeds": self.image_side, "audio_prompt_embeds": self.audio_side}
        return {name: side.with_negative(embeds[name], embeds[f"negative_{name}"]) for name, side in sides.items()}

    def _encode_side(
        self,
        side: Side,
        prompts: Prompts,
        device: torch.device | None,
        num_images_per_prompt: int,
        guided: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        prompts.check(side.text_encoder, guided, side.hidden_size)
        device = device or self._execution_device
        encode_words = partial(self._encode_words, side, name=prompts.name, device=device)
        dtype = (side.text_encoder if self.unet is None else self.unet).dtype
        return prompts.encode(encode_words, guided, num_images_per_prompt, device, dtype)

    def _encode_words(
        self, side: Side, prompts: list[str], name: str, device: torch.device, clip_skip: int | None = None
    ) -> torch.Tensor:
        if hasattr(self, "maybe_convert_prompt"):
            prompts = self.maybe_convert_prompt(prompts, side.tokenizer)
        tokens = tokenize(side.tokenizer, prompts).input_ids
        if tokens.max() >= side.text_encoder.config.vocab_size:
            raise ValueError(
                f"`{name}` or its negative holds a token that only the image side knows: {shown(prompts)}."
            )
        if clip_skip is None:
            return side.text_encoder(tokens.to(device))[0]
        layers = side.text_encoder(tokens.to(device), output_hidden_states=True).hidden_states
        # transformers moved the norm from `text_model` to the encoder itself.
        model = getattr(side.text_encoder, "text_model", side.text_encoder)
        return model.final_layer_norm(layers[-1 - clip_skip])

    def _check_audio_prior(self) -> None:
        if self.unet_audio is None:
            raise ValueError(
                "`unet_audio` is not loaded yet. Call `pipe.load_audio_prior(...)` with a repo such as"
                " 'auffusion/auffusion-full-no-adapter' or 'riffusion/riffusion-model-v1', or load a repo that holds"
                " both sides."
            )

    def _check_batch(
        self,
        image_prompts: Prompts,
        audio_prompts: Prompts,
        scales: tuple[float, float],
        num_images_per_prompt: int,
        *,
        generator: torch.Generator | list[torch.Generator] | None,
        own: dict[str, int] = {},
        starts: dict[str, int] = {},
        rescales: tuple[float, float] = (0.0, 0.0),
    ) -> int:
        """
        Checks prompts, guidance and generators; `own` says how many the caller brings of what a prompt would make, by
        its argument, and `starts` of what is made from it and a prompt. Returns the batch size.
        """
        for name, rescale in zip(("guidance_rescale", "audio_guidance_rescale"), rescales):
            check_number(name, rescale, least=0, most=1)
        counts = {**own, **starts}
        for prompts, side, name, scale, replaced in (
            (image_prompts, self.image_side, "guidance_scale", scales[0], "image" in own),
            (audio_prompts, self.audio_side, "audio_guidance_scale", scales[1], "audio" in own),
        ):
            check_number(name, scale)
            if not replaced:
                counts[prompts.name] = prompts.check(side.text_encoder, is_guided(side.unet, scale), side.hidden_size)
        batch_size = common_batch_size(counts, num_images_per_prompt)
        check_generator(generator, batch_size)
        return batch_size

    def _check_playable(self, name: str, columns: int) -> None:
        least = self.mel_spectrogram.min_columns
        if self.vocoder is None and columns < least:
            raise ValueError(f"`{name}` has to give at least {least} columns to Griffin-Lim, but gives {columns}.")

    def play(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Waveforms `(B, N)` of gray canvases `(B, 1, M, T)` in 0..1, by the vocoder where there is one."""
        check_tensor("spectrograms", spectrograms, ("B", 1, self.mel_spectrogram.num_mel_bins, "T"))
        with torch.no_grad():
            return self.mel_spectrogram.canvas_to_audio(spectrograms, self.vocoder)

    def convert(
        self, images: torch.Tensor, spectrograms: torch.Tensor, audios: torch.Tensor, output_type: str
    ) -> tuple[list[PIL.Image.Image] | np.ndarray | torch.Tensor, ...]:
        """Pictures and canvases in 0..1, and waveforms, as `"pil"` (whose waveforms are arrays), `"np"` or `"pt"`."""
        images, spectrograms = (
            self.image_processor.postprocess(canvases, output_type, do_denormalize=[False] * len(canvases))
            for canvases in (images, spectrograms)
        )
        return images, spectrograms, audios.cpu() if output_type == "pt" else audios.cpu().numpy()

    def _report(self, images: torch.Tensor, spectrograms: torch.Tensor, audios: torch.Tensor) -> None:
        for i, (image, spectrogram, audio) in enumerate(zip(images, spectrograms, audios.cpu().numpy())):
            problems = audio_problems(audio)
            for name, canvas in (("spectrogram", spectrogram), ("picture", image)):
                if not torch.isfinite(canvas).all():
                    problems.insert(0, f"the {name} has values that are not finite")
            if problems:
                logger.warning(f"Sample {i}: {'; '.join(problems)}.")


@contextmanager
def _lora_scaled(text_encoder: PreTrainedModel | None, scale: float | None) -> Iterator[None]:
    """Scales a text encoder's LoRA layers inside."""
    active = scale is not None and hasattr(text_encoder, "peft_config")
    if active:
        scale_lora_layers(text_encoder, scale)
    try:
        yield
    finally:
        if active:
            unscale_lora_layers(text_encoder, scale)


@contextmanager
def _lora_silenced(text_encoder: PreTrainedModel | None) -> Iterator[None]:
    """Leaves a text encoder's LoRA layers out inside."""
    modules = [] if text_encoder is None else text_encoder.modules()
    layers = [module for module in modules if getattr(module, "disable_adapters", None) is False]
    # A layer that runs without what is fused into it takes that out of its weights for good.
    layers = [layer for layer in layers if not layer.merged]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
