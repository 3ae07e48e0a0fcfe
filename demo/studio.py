"""What the page does with the models: denoising in view, ranking, videos, colours, and how to do it all again."""

import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from images_that_sound.pipelines import ImagesThatSoundPipeline
from images_that_sound.pipelines.images_that_sound_checks import check_integer, check_number
from images_that_sound.scripts.common.arguments import Models, Scores, call_arguments, complete_call
from images_that_sound.scripts.common.colors import Painter
from images_that_sound.scripts.common.files import json_text, read_json, written
from images_that_sound.scripts.common.models import device_of, load_pipeline, with_checkpoint_defaults
from images_that_sound.scripts.common.samples import (
    captions_of,
    panel_of,
    read_picture,
    read_waveform,
    sample_settings,
)
from images_that_sound.scripts.common.sampling import complete_settings, write_row
from images_that_sound.scripts.common.scoring import load_scorer, scores_of
from images_that_sound.scripts.common.video import write_video
from images_that_sound.selection import Scorer, best, combined_score


PREVIEWS = 10
# Arguments of the call that the page offers.
CALL_NAMES = (
    "prompt",
    "audio_prompt",
    "audio_weight",
    "guidance_scale",
    "audio_guidance_scale",
    "num_inference_steps",
    "audio_length_in_s",
    "canvas_layout",
)
# How much one run may ask of a machine that all visitors share: from least to most, whoever sends it.
BOUNDS = {
    "audio_weight": (0, 1),
    "guidance_scale": (1, 20),
    "audio_guidance_scale": (1, 20),
    "num_inference_steps": (5, 200),
    "audio_length_in_s": (1, 10),
}
MAX_CANDIDATES = 8
MAX_SEED = 2**53 - 1  # JavaScript counts no further.
MAX_PROMPT_LENGTH = 500


class Stopped(Exception):
    """Of work that is no longer wanted."""


class Studio:
    """
    The models, for one user at a time.

    Args:
        models ([`Models`]): What makes samples, and where.
        scores ([`Scores`]): What ranks them.
        folder (`Path`): Gets a folder for each run.
    """

    def __init__(self, models: Models, scores: Scores, folder: Path) -> None:
        self.models, self.scores, self.folder = models, scores.for_samples_of(models.model), folder
        self.pipe = load_pipeline(models, ImagesThatSoundPipeline)
        self.pipe.set_progress_bar_config(disable=True)
        self.painter = Painter(replace(models, model=None), None, [{"model": models.model}])
        self.color_call = complete_call(call_arguments("FactorizedColorizationPipeline"), {}, {})
        # Visitors whose run, and samples whose painting, is to stop.
        self.unwanted: set[str | Path] = set()
        self.closed = False
        # A run that was stopped may still be at work on its last steps when the next one starts.
        self.lock = threading.Lock()

    @cached_property
    def scorer(self) -> Scorer:
        return load_scorer(self.scores, self.models, self.pipe)

    def call_arguments(self, *values: str | float) -> dict:
        """Arguments of the call from the values of `CALL_NAMES`; raises `ValueError` for one out of its bounds."""
        arguments = dict(zip(CALL_NAMES, values, strict=True))
        _check_prompts(arguments["prompt"], arguments["audio_prompt"])
        for name, (least, most) in BOUNDS.items():
            check = check_integer if name == "num_inference_steps" else check_number
            check(name, arguments[name], least=least, most=most)
        return with_checkpoint_defaults(arguments, self.pipe)

    def denoise(
        self, arguments: dict, seeds: list[int], visitor: str | None = None
    ) -> Iterator[tuple[int, list[PIL.Image.Image], object]]:
        """
        Makes samples by a call in parts. Yields after each part the number of steps done, the pictures that the
        samples are going to be, and the call's output once it is complete. Raises `Stopped` at the step at which
        `visitor` is among the unwanted.
        """
        pipe, num_steps = self.pipe, arguments["num_inference_steps"]
        names = ("prompt_embeds", "negative_prompt_embeds", "audio_prompt_embeds", "negative_audio_prompt_embeds")
        self._check_wanted(visitor)
        with self.lock, torch.no_grad():
            embeds = pipe.encode_prompt(arguments["prompt"], arguments["audio_prompt"], pipe._execution_device)
        expected = {}

        def follow(pipe: ImagesThatSoundPipeline, step: int, timestep: object, tensors: dict) -> dict:
            self._check_wanted(visitor)
            expected.update(tensors)
            return {}

        call = {
            **{name: value for name, value in arguments.items() if name not in ("prompt", "audio_prompt")},
            **dict(zip(names, embeds)),
            "num_images_per_prompt": len(seeds),
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "callback_on_step_end": follow,
            "callback_on_step_end_tensor_inputs": ["pred_original_sample"],
        }
        edges = np.unique(np.linspace(0, num_steps, PREVIEWS + 1).round().astype(int)).tolist()
        for first, last in zip(edges, edges[1:]):
            call["denoising_start"], call["denoising_end"] = first / num_steps, last / num_steps
            if last == num_steps:
                with self.lock:
                    output = pipe(**call)
                yield last, output.images, output
                return
            with self.lock, torch.no_grad():
                call["latents"] = pipe(**call, output_type="latent").images
                canvases = pipe.decode_latents(expected["pred_original_sample"], pipe.vae)
            yield last, pipe.image_processor.postprocess(canvases, "pil", [False] * len(canvases)), None

    def write(self, arguments: dict, seeds: list[int], output: object) -> list[Path]:
        """Writes samples without videos into a new folder; returns their folders, the best by their scores first."""
        home = Path(tempfile.mkdtemp(dir=self.folder)) / "images-that-sound"
        settings = complete_settings(self.models, self.pipe, arguments)
        folders = [home / f"seed-{seed:06d}" for seed in seeds]
        for row, (folder, seed) in enumerate(zip(folders, seeds)):
            write_row(self.pipe, output, row, folder, {**settings, "seed": seed}, video=False)
        if len(folders) == 1:
            return folders
        with self.lock:
            scores = [scores_of(folder, self.scorer, self.scores.models) for folder in folders]
        columns = {name: [each[name] for each in scores] for name in scores[0]}
        return [folders[i] for i in best(combined_score(columns), len(folders))]

    def colors(self, folder: Path, progress: Callable[[float], None]) -> Path:
        """A sample's picture in colour, made where it is missing; `progress` is told the share that is done."""
        self.unwanted.discard(folder)
        total = 2 * self.color_call["num_inference_steps"] - self.color_call["start_diffusion_step"]
        done = iter(range(1, total + 1))

        def follow(*_: object) -> dict:
            self._check_wanted(folder)
            progress(next(done) / total)
            return {}

        with self.lock:
            self.painter.pipe.set_progress_bar_config(disable=True)
            list(self.painter(folder, self.color_call, [0], callback_on_step_end=follow))
        return self.colors_of(folder)

    def _check_wanted(self, what: str | Path | None) -> None:
        if self.closed or (what is not None and what in self.unwanted):
            raise Stopped

    def close(self) -> None:
        """Stops what is at work at its next step, waits for it, and lets nothing begin after it."""
        self.closed = True
        self.lock.acquire()

    def colors_of(self, folder: Path) -> Path | None:
        """The picture in colour, where it has been made."""
        file = folder / "color-000000.json"
        return file.with_suffix(".png") if file.exists() else None


