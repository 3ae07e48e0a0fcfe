"""Images that sound (arXiv 2405.12221): one canvas, denoised by an image model and a spectrogram model at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.utils import BaseOutput, replace_example_docstring

# diffusers copies only the files that this one names, each of them.
from .images_that_sound_audio_prior import AudioPriorLoaderMixin  # noqa: F401
from .images_that_sound_checks import (
    check_generator,
    check_num_images_per_prompt,
    check_output_type,
    is_positive_int,
)
from .images_that_sound_repo import SelfContainedRepoMixin  # noqa: F401
from .images_that_sound_sides import TwoSidesMixin
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401
from .images_that_sound_weights import audio_noise_shares


# What a call does where an argument is left out and the checkpoint's config names nothing else: the paper's settings.
PAPER_ARGUMENTS = {
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


class DenoisingStep(NamedTuple):
    """One call of the scheduler; several complete a step where its order is above one."""

    index: int
    timestep: torch.Tensor
    audio_share: float
    mixture_jumps: bool
    completes_step: bool


class ImagesThatSoundPipeline(
    TwoSidesMixin, DiffusionPipeline, TextualInversionLoaderMixin, StableDiffusionLoraLoaderMixin
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
    _callback_tensor_inputs = [*TwoSidesMixin._callback_tensor_inputs, "pred_original_sample"]
    _paper_arguments = PAPER_ARGUMENTS

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
        self._check_audio_prior()
        num_prompts = self._check_prompts(
            prompt,
            audio_prompt,
            negative_prompt,
            negative_audio_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            audio_prompt_embeds,
            negative_audio_prompt_embeds,
        )
        check_num_images_per_prompt(num_images_per_prompt)
        batch_size = num_prompts * num_images_per_prompt
        check_generator(generator, batch_size)
        self._check_canvas(height, width, crop_right, canvas_layout)
        self._check_latents("latents", latents, batch_size, height, width)
        check_output_type(output_type)
        self._check_callback(callback_on_step_end_tensor_inputs)
        return num_prompts

    def _step_range(
        self, denoising_start: float, denoising_end: float, num_inference_steps: int, latents: torch.Tensor | None
    ) -> tuple[int, int]:
        """First step and the one after the last."""
        for name, value in (("denoising_start", denoising_start), ("denoising_end", denoising_end)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"`{name}` has to be a fraction of the steps in 0..1, but is {value!r}.")
        if denoising_start > denoising_end:
            raise ValueError(
                f"`denoising_start` may not be after `denoising_end`, but they are {denoising_start} and"
                f" {denoising_end}."
            )
        if denoising_start > 0 and latents is None:
            raise ValueError(
                f"`latents` have to be given where `denoising_start` is above 0, but it is {denoising_start}."
            )
        return round(denoising_start * num_inference_steps), round(denoising_end * num_inference_steps)

    def _prepare_steps(
        self, audio_shares: list[float], first_step: int, last_step: int, device: torch.device
    ) -> list["DenoisingStep"]:
        """Sets the scheduler's timesteps, one share each, and lists what is to be done from the first to the last."""
        num_inference_steps, order = len(audio_shares), self.scheduler.order
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps = self.scheduler.timesteps
        num_warmup_steps = max(len(timesteps) - num_inference_steps * order, 0)
        begin = first_step * order + num_warmup_steps if first_step else 0
        end = last_step * order + num_warmup_steps if last_step < num_inference_steps else len(timesteps)
        if begin and hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin)
        shares = [audio_shares[max(i - num_warmup_steps, 0) // order] for i in range(end)]
        return [
            DenoisingStep(
                index=i,
                timestep=timesteps[i],
                audio_share=shares[i],
                mixture_jumps=i > begin and abs(shares[i] - shares[i - 1]) > MIXTURE_JUMP,
                completes_step=i == len(timesteps) - 1 or (i + 1 > num_warmup_steps and (i + 1) % order == 0),
            )
            for i in range(begin, end)
        ]

    def _predict_mixed_noise(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        audio_share: float,
        prompt_embeds: torch.Tensor,
        audio_prompt_embeds: torch.Tensor,
        canvas_layout: str,
    ) -> torch.Tensor:
        """Both models' noise predictions, averaged by the audio side's share; a silent model is not run."""
        if audio_share < 1:
            image_noise_pred = self._predict_noise(self.unet, latents, timestep, prompt_embeds, self.guidance_scale)
        if audio_share > 0:
            audio_latents = unfold_canvas(latents) if canvas_layout == "folded" else latents
            audio_noise_pred = self._predict_noise(
                self.unet_audio, audio_latents, timestep, audio_prompt_embeds, self.audio_guidance_scale
            )
            if canvas_layout == "folded":
                audio_noise_pred = fold_canvas(audio_noise_pred)
        if audio_share == 0:
            return image_noise_pred
        if audio_share == 1:
            return audio_noise_pred
        return (1 - audio_share) * image_noise_pred + audio_share * audio_noise_pred

    def _forget_history(self, index: int, noise_pred: torch.Tensor, num_inference_steps: int) -> None:
        """Makes a multistep scheduler go on from `index` as from a start: its history belongs to another mixture."""
        if hasattr(self.scheduler, "ets") and hasattr(self.scheduler, "counter"):
            self.scheduler.ets = [noise_pred] * 3
        elif hasattr(self.scheduler, "derivatives"):
            self.scheduler.derivatives = [noise_pred] * 3
        elif hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_timesteps(num_inference_steps, device=noise_pred.device)
            self.scheduler.set_begin_index(index)

    def decode(
        self, latents: torch.Tensor, canvas_layout: str = "strip", cut_columns: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Decodes latents to pictures and spectrograms, and plays the spectrograms.

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Without noise.
            canvas_layout (`str`, defaults to `"strip"`): `"strip"` or `"folded"`.
            cut_columns (`int`, defaults to 0): Columns cut from the right end of canvas and sound.

        Returns:
            Tuple of pictures of shape `(B, 3, H, W)` and gray spectrograms of shape `(B, 1, M, T)` in 0..1, and
            float32 waveforms of shape `(B, N)`.
        """
        images = self.decode_latents(latents, self.vae)
        if canvas_layout == "folded":
            spectrograms = self.decode_latents(unfold_canvas(latents), self.vae_audio or self.vae)
        elif self.vae_audio is not None:
            spectrograms = self.decode_latents(latents, self.vae_audio)
        else:
            spectrograms = images
        spectrograms = spectrograms.mean(dim=1, keepdim=True)
        audios = self.mel_spectrogram.canvas_to_audio(spectrograms, self.vocoder)
        columns = spectrograms.shape[-1] - cut_columns
        spectrograms = spectrograms[..., :columns]
        audios = audios[..., : columns * self.mel_spectrogram.hop_length]
        if canvas_layout == "strip":
            images = images[..., :columns]
        self._report(images, spectrograms, audios)
        return images, spectrograms, audios

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
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
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
            eta (`float`, defaults to 0.0):
                Share of fresh noise in 0..1, for schedulers that take it (DDIM, arXiv 2010.02502, equation 16).
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
                noise that the scheduler expects in the end (`None` by schedulers that don't say).
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
        first_step, last_step = self._step_range(denoising_start, denoising_end, num_inference_steps, latents)
        self._begin_call(guidance_scale, audio_guidance_scale, cross_attention_kwargs)
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
        steps = self._prepare_steps(audio_shares, first_step, last_step, device)
        self._num_timesteps = len(steps)

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
            is_initial_noise=first_step == 0,
        )
        extra_step_kwargs = self.prepare_extra_step_kwargs(generator, eta)

        # 5. Denoise by both models
        with self.progress_bar(total=last_step - first_step) as progress_bar:
            for i, t, audio_share, mixture_jumps, completes_step in steps:
                if self.interrupt:
                    continue
                noise_pred = self._predict_mixed_noise(
                    latents, t, audio_share, prompt_embeds, audio_prompt_embeds, canvas_layout
                )
                if mixture_jumps:
                    self._forget_history(i, noise_pred, num_inference_steps)
                step_output = self.scheduler.step(noise_pred, t, latents, **extra_step_kwargs)
                latents = step_output.prev_sample

                if callback_on_step_end is not None:
                    pred_original_sample = getattr(step_output, "pred_original_sample", None)  # noqa: F841
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

                if completes_step:
                    progress_bar.update()

        if output_type == "latent":
            self.maybe_free_model_hooks()
            if not return_dict:
                return latents, None, None
            return ImagesThatSoundPipelineOutput(images=latents, spectrograms=None, audios=None)

        # 6. Decode the picture and the spectrogram, and play it
        images, spectrograms, audios = self.decode(latents, canvas_layout, cut_columns)
        self.maybe_free_model_hooks()

        # 7. Convert
        images, spectrograms, audios = self._convert(images, spectrograms, audios, output_type)
        if not return_dict:
            return images, spectrograms, audios
        return ImagesThatSoundPipelineOutput(images=images, spectrograms=spectrograms, audios=audios)

    def _audio_noise_shares(self, num_inference_steps: int, audio_weight: Any, **edges: float | None) -> list[float]:
        if not is_positive_int(num_inference_steps):
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
