"""When each modality acts and how strongly."""

from .scheduling_modality import ModalityScheduler


__all__ = ["ModalityScheduler"]
