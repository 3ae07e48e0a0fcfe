"""Imprint (arXiv 2405.12221): a picture painted into a spectrogram, the baseline for images that sound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.utils import BaseOutput, replace_example_docstring
from diffusers.utils.torch_utils import randn_tensor

# diffusers copies only the files that this one names, each of them.
from .images_that_sound_audio_prior import AudioPriorLoaderMixin  # noqa: F401
from .images_that_sound_checks import (
    check_generator,
    check_negative_prompt,
    check_num_images_per_prompt,
    check_output_type,
    check_prompt,
    check_scale,
    is_positive_int,
)
from .images_that_sound_repo import SelfContainedRepoMixin  # noqa: F401
from .images_that_sound_sides import TwoSidesMixin
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401
from .images_that_sound_weights import audio_noise_shares  # noqa: F401


# What a call does where an argument is left out and the checkpoint's config names nothing else: the paper's settings.
PAPER_ARGUMENTS = {
    "height": 256,
    "width": 1024,
    "crop_right": 32,
    "num_inference_steps": 50,
    "num_audio_inference_steps": 100,
    "guidance_scale": 7.5,
    "audio_guidance_scale": 7.5,
}

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from images_that_sound.pipelines import ImagesThatSoundImprintPipeline

        >>> pipe = ImagesThatSoundImprintPipeline.from_pretrained(
        ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16
        ... )
        >>> pipe.load_audio_prior("auffusion/auffusion-full-no-adapter")
        >>> pipe.enable_model_cpu_offload()
        >>> output = pipe("a painting of castle towers, grayscale", "bell ringing")
        >>> output.spectrograms[0].save("castle.png")

        >>> import soundfile
        >>> soundfile.write("castle.wav", output.audios[0], pipe.sampling_rate)
        ```
"""


