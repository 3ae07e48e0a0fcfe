"""Pipelines that make images that sound. Nothing is imported before it is used, since torch takes seconds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .images_that_sound_audio_prior import load_hifigan_vocoder, load_vocoder
    from .images_that_sound_blocks import ImagesThatSoundBlocks
    from .images_that_sound_canvas import Canvas, fold_canvas, unfold_canvas
    from .images_that_sound_sides import Guided, Side
    from .images_that_sound_spectrogram import (
        SPECTROGRAMS,
        MelSpectrogram,
        audio_problems,
        audio_remarks,
        find_spectrogram,
    )
    from .pipeline_factorized_colorization import (
        FactorizedColorizationPipeline,
        FactorizedColorizationPipelineOutput,
    )
    from .pipeline_images_that_sound import ImagesThatSoundPipeline, ImagesThatSoundPipelineOutput
    from .pipeline_images_that_sound_img2img import ImagesThatSoundImg2ImgPipeline
    from .pipeline_images_that_sound_imprint import (
        ImagesThatSoundImprintPipeline,
        ImagesThatSoundImprintPipelineOutput,
    )
    from .pipeline_images_that_sound_sds import ImagesThatSoundSDSPipeline, ImagesThatSoundSDSPipelineOutput

_MODULES = {
    "Canvas": "images_that_sound_canvas",
    "FactorizedColorizationPipeline": "pipeline_factorized_colorization",
    "FactorizedColorizationPipelineOutput": "pipeline_factorized_colorization",
    "Guided": "images_that_sound_sides",
    "ImagesThatSoundBlocks": "images_that_sound_blocks",
    "ImagesThatSoundImg2ImgPipeline": "pipeline_images_that_sound_img2img",
    "ImagesThatSoundImprintPipeline": "pipeline_images_that_sound_imprint",
    "ImagesThatSoundImprintPipelineOutput": "pipeline_images_that_sound_imprint",
    "ImagesThatSoundPipeline": "pipeline_images_that_sound",
    "ImagesThatSoundPipelineOutput": "pipeline_images_that_sound",
    "ImagesThatSoundSDSPipeline": "pipeline_images_that_sound_sds",
    "ImagesThatSoundSDSPipelineOutput": "pipeline_images_that_sound_sds",
    "MelSpectrogram": "images_that_sound_spectrogram",
    "SPECTROGRAMS": "images_that_sound_spectrogram",
    "Side": "images_that_sound_sides",
    "audio_problems": "images_that_sound_spectrogram",
    "audio_remarks": "images_that_sound_spectrogram",
    "find_spectrogram": "images_that_sound_spectrogram",
    "fold_canvas": "images_that_sound_canvas",
    "load_hifigan_vocoder": "images_that_sound_audio_prior",
    "load_vocoder": "images_that_sound_audio_prior",
    "unfold_canvas": "images_that_sound_canvas",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
