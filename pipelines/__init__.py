"""Pipelines that make images that sound."""

from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_vocoder import load_hifigan_vocoder
from .pipeline_images_that_sound import ImagesThatSoundPipeline, ImagesThatSoundPipelineOutput


__all__ = [
    "ImagesThatSoundPipeline",
    "ImagesThatSoundPipelineOutput",
    "MelSpectrogram",
    "load_hifigan_vocoder",
]
