"""Imprint (arXiv 2405.12221): a picture painted into a spectrogram, the baseline for images that sound."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.utils import replace_example_docstring

# diffusers copies only the files that this one names, each of them.
from .images_that_sound_audio_lora import AudioLoraMixin  # noqa: F401
from .images_that_sound_audio_prior import AudioPriorRepo  # noqa: F401
from .images_that_sound_audio_side import ImagesThatSoundPipelineOutput
from .images_that_sound_checks import (
    callback_inputs,
    check_flags,
    check_number,
    check_output_type,
    read_pictures,
)
from .images_that_sound_files import written  # noqa: F401
from .images_that_sound_noise_shares import audio_noise_shares  # noqa: F401
from .images_that_sound_pictures import check_resize_mode, fit_pictures, imprint
from .images_that_sound_precision import kept_in_float32  # noqa: F401
from .images_that_sound_prompts import Prompts, expand_rows
from .images_that_sound_saving import SelfContainedSavingMixin  # noqa: F401
from .images_that_sound_side import is_guided
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_steps import denoising_steps  # noqa: F401
from .images_that_sound_two_sides import TwoSidesMixin
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401


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


class ImagesThatSoundImprintPipelineOutput(ImagesThatSoundPipelineOutput):
    """
    Output of [`ImagesThatSoundImprintPipeline`]: `images` are the pictures that were painted, `spectrograms` the gray
    canvases that look like them and are played. As latents either is `None` where the caller brought it.
    """


class ImagesThatSoundImprintPipeline(
    TwoSidesMixin, DiffusionPipeline, TextualInversionLoaderMixin, StableDiffusionLoraLoaderMixin
):
    r"""
    Pipeline that paints a picture into a spectrogram: Stable Diffusion makes the picture, Auffusion the spectrogram,
    each on its own, and the spectrogram is darkened where the picture is dark
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 4.1 and appendix A.3); where black is loud, as
    Riffusion paints, it is brightened where the picture is bright. A picture or a sound of one's own may stand in for
    either.

    It loads and is made of the same components as [`ImagesThatSoundPipeline`].

    Args:
        vae ([`AutoencoderKL`]): Decodes pictures, and spectrograms too unless `vae_audio` is given.
        text_encoder ([`~transformers.CLIPTextModel`]): Encodes image prompts, and audio prompts too unless
            `text_encoder_audio` is given.
        tokenizer ([`~transformers.CLIPTokenizer`]): Serves both prompts.
        unet ([`UNet2DConditionModel`]): The image side's noise predictor.
        scheduler ([`SchedulerMixin`]): Any scheduler whose `step` takes a noise prediction; it serves both sides, one
            after the other. The `PNDMScheduler` that Stable Diffusion repos name is replaced by `DDIMScheduler` built
            from its config, where a pipeline is loaded from such a repo and no other is passed.
        unet_audio ([`UNet2DConditionModel`], *optional*): The audio side's noise predictor.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim where
            absent.
        vae_audio ([`AutoencoderKL`], *optional*): Only where the audio side's VAE differs.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): Only where the audio side's differs.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`]; Auffusion's where absent.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_audio->unet->unet_audio->vae->vae_audio->vocoder"
    _paper_arguments = PAPER_ARGUMENTS

    def check_inputs(
        self,
        image_prompts: Prompts,
        audio_prompts: Prompts,
        *,
        image: torch.Tensor | None,
        audio: torch.Tensor | None,
        height: int,
        width: int,
        scales: tuple[float, float],
        magnitude_ratio: float,
        num_images_per_prompt: int,
        eta: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        audio_latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ) -> int:
        """Raises `ValueError` for arguments of the call that do not make sense; returns the batch size."""
        if audio is None:
            self._check_audio_prior()
        own = {name: len(made) for name, made in (("image", image), ("audio", audio)) if made is not None}
        for name, prompts, noise in (("image", image_prompts, latents), ("audio", audio_prompts, audio_latents)):
            if name in own and (prompts.are_given or noise is not None):
                raise ValueError(
                    f"`{name}` stands in for what `{prompts.name}`, its embeddings, its negative and its latents would"
                    " make, so that none of them can be given besides."
                )
            if name in own and f"{prompts.name}_embeds" in callback_on_step_end_tensor_inputs:
                raise ValueError(
                    f"`callback_on_step_end_tensor_inputs` names `{prompts.name}_embeds`, which are not made where"
                    f" `{name}` is given."
                )
        batch_size = self._check_batch(
            image_prompts, audio_prompts, scales, num_images_per_prompt, generator=generator, own=own
        )
        if eta is not None:
            check_number("eta", eta, least=0, most=1)
        check_number("magnitude_ratio", magnitude_ratio, least=0, most=1)
        self._check_latents("latents", latents, batch_size, height, width)
        self._check_latents("audio_latents", audio_latents, batch_size, height, width)
        check_output_type(output_type)
        return batch_size

    def _preprocess_image(self, image: PipelineImageInput | None) -> torch.Tensor | None:
        """Pictures as tensors `(B, C, H, W)` in 0..1."""
        if image is None:
            return None
        processor = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True)
        return read_pictures(processor, image)

    def _pictures(
        self, latents: torch.Tensor | None, own: torch.Tensor | None, size: tuple[int, int], resize_mode: str
    ) -> torch.Tensor:
        """Pictures `(B, 3, M, T)`: made ones cut, the caller's fitted."""
        if own is None:
            return self.decode_latents(latents, self.vae)[..., : size[1]]
        fitted = fit_pictures(own, *size, resize_mode, self.mel_spectrogram.silence)
        return fitted.to(self._execution_device).expand(-1, 3, -1, -1)

    def _spectrograms(self, latents: torch.Tensor | None, own: torch.Tensor | None, columns: int) -> torch.Tensor:
        """Gray spectrograms `(B, 1, M, T)`: made ones cut, the caller's as they are."""
        if own is not None:
            return own
        return self.decode_latents(latents, self.audio_side.vae)[..., :columns].mean(dim=1, keepdim=True)

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
        resize_mode: Literal["repeat", "center", "crop", "stretch"] = "repeat",
        height: int | None = None,
        width: int | None = None,
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        num_audio_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        audio_guidance_scale: float | None = None,
        crop_right: int | None = None,
        num_images_per_prompt: int = 1,
        eta: float | None = None,
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
                What to hear, not empty, unless `audio` is given; as many as pictures, or one of either for all.
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Pictures to paint instead of made ones, in 0..1 where they are arrays; put onto the canvas as
                `resize_mode` says.
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
                Whether the parts of the picture that look like silence take sound away, so that the picture shows as
                it is; else those that look loud do, so that its negative shows. Silence is black, or white where
                black is loud.
            resize_mode (`str`, defaults to `"repeat"`):
                How `image` comes onto the canvas where it has another shape. `"repeat"`: as large as fits, side by
                side as often as it fits, on silence. `"center"`: the same, once, in the middle. `"crop"`: the middle
                of what covers the canvas. `"stretch"`: in the canvas' shape.
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
            eta (`float`, *optional*):
                Share of fresh noise in 0..1, for schedulers that take it (DDIM, arXiv 2010.02502, equation 16); where
                left out the scheduler's own default, 0 of DDIM and 0.3 of TCD.
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
                counted before the spectrogram's; what it returns in its dict replaces the tensors. Setting
                `pipe._interrupt = True` skips the steps that are left.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                Tensors that the callback gets, among `latents`, those of the side at work, `prompt_embeds`,
                `negative_prompt_embeds`, `audio_prompt_embeds` and `negative_audio_prompt_embeds`.
            cross_attention_kwargs (`dict`, *optional*):
                Passed to the attention processors of both UNets. `scale` scales the LoRAs of both sides, those of text
                encoders too; one side's alone are weighed by `set_adapters` and `set_audio_adapters`.

        Examples:

        Returns:
            [`ImagesThatSoundImprintPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms. A result that is
            silent, clipped or not finite is reported by a logged warning.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 0. Resolve what is left open, and what the caller brings
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        lora_scale = self.lora_scale_of(cross_attention_kwargs)
        check_flags(invert_image=invert_image, return_dict=return_dict)
        num_steps = self.resolve_steps("num_inference_steps", num_inference_steps)
        num_audio_steps = self.resolve_steps("num_audio_inference_steps", num_audio_inference_steps)
        guidance_scale, audio_guidance_scale = self.resolve_guidance(guidance_scale, audio_guidance_scale)
        images, spectrograms = self._preprocess_image(image), self._preprocess_audio(audio)
        if spectrograms is not None:
            if width is not None or audio_length_in_s is not None:
                raise ValueError("`width` and `audio_length_in_s` follow from `audio` and can't be given besides.")
            num_samples = self.mel_spectrogram.num_samples(spectrograms.shape[-1])
            crop_right, audio_length_in_s = 0, num_samples / self.sampling_rate
        height, width, cut_columns = self.resolve_size(height, width, audio_length_in_s, crop_right)
        check_resize_mode(resize_mode)

        image_prompts = Prompts("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        audio_prompts = Prompts(
            "audio_prompt", audio_prompt, negative_audio_prompt, audio_prompt_embeds, negative_audio_prompt_embeds
        )

        # 1. Check inputs
        batch_size = self.check_inputs(
            image_prompts,
            audio_prompts,
            image=images,
            audio=spectrograms,
            height=height,
            width=width,
            scales=(guidance_scale, audio_guidance_scale),
            magnitude_ratio=magnitude_ratio,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            latents=latents,
            audio_latents=audio_latents,
            output_type=output_type,
            callback_on_step_end_tensor_inputs=inputs,
        )

        # 2. Encode the prompts of what is to be made
        guided = (is_guided(self.unet, guidance_scale), is_guided(self.unet_audio, audio_guidance_scale))
        embeds = self.encode_sides(image_prompts, audio_prompts, num_images_per_prompt, guided, lora_scale=lora_scale)

        # 3. Draw latents, the picture's first
        if images is None:
            latents = self.prepare_latents(batch_size, height, width, generator, latents)
        if spectrograms is None:
            audio_latents = self.prepare_latents(batch_size, height, width, generator, audio_latents)

        # 4. Make the picture, then the spectrogram, each by its model alone
        denoise = partial(
            self.denoise,
            **embeds,
            guidance_scale=guidance_scale,
            audio_guidance_scale=audio_guidance_scale,
            eta=eta,
            generator=generator,
            cross_attention_kwargs=cross_attention_kwargs,
            callback_on_step_end_tensor_inputs=inputs,
        )
        self._interrupt = False
        if images is None:
            latents = denoise(latents, [0.0] * num_steps, callback_on_step_end=callback_on_step_end)
        if spectrograms is None and not self.interrupt:
            on_step_end = _counted_on(callback_on_step_end, num_steps if images is None else 0)
            audio_latents = denoise(audio_latents, [1.0] * num_audio_steps, callback_on_step_end=on_step_end)
        if output_type == "latent":
            self.maybe_free_model_hooks()
            output = (latents, audio_latents, None)
            return output if not return_dict else ImagesThatSoundImprintPipelineOutput(*output)

        # 5. Decode both, cut to the columns that are kept
        columns = width - cut_columns
        images = expand_rows(self._pictures(latents, images, (height, columns), resize_mode), batch_size)
        spectrograms = expand_rows(self._spectrograms(audio_latents, spectrograms, columns), batch_size)

        # 6. Paint the picture into the spectrogram, play it, and convert
        spectrograms = imprint(
            spectrograms.float(), images.float(), magnitude_ratio, invert_image, silence=self.mel_spectrogram.silence
        )
        audios = self.play(spectrograms)
        self._report(images, spectrograms, audios)
        self.maybe_free_model_hooks()
        output = self.convert(images, spectrograms, audios, output_type)
        return output if not return_dict else ImagesThatSoundImprintPipelineOutput(*output)


def _counted_on(callback: Callable | None, first: int) -> Callable | None:
    """A callback whose steps are counted from `first` on."""
    if callback is None:
        return None
    return lambda pipe, step, timestep, tensors: callback(pipe, first + step, timestep, tensors)
