"""
The method ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 3.2): two models predict the noise of one
canvas, the predictions are averaged, and the scheduler takes one step.

Letters: `B` samples, `C` channels, `H` and `W` pixels of the picture, `h` and `w` rows and columns of its latents.
"""

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, SchedulerMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps
from diffusers.utils import BaseOutput

from .images_that_sound_canvas import Canvas, Windows
from .images_that_sound_checks import check_integer, plain_number, shown
from .images_that_sound_sides import Guided, convert_prediction, prediction_type_of


# A larger change of the mixture between two steps makes the history of a multistep scheduler useless.
MIXTURE_JUMP = 0.1

# Attributes in which schedulers keep earlier steps.
MEMORIES = ("model_outputs", "ets", "derivatives")


class DenoisingStep(NamedTuple):
    """
    One call of the scheduler. A scheduler of a higher order needs several of them for one step.

    Args:
        index (`int`): Place among the scheduler's timesteps.
        timestep (`torch.Tensor` of shape `()`): Noise level, as the scheduler counts it.
        audio_share (`float` or `torch.Tensor` of shape `(w,)`): Weight of the audio side's noise, 0 to 1, for all
            columns or for each. The image side's is one minus it.
        span (`tuple[float, float]`): Fractions of the run, 0 to 1, between which this step lies.
        forgets (`bool`): Whether the scheduler has to forget the steps before.
        completes_step (`bool`): Whether it is the last call of a step.
    """

    index: int
    timestep: torch.Tensor
    audio_share: float | torch.Tensor = 0.5
    span: tuple[float, float] = (0.0, 1.0)
    forgets: bool = False
    completes_step: bool = True


# noise = (1 - audio_share) * noise_image(latents) + audio_share * noise_audio(latents)     (section 3.2)
def average_noise(
    image: Guided, audio: Guided, latents: torch.Tensor, step: DenoisingStep, canvas: Canvas
) -> torch.Tensor:
    """
    Weighted average of both sides' noise predictions. A side whose share is 0 is not run.

    Args:
        image ([`Guided`]): Image side.
        audio ([`Guided`]): Audio side, which sees the canvas as the strip that is played.
        latents (`torch.Tensor` of shape `(B, C, h, w)`): Noisy latents, scaled by `scheduler.scale_model_input`.
        step ([`DenoisingStep`]): Timestep and share.
        canvas ([`Canvas`]): Size of the picture and how it is played.

    Returns:
        `torch.Tensor` of shape `(B, C, h, w)`: Noise.
    """
    least, most = bounds(step.audio_share)
    if most == 0:
        return _noise(image, latents, step, canvas.windows)  # (B, C, h, w)
    strip = canvas.unfold(latents)  # (B, C, h, w), folded (B, C, h / 2, 2 * w)
    if least == 1:
        return canvas.fold(_noise(audio, strip, step, canvas.audio_windows))  # (B, C, h, w)
    image_noise = _noise(image, latents, step, canvas.windows)  # (B, C, h, w)
    audio_noise = canvas.fold(_noise(audio, strip, step, canvas.audio_windows))  # (B, C, h, w)
    # A number, or (w,) if it changes over time.
    share = step.audio_share if least == most else step.audio_share.to(latents.dtype).to(latents.device)
    return (1 - share) * image_noise + share * audio_noise


def _noise(side: Guided, latents: torch.Tensor, step: DenoisingStep, windows: Windows | None) -> torch.Tensor:
    """Noise of one side, which sees a wide canvas in windows."""
    if windows is None:
        return side.predict_noise(latents, step.timestep, step.span)
    return windows.merge(
        latents,
        lambda pieces, places: side.at(windows, places).predict_noise(pieces, step.timestep, step.span),
    )


