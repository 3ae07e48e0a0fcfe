"""Images that sound (arXiv 2405.12221) that begin with your picture or sound, or are repainted inside a mask."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils import replace_example_docstring

# Named although unused: diffusers copies the files that this one names, and no others.
from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import ImagesThatSoundPipelineOutput
from .images_that_sound_canvas import MASKS, Canvas, Windows, fit_pictures, imprint, read_pictures
from .images_that_sound_checks import callback_inputs, check_number, check_output_type
from .images_that_sound_denoising import DenoisingStep
from .images_that_sound_files import written
from .images_that_sound_guides import Onsets
from .images_that_sound_loading import SelfContainedSavingMixin
from .images_that_sound_lora import FewStepsMixin
from .images_that_sound_picture_reading import upright
from .images_that_sound_sides import Request, expand_rows
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_two_sides import OWN_WINDOWS, TwoSidesMixin


# Columns over which a sample fades over into what extends it.
FADE = 16


EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers.utils import load_image
        >>> from images_that_sound.pipelines import ImagesThatSoundImg2ImgPipeline

        >>> pipe = ImagesThatSoundImg2ImgPipeline.from_pretrained(
        ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16
        ... )
        >>> pipe.load_audio_prior("auffusion/auffusion-full-no-adapter")
        >>> pipe.enable_model_cpu_offload()
        >>> portrait = load_image("portrait.jpg")
        >>> output = pipe("a portrait, grayscale", "birds singing sweetly", image=portrait, strength=0.8)
        >>> output.images[0].save("singing.png")

        >>> import soundfile
        >>> soundfile.write("singing.wav", output.audios[0], pipe.sampling_rate)
        ```
"""


