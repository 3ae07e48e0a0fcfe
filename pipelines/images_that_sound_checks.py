"""Checks of call arguments. Each error names the argument, its value and what is allowed."""

import reprlib
from collections.abc import Callable
from logging import Logger
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import logging


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def get_logger(name: str) -> Logger:
    """A logger that heeds the verbosity of diffusers, `diffusers.logging.set_verbosity_error()` and its like."""
    logger = logging.get_logger(name)
    logger.addFilter(lambda record: record.levelno >= logging.get_verbosity())
    return logger


def shown(value: Any) -> str:
    """Text of a value for a message, shortened if it is long."""
    return _SHORT.repr(value)


def plain_number(value: Any) -> Any:
    """Python's number for a number of NumPy or torch; any other value as it is."""
    return value.item() if isinstance(value, (np.generic, torch.Tensor)) and value.ndim == 0 else value


def check_integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An integer of Python's for one of Python, NumPy or torch; `ValueError` if it is out of its range."""
    number = plain_number(value)
    if not isinstance(number, Integral) or number < least or (most is not None and number > most):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        kind = "a positive integer" if (least, most) == (1, None) else f"an integer {bounds}"
        raise ValueError(f"`{name}` has to be {kind}, but is {shown(value)}.")
    return number


def check_number(name: str, value: Any, least: float = -float("inf"), most: float = float("inf")) -> float:
    """A finite number of Python's for one of Python, NumPy or torch; `ValueError` if it is out of its range."""
    number = plain_number(value)
    if not isinstance(number, Real) or not abs(number) < float("inf"):
        raise ValueError(f"`{name}` has to be a finite number, but is {shown(value)}.")
    if not least <= number <= most:
        raise ValueError(f"`{name}` has to be in {least:g}..{most:g}, but is {shown(value)}.")
    return number


def check_tensor(name: str, value: Any, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Raises `ValueError` unless `value` is a floating-point tensor of a shape, whose letters are any lengths."""
    is_tensor = isinstance(value, torch.Tensor)
    sizes = tuple(value.shape) if is_tensor else ()
    fits = len(sizes) == len(shape) and all(
        size == wanted or (size > 0 and isinstance(wanted, str)) for size, wanted in zip(sizes, shape)
    )
    if not is_tensor or not value.is_floating_point() or not fits:
        found = f"{value.dtype} of shape {sizes}" if is_tensor else shown(value)
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"`{name}` has to be a floating-point tensor of shape ({wanted}), but is {found}.")
    return value


def check_generator(generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> None:
    """Raises `ValueError` unless it is a generator or a list of one for each row of the batch."""
    generators = generator if isinstance(generator, list) else [generator]
    if generator is not None and not all(isinstance(each, torch.Generator) for each in generators):
        raise ValueError(f"`generator` has to be a `torch.Generator` or a list of them, but is {shown(generator)}.")
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(
            f"`generator` has to be one generator or a list of {batch_size}, one per image, but has {len(generator)}."
        )


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises `ValueError` unless `value` is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(map(repr, allowed[:-1]))
        raise ValueError(f"`{name}` has to be {names} or {allowed[-1]!r}, but is {shown(value)}.")


def check_output_type(output_type: Any, allowed: tuple[str, ...] = ("pil", "np", "pt", "latent")) -> None:
    """Raises `ValueError` for an unknown `output_type`."""
    check_choice("output_type", output_type, allowed)


def callback_inputs(pipe: DiffusionPipeline, callback: Callable | None, tensor_inputs: list[str]) -> list[str]:
    """Names of the tensors for a callback: those that a callback of diffusers names, else the argument."""
    if isinstance(callback, (PipelineCallback, MultiPipelineCallbacks)):
        tensor_inputs = callback.tensor_inputs
    names = pipe._callback_tensor_inputs
    if not all(each in names for each in tensor_inputs):
        raise ValueError(
            f"`callback_on_step_end_tensor_inputs` has to be a list of names among {names}, but is"
            f" {shown(tensor_inputs)}."
        )
    return list(tensor_inputs)


def tensors_returned(returned: Any, known: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Tensors among the `known` ones that a callback replaces. Numbers of rows and tokens may change."""
    replaced = {name: value for name, value in dict(returned or {}).items() if known.get(name) is not None}
    for name, value in replaced.items():
        shape = known[name].shape
        wanted = ("B", "L", shape[-1]) if len(shape) == 3 else ("B", *shape[1:])
        replaced[name] = check_tensor(f"{name}` of `callback_on_step_end", value, wanted).to(known[name])
    return replaced
