"""Keeping the best of many: scores of results, rankings by them, and a search that spends little on bad seeds."""

from .clap import CLAPScore
from .clip import CLIPScore
from .halving import Halving, Rung, rungs_of
from .lift import prediction_lift
from .ranking import best, combined_score, mean_and_interval, share_and_interval, top_by_all
from .scorer import SCORES, Scorer


__all__ = [
    "SCORES",
    "CLAPScore",
    "CLIPScore",
    "Halving",
    "Rung",
    "Scorer",
    "best",
    "combined_score",
    "mean_and_interval",
    "prediction_lift",
    "rungs_of",
    "share_and_interval",
    "top_by_all",
]
