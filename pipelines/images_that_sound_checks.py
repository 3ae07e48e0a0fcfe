"""Checks of call arguments that several pipelines make, with messages that say what is allowed."""

from typing import Any

import torch


def is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_scale(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise ValueError(f"`{name}` has to be a finite number, but is {value!r}.")
    return value


def check_prompt(name: str, prompt: Any, embeds: torch.Tensor | None) -> int:
    if (prompt is None) == (embeds is None):
        raise ValueError(
            f"Exactly one of `{name}` and `{name}_embeds` has to be given, but"
            f" {'neither is' if prompt is None else 'both are'}."
        )
    if embeds is not None:
        if embeds.dim() != 3:
            raise ValueError(f"`{name}_embeds` has to be of shape (B, L, D), but is of shape {tuple(embeds.shape)}.")
        return len(embeds)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(each, str) for each in prompts):
        raise ValueError(f"`{name}` has to be a string or a list of strings, but is {prompt!r}.")
    if not all(each.strip() for each in prompts):
        raise ValueError(f"`{name}` may not be empty, but is {prompt!r}.")
    return len(prompts)


def check_negative_prompt(
    name: str, value: Any, embeds: torch.Tensor | None, positive: torch.Tensor | None, batch: int
) -> None:
    if value is not None and embeds is not None:
        raise ValueError(f"Only one of `{name}` and `{name}_embeds` can be given, but both are.")
    if value is not None and not isinstance(value, str):
        if not isinstance(value, list) or len(value) != batch or not all(isinstance(each, str) for each in value):
            raise ValueError(f"`{name}` has to be a string or a list of {batch} strings, but is {value!r}.")
    if embeds is not None and positive is not None and embeds.shape != positive.shape:
        raise ValueError(
            f"`{name}_embeds` has to be of the prompt's shape {tuple(positive.shape)}, but is of shape"
            f" {tuple(embeds.shape)}."
        )
    if embeds is not None and len(embeds) != batch:
        raise ValueError(f"`{name}_embeds` has to hold {batch} rows, one per prompt, but holds {len(embeds)}.")


def check_num_images_per_prompt(num_images_per_prompt: Any) -> None:
    if not is_positive_int(num_images_per_prompt):
        raise ValueError(f"`num_images_per_prompt` has to be a positive integer, but is {num_images_per_prompt!r}.")


def check_generator(generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> None:
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(
            f"`generator` has to be one generator or a list of {batch_size}, one per image, but has {len(generator)}."
        )


def check_output_type(output_type: Any) -> None:
    if output_type not in ("pil", "np", "pt", "latent"):
        raise ValueError(f"`output_type` has to be 'pil', 'np', 'pt' or 'latent', but is {output_type!r}.")
