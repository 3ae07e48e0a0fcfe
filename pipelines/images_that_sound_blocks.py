"""The method of `ImagesThatSoundPipeline` as blocks of Modular Diffusers, which compute by that pipeline's methods."""

import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ModularPipeline, UNet2DConditionModel
from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import BlockState
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, ConfigSpec, InputParam, OutputParam
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

# diffusers copies only the files that this one names, each of them.
from .images_that_sound_audio_lora import AudioLoraMixin  # noqa: F401
from .images_that_sound_audio_prior import HUB_ARGUMENTS, load_vocoder
from .images_that_sound_audio_side import AudioSideMixin  # noqa: F401
from .images_that_sound_call import read_call
from .images_that_sound_checks import check_number  # noqa: F401
from .images_that_sound_few_steps import FewStepsMixin  # noqa: F401
from .images_that_sound_files import written  # noqa: F401
from .images_that_sound_guides import GuidedTwoSidesMixin  # noqa: F401
from .images_that_sound_noise_shares import audio_noise_shares  # noqa: F401
from .images_that_sound_pictures import fit_pictures  # noqa: F401
from .images_that_sound_precision import kept_in_float32  # noqa: F401
from .images_that_sound_prompts import Prompts
from .images_that_sound_saving import SelfContainedSavingMixin  # noqa: F401
from .images_that_sound_side import is_guided
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_steps import denoising_steps  # noqa: F401
from .images_that_sound_two_sides import TwoSidesMixin  # noqa: F401
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401
from .pipeline_images_that_sound import ImagesThatSoundPipeline


STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
AUFFUSION = "auffusion/auffusion-full-no-adapter"

EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
PROMPTS = ("prompt", "audio_prompt", "negative_prompt", "negative_audio_prompt")
SCALES = ("guidance_scale", "audio_guidance_scale")
SIZES = ("height", "width", "audio_length_in_s", "crop_right", "canvas_layout")
EDGES = ("image_guidance_start", "image_guidance_end", "audio_guidance_start", "audio_guidance_end")
DENOISING = ("denoising_start", "denoising_end", "eta", "generator", "latents")


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
        """The vocoder in float32, on `device_map`; `kwargs` is what `load_components` passes to every component."""
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


CALL = read_call(Path(inspect.getsourcefile(ImagesThatSoundPipeline)), "ImagesThatSoundPipeline")


def _inputs(*names: str) -> list[InputParam]:
    """Inputs that are arguments of the pipeline's call, with what it says of them."""
    parameters = inspect.signature(ImagesThatSoundPipeline.__call__).parameters
    return [
        InputParam(
            name,
            type_hint=parameters[name].annotation,
            default=parameters[name].default,
            description=CALL[name].description,
        )
        for name in names
    ]


PIPELINE = InputParam("pipeline", ImagesThatSoundPipeline, description="That of this run, made by the first block.")


def _values(block_state: BlockState, names: Iterable[str]) -> dict[str, Any]:
    return {name: block_state[name] for name in names}


class PipelineStep(ModularPipelineBlocks):
    """A block that computes by the methods of one pipeline over the same components, made once a run."""

    expected_configs = CONFIGS
    begins_run = False

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        given = self.get_block_state(state)
        if self.begins_run or given.pipeline is None:
            names = set(inspect.signature(ImagesThatSoundPipeline.__init__).parameters) - {"self"}
            configs = {config.name for config in CONFIGS}
            given.pipeline = ImagesThatSoundPipeline(
                **{name: getattr(components, name, None) for name in names - configs},
                **{name: components.config.get(name) for name in configs},
            )
        self.compute(given.pipeline, components, given)
        self.set_block_state(state, given)
        return components, state

    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        """Sets the block's outputs in `given`, which holds its inputs."""
        raise NotImplementedError


class ImagesThatSoundInputStep(PipelineStep):
    """Checks everything before anything is computed, and says what is left open."""

    begins_run = True
    description = "Checks all inputs, and resolves sizes, scales and who speaks at which step."
    expected_components = _components("unet", "unet_audio")
    inputs = _inputs(
        *PROMPTS,
        *EMBEDDINGS,
        *SCALES,
        *SIZES,
        *EDGES,
        *DENOISING,
        "num_images_per_prompt",
        "num_inference_steps",
        "audio_weight",
        "output_type",
    )
    intermediate_outputs = [
        OutputParam("pipeline", ImagesThatSoundPipeline, "What the blocks compute by."),
        OutputParam("batch_size", int, "Number of samples."),
        OutputParam("height", int, "Pixels of the picture."),
        OutputParam("width", int, "Pixels of the picture."),
        OutputParam("cut_columns", int, "Columns to cut from the right end of the spectrogram and the sound."),
        OutputParam("audio_noise_shares", list[float], "The audio side's share of the noise in 0..1, one per step."),
        OutputParam("guidance_scale", float, "Classifier-free guidance of the image side."),
        OutputParam("audio_guidance_scale", float, "Classifier-free guidance of the audio side."),
    ]

    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        needed = ["unet", "unet_audio", "scheduler"]
        if given.prompt_embeds is None or given.audio_prompt_embeds is None:
            needed += ["text_encoder", "tokenizer"]
        if given.output_type != "latent":
            needed += ["vae"]
        absent = [name for name in needed if getattr(components, name, True) is None]
        if absent:
            raise ValueError(f"Call `pipe.load_components()` before: {absent} are not loaded yet.")
        for name in SCALES:
            given[name] = pipe.resolve_default(name, given[name])
        given.audio_noise_shares = pipe.resolve_noise_shares(
            given.num_inference_steps, given.audio_weight, **_values(given, EDGES)
        )
        given.height, given.width, given.cut_columns = pipe.resolve_size(**_values(given, SIZES))
        prompts = (
            Prompts(name, *(given[f"{prefix}{name}{end}"] for end in ("", "_embeds") for prefix in ("", "negative_")))
            for name in ("prompt", "audio_prompt")
        )
        names = (*SCALES, *DENOISING, "height", "width", "num_images_per_prompt", "output_type")
        given.batch_size = pipe.check_inputs(*prompts, **_values(given, names))


