"""Images that sound (arXiv 2405.12221): one canvas, denoised by an image model and a spectrogram model at once."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, PNDMScheduler, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput, logging, replace_example_docstring, scale_lora_layers, unscale_lora_layers
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

from .images_that_sound_audio_prior import AudioPriorLoaderMixin, check_vocoder
from .images_that_sound_spectrogram import MelSpectrogram, audio_problems
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401  diffusers copies only files named here
from .images_that_sound_weights import audio_noise_shares


logger = logging.get_logger(__name__)

# What a call does where an argument is left out and the checkpoint's config names nothing else: the paper's settings.
DEFAULT_ARGUMENTS = {
    "height": 256,
    "width": 1024,
    "crop_right": 32,
    "num_inference_steps": 100,
    "guidance_scale": 10.0,
    "audio_guidance_scale": 10.0,
    "audio_weight": 0.5,
    "image_guidance_start": 0.1,
    "image_guidance_end": 1.0,
    "audio_guidance_start": 0.0,
    "audio_guidance_end": 1.0,
}

# A larger change of the mixture within one step makes the history of a multistep scheduler useless.
MIXTURE_JUMP = 0.1

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from images_that_sound.pipelines import ImagesThatSoundPipeline

        >>> pipe = ImagesThatSoundPipeline.from_pretrained(
        ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16
        ... )
        >>> pipe.load_audio_prior("auffusion/auffusion-full-no-adapter")
        >>> pipe.enable_model_cpu_offload()
        >>> output = pipe("a painting of castle towers, grayscale", "bell ringing")
        >>> output.images[0].save("castle.png")

        >>> import soundfile
        >>> soundfile.write("castle.wav", output.audios[0], pipe.sampling_rate)
        ```
"""


