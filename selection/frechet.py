"""Fréchet distances between two sets of pictures or sounds by their features, the published ones included."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """
    Fréchet distance between the Gaussians that have the means and covariances of two sets of features. With
    Inception's features it is FID (arXiv 1706.08500, equation 6), with VGGish's FAD (arXiv 1812.08466).

    Args:
        features (`np.ndarray` of shape `(N, D)`): Features of one set.
        reference (`np.ndarray` of shape `(M, D)`): Features of the other set.

    Returns:
        `float`: 0 for equal sets, more for others; `nan` if a set has fewer than two.

    Raises:
        ValueError: If a set has another shape, or the features differ in size.
    """
    sets = [np.asarray(each, dtype=np.float64) for each in (features, reference)]
    if any(each.ndim != 2 for each in sets) or sets[0].shape[1] != sets[1].shape[1]:
        shapes = " and ".join(str(each.shape) for each in sets)
        raise ValueError(f"`features` and `reference` have to be of shapes (N, D) and (M, D), but are of {shapes}.")
    if min(map(len, sets)) < 2:
        return float("nan")
    means = [each.mean(axis=0) for each in sets]
    roots = [
        np.linalg.qr(each - mean, mode="r") / np.sqrt(len(each) - 1) for each, mean in zip(sets, means, strict=True)
    ]
    # For covariances S = P'P and T = R'R, the trace of the root of ST is the sum of the singular values of PR'.
    mixed = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    traces = sum((root**2).sum() for root in roots)
    return float(((means[0] - means[1]) ** 2).sum() + traces - 2 * mixed)


class InceptionFeatures:
    """
    Features of pictures for FID: the 2048 numbers before the last layer of the Inception network of 2015. They come
    from torch-fidelity, which downloads the weights.

    Args:
        device (`str` or `torch.device`, defaults to `"cpu"`): Device of the network.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        with _nothing_pickled_is_executed():
            self.model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, canvas: torch.Tensor) -> np.ndarray:
        """Features `(1, 2048)` of a canvas `(1, C, H, W)` in 0..1, whose channels are averaged."""
        gray = canvas.float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        (features,) = self.model((gray * 255).round().to(self.device, torch.uint8))
        return features.cpu().numpy()


class VGGishFeatures:
    """
    Features of sounds for FAD: the 128 numbers of VGGish's embedding of each 0.96 s, before its last ReLU. They come
    from torchvggish, which downloads the weights.

    Args:
        device (`str` or `torch.device`, defaults to `"cpu"`): Device of the network.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        from torchvggish import vggish

        with _nothing_pickled_is_executed():
            self.model = vggish(postprocess=False).eval().to(device)
        self.model.embeddings = self.model.embeddings[:-1]
        self.device = device

    @torch.no_grad()
    def __call__(self, audio: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Features `(K, 128)` of a waveform `(N,)` in -1..1, for its `K` whole parts of 0.96 s."""
        from torchvggish.vggish_input import waveform_to_examples

        return self.model(waveform_to_examples(audio, sampling_rate).to(self.device)).cpu().numpy()


@contextmanager
def _nothing_pickled_is_executed() -> Iterator[None]:
    """Both libraries load their downloads by pickle; within this context torch reads nothing but weights."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        os.environ |= {} if before is None else {name: before}
