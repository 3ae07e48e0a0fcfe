"""Loads what `--model` and its like name, and puts it where it is to run."""

from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.utils.torch_utils import get_device
from transformers import SpeechT5HifiGan

from ... import embedded, embedded_colorization
from ...pipelines import MelSpectrogram, load_vocoder
from .arguments import Models
from .hub import checkpoint_errors


EMBEDDED = Path(embedded.__file__).parent
# What ships with the package, by the names that `--model` and its like take.
SHIPPED = {"embedded": EMBEDDED, "embedded-colorization": Path(embedded_colorization.__file__).parent}


def device_of(models: Models) -> str:
    """Where the models run. Raises `ValueError` for a device that this machine lacks."""
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
    The pipeline of `--model`, with the audio side of `--audio_model`, where it is to run. Raises `ValueError` if
    neither holds the audio side that it needs.
    """
    if models.spectrogram is not None and models.audio_model is None:
        raise ValueError("`spectrogram` says how `audio_model` draws, which has to be given too.")
    pipe = read_pipeline(models, pipeline_class)
    if models.audio_model is not None:
        with checkpoint_errors(models.audio_model, "audio_model"):
            source = SHIPPED.get(models.audio_model, models.audio_model)
            pipe.load_audio_prior(source, spectrogram=models.spectrogram)
    elif needs_audio_side and pipe.unet_audio is None:
        raise ValueError(
            f"`audio_model` has to be given, such as auffusion/auffusion-full-no-adapter, since `model`,"
            f" {models.model!r}, has no audio side."
        )
    pipe = on_device(models, pipe)
    _spread(models, pipe)
    return pipe


def read_pipeline(models: Models, pipeline_class: type[DiffusionPipeline]) -> DiffusionPipeline:
    """The pipeline of `--model`, on no device yet."""
    with checkpoint_errors(models.model, "model"):
        source = SHIPPED.get(models.model, models.model)
        pipe = pipeline_class.from_pretrained(source, dtype=getattr(torch, models.dtype))
        if pipe.text_encoder is None:
            raise ValueError("It has no text encoder.")
    pipe.set_progress_bar_config(desc="Denoising")
    return pipe


def read_vocoder(source: str, spectrogram: MelSpectrogram | None = None) -> SpeechT5HifiGan | None:
    """The vocoder of a repo or folder, or of what ships with the package, for such spectrograms."""
    with checkpoint_errors(source, "vocoder"):
        return load_vocoder(SHIPPED.get(source, source), spectrogram=spectrogram)


def on_device(models: Models, pipe: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline where it is to run, and as `models` wants it run."""
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
    """Moves the models of `--device_map` to devices of their own, to which accelerate carries what they are given."""
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
    filled = {
        name: value
        for name, value in pipe.default_arguments.items()
        if arguments.get(name) is None and name not in ("height", "width")
    }
    return {**arguments, **filled}
