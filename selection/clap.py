"""Likeness of sounds to prompts, by CLAP."""

import os
from collections.abc import Sequence
from math import gcd
from typing import Any

import numpy as np
import scipy.signal
import torch
from transformers import ClapModel, ClapProcessor

from ..pipelines.images_that_sound_checks import check_integer, shown
from ..pipelines.images_that_sound_spectrogram import MOST
from .contrastive import ContrastiveScore


class CLAPScore(ContrastiveScore):
    """
    The audio score of "Images that Sound" (arXiv 2405.12221, section 4.1): the cosine between prompt and waveform in
    CLAP's space. Sounds are peak-normalised. Longer ones than the model hears, ten seconds, are heard in pieces whose
    cosines are averaged; CLAP's own cut is random.

    Args:
        model ([`~transformers.ClapModel`]): Embeds sounds and prompts.
        processor ([`~transformers.ClapProcessor`]): Prepares both for the model.
        batch_size (`int`, defaults to 16): Sounds that go through the model at once.
    """

    logit_scale = "logit_scale_a"

    def __init__(self, model: ClapModel, processor: ClapProcessor, batch_size: int = 16):
        super().__init__(model, processor, batch_size)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike = "laion/clap-htsat-unfused", **kwargs: Any
    ) -> "CLAPScore":
        """
        Loads model and processor.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Repo or folder, the paper's by default.
            kwargs: `subfolder`, `revision`, `token`, ... as in `ClapModel.from_pretrained`.
        """
        model = ClapModel.from_pretrained(pretrained_model_name_or_path, **kwargs)
        kwargs.pop("dtype", None)
        return cls(model, ClapProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs))

    @torch.no_grad()
    def embed_audios(self, audios: np.ndarray, sampling_rate: int) -> torch.Tensor:
        """
        Unit vectors of sounds; the mean of those of its pieces for a sound that is longer than the model hears.

        Args:
            audios (`np.ndarray` of shape `(B, N)`): Waveforms in -1..1.
            sampling_rate (`int`): Samples per second.

        Returns:
            `torch.Tensor` of shape `(B, D)`.
        """
        embeddings = []
        for first in range(0, len(audios), self.batch_size):
            batch = audios[first : first + self.batch_size]
            features = clap_features(self.processor.feature_extractor, batch, sampling_rate)
            found = [
                self.model.get_audio_features(rows.to(self.model.device)).pooler_output.float()
                for rows in features.split(self.batch_size)
            ]
            units = torch.nn.functional.normalize(torch.cat(found), dim=-1)
            embeddings.append(units.unflatten(0, (len(batch), -1)).mean(dim=1))
        return torch.cat(embeddings)

    def __call__(self, audios: np.ndarray, sampling_rate: int, prompts: list[str]) -> torch.Tensor:
        """
        Scores sounds.

        Args:
            audios (`np.ndarray` of shape `(B, N)`): Waveforms in -1..1.
            sampling_rate (`int`): Samples per second.
            prompts (`list[str]` of length `B`): Intended sound of each.

        Returns:
            `torch.Tensor` of shape `(B,)`: Cosines, at least 0; `nan` for a sound that is not finite.

        Raises:
            ValueError: If there are not as many prompts as sounds.
        """
        return self.with_log_probabilities(audios, sampling_rate, prompts)[0]

    def with_log_probabilities(
        self, audios: np.ndarray, sampling_rate: int, prompts: list[str], other_prompts: Sequence[str] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Scores sounds, and gives the probability of each sound's prompt among others.

        Args:
            audios (`np.ndarray` of shape `(B, N)`): Waveforms in -1..1.
            sampling_rate (`int`): Samples per second.
            prompts (`list[str]` of length `B`): Intended sound of each.
            other_prompts (`Sequence[str]`): Prompts of other sounds.

        Returns:
            Two `torch.Tensor` of shape `(B,)`: Scores as by a call, and log-probabilities as by `compare`. Both are
            `nan` for a sound that is not finite.
        """
        check_integer("sampling_rate", sampling_rate, most=MOST["sampling_rate"])
        if not isinstance(audios, np.ndarray) or audios.ndim != 2 or not audios.size or audios.dtype.kind != "f":
            raise ValueError(f"`audios` has to be a floating-point array of shape (B, N), but is {shown(audios)}.")
        self._check_prompts(prompts, len(audios), "sound")
        finite = torch.from_numpy(np.isfinite(audios).all(axis=1))
        embeddings = self.embed_audios(np.nan_to_num(audios, posinf=0, neginf=0), sampling_rate)
        found = self.compare(embeddings, prompts, other_prompts)
        return tuple(values.masked_fill(~finite, float("nan")) for values in found)


def clap_features(feature_extractor: Any, audios: np.ndarray, sampling_rate: int) -> torch.Tensor:
    """
    Inputs of CLAP for sounds.

    Args:
        feature_extractor ([`~transformers.ClapFeatureExtractor`]): Part of CLAP's processor.
        audios (`np.ndarray` of shape `(B, N)`): Waveforms in -1..1.
        sampling_rate (`int`): Samples per second.

    Returns:
        `torch.Tensor` of shape `(B * K, 1, T, M)`: Log-mel in dB, for each sound that of its `K` pieces.
    """
    target = feature_extractor.sampling_rate
    divisor = gcd(sampling_rate, target)
    audios = scipy.signal.resample_poly(audios, target // divisor, sampling_rate // divisor, axis=1)
    pieces = clap_pieces(audios, feature_extractor.nb_max_samples)
    peaks = np.abs(pieces).max(axis=(1, 2), keepdims=True)
    pieces = np.where(peaks > 0, pieces / np.maximum(peaks, np.finfo(np.float32).tiny), pieces)
    sounds = list(pieces.reshape(-1, pieces.shape[-1]))
    return feature_extractor(sounds, sampling_rate=target, return_tensors="pt").input_features


def clap_pieces(audios: np.ndarray, most: int) -> np.ndarray:
    """
    Pieces `(B, K, n)` of sounds `(B, N)`, of `most` samples each, evenly spread from the beginning to the end. What
    exceeds a single piece by less than a twentieth, as of a canvas of 1024 columns, is left out.
    """
    total = audios.shape[1]
    number = 1 if total <= 1.05 * most else -(-total // most)
    starts = [round(i * (total - most) / max(number - 1, 1)) for i in range(number)]
    return np.stack([audios[:, start : start + most] for start in starts], axis=1)
