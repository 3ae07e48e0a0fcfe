"""Images that sound (arXiv 2405.12221) from a picture or a sound of one's own, or repainted where a mask says."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
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
from .images_that_sound_few_steps import FewStepsMixin
from .images_that_sound_files import written  # noqa: F401
from .images_that_sound_guides import PICTURES, GuidedTwoSidesMixin
from .images_that_sound_noise_shares import audio_noise_shares  # noqa: F401
from .images_that_sound_pictures import fit_pictures, imprint
from .images_that_sound_precision import kept_in_float32  # noqa: F401
from .images_that_sound_prompts import Prompts, expand_rows
from .images_that_sound_saving import SelfContainedSavingMixin  # noqa: F401
from .images_that_sound_side import is_guided
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_steps import denoising_steps
from .images_that_sound_two_sides import fold_canvas
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401


EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import PIL.Image
        >>> import torch
        >>> from images_that_sound.pipelines import ImagesThatSoundImg2ImgPipeline

        >>> pipe = ImagesThatSoundImg2ImgPipeline.from_pretrained(
        ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16
        ... )
        >>> pipe.load_audio_prior("auffusion/auffusion-full-no-adapter")
        >>> pipe.enable_model_cpu_offload()
        >>> portrait = PIL.Image.open("portrait.jpg")
        >>> output = pipe("a portrait, grayscale", "birds singing sweetly", image=portrait, strength=0.8)
        >>> output.images[0].save("singing.png")

        >>> import soundfile
        >>> soundfile.write("singing.wav", output.audios[0], pipe.sampling_rate)
        ```
"""


# Of masks of the canvas' size.
MASKS = VaeImageProcessor(do_resize=False, do_normalize=False, do_binarize=True, do_convert_grayscale=True)