class ImagesThatSoundTextEncoderStep(PipelineStep):
    """Encodes both prompts."""

    description = "Encodes both prompts, each with its side's text encoder."
    expected_components = _components("text_encoder", "tokenizer", "text_encoder_audio")
    inputs = [*_inputs(*PROMPTS, *EMBEDDINGS, *SCALES, "num_images_per_prompt", "cross_attention_kwargs"), PIPELINE]
    intermediate_outputs = [
        OutputParam(name, torch.Tensor, "Embeddings of shape `(B, L, D)`, or `None` where no guidance needs them.")
        for name in EMBEDDINGS
    ]

    @torch.no_grad()
    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        scale, audio_scale = pipe.resolve_guidance(*(given[name] for name in SCALES))
        embeddings = pipe.encode_prompt(
            **_values(given, (*PROMPTS, *EMBEDDINGS, "num_images_per_prompt")),
            device=components._execution_device,
            do_classifier_free_guidance=is_guided(pipe.unet, scale),
            do_audio_classifier_free_guidance=is_guided(pipe.unet_audio, audio_scale),
            lora_scale=pipe.lora_scale_of(given.cross_attention_kwargs),
        )
        for name, value in zip(EMBEDDINGS, embeddings):
            given[name] = value


class ImagesThatSoundDenoiseStep(PipelineStep):
    """Denoises one canvas by both models."""

    description = "Denoises one canvas: both models predict its noise, and the scheduler follows the weighted average."
    expected_components = _components("unet", "unet_audio", "scheduler")
    inputs = [
        *_inputs(*EMBEDDINGS, *SCALES, *DENOISING, "canvas_layout", "cross_attention_kwargs", "height", "width"),
        *(
            InputParam(output.name, output.type_hint, required=True, description=output.description)
            for output in ImagesThatSoundInputStep.intermediate_outputs
            if output.name in ("batch_size", "audio_noise_shares")
        ),
        PIPELINE,
    ]
    intermediate_outputs = [OutputParam("latents", torch.Tensor, "Latents of shape `(B, C, H / 8, W / 8)`.")]

    def __init__(self):
        super().__init__()
        self._progress_bar_config = {}

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """What `tqdm` takes; [`ModularPipeline.set_progress_bar_config`] passes it on."""
        self._progress_bar_config = kwargs

    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        pipe.set_progress_bar_config(**self._progress_bar_config)
        names = (*EMBEDDINGS, *SCALES, *DENOISING[:-1], "canvas_layout", "cross_attention_kwargs")
        given.latents = pipe.denoise(
            pipe.prepare_latents(given.batch_size, given.height, given.width, given.generator, given.latents),
            given.audio_noise_shares,
            **_values(given, names),
        )


class ImagesThatSoundDecodeStep(PipelineStep):
    """Decodes the canvas and plays it."""

    description = "Decodes the picture and the spectrogram, and plays the spectrogram."
    expected_components = _components("vae", "vae_audio", "vocoder")
    inputs = [
        *_inputs("latents", "canvas_layout", "output_type"),
        InputParam("cut_columns", int, default=0, description="Columns to cut from the end of spectrogram and sound."),
        PIPELINE,
    ]
    intermediate_outputs = [
        OutputParam("images", description="Pictures in 0..1 of shape `(B, 3, H, W)`, as `output_type` says."),
        OutputParam("spectrograms", description="Gray canvases in 0..1 of shape `(B, 1, M, T)`; `None` for latents."),
        OutputParam("audios", description="Float32 waveforms in -1..1 of shape `(B, N)`; `None` for latents."),
        OutputParam("sampling_rate", int, "Samples per second of the waveforms."),
    ]

    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        given.images, given.spectrograms, given.audios = given.latents, None, None
        if given.output_type != "latent":
            decoded = pipe.decode(given.latents, given.canvas_layout, given.cut_columns)
            given.images, given.spectrograms, given.audios = pipe.convert(*decoded, given.output_type)
        given.sampling_rate = pipe.sampling_rate


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