@dataclass
class ImagesThatSoundPipelineOutput(BaseOutput):
    """
    Output of [`ImagesThatSoundPipeline`].

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


class ImagesThatSoundPipeline(
    AudioPriorLoaderMixin, DiffusionPipeline, TextualInversionLoaderMixin, StableDiffusionLoraLoaderMixin
):
    r"""
    Pipeline for images that sound: at every denoising step Stable Diffusion and a spectrogram model fine-tuned from it
    predict the noise of the same latents, and the scheduler takes one step along the weighted average
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)).

    Load it from a Stable Diffusion repo and then call [`~ImagesThatSoundPipeline.load_audio_prior`], or from a repo
    that holds both sides. LoRA and textual inversion are the image side's.

    Args:
        vae ([`AutoencoderKL`]): Decodes pictures, and spectrograms too unless `vae_audio` is given.
        text_encoder ([`~transformers.CLIPTextModel`]): Encodes image prompts, and audio prompts too unless
            `text_encoder_audio` is given.
        tokenizer ([`~transformers.CLIPTokenizer`]): Serves both prompts.
        unet ([`UNet2DConditionModel`]): The image side's noise predictor.
        scheduler ([`SchedulerMixin`]): Any scheduler whose `step` takes a noise prediction. The `PNDMScheduler` that
            Stable Diffusion repos name is replaced by `DDIMScheduler` built from its config, the paper's sampler;
            assign `pipe.scheduler` for another.
        unet_audio ([`UNet2DConditionModel`], *optional*): The audio side's noise predictor on the same latents.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim where
            absent.
        vae_audio ([`AutoencoderKL`], *optional*): Only where the audio side's VAE differs.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): Only where the audio side's differs.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`]; Auffusion's where absent.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
    """

    # `unet_audio` is left out: in the chain it would push `unet` off the device at every step, and `unet` it.
    model_cpu_offload_seq = "text_encoder->text_encoder_audio->unet->vae->vae_audio->vocoder"
    _optional_components = ["unet_audio", "vocoder", "vae_audio", "text_encoder_audio"]
    _callback_tensor_inputs = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "audio_prompt_embeds",
        "negative_audio_prompt_embeds",
    ]

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
        unknown = set(default_arguments or {}) - set(DEFAULT_ARGUMENTS)
        if unknown:
            raise ValueError(f"`default_arguments` may name {list(DEFAULT_ARGUMENTS)}, but names {sorted(unknown)}.")
        self.default_arguments = {**DEFAULT_ARGUMENTS, **(default_arguments or {})}
        if vocoder is not None:
            check_vocoder(vocoder, self.mel_spectrogram)
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
        device = device or self._execution_device
        image_batch = len(prompt_embeds) if prompt_embeds is not None else len(_as_list(prompt))
        audio_batch = len(audio_prompt_embeds) if audio_prompt_embeds is not None else len(_as_list(audio_prompt))
        with _lora_scaled(self.text_encoder, lora_scale):
            if prompt_embeds is None:
                prompt_embeds = self._encode(self.text_encoder, _as_list(prompt), device)
            if not do_classifier_free_guidance:
                negative_prompt_embeds = None
            elif negative_prompt_embeds is None:
                negative = _as_list(negative_prompt or "", image_batch)
                negative_prompt_embeds = self._encode(self.text_encoder, negative, device)
        text_encoder_audio = self.text_encoder_audio or self.text_encoder
        # A LoRA is the image side's, also where its text encoder reads the audio prompts.
        with _lora_silenced(text_encoder_audio):
            if audio_prompt_embeds is None:
                audio_prompt_embeds = self._encode(text_encoder_audio, _as_list(audio_prompt), device)
            if not do_audio_classifier_free_guidance:
                negative_audio_prompt_embeds = None
            elif negative_audio_prompt_embeds is None:
                negative = _as_list(negative_audio_prompt or "", audio_batch)
                negative_audio_prompt_embeds = self._encode(text_encoder_audio, negative, device)
        prompt_embeds = self._repeat(prompt_embeds, num_images_per_prompt, self.unet.dtype, device)
        negative_prompt_embeds = self._repeat(negative_prompt_embeds, num_images_per_prompt, self.unet.dtype, device)
        audio_prompt_embeds = self._repeat(audio_prompt_embeds, num_images_per_prompt, self.unet.dtype, device)
        negative_audio_prompt_embeds = self._repeat(
            negative_audio_prompt_embeds, num_images_per_prompt, self.unet.dtype, device
        )
        return prompt_embeds, negative_prompt_embeds, audio_prompt_embeds, negative_audio_prompt_embeds

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

    @staticmethod
    def _repeat(embeds: torch.Tensor | None, times: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return None if embeds is None else embeds.to(device, dtype).repeat_interleave(times, dim=0)

    def check_inputs(
        self,
        prompt: str | list[str] | None,
        audio_prompt: str | list[str] | None,
        height: int,
        width: int,
        crop_right: int,
        canvas_layout: str,
        output_type: str,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> int:
        """Raises `ValueError` for arguments that do not make sense; returns the number of prompts."""
        if self.unet_audio is None:
            raise ValueError(
                "`unet_audio` is not loaded yet. Call `pipe.load_audio_prior(...)` with an Auffusion repo such as"
                " 'auffusion/auffusion-full-no-adapter', or load a repo that holds both sides."
            )
        image_batch = _check_prompt("prompt", prompt, prompt_embeds)
        audio_batch = _check_prompt("audio_prompt", audio_prompt, audio_prompt_embeds)
        if image_batch != audio_batch:
            raise ValueError(
                f"`prompt` and `audio_prompt` have to be of equal lengths, but there are {image_batch} and"
                f" {audio_batch}."
            )
        for name, value, embeds, positive in (
            ("negative_prompt", negative_prompt, negative_prompt_embeds, prompt_embeds),
            ("negative_audio_prompt", negative_audio_prompt, negative_audio_prompt_embeds, audio_prompt_embeds),
        ):
            _check_negative_prompt(name, value, embeds, positive, image_batch)
        if not _is_positive_int(num_images_per_prompt):
            raise ValueError(
                f"`num_images_per_prompt` has to be a positive integer, but is {num_images_per_prompt!r}."
            )
        batch_size = image_batch * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(
                f"`generator` has to be one generator or a list of {batch_size}, one per image, but has"
                f" {len(generator)}."
            )
        self._check_canvas(height, width, crop_right, canvas_layout)
        shape = (
            batch_size,
            self.unet.config.in_channels,
            *(side // self.vae_scale_factor for side in (height, width)),
        )
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"`latents` has to be of shape {shape}, but is of shape {tuple(latents.shape)}.")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"`output_type` has to be 'pil', 'np', 'pt' or 'latent', but is {output_type!r}.")
        unknown = set(callback_on_step_end_tensor_inputs or []) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be among {self._callback_tensor_inputs}, but names"
                f" {sorted(unknown)}."
            )
        return image_batch

    def _check_canvas(self, height: int, width: int, crop_right: int, canvas_layout: str) -> None:
        if canvas_layout not in ("strip", "folded"):
            raise ValueError(f"`canvas_layout` has to be 'strip' or 'folded', but is {canvas_layout!r}.")
        for name, value in (("height", height), ("width", width)):
            if not _is_positive_int(value) or value % self.vae_scale_factor:
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
    ) -> torch.Tensor:
        """Draws latents of shape `(B, C, H / 8, W / 8)`, or takes given ones, at the scheduler's initial scale."""
        shape = (batch_size, num_channels_latents, height // self.vae_scale_factor, width // self.vae_scale_factor)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return latents.to(device) * self.scheduler.init_noise_sigma

    def prepare_extra_step_kwargs(
        self, generator: torch.Generator | list[torch.Generator] | None, eta: float
    ) -> dict[str, Any]:
        """What of `eta` and `generator` the scheduler's `step` takes."""
        parameters = inspect.signature(self.scheduler.step).parameters
        return {k: v for k, v in (("eta", eta), ("generator", generator)) if k in parameters}

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

    def _forget_history(self, index: int, noise_pred: torch.Tensor, num_inference_steps: int) -> None:
        """Makes a multistep scheduler go on from `index` as from a start: its history belongs to another mixture."""
        if hasattr(self.scheduler, "ets") and hasattr(self.scheduler, "counter"):
            self.scheduler.ets = [noise_pred] * 3
        elif hasattr(self.scheduler, "derivatives"):
            self.scheduler.derivatives = [noise_pred] * 3
        elif hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_timesteps(num_inference_steps, device=noise_pred.device)
            self.scheduler.set_begin_index(index)

    def decode_latents(self, latents: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
        """Latents of shape `(B, C, H / 8, W / 8)` to pictures of shape `(B, 3, H, W)` in 0..1."""
        decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return self.image_processor.denormalize(decoded)

    def _report(self, images: torch.Tensor, spectrograms: torch.Tensor, audios: torch.Tensor) -> None:
        for i, (image, spectrogram, audio) in enumerate(zip(images, spectrograms, audios.cpu().numpy())):
            problems = audio_problems(audio)
            for name, canvas in (("spectrogram", spectrogram), ("picture", image)):
                if not torch.isfinite(canvas).all():
                    problems.insert(0, f"the {name} has values that are not finite")
            if problems:
                logger.warning(f"Sample {i}: {'; '.join(problems)}.")

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        audio_prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        audio_guidance_scale: float | None = None,
        audio_weight: float | list[float] | Any | None = None,
        image_guidance_start: float | None = None,
        audio_guidance_start: float | None = None,
        image_guidance_end: float | None = None,
        audio_guidance_end: float | None = None,
        canvas_layout: str = "strip",
        crop_right: int | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> ImagesThatSoundPipelineOutput | tuple:
        r"""
        Makes pictures that sound.

        Arguments marked "checkpoint" default to what the checkpoint's config names, else to the value given here, the
        paper's.

        Args:
            prompt (`str` or `list[str]`):
                What to see, not empty.
            audio_prompt (`str` or `list[str]`):
                What to hear, not empty, as many as `prompt`.
            negative_prompt (`str` or `list[str]`, *optional*):
                What not to see; one for all or one per prompt. Unused where `guidance_scale` is at most 1.
            negative_audio_prompt (`str` or `list[str]`, *optional*):
                What not to hear. Unused where `audio_guidance_scale` is at most 1.
            height (`int`, *optional*, checkpoint, defaults to 256):
                Pixels of the picture: the number of mel bins, twice that for the folded layout.
            width (`int`, *optional*, checkpoint, defaults to 1024):
                Pixels of the picture, a multiple of 8. The sound lasts `hop_length / sampling_rate` (0.01 s) per
                spectrogram column. The folded layout defaults to half of it.
            audio_length_in_s (`float`, *optional*):
                Exact length of the sound in seconds, to the column, instead of `width`: the canvas is made as wide as
                it takes, and what is more is cut from its right end.
            num_inference_steps (`int`, *optional*, checkpoint, defaults to 100):
                Denoising steps.
            guidance_scale (`float`, *optional*, checkpoint, defaults to 10.0):
                Classifier-free guidance of the image side; off at 1 and below.
            audio_guidance_scale (`float`, *optional*, checkpoint, defaults to 10.0):
                Classifier-free guidance of the audio side; off at 1 and below.
            audio_weight (`float`, `list[float]` or schedule, *optional*, checkpoint, defaults to 0.5):
                Weight of the audio side's noise in 0..1, the image side's is one minus it: one number, one per step,
                or an object with a method `audio_noise_shares(num_inference_steps)` such as
                [`~images_that_sound.schedulers.ModalityScheduler`], which then decides on starts and ends too.
            image_guidance_start (`float`, *optional*, checkpoint, defaults to 0.1):
                Fraction of the steps in 0..1 before which the image side is silent, and not run.
            audio_guidance_start (`float`, *optional*, checkpoint, defaults to 0.0):
                Fraction of the steps in 0..1 before which the audio side is silent, and not run.
            image_guidance_end (`float`, *optional*, checkpoint, defaults to 1.0):
                Fraction of the steps in 0..1 from which the image side is silent, at least its start.
            audio_guidance_end (`float`, *optional*, checkpoint, defaults to 1.0):
                Fraction of the steps in 0..1 from which the audio side is silent, at least its start.
            canvas_layout (`str`, defaults to `"strip"`):
                `"strip"`: the picture is the spectrogram. `"folded"`: a square picture whose top half is played first,
                then its bottom half.
            crop_right (`int`, *optional*, checkpoint, defaults to 32):
                Columns cut from the right end of canvas and sound: the dark strip that Auffusion learned. A folded
                picture stays whole; its spectrogram and sound are cut.
            num_images_per_prompt (`int`, defaults to 1):
                Samples for each pair of prompts.
            eta (`float`, defaults to 0.0):
                Share of fresh noise in 0..1, for schedulers that take it (DDIM, arXiv 2010.02502, equation 16).
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Source of the noise, one for all or one per sample. With a list, each sample is what a single call with
                its generator gives.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*):
                Initial noise of unit variance.
            prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `prompt`.
            negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `negative_prompt`.
            audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `audio_prompt`.
            negative_audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `negative_audio_prompt`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"`, `"pt"`, or `"latent"`, which decodes nothing.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagesThatSoundPipelineOutput`] or a plain tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step; what it returns in its
                dict replaces the tensors. Setting `pipe._interrupt = True` skips the steps that are left.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                Tensors that the callback gets, among `latents`, `prompt_embeds`, `negative_prompt_embeds`,
                `audio_prompt_embeds` and `negative_audio_prompt_embeds`.
            cross_attention_kwargs (`dict`, *optional*):
                Passed to the attention processors of both UNets; `scale` is also the LoRA scale of the text encoder.

        Examples:

        Returns:
            [`ImagesThatSoundPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms. A result that is
            silent, clipped or not finite is reported by a logged warning.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 0. Defaults of the checkpoint
        num_inference_steps = self._default("num_inference_steps", num_inference_steps)
        crop_right = self._default("crop_right", crop_right)
        height, width, cut_columns = self._resolve_size(height, width, crop_right, canvas_layout, audio_length_in_s)

        # 1. Check inputs
        num_prompts = self.check_inputs(
            prompt,
            audio_prompt,
            height,
            width,
            cut_columns,
            canvas_layout,
            output_type,
            num_images_per_prompt,
            generator,
            latents,
            negative_prompt,
            negative_audio_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            audio_prompt_embeds,
            negative_audio_prompt_embeds,
            callback_on_step_end_tensor_inputs,
        )
        audio_shares = self._audio_noise_shares(
            num_inference_steps,
            audio_weight,
            image_guidance_start=image_guidance_start,
            image_guidance_end=image_guidance_end,
            audio_guidance_start=audio_guidance_start,
            audio_guidance_end=audio_guidance_end,
        )
        self._guidance_scale = _check_scale("guidance_scale", self._default("guidance_scale", guidance_scale))
        self._audio_guidance_scale = _check_scale(
            "audio_guidance_scale", self._default("audio_guidance_scale", audio_guidance_scale)
        )
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False
        device = self._execution_device

        # 2. Encode both prompts
        prompt_embeds, negative_prompt_embeds, audio_prompt_embeds, negative_audio_prompt_embeds = self.encode_prompt(
            prompt,
            audio_prompt,
            device,
            num_images_per_prompt,
            self.do_classifier_free_guidance,
            self.do_audio_classifier_free_guidance,
            negative_prompt,
            negative_audio_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            audio_prompt_embeds,
            negative_audio_prompt_embeds,
            lora_scale=(cross_attention_kwargs or {}).get("scale"),
        )
        if self.do_classifier_free_guidance:
            prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
        if self.do_audio_classifier_free_guidance:
            audio_prompt_embeds = torch.cat([negative_audio_prompt_embeds, audio_prompt_embeds])

        # 3. Prepare timesteps
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)

        # 4. Prepare latents
        latents = self.prepare_latents(
            num_prompts * num_images_per_prompt,
            self.unet.config.in_channels,
            height,
            width,
            prompt_embeds.dtype,
            device,
            generator,
            latents,
        )
        extra_step_kwargs = self.prepare_extra_step_kwargs(generator, eta)

        # 5. Denoise by both models
        order = self.scheduler.order
        num_warmup_steps = max(len(timesteps) - num_inference_steps * order, 0)
        previous_share = None
        with self.progress_bar(total=num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                audio_share = audio_shares[max(i - num_warmup_steps, 0) // order]

                if audio_share < 1:
                    image_noise_pred = self._predict_noise(self.unet, latents, t, prompt_embeds, self.guidance_scale)
                if audio_share > 0:
                    audio_latents = unfold_canvas(latents) if canvas_layout == "folded" else latents
                    audio_noise_pred = self._predict_noise(
                        self.unet_audio, audio_latents, t, audio_prompt_embeds, self.audio_guidance_scale
                    )
                    if canvas_layout == "folded":
                        audio_noise_pred = fold_canvas(audio_noise_pred)

                if audio_share == 0:
                    noise_pred = image_noise_pred
                elif audio_share == 1:
                    noise_pred = audio_noise_pred
                else:
                    noise_pred = (1 - audio_share) * image_noise_pred + audio_share * audio_noise_pred

                if previous_share is not None and abs(audio_share - previous_share) > MIXTURE_JUMP:
                    self._forget_history(i, noise_pred, num_inference_steps)
                previous_share = audio_share
                latents = self.scheduler.step(noise_pred, t, latents, **extra_step_kwargs, return_dict=False)[0]

                if callback_on_step_end is not None:
                    callback_kwargs = {}
                    for name in callback_on_step_end_tensor_inputs:
                        callback_kwargs[name] = locals()[name]
                    callback_outputs = callback_on_step_end(self, i, t, callback_kwargs)
                    latents = callback_outputs.pop("latents", latents)
                    prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)
                    negative_prompt_embeds = callback_outputs.pop("negative_prompt_embeds", negative_prompt_embeds)
                    audio_prompt_embeds = callback_outputs.pop("audio_prompt_embeds", audio_prompt_embeds)
                    negative_audio_prompt_embeds = callback_outputs.pop(
                        "negative_audio_prompt_embeds", negative_audio_prompt_embeds
                    )

                if i == len(timesteps) - 1 or (i + 1 > num_warmup_steps and (i + 1) % order == 0):
                    progress_bar.update()

        if output_type == "latent":
            self.maybe_free_model_hooks()
            if not return_dict:
                return latents, None, None
            return ImagesThatSoundPipelineOutput(images=latents, spectrograms=None, audios=None)

        # 6. Decode the picture and the spectrogram, which are the same pixels where nothing tells them apart
        images = self.decode_latents(latents, self.vae)
        if canvas_layout == "folded":
            spectrograms = self.decode_latents(unfold_canvas(latents), self.vae_audio or self.vae)
        elif self.vae_audio is not None:
            spectrograms = self.decode_latents(latents, self.vae_audio)
        else:
            spectrograms = images
        spectrograms = spectrograms.mean(dim=1, keepdim=True)

        # 7. Play the spectrogram
        audios = self.mel_spectrogram.canvas_to_audio(spectrograms, self.vocoder)
        columns = spectrograms.shape[-1] - cut_columns
        spectrograms = spectrograms[..., :columns]
        audios = audios[..., : columns * self.mel_spectrogram.hop_length]
        if canvas_layout == "strip":
            images = images[..., :columns]
        self._report(images, spectrograms, audios)
        self.maybe_free_model_hooks()

        # 8. Convert
        images = self.image_processor.postprocess(images, output_type, do_denormalize=[False] * len(images))
        spectrograms = self.image_processor.postprocess(
            spectrograms, output_type, do_denormalize=[False] * len(spectrograms)
        )
        audios = audios.cpu() if output_type == "pt" else audios.cpu().numpy()
        if not return_dict:
            return images, spectrograms, audios
        return ImagesThatSoundPipelineOutput(images=images, spectrograms=spectrograms, audios=audios)

    def _default(self, name: str, value: Any) -> Any:
        return self.default_arguments[name] if value is None else value

    def _audio_noise_shares(self, num_inference_steps: int, audio_weight: Any, **edges: float | None) -> list[float]:
        if not _is_positive_int(num_inference_steps):
            raise ValueError(f"`num_inference_steps` has to be a positive integer, but is {num_inference_steps!r}.")
        if not hasattr(audio_weight, "audio_noise_shares"):
            edges = {name: self._default(name, value) for name, value in edges.items()}
            return audio_noise_shares(num_inference_steps, self._default("audio_weight", audio_weight), **edges)
        given = {name: value for name, value in edges.items() if value is not None}
        if given:
            raise ValueError(
                f"`audio_weight` is a schedule, {audio_weight.__class__.__name__}, that decides on starts and ends"
                f" itself, so that none of these can be given besides: {given}."
            )
        # The same check as for a list, since the schedule may be anybody's.
        return audio_noise_shares(
            num_inference_steps, list(audio_weight.audio_noise_shares(num_inference_steps)), image_guidance_start=0.0
        )


def unfold_canvas(canvas: torch.Tensor) -> torch.Tensor:
    """A square picture `(B, C, H, W)` as the strip `(B, C, H / 2, 2 * W)` that is played, its top half first."""
    return torch.cat(canvas.chunk(2, dim=-2), dim=-1)


def fold_canvas(canvas: torch.Tensor) -> torch.Tensor:
    """The inverse of [`unfold_canvas`]."""
    return torch.cat(canvas.chunk(2, dim=-1), dim=-2)


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


def _is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_scale(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise ValueError(f"`{name}` has to be a finite number, but is {value!r}.")
    return value


def _check_prompt(name: str, prompt: Any, embeds: torch.Tensor | None) -> int:
    if (prompt is None) == (embeds is None):
        raise ValueError(
            f"Exactly one of `{name}` and `{name}_embeds` has to be given, but"
            f" {'neither is' if prompt is None else 'both are'}."
        )
    if embeds is not None:
        if embeds.dim() != 3:
            raise ValueError(f"`{name}_embeds` has to be of shape (B, L, D), but is of shape {tuple(embeds.shape)}.")
        return len(embeds)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(each, str) for each in prompts):
        raise ValueError(f"`{name}` has to be a string or a list of strings, but is {prompt!r}.")
    if not all(each.strip() for each in prompts):
        raise ValueError(f"`{name}` may not be empty, but is {prompt!r}.")
    return len(prompts)


def _check_negative_prompt(
    name: str, value: Any, embeds: torch.Tensor | None, positive: torch.Tensor | None, batch: int
) -> None:
    if value is not None and embeds is not None:
        raise ValueError(f"Only one of `{name}` and `{name}_embeds` can be given, but both are.")
    if value is not None and not isinstance(value, str):
        if not isinstance(value, list) or len(value) != batch or not all(isinstance(each, str) for each in value):
            raise ValueError(f"`{name}` has to be a string or a list of {batch} strings, but is {value!r}.")
    if embeds is not None and positive is not None and embeds.shape != positive.shape:
        raise ValueError(
            f"`{name}_embeds` has to be of the prompt's shape {tuple(positive.shape)}, but is of shape"
            f" {tuple(embeds.shape)}."
        )
    if embeds is not None and len(embeds) != batch:
        raise ValueError(f"`{name}_embeds` has to hold {batch} rows, one per prompt, but holds {len(embeds)}.")
