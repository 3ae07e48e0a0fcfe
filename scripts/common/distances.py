"""FID and FAD: how far samples are from those of one side alone, their pictures and their sounds."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import tqdm

from ...selection import InceptionFeatures, Scorer, VGGishFeatures, frechet_distance
from .loudness import without_gain
from .samples import find_samples, read_picture, sample_settings
from .scoring import problems_of
from .sounds import read_waveform
from .values import Scores


# From the folder of a sample to features `(K, D)`.
Features = dict[str, Callable[[Path], np.ndarray]]


def load_features(scores: Scores, scorer: Scorer, device: str) -> Features:
    """
    What `fid` and `fad` compare of a sample: what the paper's metrics do, or, of the embedded world, which the
    published networks do not know, the embeddings of its CLIP and CLAP. Raises `ValueError` if the libraries are
    absent.
    """
    try:
        inception = None if scores.clip_model == "embedded" else InceptionFeatures(device)
        vggish = None if scores.clap_model == "embedded" else VGGishFeatures(device)
    except ImportError as error:
        raise ValueError(f'FID and FAD need `pip install "images-that-sound[compare]"`, since {error}.') from error

    def pictures(folder: Path) -> np.ndarray:
        picture = np.asarray(read_picture(folder / "image.png").convert("RGB"), np.float32) / 255
        canvas = torch.from_numpy(picture).permute(2, 0, 1)[None]
        return scorer.clip.embed_canvases(canvas)[0].cpu().numpy() if inception is None else inception(canvas)

    def sounds(folder: Path) -> np.ndarray:
        audio, rate = read_waveform(folder / "audio.wav")
        audio = without_gain(audio, sample_settings(folder))
        return scorer.clap.embed_audios(audio[None], rate).cpu().numpy() if vggish is None else vggish(audio, rate)

    return {"fid": pictures, "fad": sounds}


def distances(
    sample_dirs: dict[str, Path], references: dict[str, str], features: Features
) -> dict[str, dict[str, float]]:
    """
    Measures samples without problems against those of a reference.

    Args:
        sample_dirs (`dict[str, Path]`): For each method the folder that has its samples at or below it.
        references (`dict[str, str]`): For each distance the method that it is measured from.
        features (`dict[str, Callable]`): Result of `load_features`.

    Returns:
        `dict[str, dict[str, float]]`: For each method the distances; `nan` for the reference itself, if it has no
        samples, and if either has fewer than two features.
    """
    good = {
        method: [folder for folder in find_samples(sample_dir) if not problems_of(folder)]
        for method, sample_dir in sample_dirs.items()
    }
    found: dict[str, dict[str, float]] = {method: {} for method in good}
    for name, reference in references.items():
        sets = {method: _set_of(folders, features[name], name) for method, folders in good.items() if folders}
        for method in good:
            known = method != reference and {method, reference} <= set(sets)
            found[method][name] = frechet_distance(sets[method], sets[reference]) if known else math.nan
    return found


def _set_of(folders: list[Path], extract: Callable[[Path], np.ndarray], name: str) -> np.ndarray:
    return np.concatenate([extract(folder) for folder in tqdm(folders, desc=name.upper())])
