"""One side of images that sound: its models, and how its prompts guide its predictions of noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, SchedulerMixin, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
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
        guidance_rescale (`float`): How far guided noise is brought back to the deviation of that with the prompt, in
            0..1 ([arXiv 2305.08891](https://arxiv.org/abs/2305.08891), section 3.4).
    """

    unet: UNet2DConditionModel | None
    text_encoder: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    vae: AutoencoderKL | None
    scheduler: SchedulerMixin | None
    guidance_scale: float
    guidance_rescale: float = 0.0

    @property
    def guided(self) -> bool:
        return is_guided(self.unet, self.guidance_scale)

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
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        embeds: torch.Tensor,
        guides: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], dict[str, Any]] | None = None,
        **unet_kwargs: Any,
    ) -> torch.Tensor:
        """
        The UNet's noise prediction.

        Args:
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`): Noisy, at the scale that the UNet takes.
            timestep (`torch.Tensor` of shape `()` or `(B,)`): Noise levels.
            embeds (`torch.Tensor` of shape `(2 * B, L, D)` or `(B, L, D)`): Of `with_negative`.
            guides (`Callable`, *optional*): From what the UNet gets, which is doubled with guidance, to what else it
                takes.
            unet_kwargs: What else the UNet takes.

        Returns:
            `torch.Tensor` of shape `(B, C, H / 8, W / 8)`.
        """
        if self.guided:
            latents = torch.cat([latents] * 2)
            timestep = torch.cat([timestep] * 2) if timestep.dim() else timestep
        check_rows(embeds, latents)
        if takes_guidance(self.unet):
            unet_kwargs |= {"timestep_cond": self._embed_guidance(latents)}
        if guides is not None:
            unet_kwargs |= guides(latents, timestep, embeds)
        noise_pred = self.unet(latents, timestep, encoder_hidden_states=embeds, return_dict=False, **unet_kwargs)[0]
        if not self.guided:
            return noise_pred
        unconditioned, conditioned = noise_pred.chunk(2)
        noise_pred = guide(unconditioned, conditioned, self.guidance_scale)
        if self.guidance_rescale > 0:
            return rescale_noise_cfg(noise_pred, conditioned, self.guidance_rescale)
        return noise_pred

    def _embed_guidance(self, latents: torch.Tensor) -> torch.Tensor:
        """What a model that was distilled with its guidance is told of it (arXiv 2210.03142)."""
        scales = torch.full((len(latents),), self.guidance_scale - 1)
        size = self.unet.config.time_cond_proj_dim
        # The method reads nothing of the pipeline that it belongs to.
        return StableDiffusionPipeline.get_guidance_scale_embedding(None, scales, embedding_dim=size).to(latents)


def takes_guidance(unet: UNet2DConditionModel | None) -> bool:
    """Whether a UNet was distilled with its guidance, which it is then told, as latent consistency models are."""
    return unet is not None and unet.config.get("time_cond_proj_dim") is not None


def is_guided(unet: UNet2DConditionModel | None, guidance_scale: float) -> bool:
    """Whether a UNet is guided by predictions with and without its prompt."""
    return guidance_scale > 1 and not takes_guidance(unet)


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
