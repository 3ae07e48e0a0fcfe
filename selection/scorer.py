"""All wanted scores in one call, by their names."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..pipelines import unfold_canvas
from .clap import CLAPScore
from .clip import CLIPScore
from .lift import prediction_lift


class Scorer:
    """
    Scores results with the given judges: `clip` and `clap` by these models, `image_lift` and `audio_lift` by the
    pipeline's UNets. With other prompts it adds `clip_log_probability` and `clap_log_probability`: how surely the two
    models tell a result's prompt from the others.

    Args:
        clip ([`CLIPScore`], *optional*): Judges pictures.
        clap ([`CLAPScore`], *optional*): Judges sounds.
        pipe ([`~images_that_sound.pipelines.ImagesThatSoundPipeline`], *optional*): Judges both by its UNets.
        other_prompts (`Sequence[str]`, *optional*): Prompts of other pictures.
        other_audio_prompts (`Sequence[str]`, *optional*): Prompts of other sounds.
    """

    def __init__(
        self,
        clip: CLIPScore | None = None,
        clap: CLAPScore | None = None,
        pipe: DiffusionPipeline | None = None,
        other_prompts: Sequence[str] = (),
        other_audio_prompts: Sequence[str] = (),
    ):
        self.clip, self.clap, self.pipe = clip, clap, pipe
        self.other_prompts, self.other_audio_prompts = [*other_prompts], [*other_audio_prompts]

    @property
    def names(self) -> list[str]:
        """Names of the scores, without log-probabilities."""
        given = {"clip": self.clip, "clap": self.clap, "image_lift": self.pipe, "audio_lift": self.pipe}
        return [name for name, judge in given.items() if judge is not None]

    def __call__(
        self,
        pictures: torch.Tensor,
        audios: np.ndarray,
        sampling_rate: int,
        prompts: list[str],
        audio_prompts: list[str],
        latents: torch.Tensor | None = None,
        canvas_layout: str = "strip",
    ) -> dict[str, list[float]]:
        """
        Scores results.

        Args:
            pictures (`torch.Tensor` of shape `(B, C, H, W)`): In 0..1.
            audios (`np.ndarray` of shape `(B, N)`): Waveforms in -1..1.
            sampling_rate (`int`): Samples per second.
            prompts (`list[str]` of length `B`): Intended picture of each.
            audio_prompts (`list[str]` of length `B`): Intended sound of each.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Latents of the pictures, for
                the lifts. By default the VAE encodes the pictures.
            canvas_layout (`str`, defaults to `"strip"`): Layout of the pictures.

        Returns:
            `dict[str, list[float]]`: For each score its `B` values; more is better. A result that is not finite has
            `nan`.
        """
        finite = pictures.isfinite().flatten(1).all(dim=1).cpu() & torch.from_numpy(np.isfinite(audios).all(axis=1))
        pictures, audios = pictures.nan_to_num(0, 0, 0), np.nan_to_num(audios, nan=0, posinf=0, neginf=0)
        scores = {}
        if self.clip is not None:
            found = self.clip.with_log_probabilities(pictures, prompts, self.other_prompts)
            scores |= _named("clip", found, self.other_prompts)
        if self.clap is not None:
            found = self.clap.with_log_probabilities(audios, sampling_rate, audio_prompts, self.other_audio_prompts)
            scores |= _named("clap", found, self.other_audio_prompts)
        if self.pipe is not None:
            latents = self._encode(pictures) if latents is None else latents.nan_to_num(0, 0, 0)
            audio_latents = unfold_canvas(latents) if canvas_layout == "folded" else latents
            lifts = prediction_lift(self.pipe, latents, prompts, audio_prompts, audio_latents=audio_latents)
            scores["image_lift"], scores["audio_lift"] = lifts
        return {name: values.cpu().where(finite, math.nan).tolist() for name, values in scores.items()}

    @torch.no_grad()
    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.normalize(pictures.expand(-1, 3, -1, -1).to(vae.device, vae.dtype))
        return vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor


def _named(name: str, found: tuple[torch.Tensor, torch.Tensor], others: list[str]) -> dict[str, torch.Tensor]:
    """Cosines and log-probabilities by their names; the latter say nothing without others."""
    return dict(zip((name, f"{name}_log_probability") if others else (name,), found))
