"""How long the work of a command takes, said in one line before most of it, measured on this machine."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline

from ...pipelines.images_that_sound_canvas import resolve_windows
from ...pipelines.pipeline_factorized_colorization import UPSCALING
from .progress import tell
from .values import STRIP, Look
from .video import Panel, write_videos


# Seconds of work that are worth a line, and of steps from which on it is tried how long the rest takes.
LONG, WORTH_A_TRIAL = 60.0, 20.0
# Seconds of a video that is made on trial.
TRIAL = 0.5


def say_duration(what: str, seconds: float) -> None:
    """Tells what is made and about how long that takes, unless it is less than a minute."""
    if seconds >= LONG and PartialState().is_main_process:
        tell(f"{what}: about {in_words(seconds)}.")


def say_beginning(num_samples: int, length: float) -> None:
    """Tells at once what is made, if it is a minute of sound or more, since its first steps may take long already."""
    if length >= LONG and PartialState().is_main_process:
        tell(f"Beginning {in_numbers(num_samples, length)}. The second step tells how long it takes.")


def in_numbers(num_samples: int, length: float) -> str:
    """Samples and their length in seconds."""
    return f"{num_samples} sample{'s' * (num_samples > 1)} of {length:.3g} s"


def length_asked(pipe: DiffusionPipeline, arguments: dict[str, Any]) -> float:
    """Seconds of the canvas that the arguments of a call ask for; 0 if they do not say."""
    if arguments.get("audio_length_in_s") is not None:
        return arguments["audio_length_in_s"]
    if arguments.get("audio") is not None:
        return len(arguments["audio"]) / pipe.sampling_rate
    return (arguments.get("width") or 0) / pipe.mel_spectrogram.columns_per_second


def in_words(seconds: float) -> str:
    """A duration of a minute or more."""
    minutes = round(seconds / 60)
    if minutes < 90:
        return "a minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours" if minutes < 600 else f"{seconds / 3600:.0f} hours"


def clock() -> float:
    """Seconds, once all that the accelerator was given is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def seconds_of(work: Callable[[], Any]) -> float:
    """The shorter time of two, since the first one may import and prepare what the others find."""
    times = []
    for _ in range(2):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


