"""What a long job shows on its way: nothing, unless its caller says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .detections import Detections

# Takes detections and how many will come, and hands them on.
Progress = Callable[[Iterable[Detections], int], Iterable[Detections]]


def unseen(found: Iterable[Detections], total: int) -> Iterable[Detections]:
    """Shows nothing."""
    return found
