"""When each modality acts and how strongly."""

from .scheduling_modality import ModalityScheduler
from .scheduling_score_distillation import ScoreDistillationScheduler


__all__ = ["ModalityScheduler", "ScoreDistillationScheduler"]
