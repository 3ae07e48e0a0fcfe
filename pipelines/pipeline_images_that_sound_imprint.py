"""Imprint (arXiv 2405.12221): a picture painted into a spectrogram, the baseline for images that sound."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.utils import replace_example_docstring

# Named although unused: diffusers copies the files that this one names, and no others.
from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import ImagesThatSoundPipelineOutput
from .images_that_sound_canvas import Canvas, fit_pictures, imprint, read_pictures
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


# Defaults of a call: the paper's settings.
PAPER_ARGUMENTS = {
    "height": 256,
    "width": 1024,
    "crop_right": 32,
    "num_inference_steps": 50,
    "num_audio_inference_steps": 100,
    "guidance_scale": 7.5,
    "audio_guidance_scale": 7.5,
    **OWN_WINDOWS,
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
    Result of [`ImagesThatSoundImprintPipeline`]: `images` are the pictures that were painted, `spectrograms` the gray
    canvases that look like them and are played. As latents, either is `None` if the caller gave it.
    """


class ImagesThatSoundImprintPipeline(TwoSidesMixin, DiffusionPipeline):
    r"""
    Pipeline that paints a picture into a spectrogram: Stable Diffusion makes the picture and Auffusion the
    spectrogram, each alone, and the spectrogram is darkened where the picture is dark
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 4.1 and appendix A.3). If black is loud, as
    Riffusion paints, it is brightened where the picture is bright. Your picture or your sound may stand in for either.

    It loads the same repos and has the same components as [`ImagesThatSoundPipeline`]. One scheduler serves both
    sides, one after the other.
    """

    model_cpu_offload_seq = (
        "text_encoder->text_encoder_audio->image_encoder->unet->unet_audio->vae->vae_audio->vocoder"
    )
    _paper_arguments = PAPER_ARGUMENTS

    def check_inputs(
        self,
        image: Request,
        audio: Request,
        canvas: Canvas,
        *,
        given: dict[str, int],
        magnitude_ratio: float,
        num_images_per_prompt: int,
        eta: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: dict[str, torch.Tensor | None],
        output_type: str,
        counts: dict[str, int],
        callback_on_step_end_tensor_inputs: list[str],
    ) -> int:
        """
        Returns the batch size. Raises `ValueError` for arguments of the call that do not make sense and were not
        checked when they were resolved. `given` are the numbers of pictures or sounds that stand in for a side,
        `counts` those of further inputs, by their argument.
        """
        if "audio" not in given:
            self._check_audio_prior()
        made = []
        for name, request, noise in zip(("image", "audio"), (image, audio), latents.values()):
            if name not in given:
                made.append(request)
            elif not request.is_empty or noise is not None:
                raise ValueError(
                    f"`{name}` stands in for what `{request.name}`, its embeddings, its negative and its latents would"
                    " make, so that none of them can be given besides."
                )
            elif f"{request.name}_embeds" in callback_on_step_end_tensor_inputs:
                raise ValueError(
                    f"`callback_on_step_end_tensor_inputs` names `{request.name}_embeds`, which are not made if"
                    f" `{name}` is given."
                )
        batch_size = self._check_batch(tuple(made), {**given, **counts}, num_images_per_prompt, generator)
        if eta is not None:
            check_number("eta", eta, least=0, most=1)
        check_number("magnitude_ratio", magnitude_ratio, least=0, most=1)
        for name, noise in latents.items():
            self.check_latents(name, noise, batch_size, canvas)
        check_output_type(output_type)
        return batch_size

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | dict[float, str] | None = None,
        audio_prompt: str | list[str] | dict[float, str] | None = None,
        image: PipelineImageInput | None = None,
        audio: np.ndarray | torch.Tensor | None = None,
        magnitude_ratio: float = 0.5,
        invert_image: bool = True,
        negative_prompt: str | list[str] | dict[float, str] | None = None,
        negative_audio_prompt: str | list[str] | dict[float, str] | None = None,
        height: int | None = None,
        width: int | None = None,
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        num_audio_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        audio_guidance_scale: float | None = None,
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
        audio_latents: torch.Tensor | None = None,
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
    ) -> ImagesThatSoundImprintPipelineOutput | tuple:
        r"""
        Makes spectrograms with pictures painted into them, and plays them.

        Arguments marked "checkpoint" default to the value in the checkpoint's config, else to the paper's value, which
        is given here.

        Args:
            prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Picture to see, unless `image` is given. An
                empty string leaves it open. A dict holds prompts by the second at which they begin, on a canvas wider
                than a window.
            audio_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Sound to hear, unless `audio` is
                given; as many as pictures, or one of either for all. A dict as for `prompt`.
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*): Pictures to paint
                instead of generated ones, in 0..1 if they are arrays. They come onto the canvas as `resize_mode` says;
                beside them the sound stays as it is. Transparent parts are silence.
            audio (`np.ndarray` or `torch.Tensor` of shape `(N,)` or `(B, N)`, *optional*): Waveforms at
                `pipe.sampling_rate` to paint into instead of generated ones. The canvas is as long as they are.
            magnitude_ratio (`float`, defaults to 0.5): Greatest share of the spectrogram that the picture takes away,
                0 to 1.
            invert_image (`bool`, defaults to `True`): Whether the parts of the picture that look like silence take
                sound away, so that the picture shows as it is; else its negative shows. Silence is black, or white if
                black is loud.
            negative_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Picture to avoid; one for all, one
                per prompt, or over time. Unused if `guidance_scale` is at most 1.
            negative_audio_prompt (`str`, `list[str]` or `dict[float, str]`, *optional*): Sound to avoid; one for all,
                one per prompt, or over time. Unused if `audio_guidance_scale` is at most 1.
            height (`int`, *optional*, checkpoint, defaults to 256): Pixels of the picture: the number of mel bins.
            width (`int`, *optional*, checkpoint, defaults to 1024): Pixels of the picture, a multiple of 8. Each
                column of the spectrogram lasts `hop_length / sampling_rate` (0.01 s).
            audio_length_in_s (`float`, *optional*): Exact length of the sound in seconds, to the column, instead of
                `width`. The canvas is as wide as needed, and the rest is cut from its right end.
            num_inference_steps (`int`, *optional*, checkpoint, defaults to 50): Number of denoising steps of the
                picture.
            num_audio_inference_steps (`int`, *optional*, checkpoint, defaults to 100): Number of denoising steps of
                the spectrogram.
            timesteps (`list[int]`, *optional*): Custom falling timesteps of both, instead of the numbers of steps, for
                schedulers whose `set_timesteps` takes them.
            sigmas (`list[float]`, *optional*): Custom falling noise levels of both, instead of the numbers of steps,
                for schedulers whose `set_timesteps` takes them.
            guidance_scale (`float`, *optional*, checkpoint, defaults to 7.5): Scale of classifier-free guidance of the
                image side. 1 and below turn it off.
            audio_guidance_scale (`float`, *optional*, checkpoint, defaults to 7.5): Scale of classifier-free guidance
                of the audio side. 1 and below turn it off.
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
            crop_right (`int`, *optional*, checkpoint, defaults to 32): Columns to cut from the right end of canvas and
                sound: the dark strip that Auffusion learned. A given sound is not cut.
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
            num_images_per_prompt (`int`, defaults to 1): Samples for each pair.
            eta (`float`, *optional*): Share of fresh noise, 0 to 1, for schedulers that take it (DDIM, arXiv
                2010.02502, equation 16). The scheduler's default is 0 for DDIM and 0.3 for TCD.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): Source of the noise, one for all or
                one per sample. It draws the picture's latents before the spectrogram's.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Initial noise of the pictures, of
                unit variance.
            audio_latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Initial noise of the
                spectrograms, of unit variance.
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
            return_dict (`bool`, defaults to `True`): Whether to return an [`ImagesThatSoundImprintPipelineOutput`] or
                a plain tuple.
            callback_on_step_end (`Callable`, *optional*): Called as `callback(pipe, step, timestep, callback_kwargs)`
                after each step. Tensors in the dict that it returns replace those at work. `pipe._interrupt = True`
                skips the steps that are left. The picture's steps are counted before the spectrogram's.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`): Tensors for the callback,
                among `latents`, those of the side at work, `prompt_embeds`, `negative_prompt_embeds`,
                `audio_prompt_embeds`, `negative_audio_prompt_embeds` and `pred_original_sample`, the noiseless latents
                that the step expects.
            cross_attention_kwargs (`dict`, *optional*): Arguments of the attention processors of both UNets. `scale`
                scales the LoRAs of both sides, also in text encoders; `set_adapters` and `audio.set_adapters` weigh
                those of one side. `ip_adapter_masks` says where each picture of an IP-Adapter counts.

        Examples:

        Returns:
            [`ImagesThatSoundImprintPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms. A logged warning
            reports a result that is silent, clipped or not finite.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 0. Fill in defaults, and read given pictures and sounds
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        num_steps = self.resolve_steps(num_inference_steps, timesteps, sigmas)
        num_audio_steps = num_steps
        if timesteps is None and sigmas is None:
            num_audio_steps = self.resolve_num_steps("num_audio_inference_steps", num_audio_inference_steps)
        images = None if image is None else read_pictures(image, ground=self.mel_spectrogram.silence)
        spectrograms = self.preprocess_audio(audio)
        if spectrograms is not None:
            crop_right, audio_length_in_s = 0, self.length_of(spectrograms, width, audio_length_in_s)
        canvas = self.resolve_size(height, width, audio_length_in_s, crop_right, circular=circular)
        canvas = self.resolve_windows(
            canvas, window_width, window_stride, audio_window_width, audio_window_stride, window_batch_size
        )
        image = Request("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, clip_skip)
        image = self.resolve_request(image, canvas, guidance_scale)
        audio_embeds = (audio_prompt_embeds, negative_audio_prompt_embeds)
        audio = Request("audio_prompt", audio_prompt, negative_audio_prompt, *audio_embeds, audio_clip_skip)
        audio = self.resolve_request(audio, canvas, audio_guidance_scale)
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
        batch_size = self.check_inputs(
            image,
            audio,
            canvas,
            given={n: len(each) for n, each in (("image", images), ("audio", spectrograms)) if each is not None},
            magnitude_ratio=magnitude_ratio,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            latents={"latents": latents, "audio_latents": audio_latents},
            output_type=output_type,
            counts={**guides.counts, **audio_guides.counts},
            callback_on_step_end_tensor_inputs=inputs,
        )

        # 2. Encode the prompts
        image, audio = self.guide(image, audio, batch_size, (guides, audio_guides), cross_attention_kwargs)

        # 3. Draw latents, the picture's first
        if images is None:
            latents = self.prepare_latents(batch_size, canvas, generator, latents)
        if spectrograms is None:
            audio_latents = self.prepare_latents(batch_size, canvas, generator, audio_latents)

        # 4. Make the picture, then the spectrogram, each by its model alone
        denoise = partial(
            self.denoise,
            image=image,
            audio=audio,
            canvas=canvas,
            eta=eta,
            generator=generator,
            callback_on_step_end_tensor_inputs=inputs,
        )
        self._interrupt = False
        if images is None:
            steps = self.prepare_steps([0.0] * num_steps, timesteps, sigmas)
            latents = denoise(latents, steps, callback_on_step_end=callback_on_step_end)
        if spectrograms is None and not self.interrupt:
            steps = self.prepare_steps([1.0] * num_audio_steps, timesteps, sigmas)
            on_step_end = _counted_on(callback_on_step_end, num_steps if images is None else 0)
            audio_latents = denoise(audio_latents, steps, callback_on_step_end=on_step_end)
        if output_type == "latent":
            self.maybe_free_model_hooks()
            output = (latents, audio_latents, None)
            return output if not return_dict else ImagesThatSoundImprintPipelineOutput(*output)

        # 5. Decode both, cut to the columns that are kept
        silence = self.mel_spectrogram.silence
        if images is None:
            images = canvas.cut(self.decode_latents(latents, self.vae, canvas.windows))  # (B, 3, M, T)
        else:
            untouched = 1 - silence if invert_image else silence
            images = fit_pictures(images, canvas.height, canvas.columns, resize_mode, untouched)
            images = images.to(self._execution_device).expand(-1, 3, -1, -1)
        if spectrograms is None:
            spectrograms = canvas.cut(self.decode_latents(audio_latents, self.audio_side.vae, canvas.audio_windows))
            spectrograms = spectrograms.mean(dim=1, keepdim=True)  # (B, 1, M, T)
        images, spectrograms = expand_rows(images, batch_size), expand_rows(spectrograms, batch_size)

        # 6. Paint the picture into the spectrogram, play it, and convert
        spectrograms = imprint(spectrograms.float(), images.float(), magnitude_ratio, invert_image, silence)
        audios = self.play(spectrograms, circular)
        self._report(images, spectrograms, audios)
        self.maybe_free_model_hooks()
        output = self.convert_canvases(images, output_type), *self.convert(spectrograms, audios, output_type)
        return output if not return_dict else ImagesThatSoundImprintPipelineOutput(*output)


def _counted_on(callback: Callable | None, first: int) -> Callable | None:
    """A callback whose steps are counted from `first` on."""
    if callback is None:
        return None
    return lambda pipe, step, timestep, tensors: callback(pipe, first + step, timestep, tensors)
