"""The method of `ImagesThatSoundPipeline` as blocks of Modular Diffusers, which compute by that pipeline's methods."""

import inspect
import os
import re
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ModularPipeline, UNet2DConditionModel
from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import BlockState
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, ConfigSpec, InputParam, OutputParam
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

# diffusers copies only the files that this one names, each of them.
from .images_that_sound_audio_prior import HUB_ARGUMENTS, load_vocoder
from .images_that_sound_checks import check_prompt  # noqa: F401
from .images_that_sound_repo import SelfContainedRepoMixin  # noqa: F401
from .images_that_sound_sides import TwoSidesMixin  # noqa: F401
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401
from .images_that_sound_weights import audio_noise_shares  # noqa: F401
from .pipeline_images_that_sound import ImagesThatSoundPipeline


STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
AUFFUSION = "auffusion/auffusion-full-no-adapter"

EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
PROMPTS = ("prompt", "audio_prompt", "negative_prompt", "negative_audio_prompt", "num_images_per_prompt")
SCALES = ("guidance_scale", "audio_guidance_scale")


class AuffusionVocoder:
    """Loads the vocoder of an Auffusion repo, whose `vocoder.pt` no class of transformers reads by itself."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        subfolder: str = "",
        revision: str | None = None,
        device_map: str | torch.device | None = None,
        **kwargs: Any,
    ) -> SpeechT5HifiGan:
        """
        The vocoder in float32, whatever precision the other components are loaded in.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A repo or folder with a folder `vocoder`.
            subfolder (`str`, *optional*, defaults to `""`): Folder that holds the folder `vocoder`.
            revision (`str`, *optional*): Branch, tag or commit of the repo.
            device_map (`str` or `torch.device`, *optional*): The device it goes to.
            kwargs: What `load_components` passes to every component; what is not about the Hub is of no use here.

        Returns:
            [`~transformers.SpeechT5HifiGan`]: Takes log-mel of shape `(B, T, M)`, returns waveforms of shape `(B, N)`.

        Raises:
            ValueError: If there is no vocoder, or it can't be read.
        """
        hub_kwargs = {name: value for name, value in kwargs.items() if name in HUB_ARGUMENTS}
        return load_vocoder(pretrained_model_name_or_path, subfolder, revision, **hub_kwargs).to(device_map or "cpu")


COMPONENTS = {
    name: ComponentSpec(name, type_hint, pretrained_model_name_or_path=repo, subfolder=subfolder)
    for name, type_hint, repo, subfolder in (
        ("text_encoder", CLIPTextModel, STABLE_DIFFUSION, "text_encoder"),
        ("tokenizer", CLIPTokenizer, STABLE_DIFFUSION, "tokenizer"),
        ("text_encoder_audio", CLIPTextModel, AUFFUSION, "text_encoder"),
        ("unet", UNet2DConditionModel, STABLE_DIFFUSION, "unet"),
        ("unet_audio", UNet2DConditionModel, AUFFUSION, "unet"),
        ("scheduler", DDIMScheduler, STABLE_DIFFUSION, "scheduler"),
        ("vae", AutoencoderKL, STABLE_DIFFUSION, "vae"),
        ("vae_audio", AutoencoderKL, AUFFUSION, "vae"),
        ("vocoder", AuffusionVocoder, AUFFUSION, ""),
    )
}
CONFIGS = [
    ConfigSpec("spectrogram", MelSpectrogram().to_dict(), "Constants of the spectrogram."),
    ConfigSpec("default_arguments", None, "Values that the checkpoint wants for arguments left out."),
]


def _components(*names: str) -> list[ComponentSpec]:
    return [COMPONENTS[name] for name in names]


def _inputs(*names: str) -> list[InputParam]:
    """Inputs that are arguments of the pipeline's call, with what its signature and docstring say of them."""
    call = ImagesThatSoundPipeline.__call__
    parameters = inspect.signature(call).parameters
    entries = re.findall(r"^( +)(\w+) \(.+\):\n((?:\1    .+\n)+)", call.__doc__ or "", re.MULTILINE)
    texts = {name: " ".join(text.split()) for _, name, text in entries}
    return [
        InputParam(
            name,
            type_hint=parameters[name].annotation,
            default=parameters[name].default,
            description=texts.get(name, ""),
        )
        for name in names
    ]


def _pipeline(components: ModularPipeline, block_state: BlockState) -> ImagesThatSoundPipeline:
    """The pipeline over the same components, as it is while a call runs with these inputs."""
    names = set(inspect.signature(ImagesThatSoundPipeline.__init__).parameters) - {"self"}
    configs = {config.name for config in CONFIGS}
    pipe = ImagesThatSoundPipeline(
        **{name: getattr(components, name, None) for name in names - configs},
        **{name: components.config.get(name) for name in configs},
    )
    pipe._begin_call(*(block_state[name] for name in (*SCALES, "cross_attention_kwargs")))
    return pipe


