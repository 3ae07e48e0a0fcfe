"""Keeping the best of many: scores of results, rankings by them, and a search that gives up bad candidates early."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .clap import CLAPScore
    from .clip import CLIPScore
    from .frechet import InceptionFeatures, VGGishFeatures, frechet_distance
    from .halving import Halving, Rung, rungs_of
    from .lift import prediction_lift
    from .ranking import best, best_of, choice_score, combined_score, mean_and_interval, share_and_interval, top_by_all
    from .scorer import Scorer

SCORES = ("clip", "clap", "lift")
_MODULES = {
    "CLAPScore": "clap",
    "CLIPScore": "clip",
    "Halving": "halving",
    "InceptionFeatures": "frechet",
    "Rung": "halving",
    "Scorer": "scorer",
    "VGGishFeatures": "frechet",
    "best": "ranking",
    "best_of": "ranking",
    "choice_score": "ranking",
    "combined_score": "ranking",
    "frechet_distance": "frechet",
    "mean_and_interval": "ranking",
    "prediction_lift": "lift",
    "rungs_of": "halving",
    "share_and_interval": "ranking",
    "top_by_all": "ranking",
}
__all__ = ["SCORES", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
