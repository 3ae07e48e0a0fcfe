"""Checks of call arguments that several pipelines make, with messages that say what is allowed."""

import reprlib
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor


# What no honest call asks for is refused before memory is taken for it.
MOST_COLUMNS = 2**18
MOST_SAMPLES = 1024
LARGEST_NUMBER = 1e6

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def shown(value: Any) -> str:
    """A value as a message shows it, shortened where it is long."""
    return _SHORT.repr(value)


def check_integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    right_kind = isinstance(value, int) and not isinstance(value, bool)
    if not right_kind or value < least or (most is not None and value > most):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        kind = "a positive integer" if (least, most) == (1, None) else f"an integer {bounds}"
        raise ValueError(f"`{name}` has to be {kind}, but is {shown(value)}.")
    return value


def check_multiple(name: str, value: Any, unit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_COLUMNS or value % unit:
        raise ValueError(
            f"`{name}` has to be a positive multiple of {unit} up to {MOST_COLUMNS}, but is {shown(value)}."
        )
    return value


def check_number(name: str, value: Any, least: float = -LARGEST_NUMBER, most: float = LARGEST_NUMBER) -> float:
    right_kind = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right_kind or not abs(value) < float("inf"):
        raise ValueError(f"`{name}` has to be a finite number, but is {shown(value)}.")
    if not least <= value <= most:
        raise ValueError(f"`{name}` has to be in {least:g}..{most:g}, but is {shown(value)}.")
    return value


def check_flags(**flags: Any) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` has to be `True` or `False`, but is {shown(value)}.")


def check_tensor(name: str, value: Any, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Raises `ValueError` unless `value` is a floating-point tensor of a shape, whose letters are any lengths."""
    is_tensor = isinstance(value, torch.Tensor)
    dense = is_tensor and value.is_floating_point() and value.layout == torch.strided and not value.is_meta
    sizes = tuple(value.shape) if is_tensor else ()
    fits = len(sizes) == len(shape) and all(
        size == wanted or (size > 0 and isinstance(wanted, str)) for size, wanted in zip(sizes, shape)
    )
    if not dense or not fits:
        found = f"{value.dtype} of shape {sizes} on {value.device}" if is_tensor else shown(value)
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"`{name}` has to be a floating-point tensor of shape ({wanted}), but is {found}.")
    return value


def check_generator(generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> None:
    generators = generator if isinstance(generator, list) else [generator]
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(
            f"`generator` has to be one generator or a list of {batch_size}, one per image, but has {len(generator)}."
        )
    if generator is not None and not all(isinstance(each, torch.Generator) for each in generators):
        raise ValueError(f"`generator` has to be a `torch.Generator` or a list of them, but is {shown(generator)}.")


def check_output_type(output_type: Any, allowed: tuple[str, ...] = ("pil", "np", "pt", "latent")) -> None:
    if not isinstance(output_type, str) or output_type not in allowed:
        names = ", ".join(map(repr, allowed[:-1]))
        raise ValueError(f"`output_type` has to be {names} or {allowed[-1]!r}, but is {shown(output_type)}.")


def callback_inputs(pipe: DiffusionPipeline, callback: Callable | None, tensor_inputs: list[str]) -> list[str]:
    """What a callback wants to get: what diffusers' own say themselves, else the call's argument."""
    if callback is not None and not callable(callback):
        raise ValueError(f"`callback_on_step_end` has to be callable, but is {shown(callback)}.")
    if isinstance(callback, (PipelineCallback, MultiPipelineCallbacks)):
        tensor_inputs = callback.tensor_inputs
    names = pipe._callback_tensor_inputs
    if not isinstance(tensor_inputs, (list, tuple)) or not all(each in names for each in tensor_inputs):
        raise ValueError(
            f"`callback_on_step_end_tensor_inputs` has to be a list of names among {names}, but is"
            f" {shown(tensor_inputs)}."
        )
    return list(tensor_inputs)


def tensors_returned(returned: Any, known: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    """What of the `known` tensors a callback replaces, which may have other numbers of rows."""
    if not isinstance(returned, (dict, type(None))):
        raise ValueError(f"`callback_on_step_end` has to return a dict or `None`, but returned {shown(returned)}.")
    replaced = {name: value for name, value in (returned or {}).items() if name in known}
    for name, value in replaced.items():
        if known[name] is not None:
            shape = ("B", *known[name].shape[1:])
            replaced[name] = check_tensor(f"{name}` of `callback_on_step_end", value, shape).to(known[name])
    return replaced


def read_pictures(processor: VaeImageProcessor, image: PipelineImageInput, name: str = "image") -> torch.Tensor:
    """Pictures of an argument as `(B, C, H, W)` in 0..1, for `C` 1 or 3."""
    try:
        images = processor.preprocess(image).float()
    except Exception as error:  # of what is no picture the processor can say anything
        raise ValueError(
            f"`{name}` has to be a picture, an array, a tensor or a list of them, but is {shown(image)}: {error}"
        ) from error
    check_tensor(name, images, ("B", images.shape[1] if images.shape[1:2] in ((1,), (3,)) else "1 or 3", "H", "W"))
    if not (0 <= images.amin() and images.amax() <= 1):
        raise ValueError(f"`{name}` has to be in 0..1, but reaches {images.amin():.3g} to {images.amax():.3g}.")
    return images


def check_not_offloaded(pipe: DiffusionPipeline, method: str) -> None:
    """Raises `ValueError` where models that `method` loads would miss the hooks that the others have."""
    if getattr(pipe, "_all_hooks", None) or pipe._maybe_raise_error_if_group_offload_active():
        raise ValueError(f"`{method}` has to be called before offloading is enabled.")
