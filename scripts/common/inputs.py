"""Files of the user as arguments of a call: pictures, control images, and a part of a sound."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from diffusers import DiffusionPipeline

from ...pipelines.images_that_sound_picture_reading import on_ground
from .control_lines import lines_of
from .own_files import spans_of, values_over_time
from .samples import read_drawing, read_picture
from .sounds import read_audio
from .values import Request


def with_files(arguments: dict[str, Any], request: Request, pipe: DiffusionPipeline) -> dict[str, Any]:
    """
    Arguments of a pipeline's call with the content of a request's files: prompts over time; pictures, on silence if
    they are transparent; control images, of which the ControlNet that ships sees lines; and a waveform at the
    pipeline's rate, of which `audio_start_in_s` and `audio_length_in_s` take a part. Raises `ValueError` for more than
    there is, and for a file that is no picture or sound.
    """

    files, read = request.files, {}
    if "score" in request.recorded:
        read |= values_over_time(request.recorded["score"])
        if foreign := [name for name in read if name not in arguments]:
            raise ValueError(f"`score` holds `{foreign[0]}`, which this command can't take.")
    if "image" in files:
        silence, invert = pipe.mel_spectrogram.silence, request.recorded.get("invert")
        read["image"] = read_drawing(files["image"][0].path, silence, invert)
    grounds = {"mask_image": 0, "ip_adapter_image": 1, "audio_ip_adapter_image": 1}
    read |= {name: on_ground(read_picture(files[name][0].path), grounds[name]) for name in grounds if name in files}
    if "control_image" in files:
        wanted = [arguments[name] for name in ("height", "width", "audio_length_in_s")]
        canvas = pipe.resolve_size(*wanted, None, arguments["canvas_layout"])
        size = (canvas.height, canvas.width)
        pairs = zip(files["control_image"], request.models.controlnet, strict=True)
        pictures = [_control_image(file.path, controlnet, size) for file, controlnet in pairs]
        read["control_image"] = pictures if len(pictures) > 1 else pictures[0]
    if "audio_control_image" in files:
        pictures = [on_ground(read_picture(file.path), 0) for file in files["audio_control_image"]]
        read["audio_control_image"] = pictures if len(pictures) > 1 else pictures[0]
    if "onsets" in request.recorded:
        read["audio_onsets"] = spans_of(request.recorded["onsets"])
    if "audio" in files:
        start, length = request.recorded.get("audio_start_in_s"), arguments["audio_length_in_s"]
        read["audio"] = _part_of(files["audio"][0].path, pipe.sampling_rate, 0.0 if start is None else start, length)
        read["audio_length_in_s"] = None
    return {**arguments, **read}


def _part_of(path: Path, sampling_rate: int, start_in_s: float, length_in_s: float | None) -> np.ndarray:
    """The part of a sound that is asked for, which has to be there."""

    if not 0 <= start_in_s < math.inf:
        raise ValueError(f"`audio_start_in_s` has to be 0 or more, but is {start_in_s}.")
    possible = length_in_s is not None and 0 < length_in_s < math.inf
    audio = read_audio(path, sampling_rate, start_in_s, length_in_s if possible else None)
    length = len(audio) / sampling_rate
    if length_in_s is not None and not (possible and len(audio) >= round(length_in_s * sampling_rate)):
        after = f" after {start_in_s:g} s" if start_in_s else ""
        raise ValueError(
            f"`audio_length_in_s` has to be in the {length:.2f} s of `audio`{after}, but is {length_in_s}."
        )
    return audio


def _control_image(path: Path, controlnet: str, size: list[int]) -> PIL.Image.Image:
    """A picture as a ControlNet is to see it."""

    picture = read_picture(path)
    return lines_of(picture, *size) if controlnet == "embedded" else on_ground(picture, 0)
