"""One side of images that sound: its models, and how its prompts guide its predictions of noise."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Side:
    """
    What one modality is made of. What the audio side has no own of is the image side's.

    Args:
        unet ([`UNet2DConditionModel`], *optional*): Predicts noise.
        text_encoder ([`~transformers.PreTrainedModel`], *optional*): Encodes prompts.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*): The text encoder's.
        vae ([`AutoencoderKL`], *optional*): Between pictures and latents.
        scheduler ([`SchedulerMixin`], *optional*): The noise schedule.
        guidance_scale (`float`): Classifier-free guidance; off at 1 and below.
    """

    unet: UNet2DConditionModel | None
    text_encoder: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    vae: AutoencoderKL | None
    scheduler: SchedulerMixin | None
    guidance_scale: float

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1

    @property
    def hidden_size(self) -> int | str:
        """Of the embeddings that the UNet takes."""
        return hidden_size_of(self.unet)

    def with_negative(self, embeds: torch.Tensor | None, negative_embeds: torch.Tensor | None) -> torch.Tensor | None:
        """Embeddings `(B, L, D)` as `predict_noise` takes them: with guidance behind the negative ones."""
        if embeds is None or not self.guided:
            return embeds
        if negative_embeds is None:
            raise ValueError(f"Negative embeddings have to be given for a guidance of {self.guidance_scale}.")
        return torch.cat([negative_embeds, embeds])

    def predict_noise(
        self, latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, **unet_kwargs: Any
    ) -> torch.Tensor:
        """
        The UNet's noise prediction.

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Noisy, at the scale that the UNet takes.
            timestep (`torch.Tensor` of shape `()` or `(B,)`): Noise levels.
            embeds (`torch.Tensor` of shape `(2 * B, L, D)` or `(B, L, D)`): Of `with_negative`.
            unet_kwargs: What else the UNet takes.

        Returns:
            `torch.Tensor` of shape `(B, C, H / 8, W / 8)`.
        """
        if self.guided:
            latents = torch.cat([latents] * 2)
            timestep = torch.cat([timestep] * 2) if timestep.dim() else timestep
        check_rows(embeds, latents)
        noise_pred = self.unet(latents, timestep, encoder_hidden_states=embeds, return_dict=False, **unet_kwargs)[0]
        return guide(*noise_pred.chunk(2), self.guidance_scale) if self.guided else noise_pred


def hidden_size_of(unet: UNet2DConditionModel | None) -> int | str:
    """Size of the embeddings that a UNet takes; a letter where any may do."""
    size = None if unet is None else unet.config.encoder_hid_dim or unet.config.cross_attention_dim
    return size if isinstance(size, int) else "D"


def check_rows(embeds: torch.Tensor | None, inputs: torch.Tensor) -> None:
    """Raises `ValueError` unless there are as many embeddings as inputs of a UNet."""
    if embeds is None or len(embeds) != len(inputs):
        rows = "none" if embeds is None else len(embeds)
        raise ValueError(f"There have to be embeddings for each of {len(inputs)} rows, but there are {rows}.")


def guide(noise_pred_uncond: torch.Tensor, noise_pred_text: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): from the prediction without the prompt past that with it."""
    return noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
