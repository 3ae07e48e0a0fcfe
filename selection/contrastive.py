"""What scores by CLIP and by CLAP share."""

from typing import Any

import torch

from ..pipelines.images_that_sound_checks import shown
from ..pipelines.images_that_sound_prompts import are_words


class ContrastiveScore:
    """A model of transformers that embeds prompts and something else in one space, and its processor."""

    def __init__(self, model: torch.nn.Module, processor: Any, batch_size: int):
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size

    def to(self, device: str | torch.device) -> "ContrastiveScore":
        """Moves the model."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """Unit vectors `(P, D)` of prompts; longer ones than the model reads are cut."""
        if not are_words(prompts) or not prompts:
            raise ValueError(f"`prompts` has to be a list of strings, but is {shown(prompts)}.")
        tokens = self.processor(text=prompts, return_tensors="pt", padding=True, truncation=True)
        features = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
        return torch.nn.functional.normalize(features.float(), dim=-1)
