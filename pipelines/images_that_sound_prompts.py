"""What one side of a call is asked for, in words or as embeddings: checked, tokenized, brought to a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import logging
from transformers import BatchEncoding, PreTrainedTokenizerBase

from .images_that_sound_checks import MOST_SAMPLES, check_integer, check_tensor, shown


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Prompts:
    """
    The arguments of a call that say what one side is to show or to sound like: `name`, `negative_{name}`,
    `{name}_embeds` and `negative_{name}_embeds`, the latter two `torch.Tensor` of shape `(B, L, D)`; and how many of
    the text encoder's last layers are left out where it reads the prompt.
    """

    name: str
    prompt: str | list[str] | None = None
    negative_prompt: str | list[str] | None = None
    prompt_embeds: torch.Tensor | None = None
    negative_prompt_embeds: torch.Tensor | None = None
    clip_skip: int | None = None

    @property
    def are_given(self) -> bool:
        values = (self.prompt, self.negative_prompt, self.prompt_embeds, self.negative_prompt_embeds)
        return any(value is not None for value in values)

    def check(self, text_encoder: torch.nn.Module | None, guided: bool, hidden_size: int | str = "D") -> int:
        """
        Raises `ValueError` unless they fit together, can be encoded, and embeddings have the size of the UNet's;
        returns the number of prompts.
        """
        count = self._check_prompt(hidden_size)
        self._check_negative_prompt(count, hidden_size)
        needed = {f"{self.name}_embeds": self.prompt_embeds}
        if guided:
            needed[f"negative_{self.name}_embeds"] = self.negative_prompt_embeds
        if text_encoder is None and any(value is None for value in needed.values()):
            raise ValueError(f"Without `text_encoder`, {' and '.join(f'`{n}`' for n in needed)} have to be given.")
        if self.clip_skip is not None:
            most = None if text_encoder is None else text_encoder.config.num_hidden_layers
            check_integer(self.name.replace("prompt", "clip_skip"), self.clip_skip, least=0, most=most)
        return count

    def _check_prompt(self, hidden_size: int | str) -> int:
        if (self.prompt is None) == (self.prompt_embeds is None):
            raise ValueError(
                f"Exactly one of `{self.name}` and `{self.name}_embeds` has to be given, but"
                f" {'neither is' if self.prompt is None else 'both are'}."
            )
        if self.prompt_embeds is not None:
            check_tensor(f"{self.name}_embeds", self.prompt_embeds, ("B", "L", hidden_size))
            return len(self.prompt_embeds)
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not are_words(prompts) or not prompts:
            raise ValueError(f"`{self.name}` has to be a string or a list of strings, but is {shown(self.prompt)}.")
        if not all(each.strip() for each in prompts):
            raise ValueError(f"`{self.name}` may not be empty, but is {shown(self.prompt)}.")
        return len(prompts)

    def _check_negative_prompt(self, count: int, hidden_size: int | str) -> None:
        words, embeds, name = self.negative_prompt, self.negative_prompt_embeds, f"negative_{self.name}"
        if words is not None and embeds is not None:
            raise ValueError(f"Only one of `{name}` and `{name}_embeds` can be given, but both are.")
        words = [words] * count if isinstance(words, str) else words
        if words is not None and not (are_words(words) and len(words) == count):
            raise ValueError(f"`{name}` has to be a string or a list of {count} strings, but is {shown(words)}.")
        if embeds is None:
            return
        check_tensor(f"{name}_embeds", embeds, ("B", "L", hidden_size))
        if self.prompt_embeds is not None and embeds.shape != self.prompt_embeds.shape:
            raise ValueError(
                f"`{name}_embeds` has to be of the prompt's shape {tuple(self.prompt_embeds.shape)}, but is of shape"
                f" {tuple(embeds.shape)}."
            )
        if len(embeds) != count:
            raise ValueError(f"`{name}_embeds` has to hold {count} rows, one per prompt, but holds {len(embeds)}.")

    def encode(
        self,
        encode_words: Callable[..., torch.Tensor],
        guided: bool,
        num_images_per_prompt: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Embeddings and negative ones, each of shape `(B * num_images_per_prompt, L, D)`; the latter are `None` where
        no guidance needs them. `encode_words` makes embeddings of a list of words, and takes `clip_skip` where that is
        given.
        """
        embeds, negative_embeds = self.prompt_embeds, self.negative_prompt_embeds if guided else None
        if embeds is None:
            # As in diffusers, the negative prompt is read by all layers.
            skip = {} if self.clip_skip is None else {"clip_skip": self.clip_skip}
            embeds = encode_words([self.prompt] if isinstance(self.prompt, str) else list(self.prompt), **skip)
        if guided and negative_embeds is None:
            words = self.negative_prompt or ""
            negative_embeds = encode_words([words] * len(embeds) if isinstance(words, str) else list(words))
        if guided and negative_embeds.shape != embeds.shape:
            raise ValueError(
                f"`{self.name}` and its negative have to be embedded alike, but their embeddings are of shapes"
                f" {tuple(embeds.shape)} and {tuple(negative_embeds.shape)}."
            )
        embeds, negative_embeds = (
            None if each is None else each.to(device, dtype).repeat_interleave(num_images_per_prompt, dim=0)
            for each in (embeds, negative_embeds)
        )
        return embeds, negative_embeds


def are_words(value: Any) -> bool:
    # No tokenizer reads half of a surrogate pair.
    return isinstance(value, list) and all(
        isinstance(each, str) and each == each.encode("utf-8", "replace").decode() for each in value
    )


def common_batch_size(counts: dict[str, int], num_images_per_prompt: int) -> int:
    """The number of rows where each argument, by its name, gives as many or one for all; else `ValueError`."""
    most = max(counts.values())
    if set(counts.values()) - {1, most} or most > MOST_SAMPLES:
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in counts)} have to be equally many, or one for all, and at most"
            f" {MOST_SAMPLES}, but there are {' and '.join(map(str, counts.values()))}."
        )
    return most * check_integer("num_images_per_prompt", num_images_per_prompt, most=MOST_SAMPLES // most)


def expand_rows(rows: torch.Tensor | None, batch_size: int) -> torch.Tensor | None:
    """Each of `(n, ...)` rows so often that there are `batch_size` of them; `n` divides it."""
    return None if rows is None else rows.repeat_interleave(batch_size // len(rows), dim=0)


def tokenize(tokenizer: PreTrainedTokenizerBase, prompts: list[str], max_length: int | None = None) -> BatchEncoding:
    """Tokens `(B, L)` of prompts; what is longer than `max_length`, else than the tokenizer has, is cut and named."""
    max_length = max_length or tokenizer.model_max_length
    for prompt in prompts:
        ids = tokenizer(prompt).input_ids
        if len(ids) > max_length:
            removed = tokenizer.decode(ids[max_length - 1 : -1])
            logger.warning(f"A prompt is cut to {max_length} tokens, which leaves out: {removed[:1000]}")
    return tokenizer(prompts, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