class ImagesThatSoundImg2ImgPipeline(TwoSidesMixin, DiffusionPipeline):
    r"""
    Pipeline for images that sound which begin with a picture, a sound, or a sound with a picture painted into it.
    Noise is added as `strength` says (SDEdit, [arXiv 2108.01073](https://arxiv.org/abs/2108.01073)), and both models
    take it away together ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)). Outside a mask, picture and sound
    stay.

    It loads the same repos and has the same components as [`ImagesThatSoundPipeline`].
    """

    def check_inputs(
        self,
        image: Request,
        audio: Request,
        audio_noise_shares: list[float | torch.Tensor],
        *,
        strength: float,
        magnitude_ratio: float,
        num_images_per_prompt: int,
        eta: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        output_type: str,
        counts: dict[str, int],
    ) -> int:
        """
        Returns the batch size. Raises `ValueError` for arguments of the call that do not make sense and were not
        checked when they were resolved. `counts` are the numbers of further inputs, by their argument.
        """
        if not {"image", "audio"} & set(counts):
            raise ValueError("`image`, `audio` or both have to be given, but neither is.")
        requests = self.acting(image, audio, audio_noise_shares)
        batch_size = self._check_batch(requests, counts, num_images_per_prompt, generator)
        check_number("strength", strength, least=0, most=1)
        if int(len(audio_noise_shares) * strength) < 1:
            raise ValueError(
                f"`strength` has to leave one of {len(audio_noise_shares)} steps to take, but is {strength}."
            )
        check_number("magnitude_ratio", magnitude_ratio, least=0, most=1)
        if eta is not None:
            check_number("eta", eta, least=0, most=1)
        check_output_type(output_type)
        return batch_size

    def _read_masks(
        self,
        mask_image: PipelineImageInput | None,
        mask_start_in_s: float | None,
        mask_end_in_s: float | None,
        canvas: Canvas,
    ) -> torch.Tensor | None:
        """Masks `(B, 1, H, W)` of 0 and 1, from pictures or a span of time."""
        if mask_image is None:
            if mask_start_in_s is None and mask_end_in_s is None:
                return None
            return canvas.span_mask(mask_start_in_s, mask_end_in_s, self.mel_spectrogram.columns_per_second)
        if (mask_start_in_s, mask_end_in_s) != (None, None):
            raise ValueError("`mask_image` excludes `mask_start_in_s` and `mask_end_in_s`.")
        masks, size = read_pictures(mask_image, "mask_image", MASKS), (canvas.height, canvas.width)
        if masks.shape[-2:] != size:
            raise ValueError(
                f"`mask_image` has to be of the canvas' height and width {size}, but is of {tuple(masks.shape[-2:])}."
            )
        return masks

    def _put_on(
        self,
        canvas: Canvas,
        images: torch.Tensor | None,
        spectrograms: torch.Tensor | None,
        resize_mode: str,
        magnitude_ratio: float,
    ) -> torch.Tensor:
        """Canvases `(B, C, H, W)` of pictures, of spectrograms `(B, 1, M, T)`, or of one painted into the other."""
        silence = self.mel_spectrogram.silence
        if images is not None:
            # Beside a picture is silence, or the sound that it is painted into.
            ground = silence if spectrograms is None else 1 - silence
            images = fit_pictures(images, canvas.height, canvas.width, resize_mode, ground)
        if spectrograms is None:
            return images
        canvases = canvas.put(spectrograms, silence)
        return canvases if images is None else imprint(canvases, images.to(canvases), magnitude_ratio, silence=silence)

    def _are_latents(self, image: Any) -> bool:
        """Whether `image` is a tensor `(B, C, h, w)` of latents, by its channels."""
        channels = self.vae.config.latent_channels
        return isinstance(image, torch.Tensor) and image.dim() == 4 and image.shape[1] == channels not in (1, 3)

    def encode_canvases(
        self,
        canvases: torch.Tensor,
        vae: torch.nn.Module,
        generator: torch.Generator | list[torch.Generator] | None,
        windows: Windows | None = None,
    ) -> torch.Tensor:
        """
        Latents of canvases. Wide ones are encoded in windows.

        Args:
            canvases (`torch.Tensor` of shape `(B, C, H, W)`): In 0..1, with one channel or three.
            vae ([`AutoencoderKL`]): VAE of the side that paints such canvases.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): One for all, or a list of a multiple
                of `B`, each of which draws its latents.
            windows ([`Windows`], *optional*): Those of the image side.

        Returns:
            `torch.Tensor` of shape `(B, 4, H / 8, W / 8)`, or as many as there are generators.
        """
        pixels = 2 * canvases.to(self._execution_device, vae.dtype).expand(-1, 3, -1, -1) - 1
        is_tiny = isinstance(vae, AutoencoderTiny)  # which knows no distribution

        def encoded(pieces: torch.Tensor, places: list[int] | None = None) -> torch.Tensor:
            return vae.encode(pieces).latents if is_tiny else vae.encode(pieces).latent_dist.parameters

        windows = windows and windows.overlapping(self.vae_scale_factor)
        latents = encoded(pixels) if windows is None else windows.merge(pixels, encoded)
        if is_tiny:
            return vae.config.scaling_factor * latents
        if isinstance(generator, list):
            latents = _repeated(latents, len(generator))
        return vae.config.scaling_factor * DiagonalGaussianDistribution(latents).sample(generator)

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | dict[float, str] | None = None,
        audio_prompt: str | list[str] | dict[float, str] | None = None,
        image: PipelineImageInput | None = None,
        audio: np.ndarray | torch.Tensor | None = None,
        strength: float = 0.8,
        mask_image: PipelineImageInput | None = None,
        mask_start_in_s: float | None = None,
        mask_end_in_s: float | None = None,
        magnitude_ratio: float = 0.5,
        negative_prompt: str | list[str] | dict[float, str] | None = None,
        negative_audio_prompt: str | list[str] | dict[float, str] | None = None,
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
        audio_weight: float | list[float] | dict[float, Any] | Any | None = None,
        image_guidance_start: float | None = None,
        audio_guidance_start: float | None = None,
        image_guidance_end: float | None = None,
        audio_guidance_end: float | None = None,
        control_image: PipelineImageInput | list[PipelineImageInput] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guess_mode: bool = False,
        audio_control_image: PipelineImageInput | list[PipelineImageInput] | None = None,
        audio_controlnet_conditioning_scale: float | list[float] = 1.0,
        audio_control_guidance_start: float | list[float] = 0.0,
        audio_control_guidance_end: float | list[float] = 1.0,
        audio_onsets: Onsets | None = None,
        resize_mode: Literal["center", "repeat", "crop", "stretch"] = "center",
        canvas_layout: Literal["strip", "folded"] = "strip",
        crop_right: int | None = None,
        circular: bool = False,
        window_width: int | None = None,
        window_stride: int | None = None,
        audio_window_width: int | None = None,
        audio_window_stride: int | None = None,
        window_batch_size: int | None = None,
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
        audio_ip_adapter_image: PipelineImageInput | None = None,
        audio_ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> ImagesThatSoundPipelineOutput | tuple:
        r"""
        Makes pictures that sound from a picture, a sound or both.

        Arguments marked "checkpoint" default to the value in the checkpoint's config, else to the paper's value, which
        is given here.

        Args:
            prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Picture to see. An empty string leaves it
                open. A dict holds prompts by the second at which they begin, on a canvas wider than a window.
            audio_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Sound to hear; as many as `prompt`, or
                one of either for all. A dict as for `prompt`.
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*): Pictures to begin
                with, in 0..1 if they are arrays; one per prompt, or one for all. They come onto the canvas as
                `resize_mode` says, on silence, or on `audio`, which stays beside them.
            audio (`np.ndarray` or `torch.Tensor` of shape `(N,)` or `(B, N)`, *optional*): Waveforms at
                `pipe.sampling_rate` to begin with. With both, `image` is painted into them first. The canvas is as
                long as they are.
            strength (`float`, defaults to 0.8): Fraction of the denoising steps to run, 0 to 1. Higher values keep
                less of the input; 1 keeps only what a mask keeps.
            mask_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*): Masks of the
                canvas' size: white is made anew, black stays.
            mask_start_in_s (`float`, *optional*): Second from which the sound is made anew, instead of `mask_image`.
                The beginning if only the end is given.
            mask_end_in_s (`float`, *optional*): Second until which the sound is made anew. The end if only the start
                is given.
            magnitude_ratio (`float`, defaults to 0.5): Greatest share of the spectrogram that the picture takes away,
                0 to 1, as in [`ImagesThatSoundImprintPipeline`].
            negative_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Picture to avoid; one for all, one
                per prompt, or over time. Unused if `guidance_scale` is at most 1.
            negative_audio_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Sound to avoid; one for all,
                one per prompt, or over time. Unused if `audio_guidance_scale` is at most 1.
            height (`int`, *optional*, checkpoint, defaults to 256): Pixels of the picture: the number of mel bins,
                twice that for the folded layout.
            width (`int`, *optional*, checkpoint, defaults to 1024): Pixels of the picture, a multiple of 8, half as
                many by default for the folded layout. Each column of the spectrogram lasts `hop_length /
                sampling_rate` (0.01 s).
            audio_length_in_s (`float`, *optional*): Exact length of the sound in seconds, to the column, instead of
                `width`. The canvas is as wide as needed, and the rest is cut from its right end.
            num_inference_steps (`int`, *optional*, checkpoint, defaults to 100): Number of denoising steps.
            timesteps (`list[int]`, *optional*): Custom falling timesteps instead of `num_inference_steps`, for
                schedulers whose `set_timesteps` takes them.
            sigmas (`list[float]`, *optional*): Custom falling noise levels instead of `num_inference_steps`, for
                schedulers whose `set_timesteps` takes them.
            guidance_scale (`float`, *optional*, checkpoint, defaults to 10.0): Scale of classifier-free guidance of
                the image side. 1 and below turn it off.
            audio_guidance_scale (`float`, *optional*, checkpoint, defaults to 10.0): Scale of classifier-free guidance
                of the audio side. 1 and below turn it off.
            guidance_rescale (`float`, defaults to 0.0): Rescales guided noise of the image side to the standard
                deviation of the prompted prediction, 0 (off) to 1 (arXiv 2305.08891, section 3.4). Reduces
                overexposure at high guidance.
            audio_guidance_rescale (`float`, defaults to 0.0): Rescales guided noise of the audio side in the same way.
            audio_weight (`float`, `list[float]`, schedule or `dict`, *optional*, checkpoint, defaults to 0.5): Weight
                of the audio side's noise, 0 to 1; the image side's is one minus it. Takes one number, one per step, or
                an object with a method `audio_noise_shares(num_inference_steps)` such as
                [`~images_that_sound.schedulers.ModalityScheduler`], which decides on starts and ends too. A dict holds
                any of these by the second at which they begin.
            image_guidance_start (`float`, *optional*, checkpoint, defaults to 0.1): Fraction of the steps, 0 to 1,
                before which the image side is silent and does not run.
            audio_guidance_start (`float`, *optional*, checkpoint, defaults to 0.0): Fraction of the steps, 0 to 1,
                before which the audio side is silent and does not run.
            image_guidance_end (`float`, *optional*, checkpoint, defaults to 1.0): Fraction of the steps, 0 to 1, from
                which the image side is silent; at least its start.
            audio_guidance_end (`float`, *optional*, checkpoint, defaults to 1.0): Fraction of the steps, 0 to 1, from
                which the audio side is silent; at least its start.
            control_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*): Pictures for
                `controlnet`, which guides the image side, in 0..1 if they are arrays, on black; one per prompt, or one
                for all. For several ControlNets a list of one for each, or such a list per prompt. No ControlNet runs
                without it.
            controlnet_conditioning_scale (`float` or `list[float]`, defaults to 1.0): Factor of the ControlNet's
                residuals, one for all ControlNets or one for each.
            control_guidance_start (`float` or `list[float]`, defaults to 0.0): Fraction of the steps taken, 0 to 1,
                before which the ControlNet, or each of several, does not run.
            control_guidance_end (`float` or `list[float]`, defaults to 1.0): Fraction of the steps taken, 0 to 1,
                after which the ControlNet, or each of several, does not run.
            guess_mode (`bool`, defaults to `False`): Whether the ControlNet guides the prompted prediction alone, and
                the deep layers more, so that it needs no prompt.
            audio_control_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Pictures for `audio_controlnet`, which guides the audio side, as `control_image` for the image side; of
                the strip's shape `(M, T)`.
            audio_controlnet_conditioning_scale (`float` or `list[float]`, defaults to 1.0): Factor of the residuals of
                `audio_controlnet`. FoleyCrafter's wants 0.2.
            audio_control_guidance_start (`float` or `list[float]`, defaults to 0.0): Fraction of the steps taken, 0 to
                1, before which `audio_controlnet` does not run.
            audio_control_guidance_end (`float` or `list[float]`, defaults to 1.0): Fraction of the steps taken, 0 to
                1, after which `audio_controlnet` does not run.
            audio_onsets (`list`, `np.ndarray`, `torch.Tensor`, `PIL.Image.Image` or `str`, *optional*): Onsets of the
                sound, for an `audio_controlnet` such as FoleyCrafter's (arXiv 2407.01494), which sees -1 or 1 in each
                column. Time spans in seconds; a waveform of shape `(N,)`, by its envelope; a picture, by the columns
                in which it shows something; or `"picture"`, by those of `image`, else `control_image`.
            resize_mode (`str`, defaults to `"center"`): How pictures of another shape come onto the canvas.
                `"center"`: as large as fits, once, in the middle. `"repeat"`: the same, side by side as often as it
                fits. `"crop"`: the middle of the smallest size that covers the canvas. `"stretch"`: in the canvas'
                shape.
            canvas_layout (`str`, defaults to `"strip"`): `"strip"`: the picture is the spectrogram. `"folded"`: a
                square picture whose top half is played first, then its bottom half.
            crop_right (`int`, *optional*, checkpoint, defaults to 32): Columns to cut from the right end of canvas and
                sound: the dark strip that Auffusion learned. A folded picture stays whole; its spectrogram and sound
                are cut.
            circular (`bool`, defaults to `False`): Whether picture and sound go on at their beginning: the picture
                tiles and the sound loops. Nothing is cut then. A canvas of a window's width takes twice the time.
            window_width (`int`, *optional*, checkpoint, defaults to the checkpoint's width): Pixels of the windows in
                which the image side sees a canvas that is wider, a multiple of 8.
            window_stride (`int`, *optional*, checkpoint, defaults to half of the window): Pixels from one window to
                the next. Windows that overlap are averaged.
            audio_window_width (`int`, *optional*, checkpoint, defaults to the checkpoint's width): Pixels of the
                windows of the audio side.
            audio_window_stride (`int`, *optional*, checkpoint, defaults to half of the window): Pixels from one window
                to the next on the audio side.
            window_batch_size (`int`, *optional*, checkpoint, defaults to 1): Windows that a model sees at once. More
                are faster and take more memory.
            num_images_per_prompt (`int`, defaults to 1): Samples for each pair of prompts.
            eta (`float`, *optional*): Share of fresh noise, 0 to 1, for schedulers that take it (DDIM, arXiv
                2010.02502, equation 16). The scheduler's default is 0 for DDIM and 0.3 for TCD.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): Source of the noise, one for all or
                one per sample. With a list, each sample equals that of a single call with its generator.
            prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of `prompt`.
            negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of
                `negative_prompt`.
            audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of
                `audio_prompt`.
            negative_audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead
                of `negative_audio_prompt`.
            clip_skip (`int`, *optional*): Number of final text-encoder layers to skip for `prompt`. Unused with
                `prompt_embeds`.
            audio_clip_skip (`int`, *optional*): Number of final text-encoder layers to skip for `audio_prompt`. Unused
                with `audio_prompt_embeds`.
            ip_adapter_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*): Pictures
                for the IP-Adapter of `load_ip_adapter`, which guides the image side, for all prompts; for several
                IP-Adapters a list of one for each, which may itself be a list of pictures. Tensors as the image
                encoder takes them.
            ip_adapter_image_embeds (`list[torch.Tensor]`, *optional*): Embeddings to take instead of
                `ip_adapter_image`: for each IP-Adapter a tensor of shape `(1, N, D)` for `N` pictures; with guidance
                `(2, N, D)`, the negative ones first.
            audio_ip_adapter_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Pictures for the IP-Adapter of `audio.load_ip_adapter`, which guides the audio side.
            audio_ip_adapter_image_embeds (`list[torch.Tensor]`, *optional*): Embeddings to take instead of
                `audio_ip_adapter_image`, as `ip_adapter_image_embeds`.
            output_type (`str`, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"`, or `"latent"`, which decodes nothing.
            return_dict (`bool`, defaults to `True`): Whether to return an [`ImagesThatSoundPipelineOutput`] or a plain
                tuple.
            callback_on_step_end (`Callable`, *optional*): Called as `callback(pipe, step, timestep, callback_kwargs)`
                after each step. Tensors in the dict that it returns replace those at work. `pipe._interrupt = True`
                skips the steps that are left.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`): Tensors for the callback,
                among `latents`, `prompt_embeds`, `negative_prompt_embeds`, `audio_prompt_embeds`,
                `negative_audio_prompt_embeds` and `pred_original_sample`, the noiseless latents that the step expects.
            cross_attention_kwargs (`dict`, *optional*): Arguments of the attention processors of both UNets. `scale`
                scales the LoRAs of both sides, also in text encoders; `set_adapters` and `audio.set_adapters` weigh
                those of one side. `ip_adapter_masks` says where each picture of an IP-Adapter counts.

        Examples:

        Returns:
            [`ImagesThatSoundPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms. A logged warning
            reports a result that is silent, clipped or not finite.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 0. Fill in defaults
        self._check_audio_prior()
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        spectrograms = self.preprocess_audio(audio)
        if spectrograms is not None:
            crop_right, audio_length_in_s = 0, self.length_of(spectrograms, width, audio_length_in_s)
        canvas = self.resolve_size(height, width, audio_length_in_s, crop_right, canvas_layout, circular)
        canvas = self.resolve_windows(
            canvas, window_width, window_stride, audio_window_width, audio_window_stride, window_batch_size
        )
        shares = self.resolve_shares(
            canvas,
            num_inference_steps,
            audio_weight,
            timesteps,
            sigmas,
            image_guidance_start=image_guidance_start,
            image_guidance_end=image_guidance_end,
            audio_guidance_start=audio_guidance_start,
            audio_guidance_end=audio_guidance_end,
        )
        given_latents = image if self._are_latents(image) else None
        images = (
            None
            if image is None or given_latents is not None
            else read_pictures(image, ground=self.mel_spectrogram.silence)
        )
        masks = self._read_masks(mask_image, mask_start_in_s, mask_end_in_s, canvas)
        image = Request("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, clip_skip)
        image = self.resolve_request(image, canvas, guidance_scale, guidance_rescale)
        audio_embeds = (audio_prompt_embeds, negative_audio_prompt_embeds)
        audio = Request("audio_prompt", audio_prompt, negative_audio_prompt, *audio_embeds, audio_clip_skip)
        audio = self.resolve_request(audio, canvas, audio_guidance_scale, audio_guidance_rescale)
        guides = self.read_guides(
            canvas,
            resize_mode,
            self.image_side.is_guided(image.guidance_scale),
            control_image=control_image,
            controlnet_conditioning_scale=controlnet_conditioning_scale,
            control_guidance_start=control_guidance_start,
            control_guidance_end=control_guidance_end,
            guess_mode=guess_mode,
            ip_adapter_image=ip_adapter_image,
            ip_adapter_image_embeds=ip_adapter_image_embeds,
        )
        audio_guides = self.read_audio_guides(
            canvas,
            resize_mode,
            self.audio_side.is_guided(audio.guidance_scale),
            audio_onsets,
            self.seen_picture(canvas, images, guides, resize_mode),
            control_image=audio_control_image,
            controlnet_conditioning_scale=audio_controlnet_conditioning_scale,
            control_guidance_start=audio_control_guidance_start,
            control_guidance_end=audio_control_guidance_end,
            ip_adapter_image=audio_ip_adapter_image,
            ip_adapter_image_embeds=audio_ip_adapter_image_embeds,
        )

        # 1. Check inputs
        starts = {"image": images if given_latents is None else given_latents, "audio": spectrograms}
        starts = {name: len(each) for name, each in starts.items() if each is not None}
        batch_size = self.check_inputs(
            image,
            audio,
            shares,
            strength=strength,
            magnitude_ratio=magnitude_ratio,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            output_type=output_type,
            counts={**starts, **guides.counts, **audio_guides.counts},
        )

        # 2. Encode both prompts
        image, audio = self.guide(image, audio, batch_size, (guides, audio_guides), cross_attention_kwargs)

        # 3. Put the given picture or sound onto a canvas, and encode it
        num_steps, kept = len(shares), None
        first_step = num_steps - int(num_steps * strength)
        if given_latents is not None:
            self.check_latents("image", given_latents, len(given_latents), canvas)
            kept = _repeated(given_latents.to(self._execution_device, self.unet.dtype), batch_size)
        elif first_step or masks is not None:
            given = self._put_on(canvas, images, spectrograms, resize_mode, magnitude_ratio)
            vae = self.vae if spectrograms is None else self.audio_side.vae
            kept = _repeated(self.encode_canvases(given, vae, generator, canvas.windows), batch_size)
            kept = kept if masks is None else kept.contiguous()

        # 4. Add the noise of the step to begin with
        noise = self.prepare_latents(batch_size, canvas, generator)
        steps = self.prepare_steps(shares, timesteps, sigmas, denoising_start=first_step / num_steps)
        # Guides count the steps that are taken.
        steps = [step._replace(span=(i / len(steps), (i + 1) / len(steps))) for i, step in enumerate(steps)]
        latents = self.scheduler.add_noise(kept, noise, steps[0].timestep[None]) if first_step else noise

        # 5. Denoise it by both models
        latents = self.denoise(
            latents,
            steps,
            image,
            audio,
            canvas,
            eta=eta,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=inputs,
            put_back=None if masks is None else partial(_put_back, self.scheduler, masks, kept, noise),
        )

        # 6. Decode the picture and the spectrogram, play it, and convert
        decoded = (latents, None, None)
        if output_type != "latent":
            decoded = self.decode(latents, canvas, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return decoded
        return ImagesThatSoundPipelineOutput(*decoded)

    @torch.no_grad()
    def extend(
        self,
        prompt: str | None,
        audio_prompt: str | None,
        *,
        image: PipelineImageInput,
        spectrogram: PipelineImageInput,
        extend_by_in_s: float,
        output_type: str = "pil",
        **kwargs: Any,
    ) -> ImagesThatSoundPipelineOutput:
        """
        Paints more of a sample to its right. Half a window of the sample is seen by both sides and kept as it is at
        every step.

        Args:
            prompt (`str`): Picture to see in the new part.
            audio_prompt (`str`): Sound to hear in the new part.
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): Picture of the sample, a strip of shape
                `(H, W)`.
            spectrogram (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): Spectrogram of the sample, of the same
                size.
            extend_by_in_s (`float`): Length of the new part in seconds.
            output_type (`str`, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            kwargs: Further arguments of the call, but for those of a start and of the size.

        Returns:
            [`ImagesThatSoundPipelineOutput`]: Whole pictures, spectrograms and waveforms. The sample's pixels stay as
            they are, but for the last ones, which fade over into the VAE's.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        images = read_pictures(image, ground=self.mel_spectrogram.silence).to(self._execution_device)
        spectrograms = read_pictures(spectrogram, "spectrogram").mean(dim=1, keepdim=True).to(images)
        size = (self.mel_spectrogram.num_mel_bins, images.shape[-1])
        if (images.shape[-2:], spectrograms.shape[-2:]) != (size, size) or len(images) + len(spectrograms) > 2:
            raise ValueError(
                f"`image` and `spectrogram` have to be one strip each, of {size[0]} rows and the same width, but are"
                f" {tuple(images.shape)} and {tuple(spectrograms.shape)}."
            )
        if kwargs.get("circular") or kwargs.get("canvas_layout", "strip") != "strip":
            raise ValueError("`canvas_layout` and `circular` can't be given to `extend`, which goes on along a strip.")
        check_number("extend_by_in_s", extend_by_in_s, least=1 / self.mel_spectrogram.columns_per_second)
        window, _ = self.resolve_window_width(kwargs.get("window_width"))
        kept = min(window // 2, size[1]) // self.vae_scale_factor * self.vae_scale_factor
        seconds = kept / self.mel_spectrogram.columns_per_second
        place = {"audio_length_in_s": seconds + extend_by_in_s, "crop_right": kwargs.pop("crop_right", None)}
        canvas = self.resolve_size(**place)
        # The VAE looks across the end of the sample, where a mirror disturbs it least.
        begin = images[..., size[1] - kept :].expand(-1, 3, -1, -1)
        start = torch.cat([begin, begin.flip(-1), begin.new_zeros(1, 3, size[0], canvas.width)], dim=-1)
        latents = self(
            prompt,
            audio_prompt,
            start[..., : canvas.width],
            strength=1.0,
            mask_start_in_s=seconds,
            output_type="latent",
            **place,
            **kwargs,
        ).images
        canvas = self.resolve_windows(canvas, **{name: kwargs.get(name) for name in OWN_WINDOWS})
        decoded = map(canvas.cut, self._decode_canvases(latents, canvas))
        images, spectrograms = (_joined(old, new, kept) for old, new in zip((images, spectrograms), decoded))
        audios = self.play(spectrograms)
        self._report(images, spectrograms, audios)
        self.maybe_free_model_hooks()
        images = self.convert_canvases(images, output_type)
        return ImagesThatSoundPipelineOutput(images, *self.convert(spectrograms, audios, output_type))


def _joined(old: torch.Tensor, new: torch.Tensor, shared: int) -> torch.Tensor:
    """Canvases `(B, C, H, T)` of an old one `(1, c, H, T')` and new ones that begin with its last columns."""
    fade = min(FADE, shared)
    old = old.to(new.dtype).expand(*new.shape[:3], -1)
    rising = torch.arange(1, fade + 1, device=new.device, dtype=new.dtype) / (fade + 1)
    between = torch.lerp(old[..., old.shape[-1] - fade :], new[..., shared - fade : shared], rising)
    return torch.cat([old[..., : old.shape[-1] - fade], between, new[..., shared:]], dim=-1)


def _repeated(rows: torch.Tensor, batch_size: int) -> torch.Tensor:
    """[`expand_rows`] in the same memory format, by which convolutions round, as the stock pipelines have it."""
    return torch.cat([row for row in rows.split(1) for _ in range(batch_size // len(rows))])


def _put_back(
    scheduler: SchedulerMixin,
    masks: torch.Tensor,
    kept: torch.Tensor,
    noise: torch.Tensor,
    step: DenoisingStep,
    latents: torch.Tensor,
) -> torch.Tensor:
    """Latents `(B, C, h, w)` after a step, outside the masks with the kept ones, at the noise of the next step."""
    masks = torch.nn.functional.interpolate(masks, kept.shape[-2:]).to(kept)
    masks = expand_rows(masks, len(kept))
    following = scheduler.timesteps[step.index + 1 : step.index + 2]
    noised = scheduler.add_noise(kept, noise, following) if len(following) else kept
    return (1 - masks) * noised + masks * latents
