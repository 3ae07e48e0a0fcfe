"""Shared parts of the commands that make samples from seeds: processes, trackers, and going on after a stop."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import tqdm
from diffusers import DiffusionPipeline

from ...pipelines import audio_problems, audio_remarks
from .files import check_own_folder, check_writable, read_json
from .forecast import Forecast, length_asked, say_beginning
from .models import device_of
from .own_files import COMPONENTS, OWN_FILES
from .progress import tell
from .samples import is_made, read_picture, strips_of, write_sample
from .sounds import read_waveform
from .values import MADE_BY, Look, Models, Samples
from .vocabulary import unknown_words


def start(
    models: Models, output_dir: Path, report_to: str | None, argument: str = "output_dir", **kwargs: Any
) -> tuple[Accelerator, Models]:
    """
    This process among those of `accelerate launch`, and the models for it: each of several processes gets an
    different accelerator, unless `models.device` names one. `argument` is the argument that gave `output_dir`.
    """
    check_writable(output_dir, argument)
    device = torch.device(device_of(models))
    accelerator = Accelerator(cpu=device.type == "cpu", log_with=report_to, project_dir=output_dir, **kwargs)
    if accelerator.num_processes > 1 and device.index is None:
        device = accelerator.device
    if report_to:
        check_own_folder(output_dir / "images-that-sound")
        accelerator.init_trackers("images-that-sound")
    return accelerator, replace(models, device=str(device))


def own_share(accelerator: Accelerator, items: list) -> list:
    """Every n-th item: what this one of n processes does, whatever the others do."""
    return items[accelerator.process_index :: accelerator.num_processes]


def report_samples(accelerator: Accelerator, folders: list[Path]) -> None:
    """Once all processes are done, shows samples, and their scores if they have some, to the trackers."""
    if not accelerator.trackers:
        return
    accelerator.wait_for_everyone()
    for step, folder in enumerate(folders):
        if (folder / "scores.json").exists():
            scores = read_json(folder / "scores.json")["scores"]
            accelerator.log({name: value for name, value in scores.items() if value is not None}, step=step)
        picture = np.asarray(read_picture(folder / "image.png").convert("RGB"))[None]
        audio, sampling_rate = read_waveform(folder / "audio.wav")
        for tracker in accelerator.trackers:
            if hasattr(tracker, "log_images"):
                tracker.log_images({"image": picture}, step=step, dataformats="NHWC")
            if tracker.name == "tensorboard" and accelerator.is_main_process:
                tracker.tracker.add_audio("audio", torch.from_numpy(audio)[None], step, sample_rate=sampling_rate)
    accelerator.end_training()


def pictures_of(output: Any, row: int) -> dict:
    """Pictures of a sample for `write_sample`, from a call's output."""
    return {"picture": output.images[row], "spectrogram": output.spectrograms[row]}


def imprinted_pictures_of(output: Any, row: int) -> dict:
    """Pictures of a sample of imprint, which shows the spectrogram that is heard."""
    spectrogram = output.spectrograms[row]
    return {"picture": spectrogram, "spectrogram": spectrogram, "others": {"painted": output.images[row]}}


