"""All wanted scores in one call, by their names."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..pipelines import unfold_canvas
from .clap import CLAPScore
from .clip import CLIPScore
from .lift import prediction_lift


# Prompts of results: words, or words over time by the second at which they begin.
Prompts = list[str | dict[float, str]]
# Two scores of each result, `(B,)`.
Found = tuple[torch.Tensor, torch.Tensor]


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
        prompts: Prompts,
        audio_prompts: Prompts,
        latents: torch.Tensor | None = None,
        canvas_layout: str = "strip",
    ) -> dict[str, list[float]]:
        """
        Scores results.

        Args:
            pictures (`torch.Tensor` of shape `(B, C, H, W)`): In 0..1.
            audios (`np.ndarray` of shape `(B, N)`): Waveforms in -1..1.
            sampling_rate (`int`): Samples per second.
            prompts (`list[str]` or `list[dict[float, str]]`, of length `B`): Intended picture of each. A dict holds
                words that change over time, by the second at which they begin: each part of the picture is judged by
                its words, and counts by its length.
            audio_prompts (`list[str]` or `list[dict[float, str]]`, of length `B`): Intended sound of each.
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
        seconds = audios.shape[1] / sampling_rate
        if self.clip is not None:
            found = by_parts(self._see, pictures, prompts, seconds)
            scores |= _named("clip", found, self.other_prompts)
        if self.clap is not None:
            found = by_parts(partial(self._hear, sampling_rate), audios, audio_prompts, seconds)
            scores |= _named("clap", found, self.other_audio_prompts)
        if self.pipe is not None:
            latents = self._encode(pictures) if latents is None else latents.nan_to_num(0, 0, 0)
            if canvas_layout == "folded":
                # Its picture shows no part of the time by itself.
                words = [all_words(prompt) for prompt in audio_prompts]
                lifts = prediction_lift(self.pipe, latents, prompts, words, audio_latents=unfold_canvas(latents))
            else:
                lifts = by_parts(self._lift, latents, [*map(both_over_time, prompts, audio_prompts)], seconds)
            scores["image_lift"], scores["audio_lift"] = lifts
        return {name: values.cpu().where(finite, math.nan).tolist() for name, values in scores.items()}

    def _see(self, pictures: torch.Tensor, prompts: list[str]) -> Found:
        return self.clip.with_log_probabilities(pictures, prompts, self.other_prompts)

    def _hear(self, sampling_rate: int, audios: np.ndarray, prompts: list[str]) -> Found:
        return self.clap.with_log_probabilities(audios, sampling_rate, prompts, self.other_audio_prompts)

    def _lift(self, latents: torch.Tensor, pairs: list[tuple[str, str]]) -> Found:
        """Lifts of both sides, the mean over equal pieces that are no wider than the checkpoint's canvas."""
        own = self.pipe.default_arguments["width"] // self.pipe.vae_scale_factor
        pieces = latents.tensor_split(math.ceil(latents.shape[-1] / own), dim=-1)
        prompts, audio_prompts = (list(words) for words in zip(*pairs))
        lifts = [torch.stack(prediction_lift(self.pipe, piece, prompts, audio_prompts)) for piece in pieces]
        return tuple(torch.stack(lifts).mean(dim=0))

    @torch.no_grad()
    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.normalize(pictures.expand(-1, 3, -1, -1).to(vae.device, vae.dtype))
        # A long picture as a whole may be too large for the memory.
        pieces = pixels.split(self.pipe.default_arguments["width"], dim=-1)
        latents = [vae.encode(piece).latent_dist.mode() for piece in pieces]
        return torch.cat(latents, dim=-1) * vae.config.scaling_factor


# -------------------- Prompts over time --------------------


def by_parts(score: Callable[[Any, list], Found], results: Any, prompts: Sequence, seconds: float) -> Found:
    """
    Scores results, those whose prompt changes over time in parts.

    Args:
        score (`Callable`): From results and as many prompts to two scores `(B,)`.
        results (`torch.Tensor` or `np.ndarray` of shape `(B, ..., T)`): Something along time.
        prompts (`list[Any]` or `list[dict[float, Any]]`, of length `B`): One for each result. A dict holds prompts by
            the second at which they begin.
        seconds (`float`): Length of the results.

    Returns:
        Two `torch.Tensor` of shape `(B,)`: The mean over the parts, each weighted by its length.
    """
    if not any(isinstance(prompt, dict) for prompt in prompts):
        return score(results, list(prompts))
    rows = []
    for row, prompt in enumerate(prompts):
        starts = sorted(prompt) if isinstance(prompt, dict) else [0.0]
        edges = [round(min(start / seconds, 1) * results.shape[-1]) for start in (*starts, seconds)]
        words = [prompt[start] for start in starts] if isinstance(prompt, dict) else [prompt]
        parts = [part for part in zip(edges, edges[1:], words) if part[0] < part[1]]
        found = [torch.stack(score(results[row : row + 1, ..., a:b], [each])) for a, b, each in parts]
        rows.append(sum(scores * (b - a) for (a, b, _), scores in zip(parts, found)) / results.shape[-1])
    return tuple(torch.cat(rows, dim=1))


def both_over_time(prompt: str | dict[float, str], audio_prompt: str | dict[float, str]) -> Any:
    """Pairs of both prompts, by the seconds at which either begins; one pair if neither changes."""
    if isinstance(prompt, str) and isinstance(audio_prompt, str):
        return prompt, audio_prompt
    both = [{0: each} if isinstance(each, str) else each for each in (prompt, audio_prompt)]
    return {
        second: tuple(each[max(start for start in each if start <= second)] for each in both)
        for second in sorted({*both[0], *both[1]})
    }


def all_words(prompt: str | dict[float, str]) -> str:
    """The words of a prompt, one after the other if it changes over time."""
    return prompt if isinstance(prompt, str) else "; ".join(prompt.values())


def _named(name: str, found: Found, others: list[str]) -> dict[str, torch.Tensor]:
    """Cosines and log-probabilities by their names; the latter say nothing without others."""
    return dict(zip((name, f"{name}_log_probability") if others else (name,), found))
