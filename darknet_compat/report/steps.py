"""The steps of a report: each is what a command does, and the page shows that command and its time."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Steps:
    """Commands that were typed or could have been, by the part of the page they belong to."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, float | None]] = []

    def add(self, part: str, command: str, seconds: float | None = None) -> None:
        """One that was typed."""
        self.done.append((part, command, seconds))

    @contextmanager
    def typed(self, part: str, *words: object) -> Iterator[None]:
        """What happens in the block is what ``darknet-compat`` and these words do."""
        start = time.perf_counter()
        yield
        command = shlex.join(["darknet-compat", *map(str, words)])
        self.done.append((part, command, time.perf_counter() - start))

    def of(self, part: str) -> list[tuple[str, float | None]]:
        """The commands of a part, with their times."""
        return [(command, seconds) for name, command, seconds in self.done if name == part]