class SecondStep:
    """A callback of a pipeline's call that takes the time of its second step once; the first one warms up."""

    first_step_end: float | None = None
    said = False

    def __call__(self, pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        if self.said:
            return {}
        if self.first_step_end is None:
            self.first_step_end = clock()
            return {}
        self.said, seconds = True, clock() - self.first_step_end
        self.say(seconds, pipe, step, timestep, tensors)
        return {}

    def say(self, seconds: float, pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> None:
        """Says how long the work takes, of which this step took so many seconds."""
        raise NotImplementedError


class Forecast(SecondStep):
    """
    A callback of a pipeline's call that says once, after the second step, how long all calls take: by the time of that
    step, and by trials of decoding, playing and filming.

    Args:
        num_samples (`int`): Samples to make.
        batch_size (`int`): Samples of a call.
        steps_of (`Callable`): From the pipeline to the weights of all steps of a call, the number of models that run.
        num_decoded (`int`): Canvases that a sample decodes.
        look ([`Look`], *optional*): Look of the videos; `None` for none.
        strips (`int`): Strips of a picture that are played one after the other.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        steps_of: Callable[[DiffusionPipeline], list[int]],
        *,
        num_decoded: int = 1,
        look: Look | None = None,
        strips: int = 1,
    ):
        self.num_samples, self.batch_size, self.steps_of = num_samples, min(batch_size, num_samples), steps_of
        self.num_decoded, self.look, self.strips = num_decoded, look, strips

    def say(self, seconds: float, pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> None:
        weights = self.steps_of(pipe)
        seconds *= sum(weights) / weights[step] * self.num_samples / self.batch_size
        if seconds >= WORTH_A_TRIAL:
            seconds += self.num_samples * self._after(pipe, tensors["latents"][:1])
        columns = tensors["latents"].shape[-1] * pipe.vae_scale_factor * self.strips
        length = columns / pipe.mel_spectrogram.columns_per_second
        say_duration(f"Making {in_numbers(self.num_samples, length)} in {len(weights)} steps", seconds)

    def _after(self, pipe: DiffusionPipeline, latents: torch.Tensor) -> float:
        """Seconds that a sample takes after its steps, tried with the first window of its latents `(1, C, h, w)`."""
        total, pieces = latents.shape[-1], []
        piece = latents[..., : pipe.default_arguments["width"] // pipe.vae_scale_factor]
        seconds = self.num_decoded * seconds_of(lambda: pieces.append(pipe.decode_latents(piece, pipe.vae)))
        strip = pieces[0].float().clamp(0, 1).mean(dim=1, keepdim=True).chunk(self.strips, dim=-2)[0]
        seconds += self.strips * seconds_of(lambda: pipe.play(strip))
        seconds *= total / piece.shape[-1]
        if self.look is None:
            return seconds
        pixels = pieces[0][0].float().clamp(0, 1).mul(255).byte().permute(1, 2, 0).cpu().numpy()
        pixels = np.tile(pixels, (1, -(-total // piece.shape[-1]), 1))[:, : total * pipe.vae_scale_factor]
        length = pixels.shape[1] * self.strips / pipe.mel_spectrogram.columns_per_second
        panel = (PIL.Image.fromarray(pixels), self.strips)
        return seconds + length * seconds_of_video([panel], pipe.sampling_rate, self.look)


class ColorForecast(SecondStep):
    """
    A callback of a colorization's call that says once, after its second step, how long all calls take: by the time of
    that step, and by trials of stage II and of filming.

    Args:
        tries (`list[tuple[PIL.Image.Image, float, int]]`): For each sample its picture, the seconds of its sound, and
            the number of colour pictures to make, at least 1. The first one is made first.
        call (`dict`): Arguments of the calls.
    """

    def __init__(self, tries: list[tuple[PIL.Image.Image, float, int]], call: dict[str, Any]):
        self.tries, self.call = tries, call

    def say(self, seconds: float, pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> None:
        picture, _, number = self.tries[0]
        num_steps, left_out = self.call["num_inference_steps"], self.call["start_diffusion_step"]
        width = min(picture.width, self.call["window_width"])
        rows = tensors["latents"].new_zeros(number, 6, picture.height, width)
        levels = torch.full((number,), self.call["noise_level"], device=rows.device)
        embeds, unet = tensors["prompt_embeds"], pipe.unet_super_resolution
        of_a_window = seconds_of(lambda: pipe.predict_noise(unet, rows, timestep, embeds, levels, None))
        of_a_call = (num_steps - left_out) * seconds + num_steps * self._num_windows(picture) * of_a_window
        works = [self._num_windows(picture) * number for picture, _, number in self.tries]
        seconds = of_a_call * sum(works) / works[0]
        if seconds >= WORTH_A_TRIAL:
            length = sum(length * number for _, length, number in self.tries)
            seconds += length * seconds_of_video([(picture, 1), (picture, 1)], 16000, STRIP)
        total = sum(number for _, _, number in self.tries)
        say_duration(f"Making {total} colour picture{'s' * (total > 1)} in {num_steps} steps of each stage", seconds)

    def _num_windows(self, picture: PIL.Image.Image) -> int:
        """Windows of a picture. One that loops has a little more."""
        width, stride = self.call["window_width"], self.call["window_stride"]
        windows = resolve_windows(picture.width, width, stride, UPSCALING, circular=self.call["circular"])
        return 1 if windows is None else len(windows.starts)


def seconds_of_video(panels: list[Panel], sampling_rate: int, look: Look) -> float:
    """Seconds that it takes to make one second of a video, tried with half of one."""
    sound = np.zeros(round(TRIAL * sampling_rate), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "trial")
        return seconds_of(lambda: write_videos(film, panels, sound, sampling_rate, ["a", "b"], look=look)) / TRIAL


def steps_of_both_sides(arguments: dict[str, Any]) -> Callable[[DiffusionPipeline], list[int]]:
    """How many sides act at each step of a call by such arguments, of which one may begin later than the other."""

    def steps_of(pipe: DiffusionPipeline) -> list[int]:
        given = arguments.get("timesteps") or arguments.get("sigmas")
        number, taken = len(given) if given else arguments["num_inference_steps"], pipe.num_timesteps
        if arguments["audio_weight"] in (0, 1) or taken > number:
            return [1] * taken
        edges = [[arguments[f"{side}_guidance_{end}"] for end in ("start", "end")] for side in ("image", "audio")]
        acting = [
            sum(round(start * number) <= step < round(end * number) for start, end in edges) for step in range(number)
        ]
        # A call that begins with a picture or a sound takes the last steps only.
        return [max(each, 1) for each in acting[-taken:]]

    return steps_of