def denoise(
    scheduler: SchedulerMixin,
    image: Guided,
    audio: Guided,
    latents: torch.Tensor,
    steps: Iterable[DenoisingStep],
    canvas: Canvas,
    on_step_end: Callable | None = None,
    **step_kwargs: Any,
) -> torch.Tensor:
    """
    Takes all steps.

    Args:
        scheduler ([`~diffusers.SchedulerMixin`]): One whose `step` takes a noise prediction, set to `steps`.
        image, audio ([`Guided`]): Both sides.
        latents (`torch.Tensor` of shape `(B, C, h, w)`): Noisy latents at the scale of the scheduler.
        steps (`Iterable[DenoisingStep]`): From `denoising_steps`.
        canvas ([`Canvas`]): Size of the picture and how it is played.
        on_step_end (`Callable`, *optional*): Called after each step with the step, the new latents, both sides and a
            function that returns the expected noiseless latents. Returns the latents and sides to go on with.
        step_kwargs: Passed to `scheduler.step`.

    Returns:
        `torch.Tensor` of shape `(B, C, h, w)`: Latents after the last step.
    """
    fresh = {name: copy.copy(value) for name, value in vars(scheduler).items()}
    for step in steps:
        scaled = scheduler.scale_model_input(latents, step.timestep)  # (B, C, h, w)
        noise = average_noise(image, audio, scaled, step, canvas)  # (B, C, h, w)
        if step.forgets:
            forget_history(scheduler, fresh, step.index, noise)
        noisy, output = latents, scheduler.step(noise, step.timestep, latents, **step_kwargs)
        latents = output.prev_sample  # (B, C, h, w)
        if on_step_end is not None:
            expected = partial(original_sample, scheduler, output, noise, step, noisy)
            latents, image, audio = on_step_end(step, latents, image, audio, expected)
    return latents


# -------------------- Which side acts at which step --------------------


def audio_noise_shares(
    num_inference_steps: int,
    audio_weight: float | list[float] = 0.5,
    image_guidance_start: float = 0.1,
    image_guidance_end: float = 1.0,
    audio_guidance_start: float = 0.0,
    audio_guidance_end: float = 1.0,
    fade: float = 0.0,
) -> list[float]:
    """
    Weights of the audio side's noise: a step function for each side, divided by their sum
    ([arXiv 2405.12221](https://arxiv.org/abs/2405.12221), section 3.2).

    Args:
        num_inference_steps (`int`): Number of denoising steps.
        audio_weight (`float` or `list[float]`): Weight of the audio side while both act, 0 to 1, one or one per step.
        image_guidance_start, image_guidance_end (`float`): Fractions of the steps, 0 to 1. The image side acts from
            the first to before the second.
        audio_guidance_start, audio_guidance_end (`float`): The same for the audio side.
        fade (`float`): Fraction of the steps, 0 to 1, over which a side that starts late fades in along half a period
            of a cosine.

    Returns:
        `list[float]` of length `num_inference_steps`: Shares, 0 (image side alone) to 1 (audio side alone).

    Raises:
        ValueError: If an argument is out of its range, a start is after its end, or no side acts at a step.
    """
    edges = {
        "image_guidance_start": image_guidance_start,
        "image_guidance_end": image_guidance_end,
        "audio_guidance_start": audio_guidance_start,
        "audio_guidance_end": audio_guidance_end,
    }
    for name, value in {**edges, "fade": fade}.items():
        _check_fraction(name, value)
    for side in ("image", "audio"):
        start, end = edges[f"{side}_guidance_start"], edges[f"{side}_guidance_end"]
        if start > end:
            raise ValueError(
                f"`{side}_guidance_start` has to be at most `{side}_guidance_end`, but is {start} against {end}."
            )
    shares = []
    for step, weight in enumerate(_weight_per_step(audio_weight, num_inference_steps)):
        image = (1 - weight) * _strength(step, num_inference_steps, image_guidance_start, image_guidance_end, fade)
        audio = weight * _strength(step, num_inference_steps, audio_guidance_start, audio_guidance_end, fade)
        if image + audio == 0:
            raise ValueError(
                f"No side acts at step {step} of {num_inference_steps}: `audio_weight` is {weight} there, the image"
                f" side acts from {image_guidance_start} to {image_guidance_end} of the steps, the audio side from"
                f" {audio_guidance_start} to {audio_guidance_end}."
            )
        shares.append(audio / (image + audio))
    return shares


def shares_over_time(starts: list[int], parts: list[list[float]], columns: int) -> list[float | torch.Tensor]:
    """
    Shares of a canvas whose parts differ.

    Args:
        starts (`list[int]`): First column of latents of each part, rising from 0.
        parts (`list[list[float]]`): Shares of each part, from `audio_noise_shares`.
        columns (`int`): `w`, columns of the latents.

    Returns:
        `list[float | torch.Tensor]`: One share for each step, a tensor `(w,)` if parts differ at it.
    """
    lengths = torch.tensor([end - start for start, end in zip(starts, [*starts[1:], columns])])
    shares = [torch.tensor(shares, dtype=torch.float64).repeat_interleave(lengths) for shares in zip(*parts)]
    return [share if share.min() < share.max() else share[0].item() for share in shares]


