"""The steps of a denoising run, and what it has to know of the insides of diffusers' schedulers."""

import inspect
from typing import Any, NamedTuple

import torch
from diffusers import SchedulerMixin
from diffusers.utils import BaseOutput

from .images_that_sound_checks import LARGEST_NUMBER, check_integer, shown


# A larger change of the mixture within one step makes the history of a multistep scheduler useless.
MIXTURE_JUMP = 0.1

# Where schedulers keep what they learned at earlier steps.
MEMORIES = ("model_outputs", "ets", "derivatives")


class DenoisingStep(NamedTuple):
    """One call of the scheduler; several complete a step where its order is above one."""

    index: int
    timestep: torch.Tensor
    audio_share: float
    mixture_jumps: bool
    completes_step: bool


def check_own_steps(scheduler: SchedulerMixin, name: str, values: Any) -> int:
    """
    The number of steps of a schedule of one's own, by `"timesteps"` or `"sigmas"`; sets it. Raises `ValueError` for
    one that does not make sense, or that the scheduler does not take.
    """
    integers = name == "timesteps"
    most = scheduler.config.num_train_timesteps - 1 if integers else LARGEST_NUMBER
    right_kinds = isinstance(values, (list, tuple)) and all(
        isinstance(each, int if integers else (int, float)) and not isinstance(each, bool) and 0 <= each <= most
        for each in values
    )
    if not right_kinds or not values or any(before <= after for before, after in zip(values, values[1:])):
        raise ValueError(
            f"`{name}` has to be a list of {'integers' if integers else 'numbers'} in 0..{most:g} that become smaller,"
            f" but is {shown(values)}."
        )
    refused = f"{type(scheduler).__name__} takes no such `{name}`, {shown(values)}"
    if name not in inspect.signature(scheduler.set_timesteps).parameters:
        raise ValueError(f"{refused}; EulerDiscreteScheduler is one that does.")
    try:
        scheduler.set_timesteps(**{name: list(values)})
        num_steps = -(-len(scheduler.timesteps) // scheduler.order)
    except Exception as error:  # of what does not fit its config a scheduler can say anything
        raise ValueError(f"{refused}: {error}") from error
    return check_integer(f"number of steps by `{name}", num_steps)


def set_timesteps(
    scheduler: SchedulerMixin,
    num_inference_steps: int,
    device: torch.device,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
) -> None:
    """Sets a scheduler's timesteps, by `timesteps` or `sigmas` where one of them is given."""
    own = {name: value for name, value in (("timesteps", timesteps), ("sigmas", sigmas)) if value is not None}
    scheduler.set_timesteps(**(own or {"num_inference_steps": num_inference_steps}), device=device)


def denoising_steps(
    scheduler: SchedulerMixin,
    audio_shares: list[float],
    first_step: int,
    last_step: int,
    device: torch.device,
    **own: list | None,
) -> list[DenoisingStep]:
    """
    Sets a scheduler's timesteps and lists what is to be done.

    Args:
        scheduler ([`SchedulerMixin`]): Any whose `step` takes a noise prediction.
        audio_shares (`list[float]`): The audio side's share of the noise in 0..1, one for each step of the whole run.
        first_step (`int`): The step to begin with; above 0 a multistep scheduler starts anew there.
        last_step (`int`): The step to end before.
        device (`torch.device`): Where the timesteps go.
        own: `timesteps` or `sigmas` of one's own, as many as there are steps.

    Raises:
        ValueError: If there are so many that the scheduler knows no noise level for one, as DDIM with an offset does.
    """
    num_inference_steps, order = len(audio_shares), scheduler.order
    set_timesteps(scheduler, num_inference_steps, device, **own)
    timesteps = scheduler.timesteps
    if timesteps.max() >= scheduler.config.num_train_timesteps:
        raise ValueError(
            f"`num_inference_steps` has to keep {type(scheduler).__name__} below the timestep"
            f" {scheduler.config.num_train_timesteps}, but {num_inference_steps} begin at {timesteps.max():g}."
        )
    num_warmup_steps = max(len(timesteps) - num_inference_steps * order, 0)
    begin = first_step * order + num_warmup_steps if first_step else 0
    end = last_step * order + num_warmup_steps if last_step < num_inference_steps else len(timesteps)
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    shares = [audio_shares[max(i - num_warmup_steps, 0) // order] for i in range(end)]
    return [
        DenoisingStep(
            index=i,
            timestep=timesteps[i],
            audio_share=shares[i],
            mixture_jumps=i > begin and abs(shares[i] - shares[i - 1]) > MIXTURE_JUMP,
            completes_step=i == len(timesteps) - 1 or (i + 1 > num_warmup_steps and (i + 1) % order == 0),
        )
        for i in range(begin, end)
    ]


def original_sample(
    scheduler: SchedulerMixin,
    output: BaseOutput,
    noise_pred: torch.Tensor,
    step: DenoisingStep,
    noisy: torch.Tensor,
) -> torch.Tensor:
    """
    The latents without noise that a step expects: what the scheduler says, and else what the noise predicted in them
    leaves. What LCM and TCD return beside the next latents is something else.

    Args:
        scheduler ([`SchedulerMixin`]): One of those with steps from noise to data, not flow matching.
        output ([`~diffusers.utils.BaseOutput`]): Of its step.
        noise_pred (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): What the step was given.
        step ([`DenoisingStep`]): Which it was.
        noisy (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Latents before it, of unit variance.

    Returns:
        `torch.Tensor` of shape `(B, C, H / 8, W / 8)`.
    """
    clean = getattr(output, "pred_original_sample", None)
    if clean is not None:
        return clean
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[step.index])
    else:
        signal = float(scheduler.alphas_cumprod[int(step.timestep)])
        sigma = ((1 - signal) / signal) ** 0.5
    return (1 + sigma**2) ** 0.5 * noisy - sigma * noise_pred


def memories_of(scheduler: SchedulerMixin) -> list[str]:
    """Names of what a scheduler carries from step to step besides the latents; empty for those that carry nothing."""
    return [name for name in MEMORIES if name in vars(scheduler)]


def forget_history(
    scheduler: SchedulerMixin, index: int, noise_pred: torch.Tensor, num_inference_steps: int, **own: list | None
) -> None:
    """Makes a multistep scheduler go on from `index` as from a start: its history belongs to another mixture."""
    if hasattr(scheduler, "ets") and hasattr(scheduler, "counter"):
        scheduler.ets = [noise_pred] * 3
    elif hasattr(scheduler, "derivatives"):
        scheduler.derivatives = [noise_pred] * 3
    elif hasattr(scheduler, "set_begin_index"):
        set_timesteps(scheduler, num_inference_steps, noise_pred.device, **own)
        scheduler.set_begin_index(index)
