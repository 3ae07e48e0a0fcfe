"""What `custom_pipeline=<this folder or repo>` loads. Every sibling is named, since diffusers copies no others."""

from .images_that_sound_audio_lora import AudioLoraMixin  # noqa: F401
from .images_that_sound_audio_prior import AudioPriorRepo  # noqa: F401
from .images_that_sound_audio_side import AudioSideMixin  # noqa: F401
from .images_that_sound_checks import check_number  # noqa: F401
from .images_that_sound_few_steps import FewStepsMixin  # noqa: F401
from .images_that_sound_files import written  # noqa: F401
from .images_that_sound_guides import GuidedTwoSidesMixin  # noqa: F401
from .images_that_sound_noise_shares import audio_noise_shares  # noqa: F401
from .images_that_sound_pictures import fit_pictures  # noqa: F401
from .images_that_sound_precision import kept_in_float32  # noqa: F401
from .images_that_sound_prompts import Prompts  # noqa: F401
from .images_that_sound_saving import SelfContainedSavingMixin  # noqa: F401
from .images_that_sound_side import Side  # noqa: F401
from .images_that_sound_spectrogram import MelSpectrogram  # noqa: F401
from .images_that_sound_steps import denoising_steps  # noqa: F401
from .images_that_sound_two_sides import TwoSidesMixin  # noqa: F401
from .images_that_sound_vocoder import load_hifigan_vocoder  # noqa: F401
from .pipeline_images_that_sound import ImagesThatSoundPipeline  # noqa: F401
