"""Pipelines that make images that sound. Nothing is imported before it is used, since torch takes seconds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .images_that_sound_audio_prior import load_vocoder
    from .images_that_sound_blocks import ImagesThatSoundBlocks
    from .images_that_sound_spectrogram import MelSpectrogram, audio_problems
    from .images_that_sound_vocoder import load_hifigan_vocoder
    from .pipeline_factorized_colorization import (
        FactorizedColorizationPipeline,
        FactorizedColorizationPipelineOutput,
    )
    from .pipeline_images_that_sound import (
        ImagesThatSoundPipeline,
        ImagesThatSoundPipelineOutput,
        fold_canvas,
        unfold_canvas,
    )
    from .pipeline_images_that_sound_imprint import (
        ImagesThatSoundImprintPipeline,
        ImagesThatSoundImprintPipelineOutput,
    )
    from .pipeline_images_that_sound_sds import ImagesThatSoundSDSPipeline, ImagesThatSoundSDSPipelineOutput

_MODULES = {
    "FactorizedColorizationPipeline": "pipeline_factorized_colorization",
    "FactorizedColorizationPipelineOutput": "pipeline_factorized_colorization",
    "ImagesThatSoundBlocks": "images_that_sound_blocks",
    "ImagesThatSoundImprintPipeline": "pipeline_images_that_sound_imprint",
    "ImagesThatSoundImprintPipelineOutput": "pipeline_images_that_sound_imprint",
    "ImagesThatSoundPipeline": "pipeline_images_that_sound",
    "ImagesThatSoundPipelineOutput": "pipeline_images_that_sound",
    "ImagesThatSoundSDSPipeline": "pipeline_images_that_sound_sds",
    "ImagesThatSoundSDSPipelineOutput": "pipeline_images_that_sound_sds",
    "MelSpectrogram": "images_that_sound_spectrogram",
    "audio_problems": "images_that_sound_spectrogram",
    "fold_canvas": "pipeline_images_that_sound",
    "load_hifigan_vocoder": "images_that_sound_vocoder",
    "load_vocoder": "images_that_sound_audio_prior",
    "unfold_canvas": "pipeline_images_that_sound",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
