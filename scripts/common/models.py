"""Loads the models that `--model` and its like name, and puts them on their devices."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers import (
    BitsAndBytesConfig,
    ControlNetModel,
    DiffusionPipeline,
    MultiControlNetModel,
    PipelineQuantizationConfig,
    SchedulerMixin,
    TorchAoConfig,
    UNet2DConditionModel,
)
from diffusers.utils import is_peft_available
from diffusers.utils.torch_utils import get_device
from transformers import CLIPVisionModelWithProjection, SpeechT5HifiGan

from ... import embedded, embedded_colorization, embedded_controlnet
from ...pipelines import MelSpectrogram, load_vocoder
from ...pipelines.images_that_sound_guides import check_controlnet
from ...pipelines.images_that_sound_lora import check_lora
from .loading_errors import checkpoint_errors
from .own_files import source_and_weight
from .presets import EMBEDDED_FEW_STEPS, FEW_STEPS, SCHEDULERS
from .values import Models


EMBEDDED = Path(embedded.__file__).parent
EMBEDDED_CONTROLNET = Path(embedded_controlnet.__file__).parent
# Repo and folder of the image encoder of adapters that come without one.
IMAGE_ENCODER = ("h94/IP-Adapter", "models")
# Models that ship with the package, by the names that `--model` and its like take.
SHIPPED = {"embedded": EMBEDDED, "embedded-colorization": Path(embedded_colorization.__file__).parent}


def device_of(models: Models) -> str:
    """Device of the models. Raises `ValueError` for a device that this machine lacks."""
    return get_device() if models.device is None else checked_device(models.device, "device")


def checked_device(device: str, argument: str) -> str:
    """The device. Raises `ValueError` if nothing can be computed there."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"`{argument}` has to name a device of this machine, such as cpu, but is {device!r}: {reason}"
        ) from error
    return device


def load_pipeline(
    models: Models, pipeline_class: type[DiffusionPipeline], needs_audio_side: bool = True
) -> DiffusionPipeline:
    """
    The pipeline of `--model`, with the audio side of `--audio_model`, on its device. Raises `ValueError` if
    neither holds the audio side that it needs.
    """
    if models.spectrogram is not None and models.audio_model is None:
        raise ValueError("`spectrogram` says how `audio_model` draws, which has to be given too.")
    pipe = read_pipeline(models, pipeline_class)
    if models.audio_model is not None:
        with checkpoint_errors(models.audio_model, "audio_model"):
            source = SHIPPED.get(models.audio_model, models.audio_model)
            pipe.load_audio_prior(
                source, spectrogram=models.spectrogram, quantization_config=quantization_config_of(models)
            )
    elif needs_audio_side and pipe.unet_audio is None:
        raise ValueError(
            f"`audio_model` has to be given, such as auffusion/auffusion-full-no-adapter, since `model`,"
            f" {models.model!r}, has no audio side."
        )
    _add_controlnets(models, pipe)
    _add_audio_controlnets(models, pipe)
    # An IP-Adapter comes last: a ControlNet can't be copied from a UNet that has one.
    for argument in ("ip_adapter", "audio_ip_adapter"):
        if (source := getattr(models, argument)) is not None:
            _add_ip_adapter(argument, source, pipe)
    if models.few_steps is not None:
        _add_few_steps(models, pipe)
    if models.scheduler is not None:
        pipe.scheduler = new_scheduler(models.scheduler, pipe.scheduler.config)
    for argument in ("lora", "audio_lora"):
        _add_loras(argument, getattr(models, argument) or [], pipe)
    pipe = on_device(models, pipe)
    _spread(models, pipe)
    return pipe


def read_pipeline(models: Models, pipeline_class: type[DiffusionPipeline]) -> DiffusionPipeline:
    """The pipeline of `--model`, on no device yet."""
    config = quantization_config_of(models)
    if config is not None:
        names = ("unet", "unet_audio") if models.audio_model is None else ("unet",)
        config = PipelineQuantizationConfig(quant_mapping=dict.fromkeys(names, config))
    with checkpoint_errors(models.model, "model"):
        source = SHIPPED.get(models.model, models.model)
        dtype = getattr(torch, models.dtype)
        if Path(source).is_file():
            if not hasattr(pipeline_class, "from_single_file") or Path(source).suffix != ".safetensors":
                raise ValueError("It has to be a repo, a folder or, for commands by Stable Diffusion, a .safetensors.")
            pipe = pipeline_class.from_single_file(source, dtype=dtype)
        else:
            pipe = pipeline_class.from_pretrained(source, dtype=dtype, quantization_config=config)
        if pipe.text_encoder is None:
            raise ValueError("It has no text encoder.")
        check_scheduler(pipe.scheduler)
    pipe.set_progress_bar_config(desc="Denoising")
    return pipe


