"""Images that sound (arXiv 2405.12221): one canvas, denoised by an image model and a spectrogram model at once."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
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
)
from .images_that_sound_few_steps import FewStepsMixin
from .images_that_sound_files import written  # noqa: F401
from .images_that_sound_guides import GuidedTwoSidesMixin
from .images_that_sound_noise_shares import audio_noise_shares  # noqa: F401
from .images_that_sound_pictures import fit_pictures  # noqa: F401
from .images_that_sound_precision import kept_in_float32  # noqa: F401
from .images_that_sound_prompts import Prompts
from .images_that_sound_saving import SelfContainedSavingMixin  # noqa: F401
from .images_that_sound_side import is_guided
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_steps import denoising_steps  # noqa: F401
from .images_that_sound_two_sides import TwoSidesMixin  # noqa: F401
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401


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


class ImagesThatSoundPipeline(
    GuidedTwoSidesMixin,
    FewStepsMixin,
    DiffusionPipeline,
    TextualInversionLoaderMixin,
    StableDiffusionLoraLoaderMixin,
):
    r"""
    Pipeline for images that sound: at every denoising step Stable Diffusion and a spectrogram model fine-tuned from it
    predict the noise of the same latents, and the scheduler takes one step along the weighted average
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)).

    Load it from a Stable Diffusion repo and then call [`~ImagesThatSoundPipeline.load_audio_prior`], or from a repo
    that holds both sides. `load_lora_weights`, textual inversion, ControlNets and IP-Adapters are the image side's,
    `load_audio_lora_weights` is the audio side's, `load_few_step_lora_weights` both.

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
        height: int,
        width: int,
        guidance_scale: float,
        audio_guidance_scale: float,
        denoising_start: float,
        denoising_end: float,
        num_images_per_prompt: int,
        eta: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        rescales: tuple[float, float] = (0.0, 0.0),
        counts: dict[str, int] = {},
    ) -> int:
        """
        Raises `ValueError` for arguments of the call that do not make sense, where `resolve_size` and
        `resolve_noise_shares` have not; returns the batch size.
        """
        self._check_audio_prior()
        scales = (guidance_scale, audio_guidance_scale)
        batch_size = self._check_batch(
            image_prompts,
            audio_prompts,
            scales,
            num_images_per_prompt,
            generator=generator,
            starts=counts,
            rescales=rescales,
        )
        self._check_latents("latents", latents, batch_size, height, width)
        check_number("denoising_start", denoising_start, least=0, most=1)
        check_number("denoising_end", denoising_end, least=0, most=1)
        if denoising_start > denoising_end:
            raise ValueError(
                f"`denoising_start` may not be after `denoising_end`, but they are {denoising_start} and"
                f" {denoising_end}."
            )
        if denoising_start > 0 and latents is None:
            raise ValueError(
                f"`latents` have to be given where `denoising_start` is above 0, but it is {denoising_start}."
            )
        if eta is not None:
            check_number("eta", eta, least=0, most=1)
        check_output_type(output_type)
        return batch_size

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
        resize_mode: Literal["repeat", "center", "crop", "stretch"] = "repeat",
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
        canvas_layout: Literal["strip", "folded"] = "strip",
        crop_right: int | None = None,
        num_images_per_prompt: int = 1,
        eta: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
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
        Makes pictures that sound.

        Arguments marked "checkpoint" default to what the checkpoint's config names, else to the value given here, the
        paper's.

        Args:
            prompt (`str` or `list[str]`):
                What to see, not empty.
            audio_prompt (`str` or `list[str]`):
                What to hear, not empty; as many as `prompt`, or one of either for all.
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
                Fraction of the steps in 0..1 before which the ControlNet, or each of several, is not run.
            control_guidance_end (`float` or `list[float]`, defaults to 1.0):
                Fraction of the steps in 0..1 after which the ControlNet, or each of several, is not run.
            resize_mode (`str`, defaults to `"repeat"`):
                How `control_image` comes onto the canvas where it has another shape. `"repeat"`: as large as fits,
                side by side as often as it fits. `"center"`: the same, once, in the middle. `"crop"`: the middle of
                what covers the canvas. `"stretch"`: in the canvas' shape.
            denoising_start (`float`, defaults to 0.0):
                Fraction of the steps in 0..1 that an earlier call with this `denoising_end` took and whose latents are
                `latents`. Multistep schedulers start anew there. At 1 nothing is left to do but to decode.
            denoising_end (`float`, defaults to 1.0):
                Fraction of the steps in 0..1 after which to stop; with `output_type="latent"` another call can go on.
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
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*):
                Initial noise of unit variance; with `denoising_start` above 0, what an earlier call returned.
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
        # 0. Resolve what is left open
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        lora_scale = self.lora_scale_of(cross_attention_kwargs)
        check_flags(return_dict=return_dict)
        guidance_scale, audio_guidance_scale = self.resolve_guidance(guidance_scale, audio_guidance_scale)
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
            height=height,
            width=width,
            guidance_scale=guidance_scale,
            audio_guidance_scale=audio_guidance_scale,
            denoising_start=denoising_start,
            denoising_end=denoising_end,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            latents=latents,
            output_type=output_type,
            rescales=(guidance_rescale, audio_guidance_rescale),
            counts=guides.counts,
        )

        # 2. Encode both prompts
        embeds = self.encode_sides(image_prompts, audio_prompts, num_images_per_prompt, guided, lora_scale=lora_scale)

        # 3. Prepare latents and what guides them, and denoise them by both models
        guides = self.prepare_guides(guides, batch_size, guided[0])
        latents = self.denoise(
            self.prepare_latents(batch_size, height, width, generator, latents),
            noise_shares,
            **embeds,
            guidance_scale=guidance_scale,
            audio_guidance_scale=audio_guidance_scale,
            guidance_rescale=guidance_rescale,
            audio_guidance_rescale=audio_guidance_rescale,
            image_guides=guides,
            canvas_layout=canvas_layout,
            timesteps=timesteps,
            sigmas=sigmas,
            denoising_start=denoising_start,
            denoising_end=denoising_end,
            eta=eta,
            generator=generator,
            cross_attention_kwargs=cross_attention_kwargs,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=inputs,
        )

        # 4. Decode the picture and the spectrogram, play it, and convert
        decoded = (latents, None, None)
        if output_type != "latent":
            decoded = self.convert(*self.decode(latents, canvas_layout, cut_columns), output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return decoded
        return ImagesThatSoundPipelineOutput(*decoded)