class ImagesThatSoundInputStep(ModularPipelineBlocks):
    """Checks everything before anything is computed, and says what is left open."""

    description = "Checks all inputs, and resolves sizes, scales and who speaks at which step."
    expected_components = _components("unet", "unet_audio")
    expected_configs = CONFIGS
    inputs = _inputs(
        *PROMPTS,
        *EMBEDDINGS,
        *SCALES,
        "height",
        "width",
        "audio_length_in_s",
        "canvas_layout",
        "crop_right",
        "num_inference_steps",
        "audio_weight",
        "image_guidance_start",
        "audio_guidance_start",
        "image_guidance_end",
        "audio_guidance_end",
        "denoising_start",
        "denoising_end",
        "generator",
        "latents",
        "output_type",
    )
    intermediate_outputs = [
        OutputParam("height", int, "Pixels of the picture."),
        OutputParam("width", int, "Pixels of the picture."),
        OutputParam("cut_columns", int, "Columns to cut from the right end of the spectrogram and the sound."),
        OutputParam("audio_noise_shares", list[float], "The audio side's share of the noise in 0..1, one per step."),
        OutputParam("first_step", int, "The step to begin with."),
        OutputParam("last_step", int, "The step to end before."),
        OutputParam("guidance_scale", float, "Classifier-free guidance of the image side."),
        OutputParam("audio_guidance_scale", float, "Classifier-free guidance of the audio side."),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        given = self.get_block_state(state)
        needed = ["unet", "unet_audio", "scheduler"]
        if given.prompt_embeds is None or given.audio_prompt_embeds is None:
            needed += ["text_encoder", "tokenizer"]
        if given.output_type != "latent":
            needed += ["vae"]
        absent = [name for name in needed if getattr(components, name, True) is None]
        if absent:
            raise ValueError(f"Call `pipe.load_components()` before: {absent} are not loaded yet.")
        pipe = _pipeline(components, given)
        crop_right = pipe._default("crop_right", given.crop_right)
        num_inference_steps = pipe._default("num_inference_steps", given.num_inference_steps)
        given.height, given.width, given.cut_columns = pipe._resolve_size(
            given.height, given.width, crop_right, given.canvas_layout, given.audio_length_in_s
        )
        checked = inspect.signature(pipe.check_inputs).parameters
        arguments = {name: value for name, value in given.as_dict().items() if name in checked}
        pipe.check_inputs(**{**arguments, "crop_right": given.cut_columns})
        edges = (f"{side}_guidance_{edge}" for side in ("image", "audio") for edge in ("start", "end"))
        given.audio_noise_shares = pipe._audio_noise_shares(
            num_inference_steps, given.audio_weight, **{name: given[name] for name in edges}
        )
        given.first_step, given.last_step = pipe._step_range(
            given.denoising_start, given.denoising_end, num_inference_steps, given.latents
        )
        given.guidance_scale, given.audio_guidance_scale = pipe.guidance_scale, pipe.audio_guidance_scale
        self.set_block_state(state, given)
        return components, state


class ImagesThatSoundTextEncoderStep(ModularPipelineBlocks):
    """Encodes both prompts."""

    description = "Encodes both prompts, each with its side's text encoder."
    expected_components = _components("text_encoder", "tokenizer", "text_encoder_audio")
    expected_configs = CONFIGS
    inputs = _inputs(*PROMPTS, *EMBEDDINGS, *SCALES, "cross_attention_kwargs")
    intermediate_outputs = [
        OutputParam(name, torch.Tensor, "Embeddings of shape `(B, L, D)`, or `None` where no guidance needs them.")
        for name in EMBEDDINGS
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        given = self.get_block_state(state)
        pipe = _pipeline(components, given)
        embeddings = pipe.encode_prompt(
            **{name: given[name] for name in (*PROMPTS, *EMBEDDINGS)},
            device=components._execution_device,
            do_classifier_free_guidance=pipe.do_classifier_free_guidance,
            do_audio_classifier_free_guidance=pipe.do_audio_classifier_free_guidance,
            lora_scale=(given.cross_attention_kwargs or {}).get("scale"),
        )
        for name, value in zip(EMBEDDINGS, embeddings):
            given[name] = value
        self.set_block_state(state, given)
        return components, state


class ImagesThatSoundDenoiseStep(ModularPipelineBlocks):
    """Denoises one canvas by both models."""

    description = "Denoises one canvas: both models predict its noise, and the scheduler follows the weighted average."
    expected_components = _components("unet", "unet_audio", "scheduler")
    expected_configs = CONFIGS
    inputs = [
        *_inputs(*EMBEDDINGS, *SCALES, "height", "width", "canvas_layout"),
        *_inputs("eta", "generator", "latents", "cross_attention_kwargs"),
        *(
            InputParam(output.name, output.type_hint, required=True, description=output.description)
            for output in ImagesThatSoundInputStep.intermediate_outputs
            if output.name in ("audio_noise_shares", "first_step", "last_step")
        ),
    ]
    intermediate_outputs = [OutputParam("latents", torch.Tensor, "Latents of shape `(B, C, H / 8, W / 8)`.")]

    def __init__(self):
        super().__init__()
        self._progress_bar_config = {}

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """What `tqdm` takes; [`ModularPipeline.set_progress_bar_config`] passes it on."""
        self._progress_bar_config = kwargs

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        given = self.get_block_state(state)
        pipe, device = _pipeline(components, given), components._execution_device
        pipe.set_progress_bar_config(**self._progress_bar_config)
        prompt_embeds, audio_prompt_embeds = given.prompt_embeds, given.audio_prompt_embeds
        if pipe.do_classifier_free_guidance:
            prompt_embeds = torch.cat([given.negative_prompt_embeds, prompt_embeds])
        if pipe.do_audio_classifier_free_guidance:
            audio_prompt_embeds = torch.cat([given.negative_audio_prompt_embeds, audio_prompt_embeds])
        steps = pipe._prepare_steps(given.audio_noise_shares, given.first_step, given.last_step, device)
        latents = pipe.prepare_latents(
            len(given.prompt_embeds),
            pipe.unet.config.in_channels,
            given.height,
            given.width,
            prompt_embeds.dtype,
            device,
            given.generator,
            given.latents,
            is_initial_noise=given.first_step == 0,
        )
        extra_step_kwargs = pipe.prepare_extra_step_kwargs(given.generator, given.eta)
        with pipe.progress_bar(total=given.last_step - given.first_step) as progress_bar:
            for step in steps:
                noise_pred = pipe._predict_mixed_noise(
                    latents, step.timestep, step.audio_share, prompt_embeds, audio_prompt_embeds, given.canvas_layout
                )
                if step.mixture_jumps:
                    pipe._forget_history(step.index, noise_pred, len(given.audio_noise_shares))
                latents = pipe.scheduler.step(noise_pred, step.timestep, latents, **extra_step_kwargs).prev_sample
                if step.completes_step:
                    progress_bar.update()
        given.latents = latents
        self.set_block_state(state, given)
        return components, state


class ImagesThatSoundDecodeStep(ModularPipelineBlocks):
    """Decodes the canvas and plays it."""

    description = "Decodes the picture and the spectrogram, and plays the spectrogram."
    expected_components = _components("vae", "vae_audio", "vocoder")
    expected_configs = CONFIGS
    inputs = [
        *_inputs("latents", "canvas_layout", "output_type"),
        InputParam("cut_columns", int, default=0, description="Columns to cut from the end of spectrogram and sound."),
    ]
    intermediate_outputs = [
        OutputParam("images", description="Pictures in 0..1 of shape `(B, 3, H, W)`, as `output_type` says."),
        OutputParam("spectrograms", description="Gray canvases in 0..1 of shape `(B, 1, M, T)`; `None` for latents."),
        OutputParam("audios", description="Float32 waveforms in -1..1 of shape `(B, N)`; `None` for latents."),
        OutputParam("sampling_rate", int, "Samples per second of the waveforms."),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        given = self.get_block_state(state)
        pipe = _pipeline(components, given)
        given.images, given.spectrograms, given.audios = given.latents, None, None
        if given.output_type != "latent":
            decoded = pipe.decode(given.latents, given.canvas_layout, given.cut_columns)
            given.images, given.spectrograms, given.audios = pipe._convert(*decoded, given.output_type)
        given.sampling_rate = pipe.sampling_rate
        self.set_block_state(state, given)
        return components, state


class ImagesThatSoundBlocks(SequentialPipelineBlocks):
    """
    Images that sound ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)) from prompts to pictures and sounds.

    The components come from the repos of Stable Diffusion and Auffusion themselves. `vae_audio` and
    `text_encoder_audio` are optional; where they are absent, the image side's serve both. Without `vocoder`
    Griffin-Lim plays. Ask for half precision by `pipe.load_components(dtype=...)`: it leaves the vocoder in float32,
    which `pipe.to(dtype)` does not.
    """

    block_classes = [
        ImagesThatSoundInputStep,
        ImagesThatSoundTextEncoderStep,
        ImagesThatSoundDenoiseStep,
        ImagesThatSoundDecodeStep,
    ]
    block_names = ["input", "text_encoder", "denoise", "decode"]
    description = "Makes images that sound: one canvas, denoised by an image model and a spectrogram model at once."

    @property
    def outputs(self) -> list[OutputParam]:
        return self.sub_blocks["decode"].intermediate_outputs