def check_scheduler(scheduler: SchedulerMixin) -> None:
    """Raises `ValueError` for a scheduler whose timesteps have no noise level, such as one with too few betas."""
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        return
    number = scheduler.config.num_train_timesteps
    if len(betas) != number:
        raise ValueError(f"Its scheduler has to have {number} `trained_betas`, but has {len(betas)}.")


def quantization_config_of(models: Models) -> TorchAoConfig | BitsAndBytesConfig | None:
    """A UNet's. Raises `ValueError` for a backend that is not installed, or can't be used here."""
    backend = models.quantization
    if backend is None:
        return None
    if models.enable_layerwise_casting:
        raise ValueError("`quantization` and `enable_layerwise_casting` exclude each other, but both are given.")
    package = backend.split("_")[0]
    if find_spec(package) is None:
        raise ValueError(f"`quantization` by {backend} needs {package}: pip install {package}.")
    if backend == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if device_of(models) == "cpu":
        raise ValueError(f"`quantization` by {backend} needs a GPU, but `device` is cpu.")
    if backend == "bitsandbytes_8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=getattr(torch, models.dtype))


def _add_controlnets(models: Models, pipe: DiffusionPipeline) -> None:
    nets = []
    for source in models.controlnet or []:
        with checkpoint_errors(source, "controlnet"):
            folder = EMBEDDED_CONTROLNET if source == "embedded" else source
            net = ControlNetModel.from_pretrained(folder, dtype=getattr(torch, models.dtype), use_safetensors=True)
            check_controlnet(net, pipe.unet, pipe.vae_scale_factor)
            nets.append(net)
    if nets:
        pipe.register_modules(controlnet=nets[0] if len(nets) == 1 else MultiControlNetModel(nets))


def _add_audio_controlnets(models: Models, pipe: DiffusionPipeline) -> None:
    nets = []
    for source in models.audio_controlnet or []:
        with checkpoint_errors(source, "audio_controlnet"):
            repo, file = _repo_and_file(source, (".ckpt",))
            pipe.load_audio_controlnet(repo, **file)
            nets.append(pipe.audio_controlnet)
    if len(nets) > 1:
        pipe.register_modules(audio_controlnet=MultiControlNetModel(nets))


def _add_ip_adapter(argument: str, text: str, pipe: DiffusionPipeline) -> None:
    side = pipe if argument == "ip_adapter" else pipe.audio
    source, weight = source_and_weight(text)
    with checkpoint_errors(source, argument):
        # FoleyCrafter's semantic adapter is a .bin, which diffusers reads as plain tensors.
        repo, file = _repo_and_file(source, (".safetensors",) if side is pipe else (".safetensors", ".bin"))
        file = file or {"subfolder": "models", "weight_name": "ip-adapter_sd15.safetensors"}
        if pipe.image_encoder is None:
            beside = (repo, file["subfolder"]) if file["weight_name"].endswith(".safetensors") else IMAGE_ENCODER
            # Loaded here, so that it is read from safetensors only.
            encoder = CLIPVisionModelWithProjection.from_pretrained(
                beside[0],
                subfolder=Path(beside[1], "image_encoder").as_posix(),
                dtype=pipe.unet.dtype,
                use_safetensors=True,
            )
            pipe.register_modules(image_encoder=encoder)
        side.load_ip_adapter(repo, **file)
        side.set_ip_adapter_scale(weight)


def new_scheduler(name: str, config: dict[str, Any]) -> SchedulerMixin:
    """The one of `SCHEDULERS`, for a checkpoint whose scheduler has such a config."""
    scheduler_class, options = SCHEDULERS[name]
    return getattr(diffusers, scheduler_class).from_config(config, **options)


def _add_few_steps(models: Models, pipe: DiffusionPipeline) -> None:
    prepare_loras("few_steps")
    source, scheduler, num_steps = FEW_STEPS[models.few_steps]
    if "embedded" in (models.model, models.audio_model):
        if models.few_steps not in EMBEDDED_FEW_STEPS or models.audio_model not in (None, "embedded"):
            raise ValueError(
                f"`few_steps` of the embedded checkpoint, by itself, has to be among {list(EMBEDDED_FEW_STEPS)}, but"
                f" is {models.few_steps}."
            )
        folder, scheduler, num_steps = EMBEDDED_FEW_STEPS[models.few_steps]
        source = str(EMBEDDED / folder)
    with checkpoint_errors(source, "few_steps"):
        repo, file = _repo_and_file(source)
        pipe.load_few_step_lora_weights(
            repo, new_scheduler(scheduler, pipe.scheduler.config), num_steps, use_safetensors=True, **file
        )


