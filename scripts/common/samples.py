"""Sample folders: what a sample consists of, its settings inside every file, and how to find them again."""

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import soundfile

from ...pipelines.images_that_sound_picture_reading import as_drawing, upright
from .files import (
    MAX_TEXT,
    SAMPLE_FILES,
    check_name,
    check_own_folder,
    json_text,
    parse_json,
    read_json,
    write_json,
    written,
)
from .loudness import levelled
from .own_files import COMPONENTS, OWN_FILES
from .progress import tell
from .values import STRIP, Look
from .video import Panel, poster, write_videos


SETTINGS_KEY = "images_that_sound"
# Formats that Pillow reads by itself, without running another program.
PICTURE_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "TGA")
TEXT, DICT = (str, type(None)), (dict, type(None))
NAMES = ("prompt", "audio_prompt", "model", "audio_model", "canvas_layout")
# Kinds of what the commands read in settings. Lists hold texts.
KINDS = {**dict.fromkeys(NAMES, TEXT), "seed": int, "spectrogram": dict, "problems": list, "gain_in_db": (int, float)}
KINDS |= {**dict.fromkeys((*OWN_FILES, *COMPONENTS), (*TEXT, list)), **dict.fromkeys(("sha256", "score"), DICT)}
MAX_GAIN_IN_DB = 100


def write_sample(
    folder: Path,
    picture: PIL.Image.Image,
    spectrogram: PIL.Image.Image,
    audio: np.ndarray,
    sampling_rate: int,
    settings: dict,
    others: dict[str, PIL.Image.Image] | None = None,
    video: Look | None = STRIP,
) -> None:
    """
    Writes a sample's folder, which appears under its name only when it is complete.

    Args:
        folder (`Path`): The sample's folder, which does not exist yet.
        picture (`PIL.Image.Image`): The picture to see.
        spectrogram (`PIL.Image.Image`): The gray canvas that was played.
        audio (`np.ndarray` of shape `(N,)`): Waveform in -1..1, which is levelled.
        sampling_rate (`int`): Samples per second.
        settings (`dict`): Settings that made it, JSON-ready; written as `settings.json` and into PNG, WAV and MP4,
            with the gain of the sound as `gain_in_db`.
        others (`dict[str, PIL.Image.Image]`, *optional*): More pictures by the names of their files.
        video ([`Look`], *optional*, defaults to `STRIP`): Look of `video.mp4` and `poster.png`; `None` for neither.

    Raises:
        ValueError: If the folder is there, and not because another process made the same sample.
    """
    audio, gain = levelled(audio, sampling_rate)
    complete = {**settings, "gain_in_db": gain}
    text = json_text(complete)
    stretched = PIL.ImageOps.autocontrast(spectrogram, cutoff=1)
    images = {"image": picture, "spectrogram": spectrogram, "spectrogram_stretched": stretched, **(others or {})}
    with _unless_made(folder, settings), written(folder) as partial:
        partial.mkdir()
        for name, image in images.items():
            write_picture(partial / f"{name}.png", image, text)
        write_audio(partial / "audio.wav", audio, sampling_rate, text)
        if video:
            captions, panels = captions_of(settings), [panel_of(picture, settings)]
            loops = bool(settings.get("circular"))
            write_videos(partial / "video", panels, audio, sampling_rate, captions, text, video, loops)
            still = poster(panels, captions if video.captions else [], video.video_shape, loops)
            write_picture(partial / "poster.png", still, text)
        write_json(partial / "settings.json", complete)


@contextmanager
def _unless_made(folder: Path, settings: dict) -> Iterator[None]:
    """Drops the sample that is made inside if another process made the same sample meanwhile."""
    try:
        yield
    except FileExistsError:
        if not is_made(folder, settings):
            raise


def is_made(folder: Path, settings: dict) -> bool:
    """
    Whether a sample is there.

    Args:
        folder (`Path`): Its folder.
        settings (`dict`): Those of its settings that are to be the same, but for `versions`.

    Raises:
        ValueError: If something else is there.
    """
    check_own_folder(folder)
    if not folder.exists():
        return False
    if not is_sample(folder, os.listdir(folder)):
        raise ValueError(f"`output_dir` holds {folder}, which is no whole sample. Move it away.")
    saved = sample_settings(folder)
    if any(saved.get(name) != value for name, value in parse_json(json_text(settings)).items() if name != "versions"):
        raise ValueError(f"`output_dir` holds {folder}, made with other settings. Name another folder.")
    return True


def is_sample(folder: Path, names: list[str]) -> bool:
    """Whether files of these names make a sample, and none that is being written or was left so."""
    parent = folder.parent.name
    return SAMPLE_FILES <= set(names) and not (parent.startswith(".") and parent.endswith(".part"))


def panel_of(picture: PIL.Image.Image, settings: dict) -> Panel:
    """A sample's picture with the number of its strips."""
    return picture, strips_of(settings)


def strips_of(settings: dict) -> int:
    """Strips of a sample's picture that are played one after the other, top to bottom."""
    return 2 if settings.get("canvas_layout") == "folded" else 1


def captions_of(settings: dict) -> list[str]:
    """Captions of a sample's video: its prompts, or the names of the files that stand in for them."""
    picture = settings.get("prompt") or settings.get("image")
    sound = settings.get("audio_prompt") or settings.get("audio")
    return [f"picture: {picture}", f"sound: {sound}"]


def write_audio(path: Path, audio: np.ndarray, sampling_rate: int, settings_text: str = "") -> None:
    """Writes a waveform of shape `(N,)` in -1..1 as a WAV of 24 bits: dark parts are fainter than 16 bits tell."""
    with soundfile.SoundFile(path, "w", sampling_rate, 1, "PCM_24") as file:
        file.write(np.nan_to_num(audio))
    if settings_text:
        _append_comment(path, settings_text)


