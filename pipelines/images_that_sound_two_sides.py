"""Image side and audio side in one latent space: prompts, sizes, latents, the denoising loop, decoding."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    PNDMScheduler,
    StableDiffusionMixin,
    UNet2DConditionModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import AudioSideMixin
from .images_that_sound_checks import (
    MOST_COLUMNS,
    check_integer,
    check_multiple,
    check_number,
    check_tensor,
    shown,
    tensors_returned,
)
from .images_that_sound_noise_shares import audio_noise_shares
from .images_that_sound_prompts import Prompts, expand_rows
from .images_that_sound_spectrogram import check_audio
from .images_that_sound_steps import DenoisingStep, check_own_steps, denoising_steps, forget_history, original_sample


logger = logging.get_logger(__name__)

LAYOUTS = ("strip", "folded")


# What a call that averages noise does where an argument is left out and the config names nothing else: the paper's
# settings.
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


class TwoSidesMixin(AudioSideMixin, StableDiffusionMixin):
    """The components of Stable Diffusion and its audio side, and what the pipelines of both do with them."""

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
        self._register(
            spectrogram,
            default_arguments,
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

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **kwargs: Any) -> tuple[dict, dict, dict]:
        """What a repo names, with the paper's sampler for the one that repos of Stable Diffusion name."""
        # A repo that was saved by one of these pipelines names what its user chose.
        if "spectrogram" not in config_dict and config_dict.get("scheduler") == ["diffusers", "PNDMScheduler"]:
            logger.warning(
                "The repo names PNDMScheduler. Unless another `scheduler` is passed, DDIMScheduler is built from its"
                " config, the paper's sampler; assign `pipe.scheduler` for another."
            )
            config_dict = {**config_dict, "scheduler": ["diffusers", "DDIMScheduler"]}
        return super().extract_init_dict(config_dict, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> "TwoSidesMixin":
        """
        [`DiffusionPipeline.from_pipe`], except that optional components may be left out, that the shared ones keep
        their precision where no `dtype` is given, and that Stable Diffusion's PNDM becomes DDIM unless `scheduler` is
        given.
        """
        if isinstance(pipeline.scheduler, PNDMScheduler) and not hasattr(pipeline, "mel_spectrogram"):
            kwargs.setdefault("scheduler", DDIMScheduler.from_config(pipeline.scheduler.config))
        return super().from_pipe(pipeline, **kwargs)

    def _load_audio_modules(self, repo: AudioPriorRepo) -> dict[str, Any]:
        tokenizer = repo.load(CLIPTokenizer, "tokenizer")
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise ValueError(f"The tokenizer of `{repo}` differs from the image side's; one has to serve both.")
        modules = super()._load_audio_modules(repo)
        channels, image_channels = modules["unet_audio"].config.in_channels, self.unet.config.in_channels
        if channels != image_channels:
            raise ValueError(
                f"`unet_audio` of `{repo}` has to work in the image side's latents of {image_channels} channels, but"
                f" takes {channels}."
            )
        return modules

    def enable_freeu(self, s1: float, s2: float, b1: float, b2: float) -> None:
        """FreeU ([`StableDiffusionMixin.enable_freeu`]) in both UNets."""
        for unet in self._unets():
            unet.enable_freeu(s1=s1, s2=s2, b1=b1, b2=b2)

    def disable_freeu(self) -> None:
        """Undoes `enable_freeu`."""
        for unet in self._unets():
            unet.disable_freeu()

    def _unets(self) -> list[UNet2DConditionModel]:
        return [unet for unet in (self.unet, self.unet_audio) if unet is not None]

    def fuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """[`StableDiffusionMixin.fuse_qkv_projections`], in the audio side's models too."""
        super().fuse_qkv_projections(unet, vae)
        for model in self._audio_models(unet, vae):
            model.fuse_qkv_projections()

    def unfuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """Undoes `fuse_qkv_projections`."""
        super().unfuse_qkv_projections(unet, vae)
        for model in self._audio_models(unet, vae):
            model.unfuse_qkv_projections()

    def _audio_models(self, unet: bool, vae: bool) -> list[torch.nn.Module]:
        wanted = [self.unet_audio] * unet + [self.vae_audio] * vae
        return [model for model in wanted if model is not None]

    def resolve_size(
        self,
        height: int | None,
        width: int | None,
        audio_length_in_s: float | None,
        crop_right: int | None,
        canvas_layout: str = "strip",
    ) -> tuple[int, int, int]:
        """
        The canvas that a call's arguments ask for, where they leave something open to the checkpoint.

        Returns:
            Height and width of the picture in pixels, and how many columns to cut from the end of the sound.

        Raises:
            ValueError: For an argument that does not make sense, or that does not fit the spectrogram.
        """
        if not isinstance(canvas_layout, str) or canvas_layout not in LAYOUTS:
            raise ValueError(f"`canvas_layout` has to be 'strip' or 'folded', but is {shown(canvas_layout)}.")
        folds = 2 if canvas_layout == "folded" else 1
        crop_right = check_integer("crop_right", self.resolve_default("crop_right", crop_right), least=0)
        default_height, default_width = (
            check_integer(f"{name}` of `default_arguments", self.default_arguments[name])
            for name in ("height", "width")
        )
        height = default_height * folds if height is None else height
        if audio_length_in_s is None:
            width = default_width // folds if width is None else width
        elif width is not None:
            raise ValueError(
                f"`width` and `audio_length_in_s` exclude each other, but are {shown(width)} and"
                f" {shown(audio_length_in_s)}."
            )
        else:
            most = MOST_COLUMNS / self.mel_spectrogram.columns_per_second
            columns = self.mel_spectrogram.num_columns(_check_seconds(audio_length_in_s, most))
            width = -(-(columns + crop_right) // (folds * self.vae_scale_factor)) * self.vae_scale_factor
            crop_right = width * folds - columns
        self._check_size(height, width, crop_right, canvas_layout)
        return height, width, crop_right

    def _check_size(self, height: int, width: int, crop_right: int, canvas_layout: str) -> None:
        folds = 2 if canvas_layout == "folded" else 1
        for name, value in (("height", height), ("width", width)):
            check_multiple(name, value, self.vae_scale_factor)
        bins = self.mel_spectrogram.num_mel_bins
        if height != bins * folds:
            raise ValueError(
                f"`height` has to be {bins * folds} for `canvas_layout='{canvas_layout}'`, so that each row of the"
                f" canvas is one of the {bins} mel bins that the sound is made from, but is {height}."
            )
        if crop_right >= width * folds:
            raise ValueError(
                f"`crop_right` has to be below the {width * folds} columns of the canvas, but is {shown(crop_right)}."
            )
        self._check_playable("width", width * folds)

    def resolve_steps(self, name: str, num_steps: int | None) -> int:
        """A number of denoising steps, where the call leaves it open to the checkpoint; at most those of training."""
        most = self.scheduler.config.num_train_timesteps
        return check_integer(name, self.resolve_default(name, num_steps), most=most)

    def _resolve_own_steps(
        self, num_inference_steps: int | None, timesteps: list[int] | None, sigmas: list[float] | None
    ) -> int:
        """A number of denoising steps, of which at most one argument is given."""
        arguments = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
        given = [name for name, value in arguments.items() if value is not None]
        if len(given) > 1:
            names = ", ".join(f"`{name}`" for name in arguments)
            raise ValueError(f"{names} exclude each other, but {given} are given.")
        if given in (["timesteps"], ["sigmas"]):
            return check_own_steps(self.scheduler, given[0], arguments[given[0]])
        return self.resolve_steps("num_inference_steps", num_inference_steps)

    def resolve_noise_shares(
        self,
        num_inference_steps: int | None,
        audio_weight: Any,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        **edges: float | None,
    ) -> list[float]:
        """
        The audio side's share of the noise in 0..1 at each step, of the call's arguments, where they leave something
        open to the checkpoint; raises `ValueError` for those that do not make sense, or if no model speaks at a step.
        """
        num_steps = self._resolve_own_steps(num_inference_steps, timesteps, sigmas)
        if not hasattr(audio_weight, "audio_noise_shares"):
            edges = {name: self.resolve_default(name, value) for name, value in edges.items()}
            return audio_noise_shares(num_steps, self.resolve_default("audio_weight", audio_weight), **edges)
        given = {name: value for name, value in edges.items() if value is not None}
        if given:
            raise ValueError(
                f"`audio_weight` is a schedule, {audio_weight.__class__.__name__}, that decides on starts and ends"
                f" itself, so that none of these can be given besides: {given}."
            )
        # The same check as for a list, since the schedule may be anybody's.
        if isinstance(audio_weight, type) or not callable(audio_weight.audio_noise_shares):
            raise ValueError(
                "`audio_weight` has to be a number, a list or an object with a method `audio_noise_shares`, but is"
                f" {shown(audio_weight)}."
            )
        shares = audio_weight.audio_noise_shares(num_steps)
        return audio_noise_shares(num_steps, shares, image_guidance_start=0.0)

    def _latents_shape(self, batch_size: int, height: int, width: int) -> tuple[int, int, int, int]:
        sides = (side // self.vae_scale_factor for side in (height, width))
        return batch_size, self.unet.config.in_channels, *sides

    def _check_latents(
        self, name: str, latents: torch.Tensor | None, batch_size: int, height: int, width: int
    ) -> None:
        if latents is not None:
            check_tensor(name, latents, self._latents_shape(batch_size, height, width))

    def prepare_latents(
        self,
        batch_size: int,
        height: int,
        width: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Initial noise of unit variance.

        Args:
            batch_size (`int`): `B`.
            height (`int`): `H`, pixels of the picture.
            width (`int`): `W`, pixels of the picture.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): One for all or one per row.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Taken instead.

        Returns:
            `torch.Tensor` of shape `(B, C, H / 8, W / 8)`.
        """
        if latents is not None:
            return latents.to(self._execution_device, self.unet.dtype)
        shape = self._latents_shape(batch_size, height, width)
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)

    def _preprocess_audio(self, audio: np.ndarray | torch.Tensor | None) -> torch.Tensor | None:
        """Waveforms `(N,)` or `(B, N)` as canvases `(B, 1, M, T)` in 0..1."""
        if audio is None:
            return None
        waveforms = torch.from_numpy(audio) if isinstance(audio, np.ndarray) and audio.dtype.kind == "f" else audio
        check_audio(waveforms)
        if not torch.isfinite(waveforms).all() or waveforms.abs().amax() == 0:
            raise ValueError("`audio` has to be finite and not silent.")
        return self.mel_spectrogram.audio_to_canvas(torch.atleast_2d(waveforms).to(self._execution_device))

    def lora_scale_of(self, cross_attention_kwargs: dict[str, Any] | None) -> float | None:
        """`scale` of the call's argument; raises `ValueError` for what no attention processor takes."""
        if cross_attention_kwargs is None:
            return None
        processors = {type(processor) for unet in self._unets() for processor in unet.attn_processors.values()}
        taken = set().union(*(inspect.signature(processor.__call__).parameters for processor in processors))
        own = {"self", "attn", "hidden_states", "encoder_hidden_states", "attention_mask", "temb", "args", "kwargs"}
        names = {"scale", *taken} - own
        if not isinstance(cross_attention_kwargs, dict) or set(cross_attention_kwargs) - names:
            raise ValueError(
                f"`cross_attention_kwargs` has to be a dict with keys among {sorted(names)}, but is"
                f" {shown(cross_attention_kwargs)}."
            )
        return check_number("scale` of `cross_attention_kwargs", cross_attention_kwargs.get("scale", 1.0))

    def prepare_extra_step_kwargs(
        self, generator: torch.Generator | list[torch.Generator] | None, eta: float | None
    ) -> dict[str, Any]:
        """What of `eta` and `generator` the scheduler's `step` takes."""
        parameters = inspect.signature(self.scheduler.step).parameters
        own = {"generator": generator} | ({} if eta is None else {"eta": eta})
        return {name: value for name, value in own.items() if name in parameters}

    @torch.no_grad()
    def denoise(
        self,
        latents: torch.Tensor,
        audio_noise_shares: list[float],
        *,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        guidance_scale: float = 1.0,
        audio_guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        audio_guidance_rescale: float = 0.0,
        image_guides: Callable[..., dict[str, Any]] | None = None,
        canvas_layout: str = "strip",
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        eta: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
    ) -> torch.Tensor:
        """
        The first half of a call: both models predict the noise of the same latents, the predictions are averaged, and
        the scheduler takes a step ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 3.2). A model whose
        share is 0 is not run.

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Initial noise of unit variance; with
                `denoising_start` above 0, what an earlier call returned.
            audio_noise_shares (`list[float]`): The audio side's share of the noise in 0..1, one for each step of the
                whole run; the image side's is one minus it.
            prompt_embeds, negative_prompt_embeds, audio_prompt_embeds, negative_audio_prompt_embeds
                (`torch.Tensor` of shape `(b, L, D)`, *optional*): Of `encode_prompt`, `b` dividing `B`; those of a
                side that is silent all the time need not be given, negative ones only with guidance.
            guidance_scale (`float`, defaults to 1.0): Classifier-free guidance of the image side; off at 1.
            audio_guidance_scale (`float`, defaults to 1.0): The same of the audio side.
            image_guides (`Callable`, *optional*): What else the image side's UNet takes at one of the scheduler's
                timesteps, such as [`ImageGuides`] of `prepare_guides`.
            guidance_rescale, audio_guidance_rescale, canvas_layout, denoising_start, denoising_end, timesteps, sigmas,
            eta, generator, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs:
                As in the call.

        Returns:
            `torch.Tensor` of shape `(B, C, H / 8, W / 8)`: Latents after the last step, or after the step in which
            `pipe._interrupt` was set.
        """
        check_tensor("latents", latents, ("B", self.unet.config.in_channels, "H", "W"))
        self._guidance_scale, self._audio_guidance_scale = guidance_scale, audio_guidance_scale
        self._guidance_rescale, self._audio_guidance_rescale = guidance_rescale, audio_guidance_rescale
        for side, prompts in (
            (self.image_side, Prompts("prompt", None, None, prompt_embeds, negative_prompt_embeds)),
            (self.audio_side, Prompts("audio_prompt", None, None, audio_prompt_embeds, negative_audio_prompt_embeds)),
        ):
            if prompts.are_given:
                prompts.check(None, side.guided, side.hidden_size)
        self._cross_attention_kwargs, self._interrupt = cross_attention_kwargs, False
        tensors = {
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "audio_prompt_embeds": audio_prompt_embeds,
            "negative_audio_prompt_embeds": negative_audio_prompt_embeds,
        }
        device, dtype = self._execution_device, self.unet.dtype
        latents = latents.to(device, dtype)
        for name, embeds in tensors.items():
            tensors[name] = None if embeds is None else expand_rows(embeds, len(latents)).to(device, dtype)
        tensors |= self._with_negatives(tensors)
        first_step, last_step = (round(edge * len(audio_noise_shares)) for edge in (denoising_start, denoising_end))
        own = {"timesteps": timesteps, "sigmas": sigmas}
        steps = denoising_steps(self.scheduler, audio_noise_shares, first_step, last_step, device, **own)
        self._num_timesteps = len(steps)
        if first_step == 0:
            latents = latents * self.scheduler.init_noise_sigma
        extra_step_kwargs = self.prepare_extra_step_kwargs(generator, eta)
        with self.progress_bar(total=last_step - first_step) as progress_bar:
            for step in steps:
                if self.interrupt:
                    break
                noise_pred = self._predict_noise(latents, step, tensors, canvas_layout, image_guides)
                if step.mixture_jumps:
                    forget_history(self.scheduler, step.index, noise_pred, len(audio_noise_shares), **own)
                output = self.scheduler.step(noise_pred, step.timestep, latents, **extra_step_kwargs)
                noisy, latents = latents, output.prev_sample
                if callback_on_step_end is not None:
                    known = {**tensors, "latents": latents}
                    if "pred_original_sample" in callback_on_step_end_tensor_inputs:
                        known["pred_original_sample"] = original_sample(
                            self.scheduler, output, noise_pred, step, noisy
                        )
                    given = {name: known[name] for name in callback_on_step_end_tensor_inputs}
                    returned = callback_on_step_end(self, step.index, step.timestep, given)
                    replaced = tensors_returned(returned, {**tensors, "latents": latents})
                    latents = replaced.pop("latents", latents)
                    tensors |= replaced
                if step.completes_step:
                    progress_bar.update()
        return latents

    def _predict_noise(
        self,
        latents: torch.Tensor,
        step: DenoisingStep,
        embeds: dict[str, torch.Tensor],
        canvas_layout: str,
        image_guides: Callable | None,
    ) -> torch.Tensor:
        """Both models' noise predictions, averaged by the audio side's share; a silent model is not run."""
        kwargs = {"cross_attention_kwargs": self.cross_attention_kwargs}
        noises, shares = [], []
        if step.audio_share < 1:
            scaled = self.scheduler.scale_model_input(latents, step.timestep)
            guides = image_guides and partial(image_guides, step.index, len(self.scheduler.timesteps))
            prompt_embeds = embeds["prompt_embeds"]
            noises.append(self.image_side.predict_noise(scaled, step.timestep, prompt_embeds, guides, **kwargs))
            shares.append(1 - step.audio_share)
        if step.audio_share > 0:
            audio_latents = unfold_canvas(latents) if canvas_layout == "folded" else latents
            scaled = self.scheduler.scale_model_input(audio_latents, step.timestep)
            noise = self.audio_side.predict_noise(scaled, step.timestep, embeds["audio_prompt_embeds"], **kwargs)
            noises.append(fold_canvas(noise) if canvas_layout == "folded" else noise)
            shares.append(step.audio_share)
        if len(noises) == 1:
            return noises[0]
        return shares[0] * noises[0] + shares[1] * noises[1]

    @torch.no_grad()
    def decode(
        self, latents: torch.Tensor, canvas_layout: str = "strip", cut_columns: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        The second half of a call: decodes latents to pictures and spectrograms, and plays the spectrograms.

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Without noise.
            canvas_layout (`str`, defaults to `"strip"`): `"strip"` or `"folded"`.
            cut_columns (`int`, defaults to 0): Columns cut from the right end of canvas and sound.

        Returns:
            Tuple of pictures of shape `(B, 3, H, W)` and gray spectrograms of shape `(B, 1, M, T)` in 0..1, and
            float32 waveforms of shape `(B, N)`.
        """
        check_tensor("latents", latents, ("B", self.vae.config.latent_channels, "H", "W"))
        images, vae_audio = self.decode_latents(latents, self.vae), self.audio_side.vae
        if canvas_layout == "folded":
            spectrograms = self.decode_latents(unfold_canvas(latents), vae_audio)
        elif vae_audio is not self.vae:
            spectrograms = self.decode_latents(latents, vae_audio)
        else:
            spectrograms = images
        spectrograms = spectrograms.mean(dim=1, keepdim=True)
        audios = self.play(spectrograms)
        columns = spectrograms.shape[-1]
        columns -= check_integer("cut_columns", cut_columns, least=0, most=columns - 1)
        spectrograms = spectrograms[..., :columns]
        audios = audios[..., : self.mel_spectrogram.num_samples(columns)]
        if canvas_layout == "strip":
            images = images[..., :columns]
        self._report(images, spectrograms, audios)
        return images, spectrograms, audios

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
        """Latents of shape `(B, C, H / 8, W / 8)` to pictures of shape `(B, 3, H, W)` in 0..1."""
        decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return self.image_processor.denormalize(decoded)


def _check_seconds(audio_length_in_s: float, most: float) -> float:
    number = isinstance(audio_length_in_s, (int, float)) and not isinstance(audio_length_in_s, bool)
    if not number or not 0 < audio_length_in_s <= most:
        raise ValueError(
            f"`audio_length_in_s` has to be a positive number of seconds up to {most:g}, but is"
            f" {shown(audio_length_in_s)}."
        )
    return audio_length_in_s


def unfold_canvas(canvas: torch.Tensor) -> torch.Tensor:
    """A square picture `(B, C, H, W)` as the strip `(B, C, H / 2, 2 * W)` that is played, its top half first."""
    return torch.cat(canvas.chunk(2, dim=-2), dim=-1)


def fold_canvas(canvas: torch.Tensor) -> torch.Tensor:
    """The inverse of [`unfold_canvas`]."""
    return torch.cat(canvas.chunk(2, dim=-1), dim=-2)
