"""The method of `ImagesThatSoundPipeline` as blocks of Modular Diffusers, which compute by that pipeline's methods."""

import inspect
import os
import re
from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ModularPipeline, UNet2DConditionModel
from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import BlockState
from diffusers.modular_pipelines.modular_pipeline_utils import (
    INPUT_PARAM_TEMPLATES,
    ComponentSpec,
    ConfigSpec,
    InputParam,
    OutputParam,
)
from transformers import CLIPTextModel, CLIPTokenizer, SpeechT5HifiGan

# Named although unused: diffusers copies the files that this one names, and no others.
from .images_that_sound_audio_prior import HUB_ARGUMENTS, load_vocoder
from .images_that_sound_audio_side import AudioSideMixin
from .images_that_sound_canvas import Canvas
from .images_that_sound_checks import check_number
from .images_that_sound_denoising import denoise
from .images_that_sound_files import written
from .images_that_sound_guides import Guides
from .images_that_sound_loading import SelfContainedSavingMixin
from .images_that_sound_lora import FewStepsMixin
from .images_that_sound_picture_reading import upright
from .images_that_sound_sides import Guided, Request
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_two_sides import TwoSidesMixin
from .pipeline_images_that_sound import ImagesThatSoundPipeline


STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
AUFFUSION = "auffusion/auffusion-full-no-adapter"

EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
PROMPTS = ("prompt", "audio_prompt", "negative_prompt", "negative_audio_prompt")
SCALES = ("guidance_scale", "audio_guidance_scale")
SIZES = ("height", "width", "audio_length_in_s", "crop_right", "canvas_layout")
EDGES = ("image_guidance_start", "image_guidance_end", "audio_guidance_start", "audio_guidance_end")
DENOISING = ("denoising_start", "denoising_end", "eta", "generator", "latents")
INPUTS = (
    *(*PROMPTS, *EMBEDDINGS, *SCALES, *SIZES, *EDGES, *DENOISING),
    *("num_images_per_prompt", "num_inference_steps", "audio_weight", "output_type"),
)
CALL = inspect.signature(ImagesThatSoundPipeline.__call__).parameters
# Arguments of the call that these blocks refuse, since diffusers would ignore them with a warning.
LACKING = tuple(name for name in CALL if name not in (*INPUTS, "self", "return_dict", "cross_attention_kwargs"))


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


def _description(name: str) -> str:
    """Text about an argument in the docstring of the pipeline's call, on one line."""
    text = inspect.getdoc(ImagesThatSoundPipeline.__call__)
    entry = re.search(rf"^( +){name} \(.*?\):(.*\n(?:\1    .*\n)*)", text, re.MULTILINE)
    return " ".join(entry[2].split())


def _inputs(*names: str) -> list[InputParam]:
    """Inputs that are arguments of the pipeline's call, with its defaults, in diffusers' words if they are usual."""
    return [
        InputParam.template(name, default=CALL[name].default, required=False)
        if name in INPUT_PARAM_TEMPLATES
        else InputParam(name, CALL[name].annotation, CALL[name].default, description=_description(name))
        for name in names
    ]


PIPELINE = InputParam(
    "pipeline", ImagesThatSoundPipeline, description="Pipeline of this run, made by the first block."
)


def _values(block_state: BlockState, names: Iterable[str]) -> dict[str, Any]:
    return {name: block_state[name] for name in names}


class PipelineStep(ModularPipelineBlocks):
    """A block that computes by the methods of one pipeline over the same components, made once a run."""

    expected_configs = CONFIGS
    begins_run = False

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        given = self.get_block_state(state)
        if getattr(components, "guider", None) is not None:
            raise ValueError("`guider` can't be used by these blocks, which guide by `guidance_scale`.")
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
    description = "Checks all inputs, and resolves the canvas, scales and shares of the steps."
    expected_components = _components("unet", "unet_audio")
    inputs = _inputs(*INPUTS, *LACKING)
    intermediate_outputs = [
        OutputParam("pipeline", ImagesThatSoundPipeline, "Pipeline by whose methods the blocks compute."),
        OutputParam("batch_size", int, "Number of samples."),
        OutputParam("canvas", Canvas, "Size of the picture and how it is played."),
        OutputParam("audio_noise_shares", list[float], "The audio side's share of the noise in 0..1, one per step."),
        OutputParam("guidance_scale", float, "Classifier-free guidance of the image side."),
        OutputParam("audio_guidance_scale", float, "Classifier-free guidance of the audio side."),
    ]

    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        for name, default in ((each.name, each.default) for each in self.inputs if each.name in LACKING):
            if given[name] is not default and given[name] != default:
                raise ValueError(f"`{name}` can't be given to these blocks. `ImagesThatSoundPipeline` takes it.")
        needed = ["unet", "unet_audio", "scheduler"]
        if given.prompt_embeds is None or given.audio_prompt_embeds is None:
            needed += ["text_encoder", "tokenizer"]
        if given.output_type != "latent":
            needed += ["vae"]
        absent = [name for name in needed if getattr(components, name, True) is None]
        if absent:
            raise ValueError(f"Call `pipe.load_components()` before: {absent} are not loaded yet.")
        given.canvas = pipe.resolve_size(**_values(given, SIZES))
        given.audio_noise_shares = pipe.resolve_shares(
            given.canvas, given.num_inference_steps, given.audio_weight, **_values(given, EDGES)
        )
        requests = []
        for name, scale in zip(("prompt", "audio_prompt"), SCALES):
            values = (given[f"{prefix}{name}{end}"] for end in ("", "_embeds") for prefix in ("", "negative_"))
            requests.append(pipe.resolve_request(Request(name, *values), given.canvas, given[scale]))
            if requests[-1].columns:
                raise ValueError(f"`{name}` over time can't be given to these blocks. The pipeline takes it.")
            given[scale] = requests[-1].guidance_scale
        # Says so if an IP-Adapter is loaded, whose pictures these blocks do not take.
        pipe.read_guides(given.canvas, given.resize_mode, pipe.image_side.is_guided(requests[0].guidance_scale))
        names = (*DENOISING, "num_images_per_prompt", "output_type")
        values = _values(given, names)
        given.batch_size = pipe.check_inputs(*requests, given.canvas, given.audio_noise_shares, **values)


