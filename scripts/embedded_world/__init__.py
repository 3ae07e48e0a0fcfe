"""The world of the embedded checkpoint: pictures that are drawn and sounds that are synthesised, all seeded."""

from .pictures import SUBJECTS, describe_picture, draw_picture
from .sounds import SOUNDS, describe_sound, make_sound


__all__ = ["SOUNDS", "SUBJECTS", "describe_picture", "describe_sound", "draw_picture", "make_sound"]