def complete_settings(models: Models, pipe: DiffusionPipeline, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a sample, without its seed and the remarks on its sound."""
    return {
        **dict.fromkeys((*OWN_FILES, *COMPONENTS, "sha256")),
        **settings,
        **made_by(models, pipe),
        "versions": {name: version(name) for name in ("images-that-sound", "diffusers", "transformers", "torch")},
    }


def made_by(models: Models, pipe: DiffusionPipeline) -> dict[str, Any]:
    """Models and their precision, by the names in `MADE_BY`, as settings hold them."""
    return {**named(models), "spectrogram": pipe.mel_spectrogram.to_dict()}


def named(models: Models) -> dict[str, Any]:
    """The values in `MADE_BY` as they were given."""
    return {name: getattr(models, name) or None for name in MADE_BY}


def say_unknown_words(settings: dict[str, Any]) -> None:
    """One of all processes says which words of the prompts the models do not know."""
    if PartialState().is_main_process:
        for sentence in unknown_words(settings):
            tell(sentence)


def write_row(
    pipe: DiffusionPipeline,
    output: Any,
    row: int,
    folder: Path,
    settings: dict[str, Any],
    *,
    pictures: Callable[[Any, int], dict] = pictures_of,
    video: Look | None,
) -> list[str]:
    """Writes a row of a call's output as a sample; returns the remarks on its sound, which its settings hold too."""
    audio = output.audios[row]
    said = {"problems": audio_problems(audio), "remarks": audio_remarks(audio, pipe.mel_spectrogram)}
    sound = {"audio": audio, "sampling_rate": pipe.sampling_rate}
    write_sample(folder, **pictures(output, row), **sound, settings={**settings, **said}, video=video)
    return [*said["problems"], *said["remarks"]]


def pending_seeds(samples: Samples, seeds: list[int], settings: dict) -> list[int]:
    """Seeds whose sample is not there yet. Raises `ValueError` for one in whose place something else is."""
    return [seed for seed in seeds if not is_made(samples.folder(seed), settings)]


def make_samples(
    pipe: DiffusionPipeline,
    samples: Samples,
    settings: dict[str, Any],
    *,
    arguments: dict[str, Any],
    seeds: list[int],
    steps_of: Callable[[DiffusionPipeline], list[int]] | None = None,
    num_decoded: int = 1,
    **kwargs: Any,
) -> Iterator[Path]:
    """
    [`make_missing`] with progress on stderr: samples that exist, samples that are done, and the time left. If
    `steps_of` is given, as to a [`Forecast`], a line says before most of the work how long it takes.
    """
    pending = pending_seeds(samples, seeds, settings)
    if len(pending) < len(seeds):
        tell(f"{len(seeds) - len(pending)} of {len(seeds)} samples were there already.")
    if steps_of is not None and pending:
        forecast = Forecast(
            len(pending),
            samples.num_images_per_prompt,
            steps_of,
            num_decoded=num_decoded,
            look=samples.look,
            strips=strips_of(settings),
        )
        arguments = {**arguments, "callback_on_step_end": forecast}
        say_beginning(len(pending), length_asked(pipe, arguments))
    # The pipeline's bar tells all about a single call.
    hidden = len(pending) <= samples.num_images_per_prompt
    with tqdm(total=len(pending), desc="Samples", disable=hidden) as bar:
        for folder in make_missing(pipe, samples, settings, arguments=arguments, seeds=pending, **kwargs):
            bar.update()
            yield folder


def make_missing(
    pipe: DiffusionPipeline,
    samples: Samples,
    settings: dict[str, Any],
    *,
    arguments: dict[str, Any],
    seeds: list[int],
    pictures: Callable[[Any, int], dict] = pictures_of,
    of_seeds: Callable[[list[int]], dict] = lambda seeds: {},
    accelerator: Accelerator | None = None,
    call: Callable[..., Any] | None = None,
) -> Iterator[Path]:
    """
    Makes the samples that are missing; yields the folder of each as it appears.

    Args:
        pipe ([`DiffusionPipeline`]): Called with `arguments`.
        samples ([`Samples`]): Their folder, and how many are computed at once.
        settings (`dict`): Result of `complete_settings`.
        arguments (`dict`): Arguments of the call, without the generators.
        seeds (`list[int]`): Seeds of the samples, each made by this process unless it exists.
        pictures (`Callable`): From the call's output and a row of it to the pictures that `write_sample` takes.
        of_seeds (`Callable`, *optional*): From the seeds of a call to arguments of that call alone.
        accelerator (`accelerate.Accelerator`, *optional*): The processes that make each sample together; the first
            one writes it.
        call (`Callable`, *optional*): Called instead of `pipe`.
    """
    call = pipe if call is None else call
    pending = pending_seeds(samples, seeds, settings)
    for first in range(0, len(pending), samples.num_images_per_prompt):
        batch = pending[first : first + samples.num_images_per_prompt]
        generators = [torch.Generator().manual_seed(seed) for seed in batch]
        try:
            given = {"generator": generators, **of_seeds(batch)}
            output = call(**arguments, **given, num_images_per_prompt=len(batch))
        except Exception:
            # Another process has made them meanwhile, and taken away what this one went on from.
            if (accelerator is None or accelerator.num_processes == 1) and not pending_seeds(samples, batch, settings):
                yield from map(samples.folder, batch)
                continue
            raise
        for row, seed in enumerate(batch):
            if accelerator is None or accelerator.is_main_process:
                made = {**settings, "seed": seed}
                said = write_row(pipe, output, row, samples.folder(seed), made, pictures=pictures, video=samples.look)
                for each in said:
                    tell(f"warning: {samples.folder(seed)}: {each}")
            if accelerator is not None:
                accelerator.wait_for_everyone()
            yield samples.folder(seed)
    if len(pending) > 1:
        say_unknown_words(settings)
