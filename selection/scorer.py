"""All scores that are asked for at once, by their names."""

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..pipelines import unfold_canvas
from .clap import CLAPScore
from .clip import CLIPScore
from .lift import prediction_lift


class Scorer:
    """
    Scores results by what it is given: `clip` and `clap` by the two models, `image_lift` and `audio_lift` by the
    pipeline's own.

    Args:
        clip ([`CLIPScore`], *optional*): Judges pictures.
        clap ([`CLAPScore`], *optional*): Judges sounds.
        pipe ([`~images_that_sound.pipelines.ImagesThatSoundPipeline`], *optional*): Judges both by its UNets.
    """

    def __init__(
        self, clip: CLIPScore | None = None, clap: CLAPScore | None = None, pipe: DiffusionPipeline | None = None
    ):
        self.clip, self.clap, self.pipe = clip, clap, pipe

    @property
    def names(self) -> list[str]:
        """Names of the scores."""
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
            prompts (`list[str]` of length `B`): What each should show.
            audio_prompts (`list[str]` of length `B`): What each should sound like.
            latents (`torch.Tensor` of shape `(B, C, H / 8, W / 8)`, *optional*): Of the pictures, for the lifts; the
                VAE's encodings where absent.
            canvas_layout (`str`, defaults to `"strip"`): Of the pictures.

        Returns:
            `dict[str, list[float]]`: For each score its `B` values; more is better.
        """
        scores = {}
        if self.clip is not None:
            scores["clip"] = self.clip(pictures, prompts)
        if self.clap is not None:
            scores["clap"] = self.clap(audios, sampling_rate, audio_prompts)
        if self.pipe is not None:
            latents = self._encode(pictures) if latents is None else latents
            audio_latents = unfold_canvas(latents) if canvas_layout == "folded" else latents
            lifts = prediction_lift(self.pipe, latents, prompts, audio_prompts, audio_latents=audio_latents)
            scores["image_lift"], scores["audio_lift"] = lifts
        return {name: values.tolist() for name, values in scores.items()}

    @torch.no_grad()
    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.normalize(pictures.expand(-1, 3, -1, -1).to(vae.device, vae.dtype))
        return vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