def seeds_of(first: int | None, num_candidates: int) -> list[int]:
    """Seeds of a run's candidates; raises `ValueError` for numbers out of their bounds."""
    check_integer("num_candidates", num_candidates, least=1, most=MAX_CANDIDATES)
    if not isinstance(first, int) or not 0 <= first <= MAX_SEED - num_candidates:
        raise ValueError(f"The seed has to be a whole number from 0 to {MAX_SEED - num_candidates}, but is {first}.")
    return [first + i for i in range(num_candidates)]


def _check_prompts(*prompts: str | None) -> None:
    if not all(prompt and prompt.strip() for prompt in prompts):
        raise ValueError("Say both what to see and what to hear.")
    if max(map(len, prompts)) > MAX_PROMPT_LENGTH:
        raise ValueError(f"A prompt may have {MAX_PROMPT_LENGTH} characters, but one has {max(map(len, prompts))}.")


def video_of(folder: Path) -> Path:
    """A sample's video, made where it is missing."""
    file = folder / "video.mp4"
    if not file.exists():
        settings = sample_settings(folder)
        audio, sampling_rate = read_waveform(folder / "audio.wav")
        panels = [panel_of(read_picture(folder / "image.png"), settings)]
        with written(file) as video:
            write_video(video, panels, audio, sampling_rate, captions_of(settings), json_text(settings))
    return file


def archive_of(folder: Path) -> Path:
    """All samples of a run, of which the folder is one, as a file to take home."""
    home = folder.parent
    return Path(shutil.make_archive(str(home), "zip", home.parent, home.name))


def label_of(folder: Path) -> str:
    """A candidate's seed and scores."""
    scores = read_json(folder / "scores.json")["scores"]
    words = {"clip": "picture", "clap": "sound"}
    numbers = ", ".join(f"{words.get(name, name)} {value:.2f}" for name, value in scores.items())
    return f"seed {sample_settings(folder)['seed']}: {numbers}"


def as_command(settings: dict) -> str:
    """The command that makes a sample again."""
    words = ["images-that-sound", "generate"]
    for name in (*CALL_NAMES, "seed", "model", "audio_model", "dtype"):
        if settings[name] is not None:
            words += [f"--{name}", str(settings[name])]
    return shlex.join(words)


def as_python(settings: dict, models: Models) -> str:
    """The lines of Python that make a sample again."""
    lines = ["import soundfile", "import torch", "from images_that_sound.pipelines import ImagesThatSoundPipeline"]
    source = repr(settings["model"])
    if settings["model"] == "embedded":
        lines.insert(0, "import images_that_sound.embedded")
        source = "images_that_sound.embedded.__path__[0]"
    lines += ["", f"pipe = ImagesThatSoundPipeline.from_pretrained({source}, dtype=torch.{settings['dtype']})"]
    if settings["audio_model"] is not None:
        lines.append(f"pipe.load_audio_prior({settings['audio_model']!r})")
    device = device_of(models)
    if device != "cpu":
        lines.append(f"pipe.to({device!r})")
    lines += ["output = pipe(", *(f"    {name}={settings[name]!r}," for name in CALL_NAMES)]
    lines += [f"    generator=torch.Generator().manual_seed({settings['seed']}),", ")"]
    lines += ['output.images[0].save("image.png")']
    gain = f"10 ** ({settings['gain_in_db']} / 20)"
    lines += [f'soundfile.write("audio.wav", {gain} * output.audios[0], pipe.sampling_rate)']
    return "\n".join(lines)
