"""What every pipeline with an image side and an audio side shares: components, prompts, latents, sizes, checks."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import logging, scale_lora_layers, unscale_lora_layers
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

from .images_that_sound_audio_prior import AudioPriorLoaderMixin, check_vocoder
from .images_that_sound_checks import check_negative_prompt, check_prompt, check_scale, is_positive_int
from .images_that_sound_spectrogram import MelSpectrogram, audio_problems


logger = logging.get_logger(__name__)

# Call arguments for which a checkpoint's config may name its own defaults.
CHECKPOINT_ARGUMENTS = (
    "height",
    "width",
    "crop_right",
    "num_inference_steps",
    "num_audio_inference_steps",
    "guidance_scale",
    "audio_guidance_scale",
    "audio_weight",
    "image_guidance_start",
    "image_guidance_end",
    "audio_guidance_start",
    "audio_guidance_end",
    "num_iterations",
    "num_crops",
    "crop_width",
    "image_start_step",
)


class TwoSidesMixin(AudioPriorLoaderMixin):
    """
    The components of Stable Diffusion and Auffusion and what the pipelines do with them. A pipeline that inherits this
    before [`DiffusionPipeline`] names in `_paper_arguments` what its call does where neither the caller nor the
    checkpoint says otherwise.
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

    # Optional components have no default: diffusers would ignore what a caller of `DiffusionPipeline` passes for them.
    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        unet_audio: UNet2DConditionModel,
        vocoder: SpeechT5HifiGan,
        vae_audio: AutoencoderKL,
        text_encoder_audio: CLIPTextModel,
        spectrogram: dict | None = None,
        default_arguments: dict | None = None,
    ):
        super().__init__()
        if isinstance(scheduler, PNDMScheduler):
            scheduler = DDIMScheduler.from_config(scheduler.config)
        self.mel_spectrogram = MelSpectrogram.from_dict(spectrogram or {})
        unknown = set(default_arguments or {}) - set(CHECKPOINT_ARGUMENTS)
        if unknown:
            raise ValueError(f"`default_arguments` may name {CHECKPOINT_ARGUMENTS}, but names {sorted(unknown)}.")
        self._set_default_arguments(default_arguments)
        check_vocoder(vocoder, self.mel_spectrogram)
        if vocoder is not None:
            vocoder.float()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            unet_audio=unet_audio,
            vocoder=vocoder,
            vae_audio=vae_audio,
            text_encoder_audio=text_encoder_audio,
        )
        self.register_to_config(spectrogram=self.mel_spectrogram.to_dict(), default_arguments=default_arguments)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

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
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    @property
    def do_audio_classifier_free_guidance(self) -> bool:
        return self._audio_guidance_scale > 1

    @property
    def cross_attention_kwargs(self) -> dict | None:
        return self._cross_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def _begin_call(
        self,
        guidance_scale: float | None,
        audio_guidance_scale: float | None,
        cross_attention_kwargs: dict[str, Any] | None,
    ) -> None:
        """Sets what the properties above say during a call."""
        self._guidance_scale = check_scale("guidance_scale", self._default("guidance_scale", guidance_scale))
        self._audio_guidance_scale = check_scale(
            "audio_guidance_scale", self._default("audio_guidance_scale", audio_guidance_scale)
        )
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False

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
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """
        Encodes both prompts, each with its side's text encoder. Prompts over the tokenizer's length are cut, with a
        warning.

        Args:
            prompt (`str` or `list[str]`): What to see; `None` where `prompt_embeds` are given.
            audio_prompt (`str` or `list[str]`): What to hear; `None` where `audio_prompt_embeds` are given.
            device (`torch.device`, *optional*): Where the embeddings go.
            num_images_per_prompt (`int`, defaults to 1): Repetitions of each prompt.
            do_classifier_free_guidance (`bool`, defaults to `True`): Whether the image side needs the negative prompt.
            do_audio_classifier_free_guidance (`bool`, defaults to `True`): The same for the audio side.
            negative_prompt (`str` or `list[str]`, *optional*): What not to see.
            negative_audio_prompt (`str` or `list[str]`, *optional*): What not to hear.
            prompt_embeds, negative_prompt_embeds, audio_prompt_embeds, negative_audio_prompt_embeds
                (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings made before, used as they are.
            lora_scale (`float`, *optional*): Scale of the LoRA layers of the image side's text encoder.

        Returns:
            Tuple of the image side's embeddings, its negative ones, and the same of the audio side, each of shape
            `(B * num_images_per_prompt, L, D)`; negative ones are `None` where no guidance needs them.
        """
        image_embeds = self.encode_image_prompt(
            prompt,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            lora_scale,
        )
        audio_embeds = self.encode_audio_prompt(
            audio_prompt,
            device,
            num_images_per_prompt,
            do_audio_classifier_free_guidance,
            negative_audio_prompt,
            audio_prompt_embeds,
            negative_audio_prompt_embeds,
        )
        return *image_embeds, *audio_embeds

    def encode_image_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The image side's half of [`encode_prompt`]: embeddings and negative ones."""
        with _lora_scaled(self.text_encoder, lora_scale):
            return self._encode_side(
                self.text_encoder,
                prompt,
                device,
                num_images_per_prompt,
                do_classifier_free_guidance,
                negative_prompt,
                prompt_embeds,
                negative_prompt_embeds,
            )

    def encode_audio_prompt(
        self,
        audio_prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_audio_classifier_free_guidance: bool = True,
        negative_audio_prompt: str | list[str] | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The audio side's half of [`encode_prompt`]: embeddings and negative ones."""
        text_encoder_audio = self.text_encoder_audio or self.text_encoder
        # A LoRA is the image side's, also where its text encoder reads the audio prompts.
        with _lora_silenced(text_encoder_audio):
            return self._encode_side(
                text_encoder_audio,
                audio_prompt,
                device,
                num_images_per_prompt,
                do_audio_classifier_free_guidance,
                negative_audio_prompt,
                audio_prompt_embeds,
                negative_audio_prompt_embeds,
            )

    def _encode_side(
        self,
        text_encoder: CLIPTextModel,
        prompt: str | list[str] | None,
        device: torch.device | None,
        num_images_per_prompt: int,
        guided: bool,
        negative_prompt: str | list[str] | None,
        embeds: torch.Tensor | None,
        negative_embeds: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        device = device or self._execution_device
        if embeds is None:
            embeds = self._encode(text_encoder, _as_list(prompt), device)
        if guided and negative_embeds is None:
            negative_embeds = self._encode(text_encoder, _as_list(negative_prompt or "", len(embeds)), device)
        dtype = (self.unet or text_encoder).dtype
        embeds, negative_embeds = (
            None if each is None else each.to(device, dtype).repeat_interleave(num_images_per_prompt, dim=0)
            for each in (embeds, negative_embeds if guided else None)
        )
        return embeds, negative_embeds

    def _encode(self, text_encoder: CLIPTextModel, prompts: list[str], device: torch.device) -> torch.Tensor:
        prompts = self.maybe_convert_prompt(prompts, self.tokenizer)
        max_length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
        ).input_ids
        if tokens.max() >= text_encoder.config.vocab_size:
            raise ValueError(
                f"`audio_prompt` or its negative holds a token that only the image side knows: {prompts}."
            )
        for prompt in prompts:
            ids = self.tokenizer(prompt).input_ids
            if len(ids) > max_length:
                removed = self.tokenizer.decode(ids[max_length - 1 : -1])
                logger.warning(f"A prompt is cut to {max_length} tokens, which leaves out: {removed}")
        return text_encoder(tokens.to(device))[0]

    def _check_prompts(
        self,
        prompt: str | list[str] | None,
        audio_prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        negative_audio_prompt: str | list[str] | None,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        audio_prompt_embeds: torch.Tensor | None,
        negative_audio_prompt_embeds: torch.Tensor | None,
    ) -> int:
        """Raises `ValueError` for prompts that do not fit together; returns their number."""
        image_batch = check_prompt("prompt", prompt, prompt_embeds)
        audio_batch = check_prompt("audio_prompt", audio_prompt, audio_prompt_embeds)
        if image_batch != audio_batch:
            raise ValueError(
                f"`prompt` and `audio_prompt` have to be of equal lengths, but there are {image_batch} and"
                f" {audio_batch}."
            )
        for name, value, embeds, positive in (
            ("negative_prompt", negative_prompt, negative_prompt_embeds, prompt_embeds),
            ("negative_audio_prompt", negative_audio_prompt, negative_audio_prompt_embeds, audio_prompt_embeds),
        ):
            check_negative_prompt(name, value, embeds, positive, image_batch)
        return image_batch

    def _check_audio_prior(self) -> None:
        if self.unet_audio is None:
            raise ValueError(
                "`unet_audio` is not loaded yet. Call `pipe.load_audio_prior(...)` with an Auffusion repo such as"
                " 'auffusion/auffusion-full-no-adapter', or load a repo that holds both sides."
            )

    def _check_latents(
        self, name: str, latents: torch.Tensor | None, batch_size: int, height: int, width: int
    ) -> None:
        sides = (side // self.vae_scale_factor for side in (height, width))
        shape = (batch_size, self.unet.config.in_channels, *sides)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"`{name}` has to be of shape {shape}, but is of shape {tuple(latents.shape)}.")

    def _check_callback(self, callback_on_step_end_tensor_inputs: list[str] | None) -> None:
        unknown = set(callback_on_step_end_tensor_inputs or []) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be among {self._callback_tensor_inputs}, but names"
                f" {sorted(unknown)}."
            )

    def _check_canvas(self, height: int, width: int, crop_right: int, canvas_layout: str) -> None:
        if canvas_layout not in ("strip", "folded"):
            raise ValueError(f"`canvas_layout` has to be 'strip' or 'folded', but is {canvas_layout!r}.")
        for name, value in (("height", height), ("width", width)):
            if not is_positive_int(value) or value % self.vae_scale_factor:
                raise ValueError(
                    f"`{name}` has to be a positive multiple of {self.vae_scale_factor}, but is {value!r}."
                )
        rows = self.mel_spectrogram.num_mel_bins * (2 if canvas_layout == "folded" else 1)
        if height != rows:
            raise ValueError(
                f"`height` has to be {rows} for `canvas_layout='{canvas_layout}'`, so that each row of the canvas is"
                f" one of the {self.mel_spectrogram.num_mel_bins} mel bins that the sound is made from, but is"
                f" {height}."
            )
        columns = width * (2 if canvas_layout == "folded" else 1)
        if crop_right >= columns:
            raise ValueError(f"`crop_right` has to be below the {columns} columns of the canvas, but is {crop_right}.")

    def _resolve_size(
        self, height: int | None, width: int | None, crop_right: int, canvas_layout: str, seconds: float | None
    ) -> tuple[int, int, int]:
        """Height and width of the picture in pixels, and how many columns to cut from the end of the sound."""
        if not isinstance(crop_right, int) or isinstance(crop_right, bool) or crop_right < 0:
            raise ValueError(f"`crop_right` has to be an integer from 0 on, but is {crop_right!r}.")
        folds = 2 if canvas_layout == "folded" else 1
        height = self.default_arguments["height"] * folds if height is None else height
        if seconds is None:
            return height, self.default_arguments["width"] // folds if width is None else width, crop_right
        if width is not None:
            raise ValueError(f"`width` and `audio_length_in_s` exclude each other, but are {width} and {seconds}.")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
            raise ValueError(f"`audio_length_in_s` has to be a positive number of seconds, but is {seconds!r}.")
        columns = max(round(seconds * self.mel_spectrogram.columns_per_second), 1)
        width = -(-(columns + crop_right) // (folds * self.vae_scale_factor)) * self.vae_scale_factor
        return height, width, width * folds - columns

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
        is_initial_noise: bool = True,
    ) -> torch.Tensor:
        """
        Draws latents of shape `(B, C, H / 8, W / 8)`, or takes given ones, at the scheduler's initial scale; given
        ones that are no initial noise, as they are.
        """
        shape = (batch_size, num_channels_latents, height // self.vae_scale_factor, width // self.vae_scale_factor)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        latents = latents.to(device)
        return latents * self.scheduler.init_noise_sigma if is_initial_noise else latents

    def prepare_extra_step_kwargs(
        self, generator: torch.Generator | list[torch.Generator] | None, eta: float
    ) -> dict[str, Any]:
        """What of `eta` and `generator` the scheduler's `step` takes."""
        parameters = inspect.signature(self.scheduler.step).parameters
        return {k: v for k, v in (("eta", eta), ("generator", generator)) if k in parameters}

    def _predict_noise(
        self,
        unet: UNet2DConditionModel,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        embeds: torch.Tensor,
        guidance_scale: float,
    ) -> torch.Tensor:
        """One model's noise prediction; with guidance, `embeds` holds the negative prompts before the prompts."""
        rows = torch.cat([latents] * 2) if guidance_scale > 1 else latents
        noise_pred = unet(
            self.scheduler.scale_model_input(rows, timestep),
            timestep,
            encoder_hidden_states=embeds,
            cross_attention_kwargs=self.cross_attention_kwargs,
            return_dict=False,
        )[0]
        if guidance_scale > 1:
            noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
            noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
        return noise_pred

    def decode_latents(self, latents: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
        """Latents of shape `(B, C, H / 8, W / 8)` to pictures of shape `(B, 3, H, W)` in 0..1."""
        decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return self.image_processor.denormalize(decoded)

    def _convert(
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

    def _default(self, name: str, value: Any) -> Any:
        return self.default_arguments[name] if value is None else value


@contextmanager
def _lora_scaled(text_encoder: CLIPTextModel, scale: float | None) -> Iterator[None]:
    active = scale is not None and hasattr(text_encoder, "peft_config")
    if active:
        scale_lora_layers(text_encoder, scale)
    try:
        yield
    finally:
        if active:
            unscale_lora_layers(text_encoder, scale)


@contextmanager
def _lora_silenced(text_encoder: CLIPTextModel) -> Iterator[None]:
    layers = [module for module in text_encoder.modules() if getattr(module, "disable_adapters", None) is False]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _as_list(value: str | list[str], times: int = 1) -> list[str]:
    return [value] * times if isinstance(value, str) else list(value)
