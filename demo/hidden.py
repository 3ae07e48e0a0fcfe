"""Pictures of visitors hidden in their sounds: no prompts and no model."""

import io
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import soundfile

from images_that_sound.scripts.common.hiding import hide_in_file
from images_that_sound.scripts.common.sounds import MOST_FRAMES, decoded_blocks, opened_sound
from images_that_sound.scripts.common.spectrograms import spectrogram_of
from images_that_sound.scripts.hide import ROWS, SECONDS, columns_of, placed, shown_part


# Seconds of a sound that the page takes. The command takes any.
MAX_SECONDS = 600
# Seconds that a picture lasts at most.
MOST_SECONDS = 20


@dataclass(frozen=True)
class HiddenInSound:
    """
    A sound with a picture in it.

    Args:
        file (`Path`): The whole sound.
        picture (`PIL.Image.Image`): Spectrogram of the part with the picture.
        excerpt (`bytes`): WAV of the same part.
        place (`str`): Seconds and frequencies of the picture, in words.
    """

    file: Path
    picture: PIL.Image.Image
    excerpt: bytes
    place: str


def hide(picture: PIL.Image.Image, song: Path, start_in_s: float, strength: float, folder: Path) -> HiddenInSound:
    """
    Hides a picture in a sound.

    Args:
        picture (`PIL.Image.Image`): Light parts are loud.
        song (`Path`): A sound of at most `MAX_SECONDS`.
        start_in_s (`float`): Beginning of the picture, in seconds.
        strength (`float`): 0 leaves the sound as it is, 1 leaves nothing but the picture in its place.
        folder (`Path`): Gets a folder for the sound.

    Raises:
        ValueError: If the sound can't be read, is too long, or has no room for the picture.
    """
    check_song(song)
    if not (isinstance(start_in_s, int | float) and 0 <= start_in_s < MAX_SECONDS and 0 <= strength <= 1):
        raise ValueError(f"The picture can't begin at {start_in_s} s with a strength of {strength}.")
    gray = np.asarray(picture.convert("RGB")).mean(axis=-1, dtype=np.float32) / 255
    home = Path(tempfile.mkdtemp(dir=folder))
    file = home / f"hidden{'.wav' if song.suffix.lower() == '.wav' else '.flac'}"
    try:
        with opened_sound(song, home) as sound:
            if start_in_s > sound.frames / sound.samplerate - 1:
                raise ValueError(f"The sound ends after {sound.frames / sound.samplerate:.1f} s. Begin earlier.")
            left = sound.frames / sound.samplerate - start_in_s
            length = min(max(SECONDS * gray.shape[1] / gray.shape[0], 1), MOST_SECONDS, left)
            place = {"start_in_s": start_in_s, "end_in_s": start_in_s + length, "strength": strength}
            hidden = placed(sound, gray, place)
            level = hide_in_file(sound, song, file, [hidden]).levels[0]
        drawn, excerpt = _part(file, hidden, level)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    where = f"{hidden.start_in_s:.1f} to {hidden.end_in_s:.1f} seconds, {hidden.min_frequency / 1000:.1f} to "
    return HiddenInSound(file, drawn, excerpt, f"{where}{hidden.max_frequency / 1000:.1f} kHz")


def _part(file: Path, hidden: object, level: float) -> tuple[PIL.Image.Image, bytes]:
    """Spectrogram and WAV of the part of a sound that a picture is in."""
    with soundfile.SoundFile(file) as sound:
        start, end = shown_part([hidden], sound.frames / sound.samplerate)
        size = (columns_of(hidden, end - start), ROWS)
        drawn = spectrogram_of(sound, start, end, size, hidden.frequency_scale, level)
        sound.seek(round(start * sound.samplerate))
        samples = sound.read(round((end - start) * sound.samplerate), dtype="float32", always_2d=True)
        excerpt = io.BytesIO()
        soundfile.write(excerpt, samples[:, :2], sound.samplerate, "PCM_16", format="WAV")
    return drawn, excerpt.getvalue()


def check_song(song: Path) -> None:
    """Raises `ValueError` for a file that is no sound, or a sound that is longer than the page takes."""
    seconds = _seconds_of(song)
    if seconds > MAX_SECONDS:
        raise ValueError(
            f"This page takes {MAX_SECONDS // 60} minutes of sound. The command images-that-sound hide takes any"
            " length."
        )


def _seconds_of(song: Path) -> float:
    """Length of a sound, counted no further than the page takes."""
    try:
        with soundfile.SoundFile(song) as sound:
            if sound.frames < MOST_FRAMES:
                return sound.frames / sound.samplerate
    except soundfile.LibsndfileError:
        pass
    seconds = 0.0
    try:
        with open(song, "rb") as file:
            for rate, block in decoded_blocks(file):
                seconds += len(block) / rate
                if seconds > MAX_SECONDS:
                    return math.inf
    except (OSError, RuntimeError) as error:
        raise ValueError(f"`{song}` can't be read as a sound: {error}") from error
    return seconds
