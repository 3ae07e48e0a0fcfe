"""Timesteps of score distillation, and their weights."""

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config

from ..pipelines.images_that_sound_score_distillation import (
    draw_timesteps,
    score_distillation_weights,
)


class ScoreDistillationScheduler(SchedulerMixin, ConfigMixin):
    """
    Draws timesteps uniformly between two bounds. Give it to
    [`~images_that_sound.pipelines.ImagesThatSoundSDSPipeline.__call__`] as `timestep_scheduler`.

    With `final_max_timestep` the upper bound falls during the run, so that the canvas gets its composition before its
    details (as in DreamTime, arXiv 2306.12422).

    Args:
        min_timestep (`float`, defaults to 0.02): Lower bound, as a fraction of the prior's timesteps.
        max_timestep (`float`, defaults to 0.98): Upper bound, as a fraction of them.
        final_max_timestep (`float`, *optional*): Value to which `max_timestep` falls linearly.

    Raises:
        ValueError: If a bound is not a number in 0..1, 1 excluded, or an upper one is below the lower one.
    """

    @register_to_config
    def __init__(
        self, min_timestep: float = 0.02, max_timestep: float = 0.98, final_max_timestep: float | None = None
    ):
        bounds = {"min_timestep": min_timestep, "max_timestep": max_timestep, "final_max_timestep": final_max_timestep}
        if final_max_timestep is None:
            del bounds["final_max_timestep"]
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ValueError(f"`{name}` has to be a number from 0 to below 1, but is {value!r}.")
            if value < min_timestep:
                raise ValueError(f"`{name}` has to be at least `min_timestep`, {min_timestep}, but is {value}.")

    def draw(
        self,
        count: int,
        iteration: int,
        num_iterations: int,
        alphas_cumprod: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Timesteps `(count,)` for an iteration and their weights `(count,)`, one minus alpha-bar.

        Args:
            count (`int`): Number of timesteps.
            iteration (`int`): From 0 to `num_iterations - 1`.
            num_iterations (`int`): Iterations of the whole run.
            alphas_cumprod (`torch.Tensor` of shape `(T,)`): The prior's noise schedule.
            generator (`torch.Generator`, *optional*): Source of randomness, on the CPU.
        """
        highest = self.config.max_timestep
        if self.config.final_max_timestep is not None:
            highest += (self.config.final_max_timestep - highest) * iteration / max(num_iterations - 1, 1)
        timesteps = draw_timesteps(count, len(alphas_cumprod), generator, self.config.min_timestep, highest)
        return timesteps, score_distillation_weights(timesteps, alphas_cumprod)
