"""Checks of call arguments that several pipelines make, with messages that say what is allowed."""

from typing import Any

import torch
from diffusers import DiffusionPipeline


def is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    right_kind = isinstance(value, int) and not isinstance(value, bool)
    if not right_kind or value < least or (most is not None and value > most):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        kind = "a positive integer" if (least, most) == (1, None) else f"an integer {bounds}"
        raise ValueError(f"`{name}` has to be {kind}, but is {value!r}.")
    return value


def check_number(name: str, value: Any, least: float = float("-inf"), most: float = float("inf")) -> float:
    right_kind = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right_kind or not abs(value) < float("inf"):
        raise ValueError(f"`{name}` has to be a finite number, but is {value!r}.")
    if not least <= value <= most:
        raise ValueError(f"`{name}` has to be in {least:g}..{most:g}, but is {value}.")
    return value


def check_generator(generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> None:
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(
            f"`generator` has to be one generator or a list of {batch_size}, one per image, but has {len(generator)}."
        )


def check_output_type(output_type: Any, allowed: tuple[str, ...] = ("pil", "np", "pt", "latent")) -> None:
    if output_type not in allowed:
        names = ", ".join(map(repr, allowed[:-1]))
        raise ValueError(f"`output_type` has to be {names} or {allowed[-1]!r}, but is {output_type!r}.")


def check_callback_inputs(pipe: DiffusionPipeline, callback_on_step_end_tensor_inputs: list[str] | None) -> None:
    unknown = set(callback_on_step_end_tensor_inputs or []) - set(pipe._callback_tensor_inputs)
    if unknown:
        raise ValueError(
            f"`callback_on_step_end_tensor_inputs` has to be among {pipe._callback_tensor_inputs}, but names"
            f" {sorted(unknown)}."
        )


def check_not_offloaded(pipe: DiffusionPipeline, method: str) -> None:
    """Raises `ValueError` where models that `method` loads would miss the hooks that the others have."""
    if getattr(pipe, "_all_hooks", None) or pipe._maybe_raise_error_if_group_offload_active():
        raise ValueError(f"`{method}` has to be called before offloading is enabled.")
