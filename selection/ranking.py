"""Rankings of results by their scores, and means with confidence intervals."""

from collections.abc import Sequence

import numpy as np


def best(scores: Sequence[float], k: int) -> list[int]:
    """Indices of the `k` highest scores, the highest first; equal ones in their order, `nan` last."""
    values = np.asarray(scores, dtype=np.float64)
    return [int(i) for i in np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")[:k]]


def best_of(scores: Sequence[float], k: int) -> list[int]:
    """As `best`, without results whose score is `nan`."""
    return [i for i in best(scores, k) if not np.isnan(scores[i])]


def combined_score(scores: dict[str, Sequence[float]]) -> list[float]:
    """
    One number per result for all of its scores: the mean of its percentile ranks.

    Args:
        scores (`dict[str, Sequence[float]]`): For each score its values for all `N` results, more is better.

    Returns:
        `list[float]` of length `N`: From 0 (worst by all) to 1 (best by all); `nan` if a score is.
    """
    ranks = np.mean([_percentile_ranks(values) for values in scores.values()], axis=0)
    unknown = np.isnan([np.asarray(values, np.float64) for values in scores.values()]).any(axis=0)
    return np.where(unknown, np.nan, ranks).tolist()


def choice_score(scores: dict[str, Sequence[float]]) -> list[float]:
    """
    One number per result to choose by: the probability that all of its prompts are the right ones, from the sum of its
    log-probabilities. If there are none, or if lifts count too, it is `combined_score` of the other scores.

    Args:
        scores (`dict[str, Sequence[float]]`): Result of a `Scorer`: for each score its values for all `N` results.

    Returns:
        `list[float]` of length `N`: 0..1, more is better; `nan` if a score is.
    """
    log_probabilities = [values for name, values in scores.items() if name.endswith("_log_probability")]
    if log_probabilities and not any(name.endswith("_lift") for name in scores):
        return np.exp(np.sum(log_probabilities, axis=0, dtype=np.float64)).tolist()
    return combined_score({name: values for name, values in scores.items() if not name.endswith("_log_probability")})


def _percentile_ranks(scores: Sequence[float]) -> np.ndarray:
    """Share of the other results that score lower, equal ones counted by half; 0..1."""
    values = np.asarray(scores, dtype=np.float64)
    values = np.where(np.isnan(values), -np.inf, values)
    lower = (values[:, None] > values[None]).sum(axis=1)
    equal = (values[:, None] == values[None]).sum(axis=1) - 1
    return (lower + 0.5 * equal) / max(len(values) - 1, 1)


def top_by_all(scores: dict[str, Sequence[float]], share: float = 0.2) -> list[int]:
    """
    The rule of the code of "Images that Sound" (arXiv 2405.12221): results in the top share by every score.

    Args:
        scores (`dict[str, Sequence[float]]`): For each score its values for all `N` results.
        share (`float`, defaults to 0.2): Part of the `N` results, 0 to 1, rounded down.

    Returns:
        `list[int]`: Indices, the best by the first score first; often empty.

    Raises:
        ValueError: If the share is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` has to be in 0..1, but is {share!r}.")
    tops = [best_of(values, int(share * len(values))) for values in scores.values()]
    return [i for i in tops[0] if all(i in top for top in tops[1:])]


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """
    Mean of values and the half width of its 95 % interval, 1.96 standard errors as in arXiv 2405.12221; the latter is
    `nan` for a single value.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def share_and_interval(count: int, total: int) -> tuple[float, float, float]:
    """A share, and the lower and upper end of its 95 % interval (Wilson)."""
    z, share = 1.96, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return share, max(float(middle - spread), 0.0), min(float(middle + spread), 1.0)
