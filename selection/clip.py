"""Likeness of canvases to prompts, by CLIP."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from ..pipelines.images_that_sound_checks import check_tensor
from .contrastive import ContrastiveScore


# Windows of a canvas that go through the model at once.
MOST_WINDOWS = 64


class CLIPScore(ContrastiveScore):
    """
    The image score of "Images that Sound" (arXiv 2405.12221, section 4.1): the cosine between prompt and gray canvas
    in CLIP's space, averaged over square windows that slide along the canvas.

    Args:
        model ([`~transformers.CLIPModel`]): Embeds pictures and prompts.
        processor ([`~transformers.CLIPProcessor`]): Prepares both for the model.
        batch_size (`int`, defaults to 4): Canvases whose windows go through the model at once.
    """

    def __init__(self, model: CLIPModel, processor: CLIPProcessor, batch_size: int = 4):
        super().__init__(model, processor, batch_size)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike = "openai/clip-vit-base-patch16", **kwargs: Any
    ) -> "CLIPScore":
        """
        Loads model and processor.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Repo or folder, the paper's by default.
            kwargs: `subfolder`, `revision`, `token`, ... as in `CLIPModel.from_pretrained`.
        """
        model = CLIPModel.from_pretrained(pretrained_model_name_or_path, **kwargs)
        kwargs.pop("dtype", None)
        # Pillow resizes even if torchvision is installed, which resizes differently: scores are equal on all machines.
        image_processor = CLIPImageProcessorPil.from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer = CLIPTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return cls(model, CLIPProcessor(image_processor, tokenizer))

    @torch.no_grad()
    def embed_canvases(self, canvases: torch.Tensor) -> torch.Tensor:
        """
        Unit vectors of each window of canvases.

        Args:
            canvases (`torch.Tensor` of shape `(B, C, H, W)`): Pictures in 0..1, whose channels are averaged.

        Returns:
            `torch.Tensor` of shape `(B, K, D)`, for `K` windows.
        """
        embeddings = []
        for batch in canvases.split(self.batch_size):
            # A long canvas has more windows than go through at once.
            parts = canvas_windows(batch).split(MOST_WINDOWS, dim=1)
            embeddings.append(torch.cat([self._embed_windows(windows) for windows in parts], dim=1))
        return torch.cat(embeddings)

    def _embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Unit vectors `(B, K, D)` of gray pictures `(B, K, 1, H, W)` in 0..1."""
        # The reference truncates to bytes, and so does this.
        pixels = (windows.flatten(0, 1) * 255).to(torch.uint8).expand(-1, 3, -1, -1)
        inputs = self.processor(
            images=list(pixels.cpu().numpy()), return_tensors="pt", input_data_format="channels_first"
        )
        features = self.model.get_image_features(**inputs.to(self.model.device)).pooler_output
        return torch.nn.functional.normalize(features.float(), dim=-1).unflatten(0, windows.shape[:2])

    def __call__(self, canvases: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """
        Scores canvases.

        Args:
            canvases (`torch.Tensor` of shape `(B, C, H, W)`): Pictures in 0..1, whose channels are averaged.
            prompts (`list[str]` of length `B`): Intended picture of each.

        Returns:
            `torch.Tensor` of shape `(B,)`: Mean cosines, at least 0; `nan` for a canvas that is not finite.

        Raises:
            ValueError: If there are not as many prompts as canvases.
        """
        return self.with_log_probabilities(canvases, prompts)[0]

    def with_log_probabilities(
        self, canvases: torch.Tensor, prompts: list[str], other_prompts: Sequence[str] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Scores canvases, and gives the probability of each canvas's prompt among others.

        Args:
            canvases (`torch.Tensor` of shape `(B, C, H, W)`): Pictures in 0..1, whose channels are averaged.
            prompts (`list[str]` of length `B`): Intended picture of each.
            other_prompts (`Sequence[str]`): Prompts of other pictures.

        Returns:
            Two `torch.Tensor` of shape `(B,)`: Scores as by a call, and log-probabilities as by `compare`. Both are
            `nan` for a canvas that is not finite.
        """
        check_tensor("canvases", canvases, ("B", "C", "H", "W"))
        self._check_prompts(prompts, len(canvases), "canvas")
        finite = canvases.isfinite().flatten(1).all(dim=1).cpu()
        embeddings = self.embed_canvases(canvases.nan_to_num()).mean(dim=1)
        found = self.compare(embeddings, prompts, other_prompts)
        return tuple(values.masked_fill(~finite, float("nan")) for values in found)


def canvas_windows(canvases: torch.Tensor) -> torch.Tensor:
    """
    Square windows that slide along wide canvases by an eighth of their height; canvases that are not wide stay whole.

    Args:
        canvases (`torch.Tensor` of shape `(B, C, H, W)`): Pictures, whose channels are averaged.

    Returns:
        `torch.Tensor` of shape `(B, K, 1, H, H)`, or `(B, 1, 1, H, W)` if `W <= H`.
    """
    gray = canvases.float().mean(dim=1, keepdim=True)
    height, width = gray.shape[-2:]
    if width <= height:
        return gray[:, None]
    return gray.unfold(3, height, max(height // 8, 1)).permute(0, 3, 1, 2, 4)
