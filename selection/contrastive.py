"""Shared parts of the scores by CLIP and by CLAP."""

from collections.abc import Sequence
from typing import Any

import torch

from ..pipelines.images_that_sound_checks import shown
from ..pipelines.images_that_sound_sides import are_words


class ContrastiveScore:
    """A model of transformers that embeds prompts and something else in one space, and its processor."""

    logit_scale = "logit_scale"

    def __init__(self, model: torch.nn.Module, processor: Any, batch_size: int):
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size

    def to(self, device: str | torch.device) -> "ContrastiveScore":
        """Moves the model."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """Unit vectors `(P, D)` of prompts; longer ones than the model reads are cut."""
        self._check_prompts(prompts)
        tokens = self.processor(text=prompts, return_tensors="pt", padding=True, truncation=True)
        features = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
        return torch.nn.functional.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def compare(
        self, embeddings: torch.Tensor, prompts: list[str], other_prompts: Sequence[str] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Likeness of results to their prompts, and the probability of these prompts among others. The probability is the
        softmax of cosines at the temperature that the model learned; its logarithm is returned.

        Args:
            embeddings (`torch.Tensor` of shape `(B, D)`): Unit vectors of results, or means of several.
            prompts (`list[str]` of length `B`): Intended content of each.
            other_prompts (`Sequence[str]`): Other contents. A result's prompt among them does not count.

        Returns:
            Two `torch.Tensor` of shape `(B,)`: Cosines, at least 0, and log-probabilities, at most 0.

        Raises:
            ValueError: If there are not as many prompts as embeddings.
        """
        self._check_prompts(prompts, len(embeddings), "embedding")
        cosines = embeddings @ self.embed_prompts([*prompts, *other_prompts]).T
        asked, others = cosines.diagonal()[:, None], cosines[:, len(prompts) :]
        same = torch.tensor([[other == prompt for other in other_prompts] for prompt in prompts], dtype=torch.bool)
        others = others.masked_fill(same.to(others.device), -torch.inf)
        logits = getattr(self.model, self.logit_scale).exp() * torch.cat([asked, others], dim=1)
        return asked[:, 0].clamp(min=0).cpu(), logits.log_softmax(dim=1)[:, 0].cpu()

    def _check_prompts(self, prompts: list[str], number: int | None = None, each: str = "") -> None:
        if not are_words(prompts) or not prompts:
            raise ValueError(f"`prompts` has to be a list of strings, but is {shown(prompts)}.")
        if number not in (None, len(prompts)):
            raise ValueError(f"`prompts` has to hold {number}, one per {each}, but holds {len(prompts)}.")