def bounds(share: float | torch.Tensor) -> tuple[float, float]:
    """Least and greatest weight among a step's columns."""
    return (float(share.min()), float(share.max())) if isinstance(share, torch.Tensor) else (share, share)


def _strength(step: int, num_inference_steps: int, start: float, end: float, fade: float) -> float:
    first, stop = round(start * num_inference_steps), round(end * num_inference_steps)
    if not first <= step < stop:
        return 0.0
    faded_in = step - first + 1
    if first == 0 or faded_in >= fade * num_inference_steps:
        return 1.0
    return 0.5 - 0.5 * math.cos(math.pi * faded_in / (fade * num_inference_steps))


def _weight_per_step(audio_weight: float | list[float], num_inference_steps: int) -> list[float]:
    if not isinstance(audio_weight, (list, tuple)):
        return [_check_fraction("audio_weight", audio_weight)] * num_inference_steps
    if len(audio_weight) != num_inference_steps:
        raise ValueError(
            f"`audio_weight` has to be one number or one for each of the {num_inference_steps} steps, but has"
            f" {len(audio_weight)} entries."
        )
    return [_check_fraction("audio_weight", weight) for weight in audio_weight]


def _check_fraction(name: str, value: float) -> float:
    number = plain_number(value)
    if not isinstance(number, Real) or not 0 <= number <= 1:
        raise ValueError(f"`{name}` has to be a number between 0 and 1, but is {shown(value)}.")
    return number


# -------------------- Steps and schedulers --------------------


