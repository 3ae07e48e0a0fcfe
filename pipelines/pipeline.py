"""What `custom_pipeline=<this folder or repo>` loads. Every sibling is named, since diffusers copies no others."""

from .images_that_sound_audio_prior import AudioPriorLoaderMixin  # noqa: F401
from .images_that_sound_checks import check_prompt  # noqa: F401
from .images_that_sound_repo import SelfContainedRepoMixin  # noqa: F401
from .images_that_sound_sides import TwoSidesMixin  # noqa: F401
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401
from .images_that_sound_weights import audio_noise_shares  # noqa: F401
from .pipeline_images_that_sound import ImagesThatSoundPipeline  # noqa: F401
