"""SDS (arXiv 2405.12221, section 4.1): a canvas optimised against an image model and a spectrogram model."""

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput, logging, replace_example_docstring
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedModel, PreTrainedTokenizerBase, SpeechT5HifiGan

# diffusers copies only the files that this one names, each of them.
from .images_that_sound_audio_prior import AudioPriorLoaderMixin, Repo, check_vocoder
from .images_that_sound_checks import (
    check_generator,
    check_negative_prompt,
    check_num_images_per_prompt,
    check_prompt,
    check_scale,
    is_positive_int,
)
from .images_that_sound_deepfloyd import DeepFloydMixin, predict_pixel_noise
from .images_that_sound_repo import SelfContainedRepoMixin  # noqa: F401
from .images_that_sound_score_distillation import (
    CANVASES,
    draw_timesteps,
    score_distillation_loss,
    score_distillation_weights,
)
from .images_that_sound_spectrogram import MelSpectrogram, audio_problems
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401


logger = logging.get_logger(__name__)

# What a call does where an argument is left out and the checkpoint's config names nothing else: the paper's settings.
PAPER_ARGUMENTS = {
    "height": 256,
    "width": 1024,
    "crop_right": 32,
    "crop_width": None,
    "num_crops": 8,
    "num_iterations": 40000,
    "image_start_step": 5000,
}

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from images_that_sound.pipelines import ImagesThatSoundSDSPipeline

        >>> pipe = ImagesThatSoundSDSPipeline.from_pretrained(
        ...     "DeepFloyd/IF-I-M-v1.0", variant="fp16", dtype=torch.float16
        ... )
        >>> pipe.load_audio_prior("auffusion/auffusion-full-no-adapter")
        >>> pipe.to("cuda")
        >>> output = pipe("a painting of a castle towers, grayscale", "Bell ringing")
        >>> output.images[0].save("castle.png")
        ```
"""


@dataclass
class ImagesThatSoundSDSPipelineOutput(BaseOutput):
    """
    Output of [`ImagesThatSoundSDSPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, H, W, 3)` or `torch.Tensor` of shape
            `(B, 3, H, W)`): Canvases in 0..1 as pictures.
        spectrograms (`list[PIL.Image.Image]`, `np.ndarray` of shape `(B, M, T, 1)` or `torch.Tensor` of shape
            `(B, 1, M, T)`): The same canvases in gray, as they are played.
        audios (`np.ndarray` or `torch.Tensor` of shape `(B, N)`): Float32 waveforms in -1..1 at `pipe.sampling_rate`.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    spectrograms: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    audios: np.ndarray | torch.Tensor


class ImagesThatSoundSDSPipeline(AudioPriorLoaderMixin, DeepFloydMixin, DiffusionPipeline):
    r"""
    Pipeline that optimises a canvas by score distillation against an image prior, which sees random crops, and a
    spectrogram prior, which sees all of it ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 4.1 and
    appendix A.3).

    The image prior is pixel diffusion where the pipeline is loaded from a DeepFloyd IF stage I repo, the paper's
    choice, and latent diffusion where it is loaded from a Stable Diffusion repo. Then call
    [`~ImagesThatSoundSDSPipeline.load_audio_prior`], or load a repo that holds both sides.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The image side's: T5's or CLIP's.
        text_encoder ([`~transformers.PreTrainedModel`]): The image side's: T5's encoder or CLIP's.
        unet ([`UNet2DConditionModel`]): The image side's noise predictor, in pixels or in latents.
        scheduler ([`SchedulerMixin`]): The image side's noise schedule.
        vae ([`AutoencoderKL`], *optional*): The image side's, for a latent prior.
        unet_audio ([`UNet2DConditionModel`], *optional*): The audio side's noise predictor in latents.
        vae_audio ([`AutoencoderKL`], *optional*): The audio side's; `vae` where absent.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): The audio side's; else `text_encoder`.
        tokenizer_audio ([`~transformers.CLIPTokenizer`], *optional*): The audio side's; `tokenizer` where absent.
        scheduler_audio ([`SchedulerMixin`], *optional*): The audio side's noise schedule; `scheduler` where absent.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim where
            absent.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`]; Auffusion's where absent.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_audio->vocoder"
    _optional_components = [
        "vae",
        "unet_audio",
        "vae_audio",
        "text_encoder_audio",
        "tokenizer_audio",
        "scheduler_audio",
        "vocoder",
    ]
    _callback_tensor_inputs = ["canvas", "image_loss", "audio_loss"]
    _paper_arguments = PAPER_ARGUMENTS

    # Optional components have no default: diffusers would ignore what a caller of `DiffusionPipeline` passes for them.
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        vae: AutoencoderKL,
        unet_audio: UNet2DConditionModel,
        vae_audio: AutoencoderKL,
        text_encoder_audio: CLIPTextModel,
        tokenizer_audio: CLIPTokenizer,
        scheduler_audio: KarrasDiffusionSchedulers,
        vocoder: SpeechT5HifiGan,
        spectrogram: dict | None = None,
        default_arguments: dict | None = None,
    ):
        super().__init__()
        self.mel_spectrogram = MelSpectrogram.from_dict(spectrogram or {})
        check_vocoder(vocoder, self.mel_spectrogram)
        if vocoder is not None:
            vocoder.float()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=_noise_schedule(scheduler),
            vae=vae,
            unet_audio=unet_audio,
            vae_audio=vae_audio,
            text_encoder_audio=text_encoder_audio,
            tokenizer_audio=tokenizer_audio,
            scheduler_audio=None if scheduler_audio is None else _noise_schedule(scheduler_audio),
            vocoder=vocoder,
        )
        self._set_default_arguments(default_arguments)
        self.register_to_config(spectrogram=self.mel_spectrogram.to_dict(), default_arguments=default_arguments)
        self.image_processor = VaeImageProcessor(do_resize=False, do_normalize=False)

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the returned waveforms."""
        return self.mel_spectrogram.sampling_rate

    @property
    def image_prior(self) -> str:
        """`"pixel"` for DeepFloyd IF, `"latent"` for Stable Diffusion."""
        return "pixel" if self.vae is None else "latent"

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def load_audio_prior(
        self,
        pretrained_model_name_or_path: str | os.PathLike,
        subfolder: str = "",
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Loads the whole audio side, which need not share anything with the image side: `unet_audio`, `vae_audio`,
        `text_encoder_audio`, `tokenizer_audio`, `scheduler_audio` and `vocoder`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A Hub repo such as `auffusion/auffusion-full-no-adapter`, or a folder of the same layout.
            subfolder (`str`, *optional*, defaults to `""`):
                Folder inside the repo that holds this layout.
            revision (`str`, *optional*):
                Branch, tag or commit of the repo.
            kwargs:
                `cache_dir`, `token`, `force_download`, `local_files_only`, as in `from_pretrained`.

        Raises:
            ValueError: If a part is missing or does not fit.
        """
        if getattr(self, "_all_hooks", None):
            raise ValueError("`load_audio_prior` has to be called before offloading is enabled.")
        allowed = {"cache_dir", "token", "force_download", "local_files_only"}
        if set(kwargs) - allowed:
            raise ValueError(f"`load_audio_prior` takes {sorted(allowed)} besides, but got {sorted(kwargs)}.")
        repo = Repo(pretrained_model_name_or_path, subfolder, {"revision": revision, **kwargs})
        vocoder = repo.load_vocoder()
        check_vocoder(vocoder, repo.spectrogram or self.mel_spectrogram)
        dtype, device = self.unet.dtype, self.device
        self._adopt_config(repo)
        self.register_modules(
            unet_audio=repo.load_audio(UNet2DConditionModel, "unet", dtype=dtype).to(device),
            vae_audio=repo.load_audio(AutoencoderKL, "vae", dtype=dtype).to(device),
            text_encoder_audio=repo.load_audio(CLIPTextModel, "text_encoder", dtype=dtype).to(device),
            tokenizer_audio=repo.load(CLIPTokenizer, "tokenizer"),
            scheduler_audio=repo.load(DDIMScheduler, "scheduler"),
            vocoder=None if vocoder is None else vocoder.to(device),
        )

    def _set_default_arguments(self, default_arguments: dict | None) -> None:
        super()._set_default_arguments(default_arguments)
        if self.image_prior == "pixel":
            # What a checkpoint says of crops, it says for its own image side, which sees latents.
            self.default_arguments |= {name: PAPER_ARGUMENTS[name] for name in ("crop_width", "num_crops")}

    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> torch.Tensor:
        """The image side's embeddings `(2, L, D)`: of the negative prompt, then of the prompt."""
        prompts = [negative_prompt, prompt]
        if self.image_prior == "pixel":
            # As the reference: padding takes part in the attention.
            return self.encode_deepfloyd_prompt(
                self.tokenizer, self.text_encoder, prompts, self._execution_device, use_attention_mask=False
            )
        return self._encode_clip(self.tokenizer, self.text_encoder, prompts)

    def encode_audio_prompt(self, audio_prompt: str, negative_audio_prompt: str = "") -> torch.Tensor:
        """The audio side's embeddings `(2, L, D)`: of the negative prompt, then of the prompt."""
        tokenizer, text_encoder = (
            getattr(self, f"{name}_audio") or getattr(self, name) for name in ("tokenizer", "text_encoder")
        )
        return self._encode_clip(tokenizer, text_encoder, [negative_audio_prompt, audio_prompt])

    def _encode_clip(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: list[str]) -> torch.Tensor:
        tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        for prompt in prompts:
            if len(tokenizer(prompt).input_ids) > tokenizer.model_max_length:
                logger.warning(f"A prompt is cut to {tokenizer.model_max_length} tokens: {prompt}")
        return text_encoder(tokens.to(self._execution_device))[0]

    def image_loss(
        self,
        crops: torch.Tensor,
        embeds: torch.Tensor,
        timesteps: torch.Tensor,
        weights: torch.Tensor,
        noise: torch.Tensor,
        guidance_scale: float,
        posterior_noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Score distillation loss of the image prior.

        Args:
            crops (`torch.Tensor` of shape `(B, 3, H, W)`): Pieces of the canvas in 0..1.
            embeds (`torch.Tensor` of shape `(2, L, D)`): Of `encode_prompt`.
            timesteps (`torch.Tensor` of shape `(B,)`): Noise levels.
            weights (`torch.Tensor` of shape `(B,)`): Weights of the noise levels.
            noise (`torch.Tensor` of shape `prior_shape(B)`): Noise to add.
            guidance_scale (`float`): Classifier-free guidance.
            posterior_noise (`torch.Tensor` of the same shape, *optional*): What the VAE's posterior is sampled with;
                needed by a latent prior.

        Returns:
            `torch.Tensor` of shape `()`.
        """
        size = tuple(side * self._pixels_per_unit(self.vae) for side in noise.shape[-2:])
        pictures = torch.nn.functional.interpolate(crops, size, mode="bilinear", align_corners=False) * 2 - 1
        embeds = embeds.repeat_interleave(len(crops), dim=0)
        if self.vae is not None:
            return self._latent_loss(
                self.vae,
                self.unet,
                self.scheduler,
                pictures,
                embeds,
                timesteps,
                weights,
                noise,
                guidance_scale,
                posterior_noise,
            )
        with torch.no_grad():
            noisy = self.scheduler.add_noise(
                pictures.detach().to(self.unet.dtype), noise.to(self.unet.dtype), timesteps
            )
            noise_pred = predict_pixel_noise(self.unet, noisy, timesteps, embeds, guidance_scale).chunk(2, dim=1)[0]
        return score_distillation_loss(pictures, noise_pred, noise, weights)

    def audio_loss(
        self,
        canvas: torch.Tensor,
        embeds: torch.Tensor,
        timesteps: torch.Tensor,
        weights: torch.Tensor,
        noise: torch.Tensor,
        guidance_scale: float,
        posterior_noise: torch.Tensor,
    ) -> torch.Tensor:
        """
        Score distillation loss of the audio prior.

        Args:
            canvas (`torch.Tensor` of shape `(1, C, H, W)`): In 0..1; the mean over channels is the spectrogram.
            embeds (`torch.Tensor` of shape `(2, L, D)`): Of `encode_audio_prompt`.
            timesteps, weights, noise, guidance_scale, posterior_noise:
                As in `image_loss`, of the latents' shape.

        Returns:
            `torch.Tensor` of shape `()`.
        """
        pictures = canvas.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1) * 2 - 1
        return self._latent_loss(
            self.vae_audio or self.vae,
            self.unet_audio,
            self.scheduler_audio or self.scheduler,
            pictures,
            embeds,
            timesteps,
            weights,
            noise,
            guidance_scale,
            posterior_noise,
        )

    def _latent_loss(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        pictures: torch.Tensor,
        embeds: torch.Tensor,
        timesteps: torch.Tensor,
        weights: torch.Tensor,
        noise: torch.Tensor,
        guidance_scale: float,
        posterior_noise: torch.Tensor,
    ) -> torch.Tensor:
        """Of pictures `(B, 3, H, W)` in -1..1; the gradient goes through the encoder, not through the UNet."""
        posterior = vae.encode(pictures.to(vae.dtype)).latent_dist
        latents = (posterior.mean + posterior.std * posterior_noise.to(vae.dtype)) * vae.config.scaling_factor
        with torch.no_grad():
            noisy = scheduler.add_noise(latents.detach(), noise.to(latents.dtype), timesteps)
            rows, levels = torch.cat([noisy] * 2), torch.cat([timesteps] * 2)
            noise_pred_uncond, noise_pred_text = unet(rows, levels, encoder_hidden_states=embeds).sample.chunk(2)
            noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
        return score_distillation_loss(latents, noise_pred, noise, weights)

    @staticmethod
    def _pixels_per_unit(vae: AutoencoderKL | None) -> int:
        return 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)

    def prior_shape(self, count: int) -> tuple[int, int, int, int]:
        """Shape of what the image prior sees of `count` crops: `(B, C, H, W)` in pixels or latents."""
        size = self.unet.config.sample_size
        return count, self.unet.config.in_channels, *([size] * 2 if isinstance(size, int) else size)

    def check_inputs(
        self,
        prompt: str | list[str],
        audio_prompt: str | list[str],
        negative_prompt: str | list[str] | None,
        negative_audio_prompt: str | list[str] | None,
        height: int,
        width: int,
        crop_right: int,
        crop_width: int,
        num_crops: int,
        num_iterations: int,
        image_start_step: int,
        canvas: str | Callable[..., torch.nn.Module],
        optimizer: str,
        output_type: str,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> int:
        """Raises `ValueError` for arguments that do not make sense; returns the number of prompts."""
        if self.unet_audio is None:
            raise ValueError(
                "`unet_audio` is not loaded yet. Call `pipe.load_audio_prior(...)` with an Auffusion repo such as"
                " 'auffusion/auffusion-full-no-adapter', or load a repo that holds both sides."
            )
        counts = {
            name: check_prompt(name, value, None)
            for name, value in (("prompt", prompt), ("audio_prompt", audio_prompt))
        }
        if counts["prompt"] != counts["audio_prompt"]:
            raise ValueError(f"`prompt` and `audio_prompt` have to be of equal lengths, but there are {counts}.")
        check_negative_prompt("negative_prompt", negative_prompt, None, None, counts["prompt"])
        check_negative_prompt("negative_audio_prompt", negative_audio_prompt, None, None, counts["prompt"])
        check_num_images_per_prompt(num_images_per_prompt)
        check_generator(generator, counts["prompt"] * num_images_per_prompt)
        if height != self.mel_spectrogram.num_mel_bins:
            raise ValueError(f"`height` has to be {self.mel_spectrogram.num_mel_bins} mel bins, but is {height!r}.")
        unit = self._pixels_per_unit(self.vae_audio or self.vae)
        if not is_positive_int(width) or width % unit:
            raise ValueError(f"`width` has to be a positive multiple of {unit}, but is {width!r}.")
        for name, value, least, most in (
            ("crop_right", crop_right, 0, width - 1),
            ("crop_width", crop_width, 1, width),
            ("num_crops", num_crops, 1, None),
            ("num_iterations", num_iterations, 1, None),
            ("image_start_step", image_start_step, 0, None),
        ):
            right_kind = isinstance(value, int) and not isinstance(value, bool)
            if not right_kind or value < least or (most is not None and value > most):
                bounds = f"from {least} on" if most is None else f"from {least} to {most}"
                raise ValueError(f"`{name}` has to be an integer {bounds}, but is {value!r}.")
        if not callable(canvas) and canvas not in CANVASES:
            raise ValueError(f"`canvas` has to be one of {sorted(CANVASES)} or make a module, but is {canvas!r}.")
        found = getattr(torch.optim, optimizer, None) if isinstance(optimizer, str) else None
        if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)) or found is torch.optim.LBFGS:
            raise ValueError(
                f"`optimizer` has to name a class of `torch.optim` that steps without a closure, but is {optimizer!r}."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` has to be 'pil', 'np' or 'pt', but is {output_type!r}.")
        unknown = set(callback_on_step_end_tensor_inputs or []) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be among {self._callback_tensor_inputs}, but names"
                f" {sorted(unknown)}."
            )
        return counts["prompt"]

    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str],
        audio_prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        negative_audio_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_iterations: int | None = None,
        guidance_scale: float = 80.0,
        audio_guidance_scale: float = 10.0,
        image_weight: float = 0.4,
        audio_weight: float = 1.0,
        image_start_step: int | None = None,
        num_crops: int | None = None,
        crop_width: int | None = None,
        shared_timestep: bool = True,
        timestep_scheduler: Any | None = None,
        canvas: str | Callable[..., torch.nn.Module] = "fourier",
        canvas_kwargs: dict[str, Any] | None = None,
        optimizer: str = "AdamW",
        learning_rate: float = 1e-4,
        optimizer_kwargs: dict[str, Any] | None = None,
        crop_right: int | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        accelerator: Accelerator | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        checkpoint_every: int = 1000,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["image_loss", "audio_loss"],
    ) -> ImagesThatSoundSDSPipelineOutput | tuple:
        r"""
        Optimises canvases, one after the other.

        Arguments marked "checkpoint" default to what the checkpoint's config names, else to the value given here, the
        paper's.

        Args:
            prompt (`str` or `list[str]`):
                What to see, not empty.
            audio_prompt (`str` or `list[str]`):
                What to hear, not empty, as many as `prompt`.
            negative_prompt (`str` or `list[str]`, *optional*):
                What not to see; one for all or one per prompt.
            negative_audio_prompt (`str` or `list[str]`, *optional*):
                What not to hear.
            height (`int`, *optional*, checkpoint, defaults to 256):
                Pixels of the canvas: the number of mel bins.
            width (`int`, *optional*, checkpoint, defaults to 1024):
                Pixels of the canvas, a multiple of 8; a column is `hop_length / sampling_rate` (0.01 s) of sound.
            num_iterations (`int`, *optional*, checkpoint, defaults to 40000):
                Steps of the optimiser.
            guidance_scale (`float`, defaults to 80.0):
                Classifier-free guidance of the image side.
            audio_guidance_scale (`float`, defaults to 10.0):
                Classifier-free guidance of the audio side.
            image_weight (`float`, defaults to 0.4):
                Weight of the image loss.
            audio_weight (`float`, defaults to 1.0):
                Weight of the audio loss. A side of weight 0 is not run.
            image_start_step (`int`, *optional*, checkpoint, defaults to 5000):
                Iteration before which the image side is silent, and not run.
            num_crops (`int`, *optional*, checkpoint, defaults to 8):
                Random crops that the image side sees at each iteration.
            crop_width (`int`, *optional*, checkpoint, defaults to the height):
                Columns of a crop; its rows are all of the canvas.
            shared_timestep (`bool`, defaults to `True`):
                Whether all crops of an iteration get the same timestep.
            timestep_scheduler (*optional*):
                An object with the method `draw` of [`~images_that_sound.schedulers.ScoreDistillationScheduler`];
                uniform in 0.02..0.98 with the weight one minus alpha-bar where absent.
            canvas (`str` or `Callable`, defaults to `"fourier"`):
                `"fourier"`, `"pixels"`, or what makes a module from `height`, `width` and `canvas_kwargs`; the module
                returns `(1, C, H, W)` in 0..1.
            canvas_kwargs (`dict`, *optional*):
                For the Fourier canvas `num_frequencies` (128), `hidden_size` (256), `frequency_scale` (10) and
                `num_channels` (1).
            optimizer (`str`, defaults to `"AdamW"`):
                Name of a class of `torch.optim`.
            learning_rate (`float`, defaults to 1e-4):
                The optimiser's.
            optimizer_kwargs (`dict`, *optional*, defaults to `{"weight_decay": 1e-3}` for AdamW):
                What else the optimiser takes.
            crop_right (`int`, *optional*, checkpoint, defaults to 32):
                Columns cut from the right end of canvas and sound in the end.
            num_images_per_prompt (`int`, defaults to 1):
                Samples for each pair of prompts.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Source of all randomness, on the CPU, one for all or one per sample.
            accelerator (`accelerate.Accelerator`, *optional*):
                Mixed precision, gradient accumulation, and several processes, among which the crops are divided.
            checkpoint_dir (`str` or `os.PathLike`, *optional*):
                Folder for the state of each canvas; a run that finds one there goes on from it, to the same bits as if
                it had never stopped.
            checkpoint_every (`int`, defaults to 1000):
                Iterations between checkpoints.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagesThatSoundSDSPipelineOutput`] or a plain tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, iteration, sample, callback_kwargs)` after each iteration. Setting
                `pipe._interrupt = True` ends the run with the canvas as it is.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["image_loss", "audio_loss"]`):
                What the callback gets: `canvas` (`(1, C, H, W)` in 0..1, as the models saw it), `image_loss` and
                `audio_loss`, `None` where the side is silent.

        Examples:

        Returns:
            [`ImagesThatSoundSDSPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 0. Defaults of the checkpoint
        given = {
            "height": height,
            "width": width,
            "crop_right": crop_right,
            "crop_width": crop_width,
            "num_crops": num_crops,
            "num_iterations": num_iterations,
            "image_start_step": image_start_step,
        }
        size = {name: self.default_arguments[name] if value is None else value for name, value in given.items()}
        if size["crop_width"] is None:
            size["crop_width"] = size["height"]

        # 1. Check inputs
        num_prompts = self.check_inputs(
            prompt,
            audio_prompt,
            negative_prompt,
            negative_audio_prompt,
            canvas=canvas,
            optimizer=optimizer,
            output_type=output_type,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            **size,
        )
        scales = {
            "guidance_scale": check_scale("guidance_scale", guidance_scale),
            "audio_guidance_scale": check_scale("audio_guidance_scale", audio_guidance_scale),
            "image_weight": check_scale("image_weight", image_weight),
            "audio_weight": check_scale("audio_weight", audio_weight),
            "learning_rate": check_scale("learning_rate", learning_rate),
        }
        if optimizer_kwargs is None:
            optimizer_kwargs = {"weight_decay": 1e-3} if optimizer == "AdamW" else {}
        if not is_positive_int(checkpoint_every):
            raise ValueError(f"`checkpoint_every` has to be a positive integer, but is {checkpoint_every!r}.")
        self._interrupt = False
        self._num_timesteps = size["num_iterations"]
        accelerator = accelerator or Accelerator(cpu=self._execution_device.type == "cpu")

        canvases = []
        for sample in range(num_prompts * num_images_per_prompt):
            row = sample // num_images_per_prompt
            source = generator[sample] if isinstance(generator, list) else generator
            # 2. Encode both prompts of a sample
            with torch.no_grad():
                embeds = self.encode_prompt(_row(prompt, row), _row(negative_prompt or "", row))
                audio_embeds = self.encode_audio_prompt(
                    _row(audio_prompt, row), _row(negative_audio_prompt or "", row)
                )

            # 3. Make its canvas and optimiser, or take them from where an earlier run stopped
            run = _Run(
                source or torch.Generator().manual_seed(torch.initial_seed()),
                accelerator,
                CANVASES.get(canvas, canvas) if isinstance(canvas, str) else canvas,
                {"height": size["height"], "width": size["width"], **(canvas_kwargs or {})},
                getattr(torch.optim, optimizer),
                {"lr": learning_rate, **optimizer_kwargs},
                None if checkpoint_dir is None else Path(checkpoint_dir) / f"sample-{sample}.pt",
            )

            # 4. Optimise it by both priors
            with self.progress_bar(total=size["num_iterations"]) as progress_bar, _frozen(self):
                progress_bar.update(run.iteration)
                for iteration in range(run.iteration, size["num_iterations"]):
                    if self.interrupt:
                        break
                    seen, losses = self._iterate(
                        run, iteration, embeds, audio_embeds, size, scales, shared_timestep, timestep_scheduler
                    )
                    progress_bar.update()
                    progress_bar.set_postfix(
                        {name: f"{loss:.3g}" for name, loss in losses.items() if loss is not None}
                    )
                    if (iteration + 1) % checkpoint_every == 0 or iteration + 1 == size["num_iterations"]:
                        run.save(iteration + 1)
                    if callback_on_step_end is not None:
                        tensors = {
                            name: seen if name == "canvas" else losses[name]
                            for name in callback_on_step_end_tensor_inputs
                        }
                        callback_on_step_end(self, iteration, sample, tensors)
            canvases.append(run.draw_canvas())

        # 5. Play the canvases
        images = torch.cat(canvases)[..., : size["width"] - size["crop_right"]].float()
        with torch.no_grad():
            spectrograms = images.mean(dim=1, keepdim=True)
            audios = self.mel_spectrogram.canvas_to_audio(spectrograms, self.vocoder)
        for i, audio in enumerate(audios.cpu().numpy()):
            if audio_problems(audio):
                logger.warning(f"Sample {i}: {'; '.join(audio_problems(audio))}.")
        self.maybe_free_model_hooks()

        # 6. Convert
        images = images.expand(-1, 3, -1, -1)
        images, spectrograms = (
            self.image_processor.postprocess(each, output_type, do_denormalize=[False] * len(each))
            for each in (images, spectrograms)
        )
        audios = audios.cpu() if output_type == "pt" else audios.cpu().numpy()
        if not return_dict:
            return images, spectrograms, audios
        return ImagesThatSoundSDSPipelineOutput(images=images, spectrograms=spectrograms, audios=audios)

    def _iterate(
        self,
        run: "_Run",
        iteration: int,
        embeds: torch.Tensor,
        audio_embeds: torch.Tensor,
        size: dict[str, int],
        scales: dict[str, float],
        shared_timestep: bool,
        timestep_scheduler: Any | None,
    ) -> tuple[torch.Tensor, dict[str, float | None]]:
        """
        One step of the optimiser; returns the canvas `(1, C, H, W)` that the models saw, and both losses. Every
        process draws the same numbers; each runs its share of the crops, and the first one the audio side, so that the
        mean of their gradients is that of a single process.
        """
        accelerator, device = run.accelerator, self._execution_device
        processes, rank = accelerator.num_processes, accelerator.process_index
        losses: dict[str, torch.Tensor | None] = {"image_loss": None, "audio_loss": None}

        def timesteps_and_weights(scheduler: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
            alphas_cumprod = scheduler.alphas_cumprod
            if timestep_scheduler is None:
                timesteps = draw_timesteps(count, len(alphas_cumprod), run.generator)
                drawn = timesteps, score_distillation_weights(timesteps, alphas_cumprod)
            else:
                drawn = timestep_scheduler.draw(
                    count, iteration, size["num_iterations"], alphas_cumprod, run.generator
                )
            return drawn[0].to(device), drawn[1].to(device)

        def noise(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape, generator=run.generator).to(device)

        with accelerator.accumulate(run.canvas), accelerator.autocast():
            canvas = run.canvas()
            total = 0 * canvas.sum()
            if scales["audio_weight"] != 0:
                unit = self._pixels_per_unit(self.vae_audio or self.vae)
                shape = (1, self.unet_audio.config.in_channels, size["height"] // unit, size["width"] // unit)
                timesteps, weights = timesteps_and_weights(self.scheduler_audio or self.scheduler, 1)
                noises = noise(shape), noise(shape)
                if rank == 0:
                    losses["audio_loss"] = self.audio_loss(
                        canvas, audio_embeds, timesteps, weights, noises[0], scales["audio_guidance_scale"], noises[1]
                    )
                    total = total + processes * scales["audio_weight"] * losses["audio_loss"]
            if scales["image_weight"] != 0 and iteration >= size["image_start_step"]:
                count = size["num_crops"]
                lefts = torch.randint(size["width"] - size["crop_width"] + 1, (count,), generator=run.generator)
                timesteps, weights = timesteps_and_weights(self.scheduler, 1 if shared_timestep else count)
                timesteps, weights = timesteps.expand(count), weights.expand(count)
                noises = noise(self.prior_shape(count)), noise(self.prior_shape(count))
                mine = torch.arange(count)[rank::processes]
                if len(mine):
                    crops = torch.cat([canvas[..., left : left + size["crop_width"]] for left in lefts[mine].tolist()])
                    # The loss is a mean over the crops at hand; their share makes it a part of the mean over all.
                    part = len(mine) / count
                    losses["image_loss"] = part * self.image_loss(
                        crops.expand(-1, 3, -1, -1),
                        embeds,
                        timesteps[mine],
                        weights[mine],
                        noises[0][mine],
                        scales["guidance_scale"],
                        noises[1][mine],
                    )
                    total = total + processes * scales["image_weight"] * losses["image_loss"]
            accelerator.backward(total)
            run.optimizer.step()
            run.optimizer.zero_grad()
        numbers = {name: None if loss is None else float(loss.detach()) for name, loss in losses.items()}
        return canvas.detach(), numbers


class _Run:
    """A canvas on its way: the module, its optimiser and the source of randomness, on disk and back."""

    def __init__(
        self,
        generator: torch.Generator,
        accelerator: Accelerator,
        canvas_class: Callable[..., torch.nn.Module],
        canvas_kwargs: dict[str, Any],
        optimizer_class: type[torch.optim.Optimizer],
        optimizer_kwargs: dict[str, Any],
        checkpoint: Path | None,
    ):
        self.generator, self.accelerator, self.checkpoint, self.iteration = generator, accelerator, checkpoint, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            module = canvas_class(**canvas_kwargs).to(accelerator.device)
        optimizer = optimizer_class(module.parameters(), **optimizer_kwargs)
        self.canvas, self.optimizer = accelerator.prepare(module, optimizer)
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    @torch.no_grad()
    def draw_canvas(self) -> torch.Tensor:
        """The canvas as it is, `(1, C, H, W)` in 0..1."""
        module = self.accelerator.unwrap_model(self.canvas)
        # Batch statistics are the canvas's own; to look at it must not change them.
        kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
        canvas = module().detach().clone()
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])
        return canvas

    def save(self, iteration: int) -> None:
        if self.checkpoint is None or not self.accelerator.is_main_process:
            return
        state = {
            "iteration": iteration,
            "canvas": self.accelerator.unwrap_model(self.canvas).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_name(self.checkpoint.name + ".part")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint)

    def _load(self, checkpoint: Path) -> None:
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self.accelerator.unwrap_model(self.canvas).load_state_dict(state["canvas"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
        except Exception as error:
            raise ValueError(
                f"`checkpoint_dir` holds {checkpoint}, which is no checkpoint of such a canvas: {error}"
            ) from error
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.iteration = state["iteration"]


@contextmanager
def _frozen(pipe: DiffusionPipeline):
    """Lets gradients through the models, not into their weights."""
    parameters = [
        p
        for module in pipe.components.values()
        if isinstance(module, torch.nn.Module)
        for p in module.parameters()
        if p.requires_grad
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _noise_schedule(scheduler: KarrasDiffusionSchedulers) -> KarrasDiffusionSchedulers:
    """One whose `add_noise` needs no history and no set timesteps."""
    if isinstance(scheduler, (DDIMScheduler, DDPMScheduler)):
        return scheduler
    return DDIMScheduler.from_config(scheduler.config)


def _row(prompts: str | list[str], row: int) -> str:
    return prompts if isinstance(prompts, str) else prompts[row]
