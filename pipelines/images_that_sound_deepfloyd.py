"""Shared parts of the pipelines with DeepFloyd IF: prompts, noise predictions, and the gate before its repos."""

import os
import re
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from huggingface_hub.errors import GatedRepoError
from transformers import T5EncoderModel, T5Tokenizer

from .images_that_sound_loading import kept_in_float32
from .images_that_sound_sides import check_rows, guide, tokenize


# The length that DeepFloyd IF was trained with.
MAX_LENGTH = 77


class DeepFloydMixin:
    """Prompts and weights of DeepFloyd IF in a [`DiffusionPipeline`] with a `tokenizer` and a T5 `text_encoder`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "DeepFloydMixin":
        """[`DiffusionPipeline.from_pretrained`], with a message about what to accept if a repo is gated."""
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except Exception as error:
            raise_if_gated(error, pretrained_model_name_or_path)
            raise

    def to(self, *args: Any, **kwargs: Any) -> "DeepFloydMixin":
        """[`DiffusionPipeline.to`], except that the layers of T5 that overflow in float16 stay in float32."""
        modules = [] if self.text_encoder is None else self.text_encoder.named_modules()
        with kept_in_float32([module for name, module in modules if name.endswith("DenseReluDense.wo")]):
            return super().to(*args, **kwargs)

    def encode_deepfloyd_prompt(
        self,
        tokenizer: T5Tokenizer,
        text_encoder: T5EncoderModel,
        prompts: list[str],
        device: torch.device,
        use_attention_mask: bool = True,
    ) -> torch.Tensor:
        """
        Embeddings of shape `(B, 77, D)` of lower-cased prompts; longer ones are cut, with a warning.

        Args:
            tokenizer ([`~transformers.T5Tokenizer`]): DeepFloyd IF's.
            text_encoder ([`~transformers.T5EncoderModel`]): DeepFloyd IF's.
            prompts (`list[str]` of length `B`): Texts to encode.
            device (`torch.device`): Device of the encoder.
            use_attention_mask (`bool`, defaults to `True`): Whether padding is hidden from the encoder, as in
                diffusers; the SDS of arXiv 2405.12221 does not hide it.
        """
        tokens = tokenize(tokenizer, [prompt.lower().strip() for prompt in prompts], MAX_LENGTH).to(device)
        mask = tokens.attention_mask if use_attention_mask else None
        return text_encoder(tokens.input_ids, attention_mask=mask)[0]


def predict_pixel_noise(
    unet: UNet2DConditionModel,
    images: torch.Tensor,
    timestep: torch.Tensor,
    embeds: torch.Tensor,
    guidance_scale: float,
    class_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Noise prediction of a DeepFloyd IF UNet with guidance. Its variance comes from the prompt alone.

    Args:
        unet ([`UNet2DConditionModel`]): Predicts noise and variance, `2 * 3` channels.
        images (`torch.Tensor` of shape `(B, C, H, W)`): Noisy pictures, for stage II with the low-resolution picture.
        timestep (`torch.Tensor` of shape `()` or `(B,)`): Noise levels.
        embeds (`torch.Tensor` of shape `(2 * B, L, D)` or `(B, L, D)`): With guidance the negative prompts first.
        guidance_scale (`float`): Off at 1 and below.
        class_labels (`torch.Tensor` of shape `(B,)`, *optional*): Stage II's level of the low-resolution noise.

    Returns:
        `torch.Tensor` of shape `(B, 6, H, W)`: Noise and variance.
    """
    guided = guidance_scale > 1
    if guided:
        images = torch.cat([images] * 2)
        timestep = torch.cat([timestep] * 2) if timestep.dim() else timestep
        class_labels = None if class_labels is None else torch.cat([class_labels] * 2)
    check_rows(embeds, images)
    predicted = unet(images, timestep, encoder_hidden_states=embeds, class_labels=class_labels, return_dict=False)[0]
    if not guided:
        return predicted
    (noise_uncond, _), (noise_text, variance) = (half.chunk(2, dim=1) for half in predicted.chunk(2))
    return torch.cat([guide(noise_uncond, noise_text, guidance_scale), variance], dim=1)


def raise_if_gated(error: BaseException, repo: str | os.PathLike) -> None:
    """Raises a `ValueError` about what to accept if `error` comes from a gated repo."""
    cause: BaseException | None = error
    while cause is not None:
        # huggingface_hub calls a missing repo a "private or gated repo".
        if isinstance(cause, GatedRepoError) or re.search("(?<!private or )gated repo", str(cause), re.IGNORECASE):
            raise ValueError(
                f"`{repo}` is gated: accept its licence at https://huggingface.co/{repo}, then sign in with"
                " `hf auth login`, or in Python pass `token=`."
            ) from error
        cause = cause.__cause__ or cause.__context__
