"""Many image files through a network, by threads: the results come in the order of the files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Semaphore
from typing import TypeVar

import numpy as np
import torch

from .errors import ImageError
from .images import load_image

Item = TypeVar("Item")
Result = TypeVar("Result")


def forward_turns(threads: int, device: torch.device) -> Semaphore:
    """How many forward passes of so many threads each may run at a time: as many as torch's threads have room for."""
    return Semaphore(max(torch.get_num_threads() // threads, 1) if device.type == "cpu" else 1)


def results_in_order(
    work: Callable[[Iterator[tuple[str, np.ndarray]]], Sequence[Result]],
    paths: Iterable[str],
    batch: int,
    unreadable: Callable[[ImageError], None] | None = None,
) -> Iterator[Result]:
    """What ``work`` gives for the images of each ``batch`` of paths, one result for each that can be read.

    It takes path and pixels, uint8 (h, w, 3), one by one, as they are read. As many Python threads as torch would use
    work, each on one thread of torch's. One batch more than there are threads is under way, however long the list.
    The error of an image that cannot be read is raised after the results before it. Or ``unreadable`` takes it, and if
    it returns, the image is passed over.
    """

    def worked(part: list[str]) -> list[Result | ImageError]:
        problems: list[ImageError | None] = []

        def images() -> Iterator[tuple[str, np.ndarray]]:
            for path in part:
                try:
                    image = load_image(path)
                except ImageError as error:
                    problems.append(error)
                else:
                    problems.append(None)
                    yield path, image

        results = iter(work(images()))
        return [next(results) if problem is None else problem for problem in problems]

    threads = torch.get_num_threads()
    workers = max(threads, 2)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for found in _in_order(pool, worked, _batches(paths, batch), workers + 1):
                for one in found:
                    if not isinstance(one, ImageError):
                        yield one
                    elif unreadable is None:
                        raise one
                    else:
                        unreadable(one)
    finally:
        torch.set_num_threads(threads)  # for threads yet to start, which would have 1 as those of the pool


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """``function`` of each item, in order; at most ``ahead`` are under way."""
    items = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(items, ahead))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