def _append_comment(path: Path, text: str) -> None:
    """Adds a comment to a WAV. libsndfile neither writes nor reads one of more than two kilobytes."""
    comment = text.encode() + b"\0"
    comment += b"\0" * (len(comment) % 2)
    info = b"INFOICMT" + len(comment).to_bytes(4, "little") + comment
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.write(b"\0" * (end % 2) + b"LIST" + len(info).to_bytes(4, "little") + info)
        size = file.tell() - 8
        file.seek(4)
        file.write(size.to_bytes(4, "little"))


def read_picture(path: str | Path) -> PIL.Image.Image:
    """
    Reads a picture of 8 bits per channel, the right side up; gray ones of 16 bits or of floats are brought to 8.

    Raises:
        ValueError: If the file is no picture, is larger than any honest one, or holds gray values outside of 0..1 and
            0..255.
    """
    picture = _open_picture(path)
    try:
        return upright(picture)
    except ValueError as error:
        raise ValueError(str(error).replace("`image`", f"`{path}`")) from error


def read_drawing(path: str | Path, silence: float = 0.0, invert: bool | None = None) -> PIL.Image.Image:
    """
    A picture whose ground looks like silence, 0 for black or 1 for white. Light and dark are swapped if `invert` says
    so, or else if it is a drawing on the other ground, which is told in a line; a canvas that was made here stays.
    """
    picture = read_picture(path)
    if invert is None and _holds_settings(path):
        invert = False
    drawing, swapped = as_drawing(picture, silence, invert)
    if swapped and invert is None:
        dark = "light" if silence else "dark"
        tell(f"`{path}` is taken for a drawing in {dark}, so that light and dark are swapped: --no-invert keeps them.")
    return drawing


def _holds_settings(path: str | Path) -> bool:
    try:
        return bool(read_settings(path))
    except ValueError:
        return False


def _open_picture(path: str | Path, formats: tuple[str, ...] = PICTURE_FORMATS) -> PIL.Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow's limit, which is to be kept here.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=formats) as picture:
                picture.load()
                return picture
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        limit = PIL.Image.MAX_IMAGE_PIXELS
        raise ValueError(f"`{path}` has to be a picture of at most {limit} pixels: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(f"`{path}` can't be read as a picture: {error}") from error


def write_picture(path: Path, picture: PIL.Image.Image, settings_text: str) -> None:
    info = PIL.PngImagePlugin.PngInfo()
    info.add_itxt(SETTINGS_KEY, settings_text)
    picture.save(path, pnginfo=info)


def read_settings(path: str | Path) -> dict[str, Any]:
    """
    Reads the settings inside a PNG, WAV or MP4 that `write_sample` wrote, or its `settings.json`.

    Raises:
        ValueError: If the file can't be read or holds no settings.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        return _checked(path, read_json(path))
    readers = {".png": _read_png_text, ".wav": _read_comment, ".mp4": _read_comment}
    if path.suffix.lower() not in readers:
        raise ValueError(f"`{path}` holds no settings: only PNG, WAV and MP4 files and `settings.json` do.")
    try:
        text = readers[path.suffix.lower()](path)
    except (OSError, av.error.FFmpegError, RuntimeError, ValueError) as error:
        raise ValueError(f"`{path}` can't be read: {error}") from error
    try:
        settings = parse_json(text)
    except ValueError as error:
        raise ValueError(f"`{path}` holds no settings of images-that-sound.") from error
    return _checked(path, settings)


def _checked(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        for text in [value, *value] if isinstance(value, list) else [value]:
            if isinstance(text, str) and len(text) > MAX_TEXT:
                raise ValueError(
                    f"`{path}` holds no settings of images-that-sound: `{name[:100]}` is longer than {MAX_TEXT}."
                )
    for name, kind in KINDS.items():
        value = settings.get(name)
        texts = not isinstance(value, list) or all(isinstance(each, str) for each in value)
        if name in settings and (not isinstance(value, kind) or isinstance(value, bool) or not texts):
            raise ValueError(f"`{path}` holds no settings of images-that-sound: `{name}` is {str(value)[:100]!r}.")
    if not 0 <= settings.get("seed", 0) < 2**63:
        raise ValueError(f"`{path}` holds no settings of images-that-sound: `seed` is no seed.")
    if not abs(settings.get("gain_in_db", 0)) <= MAX_GAIN_IN_DB:
        raise ValueError(f"`{path}` holds no settings of images-that-sound: `gain_in_db` is no gain.")
    return settings


def _read_png_text(path: Path) -> str | None:
    return _open_picture(path, formats=("PNG",)).info.get(SETTINGS_KEY)


def _read_comment(path: Path) -> str | None:
    # As an open file of one format, for which nothing is fetched that it or its name refers to.
    with open(path, "rb") as file, av.open(file, format=path.suffix[1:].lower()) as container:
        return container.metadata.get("comment")


def sample_settings(folder: Path) -> dict[str, Any]:
    """Settings that made a sample. Raises `ValueError` if its `settings.json` can't be read."""
    return read_settings(folder / "settings.json")


def find_samples(sample_dir: str | Path) -> list[Path]:
    """
    Folders of finished samples at or below `sample_dir`, in order; links to folders are not followed.

    Raises:
        ValueError: If there is none.
    """
    folders = sorted(Path(root) for root, _, names in os.walk(sample_dir) if is_sample(Path(root), names))
    if not folders:
        raise ValueError(f"`sample_dir` has to hold samples with their `settings.json`, but {sample_dir} holds none.")
    for folder in folders:
        check_name(folder, "sample_dir")
    return folders