@dataclass
class ImagesThatSoundImprintPipelineOutput(BaseOutput):
    """
    Output of [`ImagesThatSoundImprintPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, H, W, 3)` or `torch.Tensor` of shape
            `(B, 3, H, W)`): The pictures that were painted into the spectrograms, in 0..1; or latents of shape
            `(B, C, H / 8, W / 8)`, `None` where a picture was given.
        spectrograms (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, M, T, 1)` or `torch.Tensor` of shape
            `(B, 1, M, T)`): The gray canvases that look like the pictures and are played, in 0..1; or latents of the
            spectrograms before the painting, `None` where a sound was given.
        audios (`np.ndarray` or `torch.Tensor` of shape `(B, N)`): Float32 waveforms in -1..1 at `pipe.sampling_rate`.
            `None` for latents.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor | None
    spectrograms: list[PIL.Image.Image] | np.ndarray | torch.Tensor | None
    audios: np.ndarray | torch.Tensor | None


class ImagesThatSoundImprintPipeline(
    TwoSidesMixin, DiffusionPipeline, TextualInversionLoaderMixin, StableDiffusionLoraLoaderMixin
):
    r"""
    Pipeline that paints a picture into a spectrogram: Stable Diffusion makes the picture, Auffusion the spectrogram,
    each on its own, and the spectrogram is darkened where the picture is dark
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 4.1 and appendix A.3). A picture or a sound of one's
    own may stand in for either.

    It loads and is made of the same components as [`ImagesThatSoundPipeline`].

    Args:
        vae ([`AutoencoderKL`]): Decodes pictures, and spectrograms too unless `vae_audio` is given.
        text_encoder ([`~transformers.CLIPTextModel`]): Encodes image prompts, and audio prompts too unless
            `text_encoder_audio` is given.
        tokenizer ([`~transformers.CLIPTokenizer`]): Serves both prompts.
        unet ([`UNet2DConditionModel`]): The image side's noise predictor.
        scheduler ([`SchedulerMixin`]): Any scheduler whose `step` takes a noise prediction; it serves both sides, one
            after the other. `PNDMScheduler` is replaced by `DDIMScheduler` built from its config; assign
            `pipe.scheduler` for another.
        unet_audio ([`UNet2DConditionModel`], *optional*): The audio side's noise predictor.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim where
            absent.
        vae_audio ([`AutoencoderKL`], *optional*): Only where the audio side's VAE differs.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): Only where the audio side's differs.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`]; Auffusion's where absent.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
    """

    _callback_tensor_inputs = ["latents"]
    model_cpu_offload_seq = "text_encoder->text_encoder_audio->unet->unet_audio->vae->vae_audio->vocoder"
    _paper_arguments = PAPER_ARGUMENTS

    def check_inputs(
        self,
        prompt: str | list[str] | None,
        audio_prompt: str | list[str] | None,
        image: torch.Tensor | None,
        audio: torch.Tensor | None,
        height: int,
        width: int,
        crop_right: int,
        magnitude_ratio: float,
        output_type: str,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        audio_latents: torch.Tensor | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> int:
        """Raises `ValueError` for arguments that do not make sense; returns the number of pairs."""
        if audio is None:
            self._check_audio_prior()
        counts = {}
        for name, own, text, embeds, negative, negative_embeds, noise in (
            ("prompt", image, prompt, prompt_embeds, negative_prompt, negative_prompt_embeds, latents),
            (
                "audio_prompt",
                audio,
                audio_prompt,
                audio_prompt_embeds,
                negative_audio_prompt,
                negative_audio_prompt_embeds,
                audio_latents,
            ),
        ):
            if own is None:
                counts[name] = check_prompt(name, text, embeds)
                check_negative_prompt(f"negative_{name}", negative, negative_embeds, embeds, counts[name])
                continue
            own_name = "image" if name == "prompt" else "audio"
            unused = (text, embeds, negative, negative_embeds, noise)
            if any(value is not None for value in unused):
                raise ValueError(
                    f"`{own_name}` stands in for what `{name}`, its embeddings, its negative and its latents would"
                    " make, so that none of them can be given besides."
                )
            counts[own_name] = len(own)
        if len(set(counts.values())) > 1:
            raise ValueError(f"There have to be equally many of both sides, but there are {counts}.")
        num_pairs = next(iter(counts.values()))
        check_num_images_per_prompt(num_images_per_prompt)
        check_generator(generator, num_pairs * num_images_per_prompt)
        self._check_canvas(height, width, crop_right, "strip")
        self._check_latents("latents", latents, num_pairs * num_images_per_prompt, height, width)
        self._check_latents("audio_latents", audio_latents, num_pairs * num_images_per_prompt, height, width)
        if not 0 <= check_scale("magnitude_ratio", magnitude_ratio) <= 1:
            raise ValueError(f"`magnitude_ratio` has to be in 0..1, but is {magnitude_ratio}.")
        check_output_type(output_type)
        self._check_callback(callback_on_step_end_tensor_inputs)
        return num_pairs

    def _preprocess_audio(self, audio: np.ndarray | torch.Tensor | None) -> torch.Tensor | None:
        """Waveforms `(N,)` or `(B, N)` as canvases `(B, 1, M, T)` in 0..1."""
        if audio is None:
            return None
        waveforms = torch.as_tensor(audio)
        if waveforms.dim() not in (1, 2) or not waveforms.is_floating_point():
            raise ValueError(
                "`audio` has to be a waveform of floating-point numbers and of shape (N,) or (B, N), but is"
                f" {waveforms.dtype} of shape {tuple(waveforms.shape)}."
            )
        if not torch.isfinite(waveforms).all() or waveforms.abs().amax() == 0:
            raise ValueError("`audio` has to be finite and not silent.")
        return self.mel_spectrogram.audio_to_canvas(torch.atleast_2d(waveforms).to(self._execution_device))

    def _denoise(
        self,
        unet: UNet2DConditionModel,
        latents: torch.Tensor,
        embeds: torch.Tensor,
        negative_embeds: torch.Tensor | None,
        guidance_scale: float,
        num_inference_steps: int,
        extra_step_kwargs: dict[str, Any],
        on_step_end: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """One side's latents `(B, C, H / 8, W / 8)`, denoised by its model alone."""
        if negative_embeds is not None:
            embeds = torch.cat([negative_embeds, embeds])
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        latents = latents.to(self._execution_device) * self.scheduler.init_noise_sigma
        for i, t in enumerate(self.scheduler.timesteps):
            if self.interrupt:
                break
            noise_pred = self._predict_noise(unet, latents, t, embeds, guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents, **extra_step_kwargs, return_dict=False)[0]
            latents = on_step_end(i, t, latents)
        return latents

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        audio_prompt: str | list[str] | None = None,
        image: PipelineImageInput | None = None,
        audio: np.ndarray | torch.Tensor | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        magnitude_ratio: float = 0.5,
        invert_image: bool = True,
        height: int | None = None,
        width: int | None = None,
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        num_audio_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        audio_guidance_scale: float | None = None,
        crop_right: int | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        audio_latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> ImagesThatSoundImprintPipelineOutput | tuple:
        r"""
        Makes spectrograms with pictures painted into them, and plays them.

        Arguments marked "checkpoint" default to what the checkpoint's config names, else to the value given here, the
        paper's.

        Args:
            prompt (`str` or `list[str]`):
                What to see, not empty, unless `image` is given.
            audio_prompt (`str` or `list[str]`):
                What to hear, not empty, as many as `prompt`, unless `audio` is given.
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Pictures to paint instead of made ones, in 0..1 where they are arrays; resized to the canvas.
            audio (`np.ndarray` or `torch.Tensor` of shape `(N,)` or `(B, N)`, *optional*):
                Waveforms at `pipe.sampling_rate` to paint into instead of made ones. The canvas is as long as they.
            negative_prompt (`str` or `list[str]`, *optional*):
                What not to see; one for all or one per prompt. Unused where `guidance_scale` is at most 1.
            negative_audio_prompt (`str` or `list[str]`, *optional*):
                What not to hear. Unused where `audio_guidance_scale` is at most 1.
            magnitude_ratio (`float`, defaults to 0.5):
                How strongly the picture is painted, in 0..1: the share of the spectrogram taken away where the picture
                says most.
            invert_image (`bool`, defaults to `True`):
                Whether dark parts of the picture take sound away, so that the picture shows as it is; else bright
                ones do.
            height (`int`, *optional*, checkpoint, defaults to 256):
                Pixels of the canvas: the number of mel bins.
            width (`int`, *optional*, checkpoint, defaults to 1024):
                Pixels of the canvas, a multiple of 8; a column is `hop_length / sampling_rate` (0.01 s) of sound.
            audio_length_in_s (`float`, *optional*):
                Exact length of the sound in seconds, to the column, instead of `width`.
            num_inference_steps (`int`, *optional*, checkpoint, defaults to 50):
                Denoising steps of the picture.
            num_audio_inference_steps (`int`, *optional*, checkpoint, defaults to 100):
                Denoising steps of the spectrogram.
            guidance_scale (`float`, *optional*, checkpoint, defaults to 7.5):
                Classifier-free guidance of the image side; off at 1 and below.
            audio_guidance_scale (`float`, *optional*, checkpoint, defaults to 7.5):
                Classifier-free guidance of the audio side; off at 1 and below.
            crop_right (`int`, *optional*, checkpoint, defaults to 32):
                Columns cut from the right end of what is made: the dark strip that Auffusion learned. A given sound is
                not cut.
            num_images_per_prompt (`int`, defaults to 1):
                Samples for each pair.
            eta (`float`, defaults to 0.0):
                Share of fresh noise in 0..1, for schedulers that take it (DDIM, arXiv 2010.02502, equation 16).
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Source of the noise, one for all or one per sample; the picture's latents are drawn before the
                spectrogram's.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*):
                Initial noise of the pictures, of unit variance.
            audio_latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*):
                Initial noise of the spectrograms, of unit variance.
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
                Whether to return an [`ImagesThatSoundImprintPipelineOutput`] or a plain tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step, with the picture's steps
                counted before the spectrogram's; returned `latents` replace those of the side at work. Setting
                `pipe._interrupt = True` skips the steps that are left.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                Tensors that the callback gets: `latents` alone, those of the side at work.
            cross_attention_kwargs (`dict`, *optional*):
                Passed to the attention processors of both UNets; `scale` is also the LoRA scale of the text encoder.

        Examples:

        Returns:
            [`ImagesThatSoundImprintPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms. A result that is
            silent, clipped or not finite is reported by a logged warning.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 0. Defaults of the checkpoint, and what the caller brings
        num_inference_steps = self._default("num_inference_steps", num_inference_steps)
        num_audio_inference_steps = self._default("num_audio_inference_steps", num_audio_inference_steps)
        crop_right = self._default("crop_right", crop_right)
        spectrograms = self._preprocess_audio(audio)
        if spectrograms is not None:
            if width is not None or audio_length_in_s is not None:
                raise ValueError("`width` and `audio_length_in_s` follow from `audio` and can't be given besides.")
            crop_right = 0
            audio_length_in_s = spectrograms.shape[-1] / self.mel_spectrogram.columns_per_second
        height, width, cut_columns = self._resolve_size(height, width, crop_right, "strip", audio_length_in_s)
        columns = width - cut_columns
        images = None
        if image is not None:
            processor = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True)
            images = processor.preprocess(image).float()
            if not (0 <= images.amin() and images.amax() <= 1):
                raise ValueError(f"`image` has to be in 0..1, but reaches {images.amin():.3g} to {images.amax():.3g}.")

        # 1. Check inputs
        num_pairs = self.check_inputs(
            prompt,
            audio_prompt,
            images,
            spectrograms,
            height,
            width,
            cut_columns,
            magnitude_ratio,
            output_type,
            num_images_per_prompt,
            generator,
            latents,
            audio_latents,
            negative_prompt,
            negative_audio_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            audio_prompt_embeds,
            negative_audio_prompt_embeds,
            callback_on_step_end_tensor_inputs,
        )
        for name, steps in (
            ("num_inference_steps", num_inference_steps),
            ("num_audio_inference_steps", num_audio_inference_steps),
        ):
            if not is_positive_int(steps):
                raise ValueError(f"`{name}` has to be a positive integer, but is {steps!r}.")
        self._begin_call(guidance_scale, audio_guidance_scale, cross_attention_kwargs)
        device = self._execution_device
        batch_size = num_pairs * num_images_per_prompt

        # 2. Draw the latents of what is to be made, the picture's first
        extra_step_kwargs = self.prepare_extra_step_kwargs(generator, eta)
        sides = (side // self.vae_scale_factor for side in (height, width))
        shape = (batch_size, self.unet.config.in_channels, *sides)
        if images is None and latents is None:
            latents = randn_tensor(shape, generator, device, self.unet.dtype)
        if spectrograms is None and audio_latents is None:
            audio_latents = randn_tensor(shape, generator, device, self.unet.dtype)
        total = (images is None) * num_inference_steps + (spectrograms is None) * num_audio_inference_steps
        self._num_timesteps = total

        with self.progress_bar(total=total) as progress_bar:

            def on_step_end(i: int, t: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
                progress_bar.update()
                if callback_on_step_end is None:
                    return latents
                outputs = callback_on_step_end(self, i, t, {"latents": latents})
                return outputs.pop("latents", latents)

            # 3. Make the picture
            if images is None:
                prompt_embeds, negative_prompt_embeds = self.encode_image_prompt(
                    prompt,
                    device,
                    num_images_per_prompt,
                    self.do_classifier_free_guidance,
                    negative_prompt,
                    prompt_embeds,
                    negative_prompt_embeds,
                    lora_scale=(cross_attention_kwargs or {}).get("scale"),
                )
                latents = self._denoise(
                    self.unet,
                    latents,
                    prompt_embeds,
                    negative_prompt_embeds,
                    self.guidance_scale,
                    num_inference_steps,
                    extra_step_kwargs,
                    on_step_end,
                )

            # 4. Make the spectrogram
            if spectrograms is None:
                first = num_inference_steps if images is None else 0
                audio_prompt_embeds, negative_audio_prompt_embeds = self.encode_audio_prompt(
                    audio_prompt,
                    device,
                    num_images_per_prompt,
                    self.do_audio_classifier_free_guidance,
                    negative_audio_prompt,
                    audio_prompt_embeds,
                    negative_audio_prompt_embeds,
                )
                audio_latents = self._denoise(
                    self.unet_audio,
                    audio_latents,
                    audio_prompt_embeds,
                    negative_audio_prompt_embeds,
                    self.audio_guidance_scale,
                    num_audio_inference_steps,
                    extra_step_kwargs,
                    lambda i, t, latents: on_step_end(first + i, t, latents),
                )

        if output_type == "latent":
            self.maybe_free_model_hooks()
            if not return_dict:
                return latents, audio_latents, None
            return ImagesThatSoundImprintPipelineOutput(images=latents, spectrograms=audio_latents, audios=None)

        # 5. Decode both, cut to the columns that are kept
        if images is None:
            images = self.decode_latents(latents, self.vae)[..., :columns]
        else:
            images = torch.nn.functional.interpolate(
                images.to(device), (height, columns), mode="bilinear", antialias=True
            ).repeat_interleave(num_images_per_prompt, dim=0)
            images = images.expand(-1, 3, -1, -1)
        if spectrograms is None:
            spectrograms = self.decode_latents(audio_latents, self.vae_audio or self.vae)[..., :columns]
            spectrograms = spectrograms.mean(dim=1, keepdim=True)
        else:
            spectrograms = spectrograms.repeat_interleave(num_images_per_prompt, dim=0)

        # 6. Paint the picture into the spectrogram and play it
        spectrograms = imprint(spectrograms.float(), images.float(), magnitude_ratio, invert_image)
        audios = self.mel_spectrogram.canvas_to_audio(spectrograms, self.vocoder)
        self._report(images, spectrograms, audios)
        self.maybe_free_model_hooks()

        # 7. Convert
        images, spectrograms, audios = self._convert(images, spectrograms, audios, output_type)
        if not return_dict:
            return images, spectrograms, audios
        return ImagesThatSoundImprintPipelineOutput(images=images, spectrograms=spectrograms, audios=audios)


def imprint(
    spectrograms: torch.Tensor, images: torch.Tensor, magnitude_ratio: float, invert_image: bool = True
) -> torch.Tensor:
    """
    Paints pictures into spectrograms (arXiv 2405.12221, appendix A.3).

    Args:
        spectrograms (`torch.Tensor` of shape `(B, 1, M, T)`): Canvases in 0..1.
        images (`torch.Tensor` of shape `(B, C, M, T)`): Pictures in 0..1, of which the mean over channels counts.
        magnitude_ratio (`float`): Share of the spectrogram that the picture takes away at most, 0..1.
        invert_image (`bool`, defaults to `True`): Whether black takes away most; else white does.

    Returns:
        `torch.Tensor` of shape `(B, 1, M, T)`: Canvases in 0..1.
    """
    gray = images.mean(dim=1, keepdim=True)
    taken = 1 - gray if invert_image else gray
    return spectrograms * (1 - magnitude_ratio * taken)