def count_custom_steps(scheduler: SchedulerMixin, name: str, values: list) -> int:
    """
    Number of steps of a custom schedule, `"timesteps"` or `"sigmas"`, which is set. Raises `ValueError` unless the
    values fall and the scheduler takes them.
    """
    falling = all(isinstance(each, Real) for each in values) and all(a > b for a, b in zip(values, values[1:]))
    if not values or not falling:
        raise ValueError(f"`{name}` has to be a list of falling numbers, but is {shown(values)}.")
    try:
        timesteps, _ = retrieve_timesteps(scheduler, **{name: list(values)})
    except Exception as error:  # schedulers raise anything for values that they can't take
        raise ValueError(f"{type(scheduler).__name__} takes no such `{name}`, {shown(values)}: {error}") from error
    return check_integer(f"number of steps by `{name}", -(-len(timesteps) // scheduler.order))


def denoising_steps(
    scheduler: SchedulerMixin,
    audio_shares: list[float | torch.Tensor],
    first_step: int = 0,
    last_step: int | None = None,
    device: str | torch.device | None = None,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
) -> list[DenoisingStep]:
    """
    Sets a scheduler's timesteps and lists the calls of the scheduler.

    Args:
        scheduler ([`~diffusers.SchedulerMixin`]): One whose `step` takes a noise prediction.
        audio_shares (`list[float | torch.Tensor]`): Weight of the audio side's noise, 0 to 1, one for each step of the
            whole run.
        first_step (`int`): Step to begin with. If it is above 0, a multistep scheduler starts anew there.
        last_step (`int`, *optional*): Step to end before, the number of steps by default.
        device (`torch.device`, *optional*): Device of the timesteps.
        timesteps (`list[int]`, *optional*): Custom timesteps, as many as there are steps.
        sigmas (`list[float]`, *optional*): Custom noise levels, as many as there are steps.

    Raises:
        ValueError: If the steps begin at a timestep that the scheduler was not trained on, as many steps of DDIM with
            an offset do.
    """
    if type(scheduler).__name__.startswith("FlowMatch") or scheduler.config.get("use_flow_sigmas"):
        raise ValueError(
            f"`scheduler` has to take predictions of noise, but {type(scheduler).__name__} matches a flow."
        )
    num_steps, order = len(audio_shares), scheduler.order
    custom = {name: each for name, each in (("timesteps", timesteps), ("sigmas", sigmas)) if each is not None}
    found, _ = retrieve_timesteps(scheduler, None if custom else num_steps, device, **custom)
    if found.max() >= scheduler.config.num_train_timesteps:
        raise ValueError(
            f"`num_inference_steps` has to keep {type(scheduler).__name__} below the timestep"
            f" {scheduler.config.num_train_timesteps}, but {num_steps} begin at {found.max():g}."
        )
    num_warmup = max(len(found) - num_steps * order, 0)
    begin = first_step * order + num_warmup if first_step else 0
    end = len(found) if last_step in (None, num_steps) else last_step * order + num_warmup
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    shares = [audio_shares[max(i - num_warmup, 0) // order] for i in range(end)]
    return [
        DenoisingStep(
            index=i,
            timestep=found[i],
            audio_share=shares[i],
            span=(i / len(found), (i + 1) / len(found)),
            forgets=(i == begin > 0) or (i > begin and bounds(abs(shares[i] - shares[i - 1]))[1] > MIXTURE_JUMP),
            completes_step=i == len(found) - 1 or (i + 1 > num_warmup and (i + 1) % order == 0),
        )
        for i in range(begin, end)
    ]


def original_sample(
    scheduler: SchedulerMixin, output: BaseOutput, noise: torch.Tensor, step: DenoisingStep, noisy: torch.Tensor
) -> torch.Tensor:
    """
    Noiseless latents that a step expects: the scheduler's own, if it returns them as `pred_original_sample`, else
    computed from the noise.

    Args:
        scheduler ([`~diffusers.SchedulerMixin`]): A scheduler with steps from noise to data, not flow matching.
        output ([`~diffusers.utils.BaseOutput`]): Result of its step.
        noise (`torch.Tensor` of shape `(B, C, h, w)`): Noise prediction that the step was given.
        step ([`DenoisingStep`]): The step.
        noisy (`torch.Tensor` of shape `(B, C, h, w)`): Latents before it.

    Returns:
        `torch.Tensor` of shape `(B, C, h, w)`.
    """
    # LCM and TCD return something else beside the next latents.
    expected = getattr(output, "pred_original_sample", None)
    if expected is not None:
        return expected
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"`pred_original_sample` is not known for steps of {type(scheduler).__name__}.")
    if hasattr(scheduler, "sigmas"):
        signal = 1 / (1 + scheduler.sigmas[step.index].float() ** 2)
    else:
        signal = scheduler.alphas_cumprod[int(step.timestep)]
    return convert_prediction(noise, noisy, signal.to(noisy), prediction_type_of(scheduler), "sample")


def add_noise(
    scheduler: SchedulerMixin, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """
    Noisy samples by the noise levels of a scheduler alone, whose `add_noise` may want timesteps of a run.

    Args:
        scheduler ([`~diffusers.SchedulerMixin`]): Any with the config of a noise schedule.
        clean, noise (`torch.Tensor` of shape `(B, C, H, W)`): Samples and noise.
        timesteps (`torch.Tensor` of shape `(B,)`): Noise levels, int64.

    Returns:
        `torch.Tensor` of shape `(B, C, H, W)`.
    """
    return DDPMScheduler.from_config(scheduler.config).add_noise(clean, noise.to(clean.dtype), timesteps)


def memories_of(scheduler: SchedulerMixin) -> list[str]:
    """Names of the attributes in which a scheduler keeps earlier steps. Empty if the latents are all it needs."""
    return [name for name in MEMORIES if name in vars(scheduler)]


def forget_history(scheduler: SchedulerMixin, fresh: dict[str, Any], index: int, noise: torch.Tensor) -> None:
    """
    Makes a multistep scheduler go on as if it began here, since its history belongs to another mixture.

    Args:
        scheduler ([`~diffusers.SchedulerMixin`]): Any.
        fresh (`dict`): Copies of its attributes before the first step.
        index (`int`): Place among its timesteps.
        noise (`torch.Tensor` of shape `(B, C, h, w)`): Noise prediction for this step.
    """
    if hasattr(scheduler, "ets") and hasattr(scheduler, "counter"):
        # PNDM would take its first two steps in another way.
        scheduler.ets, scheduler.counter = [noise] * 3, max(scheduler.counter, 2)
    elif hasattr(scheduler, "derivatives"):
        scheduler.derivatives = [noise] * 3
    elif hasattr(scheduler, "set_begin_index") and memories_of(scheduler):
        vars(scheduler).update({name: copy.copy(value) for name, value in fresh.items()})
        scheduler.set_begin_index(index)
