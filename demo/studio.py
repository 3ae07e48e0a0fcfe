"""Work of the page with the models: denoising in view, ranking, videos, colours, and how to do it all again."""

import hashlib
import io
import math
import queue
import secrets
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
import soundfile
import torch
from bounds import read_visitors_picture

from images_that_sound.pipelines import (
    ImagesThatSoundImg2ImgPipeline,
    ImagesThatSoundImprintPipeline,
    ImagesThatSoundPipeline,
)
from images_that_sound.pipelines.images_that_sound_canvas import Canvas, fit_pictures
from images_that_sound.pipelines.images_that_sound_checks import check_integer, check_number
from images_that_sound.pipelines.images_that_sound_picture_reading import on_ground
from images_that_sound.pipelines.images_that_sound_spectrogram import SILENCE_PEAK
from images_that_sound.scripts.common.colors import Painter
from images_that_sound.scripts.common.control_lines import lines_of
from images_that_sound.scripts.common.files import json_text, read_json, write_json, written
from images_that_sound.scripts.common.loudness import levelled
from images_that_sound.scripts.common.models import device_of, load_pipeline, with_checkpoint_defaults
from images_that_sound.scripts.common.own_files import OwnFile, joined, recorded, values_over_time
from images_that_sound.scripts.common.parsers import call_arguments
from images_that_sound.scripts.common.requests import complete_call
from images_that_sound.scripts.common.samples import captions_of, panel_of, read_picture, sample_settings
from images_that_sound.scripts.common.sampling import complete_settings, write_row
from images_that_sound.scripts.common.scoring import choice_scores, load_scorer, scores_of
from images_that_sound.scripts.common.sounds import read_audio, read_waveform
from images_that_sound.scripts.common.values import Models, Scores
from images_that_sound.scripts.common.video import write_video
from images_that_sound.scripts.common.vocabulary import unknown_words
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
    "strength",
    "circular",
)
# Arguments of the call that are files, by their names in a sample's folder.
FILES = {"image": "picture.png", "mask_image": "mask.png", "control_image": "drawing.png", "audio": "sound.wav"}
# Prompts over time in a sample's folder.
SCORE = "score.json"
# How much one run may ask of a machine that all visitors share: from least to most, whoever sends it.
BOUNDS = {
    "audio_weight": (0, 1),
    "guidance_scale": (1, 20),
    "audio_guidance_scale": (1, 20),
    "num_inference_steps": (5, 200),
    "audio_length_in_s": (1, 60),
    # At least one of the fewest steps.
    "strength": (0.2, 1),
}
MAX_CANDIDATES = 8
# Seconds of all candidates of a run, which are denoised at once and take memory by their length.
MAX_RUN_SECONDS = 60
# Second of a sound at which a part of it may begin.
MAX_START = 36_000
# Probabilities from which on a picture or a sound is clear, or at least found unsurely.
CLEAR, UNSURE = 0.5, 0.1
# Difference of probabilities up to which two candidates are as good.
CLOSE = 0.05
# Width by height from which on a picture is long.
LONG = 5
# Scenes of a canvas, one after the other.
MAX_SCENES = 6
MAX_SEED = 2**53 - 1  # JavaScript counts no further.
MAX_PROMPT_LENGTH = 500


class Stopped(Exception):
    """Raised for work that is no longer wanted."""