def prepare_loras(argument: str) -> None:
    """Raises `ValueError` without PEFT, and keeps diffusers quiet about what most LoRAs have not."""
    if not is_peft_available():
        raise ValueError(f"`{argument}` needs peft: pip install peft.")
    # It warns of each LoRA that has nothing for a text encoder.
    logging.getLogger("diffusers.loaders.lora_base").setLevel(logging.ERROR)


def _add_loras(argument: str, texts: list[str], pipe: DiffusionPipeline) -> None:
    """Those of a side, each with its weight."""
    if texts:
        prepare_loras(argument)
    # The audio side's methods are those of a stock pipeline.
    side, weights = pipe.audio if argument == "audio_lora" and texts else pipe, {}
    earlier = side.get_active_adapters() if texts else []
    for i, text in enumerate(texts):
        source, weights[f"lora_{i}"] = source_and_weight(text)
        with checkpoint_errors(source, argument):
            repo, file = _repo_and_file(source)
            models = pipe.audio_side if side is not pipe else pipe.image_side
            check_lora(repo, models, is_audio=side is not pipe, use_safetensors=True, **file)
            side.load_lora_weights(repo, adapter_name=f"lora_{i}", use_safetensors=True, **file)
    if weights:
        # Or a LoRA for few steps would no longer act.
        acting = {**dict.fromkeys(earlier, 1.0), **weights}
        side.set_adapters(list(acting), list(acting.values()))


def _repo_and_file(source: str, suffixes: tuple[str, ...] = (".safetensors",)) -> tuple[str, dict[str, str]]:
    """
    Repo and arguments of diffusers for `REPO/FOLDER/FILE.safetensors`, of the Hub or of this machine. No file if
    `source` names none, and `ValueError` for one of another kind.
    """
    path = Path(source)
    if path.is_file() and path.suffix not in suffixes:
        raise ValueError(f"The file has to end in {' or '.join(suffixes)}.")
    if path.suffix not in suffixes:
        return source, {}
    parts = path.parent.parts
    folders = () if path.is_file() else parts[2:]
    repo = str(path.parent) if path.is_file() else "/".join(parts[:2])
    return repo, {"subfolder": "/".join(folders), "weight_name": path.name}


def read_vocoder(source: str, spectrogram: MelSpectrogram | None = None) -> SpeechT5HifiGan | None:
    """The vocoder of a repo or folder, or of what ships with the package, for such spectrograms."""
    with checkpoint_errors(source, "vocoder"):
        return load_vocoder(SHIPPED.get(source, source), spectrogram=spectrogram)


def on_device(models: Models, pipe: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline on its device, run as `models` says."""
    device, unets = device_of(models), [m for m in pipe.components.values() if isinstance(m, UNet2DConditionModel)]
    if models.enable_layerwise_casting:
        for unet in unets:
            unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=unet.dtype)
    if models.compile:
        for unet in unets:
            unet.compile_repeated_blocks()
    if models.enable_group_offload:
        pipe.enable_group_offload(
            torch.device(device), offload_type="leaf_level", use_stream=device.startswith("cuda")
        )
    elif models.enable_model_cpu_offload:
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def _spread(models: Models, pipe: DiffusionPipeline) -> None:
    """Moves the models of `--device_map` to their devices, to which accelerate carries their inputs."""
    for name, device in (models.device_map or {}).items():
        model = pipe.components.get(name)
        offloaded = models.enable_model_cpu_offload or models.enable_group_offload
        if offloaded or not isinstance(model, torch.nn.Module):
            raise ValueError(
                f"`device_map` has to name models of the pipeline, without offloading, but is {models.device_map}."
            )
        device = checked_device(device, "device_map")
        hook = AlignDevicesHook(execution_device=torch.device(device), io_same_device=True)
        add_hook_to_module(model.to(device), hook)


def with_checkpoint_defaults(arguments: dict[str, Any], pipe: DiffusionPipeline) -> dict[str, Any]:
    """The arguments with the checkpoint's defaults written out, so that a sample's settings are complete."""
    left_open = ["height", "width"]
    if arguments.get("circular"):
        left_open.append("crop_right")  # a loop keeps all
    if any(arguments.get(name) is not None for name in ("timesteps", "sigmas")):
        left_open.append("num_inference_steps")
    filled = {
        name: value
        for name, value in pipe.default_arguments.items()
        if arguments.get(name) is None and name not in left_open
    }
    return {**arguments, **filled}
