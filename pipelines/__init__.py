"""Pipelines that make images that sound."""

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
from .pipeline_images_that_sound_imprint import ImagesThatSoundImprintPipeline, ImagesThatSoundImprintPipelineOutput
from .pipeline_images_that_sound_sds import ImagesThatSoundSDSPipeline, ImagesThatSoundSDSPipelineOutput


__all__ = [
    "FactorizedColorizationPipeline",
    "FactorizedColorizationPipelineOutput",
    "ImagesThatSoundBlocks",
    "ImagesThatSoundImprintPipeline",
    "ImagesThatSoundImprintPipelineOutput",
    "ImagesThatSoundPipeline",
    "ImagesThatSoundPipelineOutput",
    "ImagesThatSoundSDSPipeline",
    "ImagesThatSoundSDSPipelineOutput",
    "MelSpectrogram",
    "audio_problems",
    "fold_canvas",
    "load_hifigan_vocoder",
    "load_vocoder",
    "unfold_canvas",
]
