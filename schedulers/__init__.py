"""Schedules of the two sides, and of score distillation's timesteps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .scheduling_modality import ModalityScheduler
    from .scheduling_score_distillation import ScoreDistillationScheduler

_MODULES = {
    "ModalityScheduler": "scheduling_modality",
    "ScoreDistillationScheduler": "scheduling_score_distillation",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
