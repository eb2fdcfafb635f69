"""Many image files through a network, by threads: the results come in the order of the files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from threading import Event, Semaphore
from typing import TypeVar

import numpy as np
import torch

from .errors import ImageError
from .images import load_image
from .processes import ALONE, Processes

Item = TypeVar("Item")
Result = TypeVar("Result")


def forward_turns(threads: int, device: torch.device) -> Semaphore:
    """How many forward passes of so many threads each may run at a time: as many as torch's threads have room for."""
    return Semaphore(max(torch.get_num_threads() // threads, 1) if device.type == "cpu" else 1)


def read_file(path: str) -> tuple[str, np.ndarray]:
    """The path, and what :func:`load_image` gives."""
    return path, load_image(path)


def results_in_order(
    work: Callable[[Iterator[tuple[str, np.ndarray]]], Sequence[Result]],
    things: Iterable[Item],
    batch: int,
    unreadable: Callable[[ImageError], None] | None = None,
    read: Callable[[Item], tuple[str, np.ndarray]] = read_file,  # type: ignore[assignment]  # of things that are paths
    processes: Processes = ALONE,
) -> Iterator[Result]:
    """What ``work`` gives for the images of each ``batch`` of things, one result for each that can be read.

    It takes path and pixels, uint8 (h, w, 3), one by one, as ``read`` gives them. As many Python threads as torch would
    use work, each on one thread of torch's; a batch that is the only one is done in this thread. One batch more than
    there are threads is under way, however long the list. The error of an image that cannot be read is raised after
    the results before it. Or ``unreadable`` takes it, and if it returns, the image is passed over. Where nobody wants
    more, as after Ctrl-C, no further image is begun.

    Several ``processes``, all with the same things, take a batch in turn; the first one alone gets the results, and the
    others :class:`ShareDone` (:meth:`Processes.in_turn`). The batches, and so the bits, are those of one process.
    """
    stopped = Event()

    def worked(part: list[Item]) -> list[Result | ImageError]:
        problems: list[ImageError | None] = []

        def images() -> Iterator[tuple[str, np.ndarray]]:
            for thing in part:
                if stopped.is_set():
                    return
                try:
                    opened = read(thing)
                except ImageError as error:
                    problems.append(error)
                else:
                    problems.append(None)
                    yield opened

        results = iter(work(images()))
        return [next(results) if problem is None else problem for problem in problems]

    for found in processes.in_turn(_worked_on(worked, _batches(things, batch), stopped, processes)):
        for one in found:
            if not isinstance(one, ImageError):
                yield one
            elif unreadable is None:
                raise one
            else:
                unreadable(one)


def _worked_on(
    function: Callable[[Item], Result], items: Iterator[Item], stopped: Event, processes: Processes
) -> Generator[Result, None, None]:
    """``function`` of each item that is this process's, in order, by a pool of threads where there are several in all;
    ``stopped`` as that ends."""
    first = list(islice(items, 2))
    threads = torch.get_num_threads()
    try:
        if len(first) < 2:
            torch.set_num_threads(processes.threads)
            yield from map(function, processes.share(first))
            return
        workers = max(threads, 2)
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield from _in_order(pool, function, processes.share(chain(first, items)), workers + 1)
            finally:
                stopped.set()  # before the pool waits for its threads
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
