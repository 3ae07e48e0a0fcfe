"""Samples in colour: several tries for each, as files beside its own."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import PIL.Image
import soundfile
import torch

from ...pipelines import FactorizedColorizationPipeline
from .border import arguments_named
from .files import json_text, read_json, write_json, written
from .loading_errors import checkpoint_errors
from .models import on_device, read_pipeline
from .samples import captions_of, panel_of, read_picture, sample_settings, write_picture
from .sounds import read_waveform
from .values import Models
from .video import write_video


WORDS_OF_GRAY = re.compile(
    r"^an? (painting|drawing|sketch|picture|lithograph) of |,? (grayscale|lithograph style|\w+ background)\b", re.I
)


def colourful(prompt: str) -> str:
    """The prompt of a gray picture, for a colour one; of all prompts of a score."""
    things = [WORDS_OF_GRAY.sub("", each).strip() for each in prompt.split("; ")]
    return f"a colorful photo of {'; '.join(things)}"


class Painter:
    """
    Both stages of colorization, loaded when the first picture is made.

    Args:
        models ([`Models`]): Stage I or both, by default those that fit the samples; and their device.
        super_resolution_model (`str`, *optional*): Stage II, if it is another.
        samples (`list[dict]`): Settings of the samples.
    """

    def __init__(self, models: Models, super_resolution_model: str | None, samples: list[dict]):
        model = models.model
        if model is None:
            embedded = all(sample.get("model") == "embedded" for sample in samples)
            model = "embedded-colorization" if embedded else "DeepFloyd/IF-I-M-v1.0"
        if super_resolution_model is None and model.startswith("DeepFloyd/IF-I-"):
            super_resolution_model = "DeepFloyd/IF-II-M-v1.0"
        self.models, self.super_resolution_model = replace(models, model=model), super_resolution_model

    @cached_property
    def pipe(self) -> FactorizedColorizationPipeline:
        pipe = read_pipeline(self.models, FactorizedColorizationPipeline)
        if self.super_resolution_model is not None:
            with checkpoint_errors(self.super_resolution_model, "super_resolution_model"):
                pipe.load_super_resolution(self.super_resolution_model)
        elif pipe.unet_super_resolution is None:
            raise ValueError(
                f"`super_resolution_model` has to be given, such as DeepFloyd/IF-II-M-v1.0, since `model`,"
                f" {self.models.model!r}, has no stage II."
            )
        return on_device(self.models, pipe)

    def __call__(
        self,
        folder: Path,
        call: dict[str, Any],
        seeds: list[int],
        callback_on_step_end: Callable[..., dict] | None = None,
    ) -> Iterator[Path]:
        """
        Makes the tries of one sample that are missing; yields each colour picture as it appears.

        Args:
            folder (`Path`): The sample's.
            call (`dict`): Arguments of the pipeline's call; without a prompt, the sample's is taken.
            seeds (`list[int]`): Seeds of the tries.
            callback_on_step_end (`Callable`, *optional*): Callback of the pipeline's call.
        """
        sample = sample_settings(folder)
        arguments = {**call, "prompt": call["prompt"] or colourful(sample.get("prompt") or "a picture")}
        arguments["circular"] = call["circular"] or bool(sample.get("circular"))
        models = {
            "model": self.models.model,
            "super_resolution_model": self.super_resolution_model,
            "dtype": self.models.dtype,
            "enable_layerwise_casting": self.models.enable_layerwise_casting or None,
        }
        pending = _pending_seeds(folder, {**arguments, **models}, seeds)
        if not pending:
            return
        generators = [torch.Generator().manual_seed(seed) for seed in pending]
        gray = read_picture(folder / "image.png")
        given = {
            "generator": generators,
            "callback_on_step_end": callback_on_step_end,
            "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
        }
        with arguments_named(image=f"{folder / 'image.png'}"):
            output = self.pipe(gray, **arguments, **given, num_images_per_prompt=len(pending))
        for seed, picture, gray_error in zip(pending, output.images, output.gray_errors):
            made = {**arguments, **models, "seed": seed, "gray_error": gray_error}
            yield _write_try(folder, picture, sample, made)


def tries_to_make(folders: list[Path], seeds: list[int]) -> list[tuple[PIL.Image.Image, float, int]]:
    """For each sample that lacks some of these tries its picture, the seconds of its sound, and how many it lacks."""
    tries = []
    for folder in folders:
        number = sum(not (folder / f"color-{seed:06d}.json").exists() for seed in seeds)
        if number:
            with soundfile.SoundFile(folder / "audio.wav") as sound:
                tries.append((read_picture(folder / "image.png"), sound.frames / sound.samplerate, number))
    return tries


def _pending_seeds(folder: Path, settings: dict, seeds: list[int]) -> list[int]:
    """Seeds of tries that are not there yet. Raises `ValueError` for one that is there with other settings."""
    pending = []
    for seed in seeds:
        file = folder / f"color-{seed:06d}.json"
        if not file.exists():
            pending.append(seed)
            continue
        saved = read_json(file)
        if {**saved, **settings} != saved:
            raise ValueError(f"`sample_dir` holds {file}, made with other settings. Move it away.")
    return pending


def _write_try(folder: Path, picture: PIL.Image.Image, sample: dict, made: dict) -> Path:
    """The video, the colour picture, and last the settings, which say that the try is complete."""
    file = folder / f"color-{made['seed']:06d}.png"
    text = json_text({**sample, "color": made})
    captions = [*captions_of(sample), f"colors: {made['prompt']}"]
    panels = [panel_of(picture, sample), (read_picture(folder / "spectrogram.png"), 1)]
    audio, sampling_rate = read_waveform(folder / "audio.wav")
    with written(file.with_suffix(".mp4")) as video:
        write_video(video, panels, audio, sampling_rate, captions, text, loops=bool(sample.get("circular")))
    with written(file) as image:
        write_picture(image, picture, text)
    write_json(file.with_suffix(".json"), made)
    return file