class ImagesThatSoundTextEncoderStep(PipelineStep):
    """Encodes both prompts."""

    description = "Encodes both prompts, each with its side's text encoder."
    expected_components = _components("text_encoder", "tokenizer", "text_encoder_audio")
    inputs = [*_inputs(*PROMPTS, *EMBEDDINGS, *SCALES, "num_images_per_prompt", "cross_attention_kwargs"), PIPELINE]
    intermediate_outputs = [
        OutputParam(name, torch.Tensor, "Embeddings of shape `(B, L, D)`, or `None` if no guidance needs them.")
        for name in EMBEDDINGS
    ]

    @torch.no_grad()
    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        scale, audio_scale = (pipe.resolve_default(name, given[name]) for name in SCALES)
        embeddings = pipe.encode_prompt(
            **_values(given, (*PROMPTS, *EMBEDDINGS, "num_images_per_prompt")),
            device=components._execution_device,
            do_classifier_free_guidance=pipe.image_side.is_guided(scale),
            do_audio_classifier_free_guidance=pipe.audio_side.is_guided(audio_scale),
            lora_scale=(given.cross_attention_kwargs or {}).get("scale"),
        )
        for name, value in zip(EMBEDDINGS, embeddings):
            given[name] = value


class ImagesThatSoundDenoiseStep(PipelineStep):
    """Denoises one canvas by both models."""

    description = "Denoises one canvas: both models predict its noise, and the scheduler follows the weighted average."
    expected_components = _components("unet", "unet_audio", "scheduler")
    inputs = [
        *_inputs(*EMBEDDINGS, *SCALES, *DENOISING, "cross_attention_kwargs"),
        *(
            InputParam(output.name, output.type_hint, required=True, description=output.description)
            for output in ImagesThatSoundInputStep.intermediate_outputs
            if output.name in ("batch_size", "audio_noise_shares", "canvas")
        ),
        PIPELINE,
    ]
    intermediate_outputs = [OutputParam("latents", torch.Tensor, "Latents of shape `(B, C, H / 8, W / 8)`.")]

    def __init__(self):
        super().__init__()
        self._progress_bar_config = {}

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Arguments of `tqdm`; [`ModularPipeline.set_progress_bar_config`] passes them on."""
        self._progress_bar_config = kwargs

    def compute(self, pipe: ImagesThatSoundPipeline, components: ModularPipeline, given: BlockState) -> None:
        pipe.set_progress_bar_config(**self._progress_bar_config)
        sides = []
        for name, scale in zip(("prompt", "audio_prompt"), SCALES):
            embeds = {"prompt_embeds": given[f"{name}_embeds"], "guidance_scale": given[scale]}
            negative_embeds = given[f"negative_{name}_embeds"]
            sides.append(Request(name, **embeds, negative_prompt_embeds=negative_embeds))
        image, audio = pipe.guide(*sides, given.batch_size, cross_attention_kwargs=given.cross_attention_kwargs)
        given.latents = pipe.denoise(
            pipe.prepare_latents(given.batch_size, given.canvas, given.generator, given.latents),
            pipe.prepare_steps(given.audio_noise_shares, **_values(given, ("denoising_start", "denoising_end"))),
            image,
            audio,
            given.canvas,
            **_values(given, ("eta", "generator")),
        )


class ImagesThatSoundDecodeStep(PipelineStep):
    """Decodes the canvas and plays it."""

    description = "Decodes the picture and the spectrogram, and plays the spectrogram."
    expected_components = _components("vae", "vae_audio", "vocoder")
    inputs = [
        *_inputs("latents", "output_type"),
        InputParam("canvas", Canvas, description="How the picture is played; whole, as a strip, by default."),
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
            decoded = pipe.decode(given.latents, given.canvas, given.output_type)
            given.images, given.spectrograms, given.audios = decoded
        given.sampling_rate = pipe.sampling_rate


class ImagesThatSoundBlocks(SequentialPipelineBlocks):
    """
    Images that sound ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221)) from prompts to pictures and sounds.

    The components come from the repos of Stable Diffusion and Auffusion themselves. Without the optional `vae_audio`
    and `text_encoder_audio`, the image side's serve both. Without `vocoder` Griffin-Lim plays. Ask for half precision
    by `pipe.load_components(dtype=...)`: it leaves the vocoder in float32, which `pipe.to(dtype)` does not.
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
