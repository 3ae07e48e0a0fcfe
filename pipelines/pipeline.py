"""The file that `custom_pipeline=<this folder or repo>` loads. diffusers copies only the siblings that it names."""

from .images_that_sound_audio_prior import AudioPriorRepo
from .images_that_sound_audio_side import AudioSideMixin
from .images_that_sound_canvas import Canvas
from .images_that_sound_checks import check_number
from .images_that_sound_denoising import denoise
from .images_that_sound_files import written
from .images_that_sound_guides import Guides
from .images_that_sound_loading import SelfContainedSavingMixin
from .images_that_sound_lora import FewStepsMixin
from .images_that_sound_picture_reading import upright
from .images_that_sound_sides import Guided
from .images_that_sound_spectrogram import MelSpectrogram
from .images_that_sound_two_sides import TwoSidesMixin
from .pipeline_images_that_sound import ImagesThatSoundPipeline