class ImagesThatSoundImg2ImgPipeline(
    GuidedTwoSidesMixin,
    FewStepsMixin,
    DiffusionPipeline,
    TextualInversionLoaderMixin,
    StableDiffusionLoraLoaderMixin,
):
    r"""
    Pipeline for images that sound which begin with a picture, a sound, or a sound with a picture painted into it: as
    much noise is added as `strength` says (SDEdit, [arXiv 2108.01073](https://arxiv.org/abs/2108.01073)), and both
    models take it away together ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)). What a mask leaves out stays
    as it was, in picture and sound.

    It loads and is made of the same components as [`ImagesThatSoundPipeline`].

    Args:
        vae ([`AutoencoderKL`]): Decodes pictures, and spectrograms too unless `vae_audio` is given.
        text_encoder ([`~transformers.CLIPTextModel`]): Encodes image prompts, and audio prompts too unless
            `text_encoder_audio` is given.
        tokenizer ([`~transformers.CLIPTokenizer`]): Serves both prompts.
        unet ([`UNet2DConditionModel`]): The image side's noise predictor.
        scheduler ([`SchedulerMixin`]): Any scheduler whose `step` takes a noise prediction. The `PNDMScheduler` that
            Stable Diffusion repos name is replaced by `DDIMScheduler` built from its config, the paper's sampler,
            where a pipeline is loaded from such a repo and no other is passed.
        unet_audio ([`UNet2DConditionModel`], *optional*): The audio side's noise predictor on the same latents.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim where
            absent.
        vae_audio ([`AutoencoderKL`], *optional*): Only where the audio side's VAE differs.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): Only where the audio side's differs.
        controlnet ([`ControlNetModel`], `list[ControlNetModel]` or [`MultiControlNetModel`], *optional*): What guides
            the image side by control images.
        image_encoder ([`~transformers.CLIPVisionModelWithProjection`], *optional*): Reads pictures for IP-Adapters.
        feature_extractor ([`~transformers.CLIPImageProcessor`], *optional*): Of the image encoder.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`]; Auffusion's where absent.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
    """

    def check_inputs(
        self,
        image_prompts: Prompts,
        audio_prompts: Prompts,
        *,
        image: torch.Tensor | None,
        audio: torch.Tensor | None,
        strength: float,
        magnitude_ratio: float,
        num_steps: int,
        scales: tuple[float, float],
        rescales: tuple[float, float],
        counts: dict[str, int],
        num_images_per_prompt: int,
        eta: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        output_type: str,
    ) -> int:
        """Raises `ValueError` for arguments of the call that do not make sense; returns the batch size."""
        self._check_audio_prior()
        starts = {name: len(given) for name, given in (("image", image), ("audio", audio)) if given is not None}
        if not starts:
            raise ValueError("`image`, `audio` or both have to be given, but neither is.")
        batch_size = self._check_batch(
            image_prompts,
            audio_prompts,
            scales,
            num_images_per_prompt,
            generator=generator,
            starts={**starts, **counts},
            rescales=rescales,
        )
        check_number("strength", strength, least=0, most=1)
        if int(num_steps * strength) < 1:
            raise ValueError(f"`strength` has to leave one of {num_steps} steps to take, but is {strength}.")
        check_number("magnitude_ratio", magnitude_ratio, least=0, most=1)
        if eta is not None:
            check_number("eta", eta, least=0, most=1)
        check_output_type(output_type)
        return batch_size

    def _preprocess_mask(self, mask_image: PipelineImageInput | None, size: tuple[int, int]) -> torch.Tensor | None:
        """Masks as tensors `(B, 1, H, W)` of 0 and 1."""
        if mask_image is None:
            return None
        masks = read_pictures(MASKS, mask_image, "mask_image")
        if masks.shape[-2:] != size:
            raise ValueError(
                f"`mask_image` has to be of the canvas' height and width {size}, but is of {tuple(masks.shape[-2:])}."
            )
        return masks

    def _span_mask(
        self, start_in_s: float | None, end_in_s: float | None, size: tuple[int, int], canvas_layout: str
    ) -> torch.Tensor | None:
        """The mask `(1, 1, H, W)` of a span of time."""
        if start_in_s is None and end_in_s is None:
            return None
        folds = 2 if canvas_layout == "folded" else 1
        height, width = size[0] // folds, size[1] * folds
        rate = self.mel_spectrogram.columns_per_second
        start = check_number("mask_start_in_s", 0.0 if start_in_s is None else start_in_s, 0, width / rate)
        end = check_number("mask_end_in_s", width / rate if end_in_s is None else end_in_s, 0, width / rate)
        if start >= end:
            raise ValueError(f"`mask_start_in_s` has to be before `mask_end_in_s`, but they are {start} and {end}.")
        mask = torch.zeros(1, 1, height, width)
        mask[..., round(start * rate) : round(end * rate)] = 1
        return fold_canvas(mask) if canvas_layout == "folded" else mask

    def _canvases(
        self,
        images: torch.Tensor | None,
        spectrograms: torch.Tensor | None,
        size: tuple[int, int],
        canvas_layout: str,
        resize_mode: str,
        magnitude_ratio: float,
    ) -> torch.Tensor:
        """Canvases `(B, C, H, W)` of pictures, of spectrograms `(B, 1, M, T)`, or of one painted into the other."""
        silence = self.mel_spectrogram.silence
        pictures = None if images is None else fit_pictures(images, *size, resize_mode, silence)
        if spectrograms is None:
            return pictures
        folds = 2 if canvas_layout == "folded" else 1
        padding = size[1] * folds - spectrograms.shape[-1]
        canvases = torch.nn.functional.pad(spectrograms, (0, padding), value=silence)
        canvases = fold_canvas(canvases) if canvas_layout == "folded" else canvases
        if pictures is None:
            return canvases
        return imprint(canvases, pictures.to(canvases), magnitude_ratio, silence=silence)

    def _noised(
        self,
        kept: torch.Tensor,
        noise: torch.Tensor,
        noise_shares: list[float],
        first_step: int,
        **own: list | None,
    ) -> torch.Tensor:
        """Latents with the noise of the step to begin with."""
        steps = denoising_steps(self.scheduler, noise_shares, first_step, len(noise_shares), kept.device, **own)
        return self.scheduler.add_noise(kept, noise, steps[0].timestep[None])

    def encode_canvases(
        self, canvases: torch.Tensor, vae: torch.nn.Module, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        """
        Latents of canvases.

        Args:
            canvases (`torch.Tensor` of shape `(B, C, H, W)`): In 0..1, of one channel or three.
            vae ([`AutoencoderKL`]): Of the side that paints such canvases.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): One for all, or a list of a multiple
                of `B`, each of which draws latents of its own.

        Returns:
            `torch.Tensor` of shape `(B, 4, H / 8, W / 8)`, or as many as there are generators.
        """
        pixels = 2 * canvases.to(self._execution_device, vae.dtype).expand(-1, 3, -1, -1) - 1
        distribution = vae.encode(pixels).latent_dist
        if isinstance(generator, list):
            distribution = DiagonalGaussianDistribution(_repeated(distribution.parameters, len(generator)))
        return vae.config.scaling_factor * distribution.sample(generator)

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        audio_prompt: str | list[str] | None = None,
        image: PipelineImageInput | None = None,
        audio: np.ndarray | torch.Tensor | None = None,
        strength: float = 0.8,
        mask_image: PipelineImageInput | None = None,
        mask_start_in_s: float | None = None,
        mask_end_in_s: float | None = None,
        resize_mode: Literal["repeat", "center", "crop", "stretch"] = "repeat",
        magnitude_ratio: float = 0.5,
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        audio_guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        audio_guidance_rescale: float = 0.0,
        audio_weight: float | list[float] | Any | None = None,
        image_guidance_start: float | None = None,
        audio_guidance_start: float | None = None,
        image_guidance_end: float | None = None,
        audio_guidance_end: float | None = None,
        control_image: PipelineImageInput | list[PipelineImageInput] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        canvas_layout: Literal["strip", "folded"] = "strip",
        crop_right: int | None = None,
        num_images_per_prompt: int = 1,
        eta: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        clip_skip: int | None = None,
        audio_clip_skip: int | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> ImagesThatSoundPipelineOutput | tuple:
        r"""
        Makes pictures that sound of a picture, a sound or both.

        Arguments marked "checkpoint" default to what the checkpoint's config names, else to the value given here, the
        paper's.

        Args:
            prompt (`str` or `list[str]`):
                What to see, not empty.
            audio_prompt (`str` or `list[str]`):
                What to hear, not empty; as many as `prompt`, or one of either for all.
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Pictures to begin with, in 0..1 where they are arrays; one per prompt, or one for all.
            audio (`np.ndarray` or `torch.Tensor` of shape `(N,)` or `(B, N)`, *optional*):
                Waveforms at `pipe.sampling_rate` to begin with instead; with both, `image` is painted into them first.
                The canvas is as long as they.
            strength (`float`, defaults to 0.8):
                Share of the steps in 0..1 that are taken, from as much noise as belongs there: the more, the less is
                left of what is given. At 1 nothing is, but for what a mask keeps.
            mask_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Masks of the canvas' size: white is made anew, black stays as it was.
            mask_start_in_s (`float`, *optional*):
                Instead of `mask_image`: the second from which the sound is made anew; from the beginning where only
                the end is given.
            mask_end_in_s (`float`, *optional*):
                The second up to which it is; the end where only the start is given.
            resize_mode (`str`, defaults to `"repeat"`):
                How `image` and `control_image` come onto the canvas where they have another shape. `"repeat"`: as
                large as fits, side by side as often as it fits, `image` on silence. `"center"`: the same, once, in the
                middle. `"crop"`: the middle of what covers the canvas. `"stretch"`: in the canvas' shape.
            magnitude_ratio (`float`, defaults to 0.5):
                How strongly `image` is painted into `audio`, in 0..1, as in [`ImagesThatSoundImprintPipeline`].
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
            timesteps (`list[int]`, *optional*):
                Instead of `num_inference_steps`: timesteps of one's own that become smaller, for schedulers whose
                `set_timesteps` takes them.
            sigmas (`list[float]`, *optional*):
                Instead of `num_inference_steps`: noise levels of one's own, in the same way.
            guidance_scale (`float`, *optional*, checkpoint, defaults to 10.0):
                Classifier-free guidance of the image side; off at 1 and below.
            audio_guidance_scale (`float`, *optional*, checkpoint, defaults to 10.0):
                Classifier-free guidance of the audio side; off at 1 and below.
            guidance_rescale (`float`, defaults to 0.0):
                How far the image side's guided noise is brought back to the deviation of that with the prompt, in 0..1
                (arXiv 2305.08891, section 3.4); against overexposure by much guidance.
            audio_guidance_rescale (`float`, defaults to 0.0):
                The same of the audio side.
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
            control_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                What `controlnet` guides the image side by, in 0..1 where it is an array, on black; one per prompt, or
                one for all. For several ControlNets a list of one for each, or such a list per prompt. Left out, no
                ControlNet is run.
            controlnet_conditioning_scale (`float` or `list[float]`, defaults to 1.0):
                How strongly the ControlNet guides, or each of several.
            control_guidance_start (`float` or `list[float]`, defaults to 0.0):
                Fraction of the steps taken in 0..1 before which the ControlNet, or each of several, is not run.
            control_guidance_end (`float` or `list[float]`, defaults to 1.0):
                Fraction of the steps taken in 0..1 after which the ControlNet, or each of several, is not run.
            canvas_layout (`str`, defaults to `"strip"`):
                `"strip"`: the picture is the spectrogram. `"folded"`: a square picture whose top half is played first,
                then its bottom half.
            crop_right (`int`, *optional*, checkpoint, defaults to 32):
                Columns cut from the right end of canvas and sound: the dark strip that Auffusion learned. A folded
                picture stays whole; its spectrogram and sound are cut.
            num_images_per_prompt (`int`, defaults to 1):
                Samples for each pair of prompts.
            eta (`float`, *optional*):
                Share of fresh noise in 0..1, for schedulers that take it (DDIM, arXiv 2010.02502, equation 16); where
                left out the scheduler's own default, 0 of DDIM and 0.3 of TCD.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Source of the noise, one for all or one per sample. With a list, each sample is what a single call with
                its generator gives.
            prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `prompt`.
            negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `negative_prompt`.
            audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `audio_prompt`.
            negative_audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*):
                Instead of `negative_audio_prompt`.
            clip_skip (`int`, *optional*):
                How many of the text encoder's last layers `prompt` is not read by. Unused with `prompt_embeds`.
            audio_clip_skip (`int`, *optional*):
                The same for `audio_prompt`.
            ip_adapter_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                What the IP-Adapter of `load_ip_adapter` guides the image side by, for all prompts; for several
                IP-Adapters a list of one for each, which may itself be a list of pictures. Tensors as the image
                encoder takes them.
            ip_adapter_image_embeds (`list[torch.Tensor]`, *optional*):
                Instead of `ip_adapter_image`: for each IP-Adapter a tensor of shape `(1, N, D)` for `N` pictures; with
                guidance `(2, N, D)`, of which the first are the negative ones.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"`, `"pt"`, or `"latent"`, which decodes nothing.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagesThatSoundPipelineOutput`] or a plain tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step; what it returns in its
                dict replaces the tensors. Setting `pipe._interrupt = True` skips the steps that are left.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                Tensors that the callback gets, among `latents`, `prompt_embeds`, `negative_prompt_embeds`,
                `audio_prompt_embeds`, `negative_audio_prompt_embeds` and `pred_original_sample`, the latents without
                noise that are expected in the end.
            cross_attention_kwargs (`dict`, *optional*):
                Passed to the attention processors of both UNets. `scale` scales the LoRAs of both sides, those of text
                encoders too; one side's alone are weighed by `set_adapters` and `set_audio_adapters`;
                `ip_adapter_masks` says where each picture of an IP-Adapter counts.

        Examples:

        Returns:
            [`ImagesThatSoundPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms. A result that is
            silent, clipped or not finite is reported by a logged warning.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 0. Resolve what is left open, and what the caller brings
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        lora_scale = self.lora_scale_of(cross_attention_kwargs)
        check_flags(return_dict=return_dict)
        guidance_scale, audio_guidance_scale = self.resolve_guidance(guidance_scale, audio_guidance_scale)
        spectrograms = self._preprocess_audio(audio)
        if spectrograms is not None:
            if width is not None or audio_length_in_s is not None:
                raise ValueError("`width` and `audio_length_in_s` follow from `audio` and can't be given besides.")
            num_samples = self.mel_spectrogram.num_samples(spectrograms.shape[-1])
            crop_right, audio_length_in_s = 0, num_samples / self.sampling_rate
        height, width, cut_columns = self.resolve_size(height, width, audio_length_in_s, crop_right, canvas_layout)
        noise_shares = self.resolve_noise_shares(
            num_inference_steps,
            audio_weight,
            timesteps,
            sigmas,
            image_guidance_start=image_guidance_start,
            image_guidance_end=image_guidance_end,
            audio_guidance_start=audio_guidance_start,
            audio_guidance_end=audio_guidance_end,
        )
        images = None if image is None else read_pictures(PICTURES, image)
        if mask_image is not None and (mask_start_in_s, mask_end_in_s) != (None, None):
            raise ValueError("`mask_image` excludes `mask_start_in_s` and `mask_end_in_s`.")
        masks = self._preprocess_mask(mask_image, (height, width))
        if masks is None:
            masks = self._span_mask(mask_start_in_s, mask_end_in_s, (height, width), canvas_layout)
        guided = (is_guided(self.unet, guidance_scale), is_guided(self.unet_audio, audio_guidance_scale))
        guides = self.resolve_guides(
            (height, width),
            resize_mode,
            guided[0],
            control_image=control_image,
            controlnet_conditioning_scale=controlnet_conditioning_scale,
            control_guidance_start=control_guidance_start,
            control_guidance_end=control_guidance_end,
            ip_adapter_image=ip_adapter_image,
            ip_adapter_image_embeds=ip_adapter_image_embeds,
        )
        image_prompts = Prompts("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, clip_skip)
        audio_embeds = (audio_prompt_embeds, negative_audio_prompt_embeds)
        audio_prompts = Prompts("audio_prompt", audio_prompt, negative_audio_prompt, *audio_embeds, audio_clip_skip)

        # 1. Check inputs
        batch_size = self.check_inputs(
            image_prompts,
            audio_prompts,
            image=images,
            audio=spectrograms,
            strength=strength,
            magnitude_ratio=magnitude_ratio,
            num_steps=len(noise_shares),
            scales=(guidance_scale, audio_guidance_scale),
            rescales=(guidance_rescale, audio_guidance_rescale),
            counts=guides.counts,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            output_type=output_type,
        )

        # 2. Encode both prompts
        embeds = self.encode_sides(image_prompts, audio_prompts, num_images_per_prompt, guided, lora_scale=lora_scale)

        # 3. Put what is given onto a canvas, as latents with the noise of the step to begin with
        num_steps = len(noise_shares)
        first_step, kept = num_steps - int(num_steps * strength), None
        if first_step or masks is not None:
            given = self._canvases(images, spectrograms, (height, width), canvas_layout, resize_mode, magnitude_ratio)
            vae = self.vae if spectrograms is None else self.audio_side.vae
            kept = _repeated(self.encode_canvases(given, vae, generator), batch_size)
            kept = kept if masks is None else kept.contiguous()
        noise = self.prepare_latents(batch_size, height, width, generator)
        own = {"timesteps": timesteps, "sigmas": sigmas}
        latents = self._noised(kept, noise, noise_shares, first_step, **own) if first_step else noise
        if masks is not None:
            callback_on_step_end = _keeping(masks, kept, noise, callback_on_step_end, inputs)
            inputs = list({*inputs, "latents"})

        # 4. Denoise it by both models
        guides = self.prepare_guides(guides, batch_size, guided[0], first_step * self.scheduler.order)
        latents = self.denoise(
            latents,
            noise_shares,
            **embeds,
            guidance_scale=guidance_scale,
            audio_guidance_scale=audio_guidance_scale,
            guidance_rescale=guidance_rescale,
            audio_guidance_rescale=audio_guidance_rescale,
            image_guides=guides,
            canvas_layout=canvas_layout,
            **own,
            denoising_start=first_step / num_steps,
            eta=eta,
            generator=generator,
            cross_attention_kwargs=cross_attention_kwargs,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=inputs,
        )

        # 5. Decode the picture and the spectrogram, play it, and convert
        decoded = (latents, None, None)
        if output_type != "latent":
            decoded = self.convert(*self.decode(latents, canvas_layout, cut_columns), output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return decoded
        return ImagesThatSoundPipelineOutput(*decoded)


def _repeated(rows: torch.Tensor, batch_size: int) -> torch.Tensor:
    """[`expand_rows`] in the same memory format, by which convolutions round, as the stock pipelines have it."""
    return torch.cat([row for row in rows.split(1) for _ in range(batch_size // len(rows))])


def _keeping(
    masks: torch.Tensor, kept: torch.Tensor, noise: torch.Tensor, callback: Callable | None, inputs: list[str]
) -> Callable:
    """A callback that puts back what masks leave out, with the noise of the next step, and then calls the caller's."""
    masks = torch.nn.functional.interpolate(masks, kept.shape[-2:]).to(kept)
    masks = expand_rows(masks, len(kept))

    def put_back(pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        following = pipe.scheduler.timesteps[step + 1 : step + 2]
        noised = pipe.scheduler.add_noise(kept, noise, following) if len(following) else kept
        latents = (1 - masks) * noised + masks * tensors["latents"]
        if callback is None:
            return {"latents": latents}
        given = {name: latents if name == "latents" else tensors[name] for name in inputs}
        return {"latents": latents, **(callback(pipe, step, timestep, given) or {})}

    return put_back
