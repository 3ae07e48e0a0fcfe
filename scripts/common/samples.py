"""Sample folders: what a sample consists of, its settings inside every file, and how to find them again."""

import json
import math
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import scipy.signal
import soundfile

from .files import write_json, written
from .video import Panel, poster, write_video


SETTINGS_KEY = "images_that_sound"


def write_sample(
    folder: Path,
    picture: PIL.Image.Image,
    spectrogram: PIL.Image.Image,
    audio: np.ndarray,
    sampling_rate: int,
    settings: dict,
    others: dict[str, PIL.Image.Image] | None = None,
    video: bool = True,
) -> None:
    """
    Writes a sample's folder, which appears under its name only when it is complete.

    Args:
        folder (`Path`): The sample's folder, which does not exist yet.
        picture (`PIL.Image.Image`): What to see.
        spectrogram (`PIL.Image.Image`): The gray canvas that was played.
        audio (`np.ndarray` of shape `(N,)`): Waveform in -1..1.
        sampling_rate (`int`): Samples per second.
        settings (`dict`): What made it, JSON-ready; written as `settings.json` and into PNG, WAV and MP4.
        others (`dict[str, PIL.Image.Image]`, *optional*): More pictures by the names of their files.
        video (`bool`, defaults to `True`): Whether to write `video.mp4` and `poster.png`.
    """
    text = json.dumps(settings)
    stretched = PIL.ImageOps.autocontrast(spectrogram, cutoff=1)
    images = {"image": picture, "spectrogram": spectrogram, "spectrogram_stretched": stretched, **(others or {})}
    with written(folder) as partial:
        partial.mkdir()
        for name, image in images.items():
            write_picture(partial / f"{name}.png", image, text)
        write_audio(partial / "audio.wav", audio, sampling_rate, text)
        if video:
            captions, panels = captions_of(settings), [panel_of(picture, settings)]
            write_video(partial / "video.mp4", panels, audio, sampling_rate, captions, text)
            write_picture(partial / "poster.png", poster(panels, captions), text)
        write_json(partial / "settings.json", settings)


def panel_of(picture: PIL.Image.Image, settings: dict) -> Panel:
    """A sample's picture with the number of its strips that are played one after the other."""
    return picture, 2 if settings.get("canvas_layout") == "folded" else 1


def captions_of(settings: dict) -> list[str]:
    """What a video says of a sample: its prompts, or the names of the files that stand in for them."""
    picture = settings.get("prompt") or settings.get("image")
    sound = settings.get("audio_prompt") or settings.get("audio")
    return [f"picture: {picture}", f"sound: {sound}"]


def write_audio(path: Path, audio: np.ndarray, sampling_rate: int, settings_text: str = "") -> None:
    """Writes a waveform of shape `(N,)` in -1..1 as a WAV of 16 bits."""
    with soundfile.SoundFile(path, "w", sampling_rate, 1, "PCM_16") as file:
        if settings_text:
            file.comment = settings_text
        file.write(np.nan_to_num(audio))


def read_audio(path: str | Path, sampling_rate: int) -> np.ndarray:
    """
    Reads any sound that libsndfile knows as a mono float32 waveform of shape `(N,)` at `sampling_rate`.

    Raises:
        ValueError: If the file can't be read or is empty.
    """
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"`{path}` can't be read as a sound: {error}") from error
    audio = channels.mean(axis=1)
    if not len(audio):
        raise ValueError(f"`{path}` holds no sound.")
    divisor = math.gcd(rate, sampling_rate)
    return scipy.signal.resample_poly(audio, sampling_rate // divisor, rate // divisor).astype(np.float32)


def read_picture(path: str | Path) -> PIL.Image.Image:
    """
    Reads a picture.

    Raises:
        ValueError: If the file is no picture.
    """
    try:
        with PIL.Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"`{path}` can't be read as a picture: {error}") from error


def write_picture(path: Path, picture: PIL.Image.Image, settings_text: str) -> None:
    info = PIL.PngImagePlugin.PngInfo()
    info.add_itxt(SETTINGS_KEY, settings_text)
    picture.save(path, pnginfo=info)


def read_settings(path: str | Path) -> dict:
    """
    Reads the settings inside a PNG, WAV or MP4 that `write_sample` wrote.

    Raises:
        ValueError: If the file can't be read or holds no settings.
    """
    path = Path(path)
    readers = {".wav": _read_wav_comment, ".mp4": _read_mp4_comment}
    try:
        text = readers.get(path.suffix.lower(), _read_png_text)(path)
    except (OSError, av.error.FFmpegError, soundfile.LibsndfileError, SyntaxError, ValueError) as error:
        raise ValueError(f"`{path}` can't be read: {error}") from error
    try:
        settings = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"`{path}` holds no settings of images-that-sound.")
    return settings


def _read_png_text(path: Path) -> str | None:
    with PIL.Image.open(path) as picture:
        picture.load()
        return picture.info.get(SETTINGS_KEY)


def _read_wav_comment(path: Path) -> str:
    with soundfile.SoundFile(path) as file:
        return file.comment


def _read_mp4_comment(path: Path) -> str | None:
    with av.open(str(path)) as container:
        return container.metadata.get("comment")


def sample_settings(folder: Path) -> dict:
    """What made a sample."""
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def find_samples(sample_dir: str | Path) -> list[Path]:
    """
    Folders of finished samples at or below `sample_dir`, in order.

    Raises:
        ValueError: If there is none.
    """
    folders = sorted(file.parent for file in Path(sample_dir).rglob("settings.json"))
    folders = [folder for folder in folders if not any(part.startswith(".") for part in folder.parts[-2:])]
    if not folders:
        raise ValueError(f"`sample_dir` has to hold samples with their `settings.json`, but {sample_dir} holds none.")
    return folders
