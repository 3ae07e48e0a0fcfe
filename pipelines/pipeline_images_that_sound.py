"""Images that sound (arXiv 2405.12221): one canvas, denoised by an image model and a spectrogram model at once."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.utils import replace_example_docstring

# Named although unused: diffusers copies the files that this one names, and no others.
from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import ImagesThatSoundPipelineOutput
from .images_that_sound_canvas import Canvas
from .images_that_sound_checks import callback_inputs, check_number, check_output_type
from .images_that_sound_denoising import DenoisingStep
from .images_that_sound_files import written
from .images_that_sound_guides import Onsets
from .images_that_sound_loading import SelfContainedSavingMixin
from .images_that_sound_lora import FewStepsMixin
from .images_that_sound_picture_reading import upright
from .images_that_sound_sides import Request
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_two_sides import TwoSidesMixin


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


class ImagesThatSoundPipeline(TwoSidesMixin, DiffusionPipeline):
    r"""
    Pipeline for images that sound: at every denoising step Stable Diffusion and a spectrogram model fine-tuned from it
    predict the noise of the same latents, and the scheduler takes one step along the weighted average
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)).

    Load it from a Stable Diffusion repo and then call [`~ImagesThatSoundPipeline.load_audio_prior`], or from a repo
    that holds both sides. `load_lora_weights`, `load_textual_inversion`, `load_ip_adapter` and `controlnet`
    are the image side's; `pipe.audio` has the same methods for the audio side, which `audio_controlnet` guides.
    `load_few_step_lora_weights` is for both.

    Args:
        vae ([`AutoencoderKL`]): Decodes pictures, and spectrograms too unless `vae_audio` is given.
        text_encoder ([`~transformers.CLIPTextModel`]): Encodes image prompts, and audio prompts too unless
            `text_encoder_audio` is given.
        tokenizer ([`~transformers.CLIPTokenizer`]): Reads image prompts, and audio prompts too unless
            `tokenizer_audio` is given.
        unet ([`UNet2DConditionModel`]): Predicts noise for the image side.
        scheduler ([`SchedulerMixin`]): Any scheduler whose `step` takes a noise prediction. If a repo names
            `PNDMScheduler`, as those of Stable Diffusion do, and no other is passed, `DDIMScheduler` is built from its
            config, the paper's sampler.
        unet_audio ([`UNet2DConditionModel`], *optional*): Predicts noise of the same latents for the audio side.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim plays
            without it.
        vae_audio ([`AutoencoderKL`], *optional*): The audio side's VAE, if it differs.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): The audio side's text encoder, if it differs.
        tokenizer_audio ([`~transformers.CLIPTokenizer`], *optional*): The audio side's tokenizer, if it differs.
        controlnet ([`ControlNetModel`], `list[ControlNetModel]` or [`MultiControlNetModel`], *optional*): Guides the
            image side by control images.
        image_encoder ([`~transformers.CLIPVisionModelWithProjection`], *optional*): Reads pictures for IP-Adapters.
        feature_extractor ([`~transformers.CLIPImageProcessor`], *optional*): Prepares pictures for the image encoder.
        audio_controlnet ([`ControlNetModel`], `list[ControlNetModel]` or [`MultiControlNetModel`], *optional*): Guides
            the audio side by its own control images or by onsets.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`], Auffusion's by default.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
        audio_prediction_type (`str`, *optional*): Kind of the audio side's predictions, `"epsilon"`, `"v_prediction"`
            or `"sample"`, if it differs from the scheduler's.
    """

    def check_inputs(
        self,
        image: Request,
        audio: Request,
        canvas: Canvas,
        audio_noise_shares: list[float | torch.Tensor],
        *,
        denoising_start: float,
        denoising_end: float,
        num_images_per_prompt: int,
        eta: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        counts: dict[str, int] = {},
    ) -> int:
        """
        Returns the batch size. Raises `ValueError` for arguments of the call that do not make sense and were not
        checked when they were resolved. `counts` are the numbers of further inputs, by their argument.
        """
        requests = self.acting(image, audio, audio_noise_shares)
        batch_size = self._check_batch(requests, counts, num_images_per_prompt, generator)
        self.check_latents("latents", latents, batch_size, canvas)
        check_number("denoising_start", denoising_start, least=0, most=1)
        check_number("denoising_end", denoising_end, least=0, most=1)
        if denoising_start > denoising_end:
            raise ValueError(
                f"`denoising_start` may not be after `denoising_end`, but they are {denoising_start} and"
                f" {denoising_end}."
            )
        if denoising_start > 0 and latents is None:
            raise ValueError(
                f"`latents` have to be given if `denoising_start` is above 0, but it is {denoising_start}."
            )
        if eta is not None:
            check_number("eta", eta, least=0, most=1)
        check_output_type(output_type)
        return batch_size

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | dict[float, str] | None = None,
        audio_prompt: str | list[str] | dict[float, str] | None = None,
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
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
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
        latents: torch.Tensor | None = None,
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
        Makes pictures that sound.

        Arguments marked "checkpoint" default to the value in the checkpoint's config, else to the paper's value, which
        is given here.

        Args:
            prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Picture to see. An empty string leaves it
                open. A dict holds prompts by the second at which they begin, on a canvas wider than a window.
            audio_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Sound to hear; as many as `prompt`, or
                one of either for all. A dict as for `prompt`.
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
                in which it shows something; or `"picture"`, by those of `control_image`.
            resize_mode (`str`, defaults to `"center"`): How pictures of another shape come onto the canvas.
                `"center"`: as large as fits, once, in the middle. `"repeat"`: the same, side by side as often as it
                fits. `"crop"`: the middle of the smallest size that covers the canvas. `"stretch"`: in the canvas'
                shape.
            denoising_start (`float`, defaults to 0.0): Fraction of the steps, 0 to 1, that an earlier call with this
                `denoising_end` took; `latents` are its result. Multistep schedulers start anew there. At 1 the call
                only decodes.
            denoising_end (`float`, defaults to 1.0): Fraction of the steps, 0 to 1, after which to stop; with
                `output_type="latent"` another call can go on.
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
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Initial noise of unit variance; with
                `denoising_start` above 0, the result of an earlier call.
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
            guides.seen,
            control_image=audio_control_image,
            controlnet_conditioning_scale=audio_controlnet_conditioning_scale,
            control_guidance_start=audio_control_guidance_start,
            control_guidance_end=audio_control_guidance_end,
            ip_adapter_image=audio_ip_adapter_image,
            ip_adapter_image_embeds=audio_ip_adapter_image_embeds,
        )

        # 1. Check inputs
        batch_size = self.check_inputs(
            image,
            audio,
            canvas,
            shares,
            denoising_start=denoising_start,
            denoising_end=denoising_end,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            latents=latents,
            output_type=output_type,
            counts={**guides.counts, **audio_guides.counts},
        )

        # 2. Encode both prompts
        image, audio = self.guide(image, audio, batch_size, (guides, audio_guides), cross_attention_kwargs)

        # 3. Draw latents, and denoise them by both models
        latents = self.denoise(
            self.prepare_latents(batch_size, canvas, generator, latents),
            self.prepare_steps(shares, timesteps, sigmas, denoising_start, denoising_end),
            image,
            audio,
            canvas,
            eta=eta,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=inputs,
        )

        # 4. Decode the picture and the spectrogram, play it, and convert
        decoded = (latents, None, None)
        if output_type != "latent":
            decoded = self.decode(latents, canvas, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return decoded
        return ImagesThatSoundPipelineOutput(*decoded)
