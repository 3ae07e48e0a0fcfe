"""SDS (arXiv 2405.12221, section 4.1): a canvas optimised against an image model and a spectrogram model."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import replace_example_docstring
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedModel, PreTrainedTokenizerBase, SpeechT5HifiGan

# Named although unused: diffusers copies the files that this one names, and no others.
from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import AudioSideMixin, ImagesThatSoundPipelineOutput
from .images_that_sound_canvas import Canvas
from .images_that_sound_checks import (
    callback_inputs,
    check_integer,
    check_number,
    check_output_type,
    shown,
    tensors_returned,
)
from .images_that_sound_deepfloyd import DeepFloydMixin, predict_pixel_noise
from .images_that_sound_denoising import add_noise
from .images_that_sound_files import written
from .images_that_sound_guides import Guides
from .images_that_sound_loading import SelfContainedSavingMixin
from .images_that_sound_lora import check_lora
from .images_that_sound_picture_reading import upright
from .images_that_sound_score_distillation import (
    CanvasRun,
    SDSSettings,
    check_drawn,
    check_losses,
    draw_timesteps,
    frozen,
    is_timestep_scheduler,
    latent_loss,
    score_distillation_loss,
    score_distillation_weights,
)
from .images_that_sound_sides import Guided, Request, Side, prediction_type_of
from .images_that_sound_spectrogram import MelSpectrogram


# Defaults of a call: the paper's settings.
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


class ImagesThatSoundSDSPipelineOutput(ImagesThatSoundPipelineOutput):
    """Result of [`ImagesThatSoundSDSPipeline`]: canvases as `images`, and in gray as `spectrograms`."""


class ImagesThatSoundSDSPipeline(AudioSideMixin, DeepFloydMixin, DiffusionPipeline):
    r"""
    Pipeline that optimises a canvas by score distillation against an image prior, which sees random crops, and a
    spectrogram prior, which sees all of it ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 4.1 and
    appendix A.3).

    From a DeepFloyd IF stage I repo, the paper's choice, the image prior is pixel diffusion; from a Stable Diffusion
    repo it is latent diffusion. Then call [`~ImagesThatSoundSDSPipeline.load_audio_prior`], or load a repo that holds
    both sides.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The image side's tokenizer: T5's or CLIP's.
        text_encoder ([`~transformers.PreTrainedModel`]): The image side's text encoder: T5's or CLIP's.
        unet ([`UNet2DConditionModel`]): Predicts noise for the image side, in pixels or in latents.
        scheduler ([`SchedulerMixin`]): The image side's noise schedule. Only its noise levels count.
        vae ([`AutoencoderKL`], *optional*): The image side's VAE, for a latent prior.
        unet_audio ([`UNet2DConditionModel`], *optional*): Predicts noise for the audio side, in latents.
        vae_audio ([`AutoencoderKL`], *optional*): The audio side's VAE, `vae` by default.
        text_encoder_audio ([`~transformers.CLIPTextModel`], *optional*): The audio side's text encoder, `text_encoder`
            by default.
        tokenizer_audio ([`~transformers.CLIPTokenizer`], *optional*): The audio side's tokenizer, `tokenizer` by
            default.
        scheduler_audio ([`SchedulerMixin`], *optional*): The audio side's noise schedule, `scheduler` by default.
        vocoder ([`~transformers.SpeechT5HifiGan`], *optional*): Log-mel to waveform, in float32. Griffin-Lim plays
            without it.
        spectrogram (`dict`, *optional*): Constants of the [`MelSpectrogram`], Auffusion's by default.
        default_arguments (`dict`, *optional*): Values that this checkpoint wants for call arguments left out.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_audio->vocoder"
    _optional_components = ["vae", *AudioSideMixin._optional_components, "scheduler_audio"]
    _callback_tensor_inputs = ["canvas", "image_loss", "audio_loss", "prompt_embeds", "audio_prompt_embeds"]
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
        self._register(
            spectrogram,
            default_arguments,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            vae=vae,
            unet_audio=unet_audio,
            vae_audio=vae_audio,
            text_encoder_audio=text_encoder_audio,
            tokenizer_audio=tokenizer_audio,
            scheduler_audio=scheduler_audio,
            vocoder=vocoder,
        )

    @property
    def image_prior(self) -> str:
        """`"pixel"` for DeepFloyd IF, `"latent"` for Stable Diffusion."""
        return "pixel" if self.vae is None else "latent"

    def _load_audio_modules(self, repo: AudioPriorRepo) -> dict[str, Any]:
        # The two sides need not share anything, not even the noise schedule.
        return {
            **super()._load_audio_modules(repo),
            "tokenizer_audio": repo.load(CLIPTokenizer, "tokenizer"),
            "scheduler_audio": repo.load(DDIMScheduler, "scheduler"),
        }

    def set_default_arguments(self, default_arguments: dict | None) -> None:
        """Sets the values that calls take for arguments that are left out, and keeps them in the config."""
        super().set_default_arguments(default_arguments)
        if self.image_prior == "pixel":
            # A checkpoint means crops for its own image side, which sees latents.
            self.default_arguments |= {name: PAPER_ARGUMENTS[name] for name in ("crop_width", "num_crops")}

    def _encode_words(self, side: Side, prompts: list[str], name: str, device: torch.device) -> torch.Tensor:
        if name == "audio_prompt" or self.image_prior == "latent":
            return super()._encode_words(side, prompts, name, device)
        # As in the reference, padding takes part in the attention.
        return self.encode_deepfloyd_prompt(
            side.tokenizer, side.text_encoder, prompts, device, use_attention_mask=False
        )

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
            embeds (`torch.Tensor` of shape `(2, L, D)` or `(1, L, D)`): Embeddings of the negative prompt, then of the
                prompt. Without guidance the prompt's suffice.
            timesteps (`torch.Tensor` of shape `(B,)`): Noise levels.
            weights (`torch.Tensor` of shape `(B,)`): Weights of the noise levels.
            noise (`torch.Tensor` of shape `prior_shape(B)`): Noise to add.
            guidance_scale (`float`): Scale of classifier-free guidance. 1 and below turn it off.
            posterior_noise (`torch.Tensor` of the same shape, *optional*): Noise for sampling the VAE's posterior,
                needed by a latent prior.

        Returns:
            `torch.Tensor` of shape `()`.
        """
        unit = 1 if self.vae is None else self.vae_scale_factor
        size = tuple(edge * unit for edge in noise.shape[-2:])
        pictures = torch.nn.functional.interpolate(crops, size, mode="bilinear", align_corners=False) * 2 - 1
        if self.image_prior == "latent":
            image = self._guided(self.image_side, embeds, guidance_scale, len(crops))
            return latent_loss(image, pictures, timesteps, weights, noise, posterior_noise)
        embeds = (embeds if guidance_scale > 1 else embeds[-1:]).repeat_interleave(len(crops), dim=0)
        with torch.no_grad():
            noisy = add_noise(self.scheduler, pictures.detach().to(self.unet.dtype), noise, timesteps)
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
            embeds (`torch.Tensor` of shape `(2, L, D)` or `(1, L, D)`): As in `image_loss`, for the audio prompts.
            timesteps, weights, noise, guidance_scale, posterior_noise:
                As in `image_loss`, in the latents' shape.

        Returns:
            `torch.Tensor` of shape `()`.
        """
        pictures = canvas.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1) * 2 - 1
        audio = self._guided(self.audio_side, embeds, guidance_scale, 1)
        return latent_loss(audio, pictures, timesteps, weights, noise, posterior_noise)

    def _guided(self, side: Side, embeds: torch.Tensor, guidance_scale: float, count: int) -> Guided:
        """A side with `count` rows of the embeddings `(2, L, D)` or `(1, L, D)`."""
        negative_embeds, embeds = (rows.repeat_interleave(count, dim=0) for rows in (embeds[:1], embeds[-1:]))
        timestep_cond = self._embed_guidance(side, guidance_scale, count)
        kinds = {"predicts": prediction_type_of(side.scheduler), "wanted": "epsilon"}
        return Guided(side, embeds, negative_embeds, guidance_scale, timestep_cond=timestep_cond, **kinds)

    def prior_shape(self, count: int) -> tuple[int, int, int, int]:
        """Shape `(B, C, H, W)` of `count` crops for the image prior, in pixels or latents."""
        size = self.unet.config.sample_size
        return count, self.unet.config.in_channels, *([size] * 2 if isinstance(size, int) else size)

    def check_inputs(
        self,
        image: Request,
        audio: Request,
        settings: SDSSettings,
        *,
        checkpoint_every: int,
        output_type: str,
        num_images_per_prompt: int,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> int:
        """Returns the number of canvases. Raises `ValueError` for arguments of the call that do not make sense."""
        self._check_audio_prior()
        num_canvases = self._check_batch((image, audio), {}, num_images_per_prompt, generator)
        self._check_sizes(settings)
        check_number("image_weight", settings.image_weight)
        check_number("audio_weight", settings.audio_weight)
        check_integer("checkpoint_every", checkpoint_every)
        if not is_timestep_scheduler(settings.timestep_scheduler):
            raise ValueError(
                "`timestep_scheduler` has to be an object with a method `draw`, but is"
                f" {shown(settings.timestep_scheduler)}."
            )
        generators = generator if isinstance(generator, list) else [generator]
        if not all(each is None or each.device.type == "cpu" for each in generators):
            raise ValueError(f"`generator` has to be on the CPU, but is {shown(generator)}.")
        settings.check_optimizer()
        settings.check_canvas()
        check_output_type(output_type, ("pil", "np", "pt"))
        return num_canvases

    def _check_sizes(self, settings: SDSSettings) -> None:
        bins, unit, width = self.mel_spectrogram.num_mel_bins, self.vae_scale_factor, settings.width
        if settings.height != bins:
            raise ValueError(f"`height` has to be {bins} mel bins, but is {shown(settings.height)}.")
        if check_integer("width", width) % unit:
            raise ValueError(f"`width` has to be a multiple of {unit}, but is {width}.")
        check_integer("crop_right", settings.crop_right, least=0, most=width - 1)
        self._check_playable("width", width - settings.crop_right)
        check_integer("crop_width", settings.crop_width, most=width)
        check_integer("num_crops", settings.num_crops)
        check_integer("num_iterations", settings.num_iterations)
        check_integer("image_start_step", settings.image_start_step, least=0)

    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        audio_prompt: str | list[str] | None = None,
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
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_prompt_embeds: torch.Tensor | None = None,
        negative_audio_prompt_embeds: torch.Tensor | None = None,
        accelerator: Accelerator | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        checkpoint_every: int = 1000,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["image_loss", "audio_loss"],
    ) -> ImagesThatSoundSDSPipelineOutput | tuple:
        r"""
        Optimises canvases, one after the other.

        Arguments marked "checkpoint" default to the value in the checkpoint's config, else to the paper's value, which
        is given here.

        Args:
            prompt (`str` or `list[str]`, *optional*): Picture to see. An empty string leaves it open.
            audio_prompt (`str` or `list[str]`, *optional*): Sound to hear; as many as `prompt`, or one of either for
                all.
            negative_prompt (`str` or `list[str]`, *optional*): Picture to avoid; one for all or one per prompt. Unused
                if `guidance_scale` is at most 1.
            negative_audio_prompt (`str` or `list[str]`, *optional*): Sound to avoid; one for all or one per prompt.
                Unused if `audio_guidance_scale` is at most 1.
            height (`int`, *optional*, checkpoint, defaults to 256): Pixels of the picture: the number of mel bins.
            width (`int`, *optional*, checkpoint, defaults to 1024): Pixels of the picture, a multiple of 8. Each
                column of the spectrogram lasts `hop_length / sampling_rate` (0.01 s).
            num_iterations (`int`, *optional*, checkpoint, defaults to 40000): Number of steps of the optimiser.
            guidance_scale (`float`, defaults to 80.0): Scale of classifier-free guidance of the image side. 1 and
                below turn it off.
            audio_guidance_scale (`float`, defaults to 10.0): Scale of classifier-free guidance of the audio side. 1
                and below turn it off.
            image_weight (`float`, defaults to 0.4): Weight of the image loss. The image side does not run at 0.
            audio_weight (`float`, defaults to 1.0): Weight of the audio loss. The audio side does not run at 0.
            image_start_step (`int`, *optional*, checkpoint, defaults to 5000): Iteration before which the image side
                is silent and does not run.
            num_crops (`int`, *optional*, checkpoint, defaults to 8): Number of random crops for the image side at each
                iteration.
            crop_width (`int`, *optional*, checkpoint, defaults to the height): Columns of a crop, which has all rows
                of the canvas.
            shared_timestep (`bool`, defaults to `True`): Whether all crops of an iteration get the same timestep.
            timestep_scheduler (object, *optional*):
                Object with the method `draw` of [`~images_that_sound.schedulers.ScoreDistillationScheduler`].
                Timesteps are uniform in 0.02..0.98 with the weight one minus alpha-bar by default.
            canvas (`str` or `Callable`, defaults to `"fourier"`): `"fourier"`, `"pixels"`, or a callable that makes a
                module from `height`, `width` and `canvas_kwargs`; the module returns `(1, C, H, W)` in 0..1.
            canvas_kwargs (`dict`, *optional*): Arguments of the canvas; for the Fourier canvas `num_frequencies`
                (128), `hidden_size` (256), `frequency_scale` (10) and `num_channels` (1).
            optimizer (`str`, defaults to `"AdamW"`): Name of a class of `torch.optim`.
            learning_rate (`float`, defaults to 1e-4): Learning rate of the optimiser.
            optimizer_kwargs (`dict`, *optional*, defaults to `{"weight_decay": 1e-3}` for AdamW): Further arguments of
                the optimiser.
            crop_right (`int`, *optional*, checkpoint, defaults to 32): Columns to cut from the right end of canvas and
                sound: the dark strip that Auffusion learned.
            num_images_per_prompt (`int`, defaults to 1): Samples for each pair of prompts.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): Source of all randomness, on the CPU,
                one for all or one per sample.
            prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of `prompt`.
            negative_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of
                `negative_prompt`.
            audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead of
                `audio_prompt`.
            negative_audio_prompt_embeds (`torch.Tensor` of shape `(B, L, D)`, *optional*): Embeddings to take instead
                of `negative_audio_prompt`.
            accelerator (`accelerate.Accelerator`, *optional*): Mixed precision, gradient accumulation, and several
                processes, which share the crops.
            checkpoint_dir (`str` or `os.PathLike`, *optional*): Folder for the state of each canvas. A run that finds
                one there goes on from it, to the same bits as without a stop. The state of a run with other settings
                is refused.
            checkpoint_every (`int`, defaults to 1000): Iterations between checkpoints.
            output_type (`str`, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, defaults to `True`): Whether to return an [`ImagesThatSoundSDSPipelineOutput`] or a
                plain tuple.
            callback_on_step_end (`Callable`, *optional*): Called as `callback(pipe, iteration, sample,
                callback_kwargs)` after each iteration. Embeddings in the dict that it returns replace those at work.
                `pipe._interrupt = True` ends the run with the canvas as it is.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["image_loss", "audio_loss"]`): Values for
                the callback: `canvas` (`(1, C, H, W)` in 0..1, as the models saw it), `image_loss` and `audio_loss`,
                `None` for a silent side, `prompt_embeds` and `audio_prompt_embeds`.

        Examples:

        Returns:
            [`ImagesThatSoundSDSPipelineOutput`] or `tuple`: Pictures, spectrograms and waveforms.

        Raises:
            ValueError: For an argument that does not make sense; the message names it, its value and what is allowed.
        """
        # 0. Fill in defaults
        inputs = callback_inputs(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        settings = SDSSettings(
            height=self.resolve_default("height", height),
            width=self.resolve_default("width", width),
            crop_right=self.resolve_default("crop_right", crop_right),
            crop_width=self.resolve_default("crop_width", crop_width),
            num_crops=self.resolve_default("num_crops", num_crops),
            num_iterations=self.resolve_default("num_iterations", num_iterations),
            image_start_step=self.resolve_default("image_start_step", image_start_step),
            image_weight=image_weight,
            audio_weight=audio_weight,
            shared_timestep=shared_timestep,
            timestep_scheduler=timestep_scheduler,
            guidance_scale=guidance_scale,
            audio_guidance_scale=audio_guidance_scale,
            canvas=canvas,
            canvas_kwargs=canvas_kwargs,
            optimizer=optimizer,
            learning_rate=learning_rate,
            optimizer_kwargs=optimizer_kwargs,
        )
        if settings.crop_width is None:
            settings = replace(settings, crop_width=settings.height)
        image = Request("prompt", prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        image = replace(image, guidance_scale=guidance_scale)
        audio_embeds = (audio_prompt_embeds, negative_audio_prompt_embeds)
        audio = Request("audio_prompt", audio_prompt, negative_audio_prompt, *audio_embeds)
        audio = replace(audio, guidance_scale=audio_guidance_scale)

        # 1. Check inputs
        num_canvases = self.check_inputs(
            image,
            audio,
            settings,
            checkpoint_every=checkpoint_every,
            output_type=output_type,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
        )
        self._interrupt, self._num_timesteps = False, settings.num_iterations
        accelerator = accelerator or Accelerator(cpu=self._execution_device.type == "cpu")

        # 2. Encode both prompts
        with torch.no_grad():
            image, audio = self.guide(image, audio, num_canvases)

        canvases = []
        for sample in range(num_canvases):
            self._guidance_scale, self._audio_guidance_scale = guidance_scale, audio_guidance_scale
            embeds = self._embeds_of(image, audio, sample)

            # 3. Make a canvas and its optimiser, or take them from where an earlier run stopped
            source = generator[sample] if isinstance(generator, list) else generator
            run = CanvasRun(
                source or torch.Generator().manual_seed(torch.initial_seed()),
                accelerator,
                settings.make_canvas,
                settings.make_optimizer,
                None if checkpoint_dir is None else Path(checkpoint_dir) / f"sample-{sample}.pt",
                settings.to_compare(embeds, source, accelerator),
            )

            # 4. Optimise it by both priors
            call_back = partial(self._call_back, callback_on_step_end, inputs, sample)
            with frozen(self.components.values()):
                self._optimize(run, settings, self._stacked(embeds), checkpoint_every, call_back)
            canvases.append(run.draw_canvas())

        # 5. Play the canvases, and convert
        images = torch.cat(canvases)[..., : settings.width - settings.crop_right].float()
        spectrograms = images.mean(dim=1, keepdim=True)
        audios = self.play(spectrograms)
        self._report(images, spectrograms, audios)
        self.maybe_free_model_hooks()
        images = self.convert_canvases(images.expand(-1, 3, -1, -1), output_type)
        output = images, *self.convert(spectrograms, audios, output_type)
        return output if not return_dict else ImagesThatSoundSDSPipelineOutput(*output)

    def _embeds_of(self, image: Guided, audio: Guided, sample: int) -> dict[str, torch.Tensor | None]:
        """Embeddings `(1, L, D)` of one sample, by their argument."""
        embeds = {
            "prompt_embeds": image.embeds,
            "negative_prompt_embeds": image.negative_embeds,
            "audio_prompt_embeds": audio.embeds,
            "negative_audio_prompt_embeds": audio.negative_embeds,
        }
        return {name: None if rows is None else rows[sample, None] for name, rows in embeds.items()}

    def _stacked(self, embeds: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
        """Embeddings of each side, with guidance behind the negative ones: `(2, L, D)`, else `(1, L, D)`."""
        rows = {name: (embeds[f"negative_{name}"], embeds[name]) for name in ("prompt_embeds", "audio_prompt_embeds")}
        return {name: torch.cat([each for each in pair if each is not None]) for name, pair in rows.items()}

    def _optimize(
        self,
        run: CanvasRun,
        settings: SDSSettings,
        embeds: dict[str, torch.Tensor],
        checkpoint_every: int,
        call_back: Callable[[int, dict[str, Any]], dict[str, torch.Tensor]],
    ) -> None:
        """Runs the iterations that are left."""
        with self.progress_bar(total=settings.num_iterations) as progress_bar:
            progress_bar.update(run.iteration)
            while run.iteration < settings.num_iterations and not self.interrupt:
                losses = self._iterate(run, settings, **embeds)
                numbers = {k: f"{v:.3g}" for k, v in losses.items() if isinstance(v, float)}
                progress_bar.set_postfix(numbers, refresh=False)
                progress_bar.update()
                if run.iteration % checkpoint_every == 0 or run.iteration == settings.num_iterations:
                    run.save()
                embeds |= call_back(run.iteration - 1, {**embeds, **losses})

    def _call_back(
        self, callback: Callable | None, inputs: list[str], sample: int, iteration: int, known: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """Embeddings that the user's callback, if there is one, replaces."""
        returned = callback and callback(self, iteration, sample, {name: known[name] for name in inputs})
        embeds = {name: value for name, value in known.items() if name.endswith("prompt_embeds")}
        return tensors_returned(returned, embeds)

    def _iterate(
        self,
        run: CanvasRun,
        settings: SDSSettings,
        prompt_embeds: torch.Tensor,
        audio_prompt_embeds: torch.Tensor,
    ) -> dict[str, Any]:
        """
        One step of the optimiser; returns the `canvas` `(1, C, H, W)` that the models saw, `image_loss` and
        `audio_loss`. Every process draws the same numbers; each runs its share of the crops, and the first one the
        audio side, so that the mean of their gradients equals that of a single process.
        """
        accelerator, iteration = run.accelerator, run.iteration
        image_loss = audio_loss = None
        with accelerator.accumulate(run.canvas), accelerator.autocast():
            canvas = run.canvas()
            total = 0 * canvas.sum()
            if settings.audio_weight != 0:
                audio_loss = self._audio_part(run, settings, canvas, audio_prompt_embeds)
                if audio_loss is not None:
                    total = total + accelerator.num_processes * settings.audio_weight * audio_loss
            if settings.image_weight != 0 and iteration >= settings.image_start_step:
                image_loss = self._image_part(run, settings, canvas, prompt_embeds)
                if image_loss is not None:
                    total = total + accelerator.num_processes * settings.image_weight * image_loss
            losses = {"image_loss": image_loss, "audio_loss": audio_loss}
            losses = {name: None if loss is None else float(loss.detach()) for name, loss in losses.items()}
            check_losses(iteration, canvas, losses)
            run.step(total)
        return {"canvas": canvas.detach(), **losses}

    def _audio_part(
        self, run: CanvasRun, settings: SDSSettings, canvas: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor | None:
        """The audio loss, by the first process."""
        unit = self.vae_scale_factor
        shape = (1, self.unet_audio.config.in_channels, settings.height // unit, settings.width // unit)
        timesteps, weights = self._draw_timesteps(run, settings, self.audio_side, 1)
        noise, posterior_noise = (self._draw_noise(run, shape) for _ in range(2))
        if run.accelerator.process_index > 0:
            return None
        scale = self.audio_guidance_scale
        return self.audio_loss(canvas, embeds, timesteps, weights, noise, scale, posterior_noise)

    def _image_part(
        self, run: CanvasRun, settings: SDSSettings, canvas: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor | None:
        """This process's part of the mean of the image loss over all crops."""
        count, crop_width = settings.num_crops, settings.crop_width
        lefts = torch.randint(settings.width - crop_width + 1, (count,), generator=run.generator)
        num_timesteps = 1 if settings.shared_timestep else count
        timesteps, weights = self._draw_timesteps(run, settings, self.image_side, num_timesteps)
        timesteps, weights = timesteps.expand(count), weights.expand(count)
        noise, posterior_noise = (self._draw_noise(run, self.prior_shape(count)) for _ in range(2))
        mine = torch.arange(count)[run.accelerator.process_index :: run.accelerator.num_processes]
        if not len(mine):
            return None
        crops = torch.cat([canvas[..., left : left + crop_width] for left in lefts[mine].tolist()])
        crops = crops.expand(-1, 3, -1, -1)
        loss = self.image_loss(
            crops,
            embeds,
            timesteps[mine],
            weights[mine],
            noise[mine],
            self.guidance_scale,
            posterior_noise=posterior_noise[mine],
        )
        return len(mine) / count * loss

    def _draw_timesteps(
        self, run: CanvasRun, settings: SDSSettings, side: Side, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Timesteps `(count,)` and their weights `(count,)`."""
        alphas_cumprod = side.scheduler.alphas_cumprod
        if settings.timestep_scheduler is None:
            timesteps = draw_timesteps(count, len(alphas_cumprod), run.generator)
            drawn = timesteps, score_distillation_weights(timesteps, alphas_cumprod)
        else:
            drawn = settings.timestep_scheduler.draw(
                count, run.iteration, settings.num_iterations, alphas_cumprod, run.generator
            )
            check_drawn(drawn, count, len(alphas_cumprod))
        return drawn[0].to(self._execution_device), drawn[1].to(self._execution_device)

    def _draw_noise(self, run: CanvasRun, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=run.generator).to(self._execution_device)
