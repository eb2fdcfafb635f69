"""With which thresholds each program's verbs detect, where no flag says otherwise.

Source: pjreddie's ``examples/detector.c``, AlexeyAB's ``src/detector.c``: run_detector, validate_detector,
validate_detector_map, validate_detector_recall. For the verbs ``yolo``, the same in both programs,
``examples/yolo.c``: run_yolo, test_yolo, validate_yolo, validate_yolo_recall.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, NamedTuple

from .layers.base import ALEXEYAB, PJREDDIE

Verbs = Literal["detector", "yolo"]
"""The families of verbs that detect."""
YOLO: Verbs = "yolo"


class Thresholds(NamedTuple):
    """``thresh``: the least probability; ``nms``: the most IOU of two boxes of a class, 0: all stay."""

    thresh: float
    nms: float


TEST = {PJREDDIE: Thresholds(0.5, 0.45), ALEXEYAB: Thresholds(0.25, 0.45), YOLO: Thresholds(0.2, 0.4)}
# The verb detect, `main` of both programs.
DETECT = {PJREDDIE: Thresholds(0.5, 0.45), ALEXEYAB: Thresholds(0.24, 0.45)}
VALID = {PJREDDIE: Thresholds(0.005, 0.45), ALEXEYAB: Thresholds(0.001, 0.6), YOLO: Thresholds(0.001, 0.5)}
# AlexeyAB's verb; a network of pjreddie's is scored as one of his, but for letter_box.
MAP = {PJREDDIE: Thresholds(0.005, 0.45), ALEXEYAB: Thresholds(0.005, 0.45)}
RECALL = {PJREDDIE: Thresholds(0.001, 0.4), ALEXEYAB: Thresholds(0.001, 0.4), YOLO: Thresholds(0.001, 0)}

HIER = 0.5
"""How sure a tree must be to go deeper, in all verbs but map."""
MAP_HIER = 0.0


def fraction(name: str, value: Any) -> float:
    """``value``, where it is a number from 0 to 1; raises :class:`ValueError`, which calls it ``name``."""
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} is {value!r}; expected a number from 0 to 1")
    return float(value)
