"""What a long job shows on its way: nothing, unless its caller says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

Result = TypeVar("Result")
# Takes results and how many will come, and hands them on.
Progress: TypeAlias = Callable[[Iterable[Result], int], Iterable[Result]]


def unseen(found: Iterable[Result], total: int) -> Iterable[Result]:
    """Shows nothing."""
    return found