class Studio:
    """
    The models, for one user at a time.

    Args:
        models ([`Models`]): Models that make samples, and their device.
        scores ([`Scores`]): Scores that rank them.
        folder (`Path`): Gets a folder for each run.
    """

    def __init__(self, models: Models, scores: Scores, folder: Path) -> None:
        self.models, self.scores, self.folder = models, scores.for_samples_of(models.model), folder
        # The ControlNet that ships is told a drawing's lines; other image sides begin with the drawing.
        self.follows_lines = models.model == "embedded"
        controlnet = ["embedded"] if self.follows_lines else None
        self.pipe = load_pipeline(replace(models, controlnet=controlnet), ImagesThatSoundPipeline)
        self.pipe.set_progress_bar_config(disable=True)
        # Eight pictures of ten seconds would take half a gigabyte more at once than one after the other.
        self.pipe.vae.enable_slicing()
        self.painter = Painter(replace(models, model=None), None, [{"model": models.model}])
        self.color_call = complete_call(call_arguments("FactorizedColorizationPipeline"), {}, {})
        # Visitors whose run, and samples whose painting, is to stop.
        self.unwanted: set[str | Path] = set()
        self.closed = False
        # A run that was stopped may still be at work on its last steps when the next one starts.
        self.lock = threading.Lock()

    @cached_property
    def img2img(self) -> ImagesThatSoundImg2ImgPipeline:
        pipe = ImagesThatSoundImg2ImgPipeline.from_pipe(self.pipe)
        if self.models.enable_model_cpu_offload:
            pipe.enable_model_cpu_offload(device=device_of(self.models))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def scorer(self) -> Scorer:
        return load_scorer(self.scores, self.models, self.pipe)

    def call_arguments(self, *values: str | float | bool, scenes: Sequence[tuple] = ()) -> dict:
        """
        Arguments of the call from the values of `CALL_NAMES`, and the `score` of further scenes, each the second at
        which it begins, its picture and its sound. Raises `ValueError` for a value out of its bounds.
        """
        arguments = dict(zip(CALL_NAMES, values, strict=True))
        arguments["circular"] = bool(arguments["circular"])
        _check_prompts(arguments["prompt"], arguments["audio_prompt"])
        for name, (least, most) in BOUNDS.items():
            check = check_integer if name == "num_inference_steps" else check_number
            check(name, arguments[name], least=least, most=most)
        if scenes:
            score = score_of((0, arguments["prompt"], arguments["audio_prompt"]), *scenes)
            prompts = values_over_time(score)
            arguments |= {name: joined(texts) for name, texts in prompts.items()} | {"score": score}
        return with_checkpoint_defaults(arguments, self.pipe)

    def check_run(self, seeds: list[int], arguments: dict, files: dict[str, bytes]) -> None:
        """Raises `ValueError` for a run that takes too much memory, or that its canvas has no place for."""
        length = length_with(arguments, files)
        if length * len(seeds) > MAX_RUN_SECONDS:
            raise ValueError(
                f"All attempts together may have {MAX_RUN_SECONDS} seconds. Choose at most"
                f" {int(MAX_RUN_SECONDS / length)} attempts of {length:g} seconds, or shorter ones."
            )
        score, circular = arguments.get("score"), arguments["circular"]
        if (score or circular) and arguments["canvas_layout"] == "folded":
            raise ValueError(f"{'A loop' if circular else 'A canvas of scenes'} has to be a strip. Choose this shape.")
        canvas = self.pipe.resolve_size(audio_length_in_s=length, crop_right=0)
        if circular and canvas.width != canvas.columns:
            step = self.pipe.vae_scale_factor / self.pipe.mel_spectrogram.columns_per_second
            raise ValueError(f"A loop lasts a multiple of {step:g} seconds, such as {step * round(length / step):g}.")
        _, widest = self.pipe.resolve_window_width()
        if score and canvas.width <= widest:
            least = widest / self.pipe.mel_spectrogram.columns_per_second
            raise ValueError(f"Several scenes need more than {least:g} seconds. Make the sound longer.")
        if score and (last := float(list(score)[-1])) >= length:
            raise ValueError(f"The last scene begins at {last:g} s, but the sound ends at {length:g} s.")

    @property
    def own_seconds(self) -> float:
        """Length of the checkpoint's own canvas."""
        defaults = self.pipe.default_arguments
        return (defaults["width"] - defaults["crop_right"]) / self.pipe.mel_spectrogram.columns_per_second

    @property
    def scene_seconds(self) -> int:
        """Length of a scene: half as much again as the models see at once, so that each has a place of its own."""
        return min(round(1.5 * self.own_seconds), MAX_RUN_SECONDS // MAX_SCENES)

    def drawn(self, drawing: dict | None, arguments: dict, resize_mode: str) -> dict[str, bytes]:
        """Puts a drawing on the canvas, as files to begin with."""
        if drawing is None or not _painted(drawing).any():
            raise ValueError("Draw something first.")
        argument = "control_image" if self.follows_lines else "image"
        return {argument: _png(self.on_canvas(drawing["composite"], arguments, resize_mode))}

    def chosen(
        self, picture: PIL.Image.Image, arguments: dict, resize_mode: str, marked: dict | None, anew: str
    ) -> dict[str, bytes]:
        """Files to begin with, of a picture: `"all"`, what is `"marked"` or what is `"unmarked"` is made anew."""
        canvas = self.on_canvas(picture, arguments, resize_mode)
        if anew == "all":
            return {"image": _png(canvas)}
        painted = np.zeros(canvas.size[::-1], bool) if marked is None else _painted(marked)
        if painted.shape != canvas.size[::-1]:
            raise ValueError("The canvas has become another. Mark it once more.")
        if not painted.any():
            raise ValueError("Mark a part of the picture first, with the brush.")
        mask = painted if anew == "marked" else ~painted
        if not mask.any():
            raise ValueError("All of the picture is marked, so that nothing is made anew.")
        return {"image": _png(canvas), "mask_image": _png(PIL.Image.fromarray(mask))}

    def heard(self, sound: str | None, start_in_s: float | None, length_in_s: float | None) -> dict[str, bytes]:
        """Files to begin with, of a part of a sound."""
        if sound is None:
            raise ValueError("Choose a sound or record one first.")
        least, most = BOUNDS["audio_length_in_s"]
        check_number("start", start_in_s, least=0, most=MAX_START)
        check_number("length", length_in_s, least=least, most=most)
        with calm(sound):
            audio = read_audio(sound, self.pipe.sampling_rate, start_in_s, length_in_s)
        seconds = len(audio) / self.pipe.sampling_rate
        if seconds < least:
            raise ValueError(f"At least {least} second of sound is needed, but there are {seconds:.1f}.")
        if np.abs(audio).max() < SILENCE_PEAK:
            raise ValueError("There is nothing to be heard in this sound.")
        file = io.BytesIO()
        soundfile.write(file, audio, self.pipe.sampling_rate, "FLOAT", format="WAV")
        return {"audio": file.getvalue()}

    def on_canvas(self, picture: PIL.Image.Image, arguments: dict, resize_mode: str) -> PIL.Image.Image:
        """A picture on the canvas of a call's arguments; one of a sample lies as it was made."""
        length, canvas_layout = arguments["audio_length_in_s"], arguments["canvas_layout"]
        circular = bool(arguments.get("circular"))
        canvas = self.pipe.resolve_size(audio_length_in_s=length, canvas_layout=canvas_layout, circular=circular)
        ground = self.pipe.mel_spectrogram.silence
        picture = on_ground(picture, ground).convert("RGB")
        if not canvas.folded and picture.size == (canvas.columns, canvas.height):
            whole = PIL.Image.new("RGB", (canvas.width, canvas.height), (round(255 * ground),) * 3)
            whole.paste(picture)
            return whole
        processor = self.pipe.image_processor
        pictures = processor.numpy_to_pt(processor.pil_to_numpy(picture))
        fitted = fit_pictures(pictures, canvas.height, canvas.width, resize_mode, ground)
        return processor.numpy_to_pil(processor.pt_to_numpy(fitted))[0]

    def denoise(
        self, arguments: dict, seeds: list[int], files: dict[str, bytes], visitor: str | None = None
    ) -> Iterator[tuple[int, int, list[PIL.Image.Image], object]]:
        """
        Makes samples. Yields now and then the number of steps done and that of all, the pictures that the samples are
        going to be, and in the end the call's output. Raises `Stopped` at the step at which `visitor` is among the
        unwanted.
        """
        self._check_wanted(visitor)
        self.check_run(seeds, arguments, files)
        arguments, num_steps = prompted(arguments_with(arguments, files)), arguments["num_inference_steps"]
        pipe = self.img2img if "strength" in arguments else self.pipe
        total = int(num_steps * arguments.get("strength", 1))
        shown = set(np.linspace(0, total, PREVIEWS + 1).round().astype(int).tolist()) - {total}
        seen, is_left = queue.SimpleQueue(), threading.Event()

        def follow(pipe: ImagesThatSoundPipeline, step: int, timestep: object, tensors: dict) -> dict:
            self._check_wanted(visitor)
            if is_left.is_set():
                raise Stopped
            if (done := step + 1) in shown:
                guess = tensors["pred_original_sample"]
                height, width = (pipe.vae_scale_factor * side for side in guess.shape[-2:])
                windows = pipe.resolve_windows(Canvas(height, width, width)).windows
                canvases = pipe.decode_latents(guess, pipe.vae, windows)
                seen.put((done, total, pipe.image_processor.postprocess(canvases, "pil", [False] * len(seeds)), None))
            return {}

        def work() -> None:
            try:
                with self.lock:
                    output = pipe(
                        **arguments,
                        **{argument: self._read(argument, file) for argument, file in files.items()},
                        num_images_per_prompt=len(seeds),
                        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                        callback_on_step_end=follow,
                        callback_on_step_end_tensor_inputs=["pred_original_sample"],
                    )
                seen.put((total, total, output.images, output))
            except Exception as error:
                seen.put(error)

        threading.Thread(target=work).start()
        try:
            yield from _until_output(seen)
        finally:
            is_left.set()

    def _read(self, argument: str, file: bytes) -> PIL.Image.Image | np.ndarray:
        """Values of a file for the call."""
        content = io.BytesIO(file)
        if argument == "audio":
            return read_audio(content, self.pipe.sampling_rate)
        picture = read_picture(content)
        return lines_of(picture, picture.height, picture.width) if argument == "control_image" else picture

    def write(self, arguments: dict, seeds: list[int], files: dict[str, bytes], output: object) -> list[Path]:
        """
        Writes samples without videos into a new folder, beside each what it began with; returns their folders, the
        best by their scores first.
        """
        # A name that nobody guesses, since a browser asks by it for what its visitor made.
        home = self.folder / secrets.token_urlsafe(24) / "images-that-sound"
        home.mkdir(parents=True)
        call = arguments_with(arguments, files)
        controlnet = ["embedded"] if "control_image" in files else None
        named = recorded(own_files(files), {"controlnet": controlnet})
        settings = complete_settings(self.models, self.pipe, {**call, **named})
        folders = [home / f"seed-{seed:06d}" for seed in seeds]
        for row, (folder, seed) in enumerate(zip(folders, seeds)):
            write_row(self.pipe, output, row, folder, {**settings, "seed": seed}, video=False)
            for argument, file in files.items():
                (folder / FILES[argument]).write_bytes(file)
            if "score" in arguments:
                write_json(folder / SCORE, arguments["score"])
        if len(folders) == 1:
            return folders
        with self.lock:
            scores = [scores_of(folder, self.scorer, self.scores.models) for folder in folders]
        choice = choice_scores(scores, self.scorer)
        likeness = None
        if "control_image" in files:
            likeness = [_likeness(files["control_image"], folder) for folder in folders]
        return [folders[i] for i in _best_first(choice, likeness)]

    @cached_property
    def imprinter(self) -> ImagesThatSoundImprintPipeline:
        pipe = ImagesThatSoundImprintPipeline.from_pipe(self.pipe)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def imprint(
        self,
        picture: PIL.Image.Image,
        audio_prompt: str,
        picture_share: float,
        seed: int,
        visitor: str | None = None,
    ) -> tuple:
        """
        Makes a sound of words with a picture painted into it. Raises `Stopped` at the step at which `visitor` is among
        the unwanted.

        Args:
            picture (`PIL.Image.Image`): Light parts are loud.
            audio_prompt (`str`): Sound to make.
            picture_share (`float`): 0 is the sound without the picture, 1 is as much picture as can be.
            seed (`int`): Number of the attempt.
            visitor (`str`, *optional*): Who wants it.

        Returns:
            Its spectrogram, a `PIL.Image.Image`, and a WAV as `bytes`.
        """
        _check_prompts(audio_prompt)
        check_number("share", picture_share, least=0, most=1)

        def follow(*_: object) -> dict:
            self._check_wanted(visitor)
            return {}

        with self.lock:
            output = self.imprinter(
                image=picture,
                audio_prompt=audio_prompt,
                magnitude_ratio=picture_share,
                callback_on_step_end=follow,
                generator=torch.Generator().manual_seed(seed),
            )
        audio, _ = levelled(output.audios[0], self.pipe.sampling_rate)
        file = io.BytesIO()
        soundfile.write(file, audio, self.pipe.sampling_rate, "PCM_16", format="WAV")
        return output.spectrograms[0], file.getvalue()

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

    def length_of(self, folder: Path, settings: dict) -> float:
        """Seconds that a sample lasts."""
        audio, sampling_rate = read_waveform(folder / "audio.wav")
        return settings.get("audio_length_in_s") or len(audio) / sampling_rate

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


def length_with(arguments: dict, files: dict[str, bytes]) -> float:
    """Seconds that a run's samples last. A sound among the files says it."""
    return soundfile.info(io.BytesIO(files["audio"])).duration if "audio" in files else arguments["audio_length_in_s"]


def score_of(*scenes: tuple[float | None, str | None, str | None]) -> dict[str, dict[str, str]]:
    """
    Score of scenes, each a tuple of its first second, its picture and its sound. Empty words repeat those of the scene
    before. Raises `ValueError` unless scenes say something and follow each other.
    """
    score, latest = {}, -1.0
    for number, (second, prompt, audio_prompt) in enumerate(scenes, 1):
        words = {"prompt": prompt, "audio_prompt": audio_prompt}
        words = {name: text for name, text in words.items() if text is not None and str(text).strip()}
        if not words:
            raise ValueError(f"Say what to see or what to hear in scene {number}, or choose fewer scenes.")
        _check_prompts(*words.values())
        check_number("second", second, least=0, most=BOUNDS["audio_length_in_s"][1])
        if second <= latest:
            raise ValueError(f"Scene {number} has to begin after {latest:g} s, since scene {number - 1} begins there.")
        score[f"{second:g}"], latest = words, second
    return score


def _check_prompts(*prompts: str | None) -> None:
    if not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
        raise ValueError("Say both what to see and what to hear.")
    if max(map(len, prompts)) > MAX_PROMPT_LENGTH:
        raise ValueError(f"A prompt may have {MAX_PROMPT_LENGTH} characters, but one has {max(map(len, prompts))}.")


def _until_output(seen: queue.SimpleQueue) -> Iterator[tuple]:
    """Values that another thread puts there, until one is an output; raises an error of that thread."""
    output = None
    while output is None:
        event = seen.get()
        if isinstance(event, Exception):
            raise event
        *_, output = event
        yield event


def picture_of(path: str | None, swap: bool | None, silence: float = 0.0) -> PIL.Image.Image:
    """A visitor's picture; `swap` says whether light and dark are swapped, `None` lets the picture decide."""
    return drawing_of(path, swap, silence)[0]


def drawing_of(path: str | None, swap: bool | None, silence: float = 0.0) -> tuple[PIL.Image.Image, bool]:
    """A visitor's picture, and whether its light and dark were swapped."""
    if path is None:
        raise ValueError("Choose a picture first.")
    with calm(path):
        return read_visitors_picture(path, silence, swap)


def arguments_with(arguments: dict, files: dict[str, bytes]) -> dict:
    """Arguments of a call that is given files: from noise there is no strength, and a sound says its length."""
    from_noise = files.keys().isdisjoint(("image", "audio"))
    unused = "strength" if from_noise else "audio_length_in_s" if "audio" in files else None
    return {name: value for name, value in arguments.items() if name != unused}


def prompted(arguments: dict) -> dict:
    """Arguments with the prompts over time of their score."""
    call = {name: value for name, value in arguments.items() if name != "score"}
    return {**call, **values_over_time(arguments.get("score", {}))} if "score" in arguments else call


def own_files(files: dict[str, bytes]) -> dict[str, list[OwnFile]]:
    """Files as settings record them."""
    hashes = {argument: hashlib.sha256(file).hexdigest() for argument, file in files.items()}
    return {argument: [OwnFile(FILES[argument], Path(FILES[argument]), sha256)] for argument, sha256 in hashes.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    """Files that a sample began with."""
    return {argument: (folder / name).read_bytes() for argument, name in FILES.items() if (folder / name).exists()}


def _painted(edited: dict) -> np.ndarray:
    """Painted parts `(H, W)` of the layers of an editor's value."""
    size = edited["background"].size if edited["background"] is not None else edited["composite"].size
    layers = [np.asarray(layer.getchannel("A")) > 127 for layer in edited["layers"]]
    return np.any([np.zeros(size[::-1], bool), *layers], axis=0)


def _png(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


@contextmanager
def calm(path: str) -> Iterator[None]:
    """Lets what is wrong with a visitor's file be said in a few words, without where it lies here."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace(path, Path(path).name).partition(": ")[0]
        raise ValueError(f"{text.rstrip('.')}.") from error


def is_long(picture: PIL.Image.Image) -> bool:
    """Whether a picture is too wide to be seen in the width of a page."""
    return picture.width > LONG * picture.height


def video_of(folder: Path) -> Path:
    """A sample's video, made where it is missing."""
    file = folder / "video.mp4"
    if not file.exists():
        settings = sample_settings(folder)
        audio, sampling_rate = read_waveform(folder / "audio.wav")
        picture = read_picture(folder / "image.png")
        # Which shows a part of a long picture enlarged.
        shape = "16:9" if is_long(picture) else "strip"
        panels, captions = [panel_of(picture, settings)], captions_of(settings)
        with written(file) as video:
            loops = bool(settings.get("circular"))
            write_video(video, panels, audio, sampling_rate, captions, json_text(settings), shape, loops)
    return file


def archive_of(folder: Path) -> Path:
    """All samples of a run, of which the folder is one, as a file to take home."""
    home = folder.parent
    return Path(shutil.make_archive(str(home), "zip", home.parent, home.name))


def label_of(folder: Path) -> str:
    """How sure the models are that a candidate's picture and sound are those of the prompts, in words."""
    known = [f"{kind} {_in_words(value)}" for kind, value in _probabilities(folder).items()]
    return ", ".join(known) or "no judgement"


def numbers_of(folder: Path) -> str:
    """A candidate's scores, or nothing for one that was made alone."""
    if not (folder / "scores.json").exists():
        return ""
    scores = read_json(folder / "scores.json")["scores"]
    known = [f"{kind} {value:.0%} sure" for kind, value in _probabilities(folder).items()]
    lifts = [f"{name} {value:.2f}" for name, value in scores.items() if name.endswith("lift") and value is not None]
    return f"Scores: {', '.join([*known, *lifts])}." if known or lifts else ""


def _probabilities(folder: Path) -> dict[str, float]:
    """Probability of a candidate's picture and sound by the scoring models; none for words that are unknown."""
    scores, settings = read_json(folder / "scores.json")["scores"], sample_settings(folder)
    names = {"picture": ("clip", "prompt"), "sound": ("clap", "audio_prompt")}
    nothing = {"prompt": None, "audio_prompt": None}
    found = {}
    for kind, (scorer, prompt) in names.items():
        value = scores.get(f"{scorer}_log_probability")
        if value is not None and not unknown_words({**settings, **nothing, prompt: settings[prompt]}):
            found[kind] = math.exp(value)
    return found


def _in_words(probability: float) -> str:
    return "clear" if probability >= CLEAR else "unsure" if probability >= UNSURE else "not found"


def are_close(made: list[Path]) -> bool:
    """Whether the best two of a run are as sure of their prompts, but for `CLOSE`."""
    first, second = ([*_probabilities(folder).values()] for folder in made[:2])
    return bool(first and second) and abs(math.prod(first) - math.prod(second)) < CLOSE


def _best_first(choice: list[float], likeness: list[float] | None) -> list[int]:
    """Candidates by their scores, and by their likeness to a drawing if there is one; `nan` last."""
    order = best(choice, len(choice))
    if likeness is None:
        return order
    # Ranks of a few are often equal, and then the scores decide.
    ranks = combined_score({"choice": choice, "likeness": likeness})
    return [order[i] for i in best([ranks[i] for i in order], len(order))]


def _likeness(drawing: bytes, folder: Path) -> float:
    """Correlation of a drawing with a sample's picture, both a little blurred; 0 for an even picture."""
    drawn, made = PIL.Image.open(io.BytesIO(drawing)).convert("L"), read_picture(folder / "image.png").convert("L")
    drawn = drawn.crop((0, 0, *made.size))
    values = [np.asarray(each.filter(PIL.ImageFilter.GaussianBlur(2)), np.float32).ravel() for each in (drawn, made)]
    return float(np.corrcoef(values)[0, 1]) if min(each.std() for each in values) > 0 else 0.0


def as_command(settings: dict) -> str:
    """The command that makes a sample again."""
    words, given = ["images-that-sound", "generate"], settings
    if settings.get("score"):
        words += ["--score", SCORE]
        given = {name: value for name, value in settings.items() if name not in ("prompt", "audio_prompt")}
    for name in (*CALL_NAMES, *FILES, "controlnet", "seed", "model", "audio_model", "dtype"):
        if given.get(name) is True:
            words.append(f"--{name}")
        elif given.get(name) not in (None, False):
            value = given[name]
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def as_python(settings: dict, models: Models) -> str:
    """The lines of Python that make a sample again."""
    files = [name for name in FILES if settings.get(name) is not None]
    begun, drawn = not {"image", "audio"}.isdisjoint(files), "control_image" in files
    pipeline = "ImagesThatSoundImg2ImgPipeline" if begun else "ImagesThatSoundPipeline"
    lines = ["import PIL.Image"] * ("image" in files or drawn) + ["import soundfile", "import torch"]
    lines += ["from diffusers import ControlNetModel"] * drawn
    lines += [f"from images_that_sound.pipelines import {pipeline}"]
    lines += ["from images_that_sound.scripts.common.control_lines import lines_of"] * drawn
    source, loaded = repr(settings["model"]), f"dtype=torch.{settings['dtype']}"
    if settings["model"] == "embedded":
        lines.insert(0, "import images_that_sound.embedded")
        source = "images_that_sound.embedded.__path__[0]"
    lines.append("")
    if drawn:
        lines.insert(1, "import images_that_sound.embedded_controlnet")
        net = "images_that_sound.embedded_controlnet.__path__[0]"
        lines.append(f"controlnet = ControlNetModel.from_pretrained({net}, {loaded})")
        loaded = f"controlnet=controlnet, {loaded}"
    lines.append(f"pipe = {pipeline}.from_pretrained({source}, {loaded})")
    if settings["audio_model"] is not None:
        lines.append(f"pipe.load_audio_prior({settings['audio_model']!r})")
    device = device_of(models)
    if device != "cpu":
        lines.append(f"pipe.to({device!r})")
    if drawn:
        lines.append(f'drawing = PIL.Image.open("{FILES["control_image"]}")')
    call = settings | (values_over_time(settings["score"]) if settings.get("score") else {})
    lines += ["output = pipe(", *(f"    {name}={call[name]!r}," for name in CALL_NAMES if name in call)]
    lines += [f"    {name}={_read_in_python(name)}," for name in files]
    lines += [f"    generator=torch.Generator().manual_seed({settings['seed']}),", ")"]
    lines += ['output.images[0].save("image.png")']
    gain = f"10 ** ({settings['gain_in_db']} / 20)"
    lines += [f'soundfile.write("audio.wav", {gain} * output.audios[0], pipe.sampling_rate)']
    return "\n".join(lines)


def _read_in_python(argument: str) -> str:
    if argument == "audio":
        return f'soundfile.read("{FILES[argument]}", dtype="float32")[0]'
    if argument == "control_image":
        return "lines_of(drawing, drawing.height, drawing.width)"
    return f'PIL.Image.open("{FILES[argument]}")'
