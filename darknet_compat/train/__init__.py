"""Training as Darknet does it: images and truth, schedule, optimiser, loop, checkpoints."""

from .batch import Batch, collate
from .step import Trainer, Update

__all__ = ["Batch", "Trainer", "Update", "collate"]
