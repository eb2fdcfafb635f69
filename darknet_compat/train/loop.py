"""The training from its first update to its last.

Source: ``examples/detector.c, train_detector``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch

from ..errors import PictureError, TrainingError
from .checkpoint import Snapshots, passed
from .data import Batch, TrainingSet, load_batches
from .log import Log
from .schedule import RESIZE_EVERY, SIZES, batch_number, images_per_update, picture_size
from .step import Trainer


class Stopping:
    """While it is entered, Ctrl-C and SIGTERM ask to stop after the update; a second Ctrl-C stops at once."""

    asked: int = 0
    """The signal that came, 0 while none has."""

    def __enter__(self) -> Stopping:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number


@dataclass
class Scoring:
    """mAP while training: ``score()`` every ``every`` batches and at the end; the best so far is kept."""

    score: Callable[[], float]
    every: int
    best: float | None = None


def train(
    trainer: Trainer,
    data: TrainingSet,
    snapshots: Snapshots,
    log: Log | None,
    *,
    workers: int = 0,
    on_device: bool = False,
    scoring: Scoring | None = None,
) -> int:
    """Train until ``max_batches``. Returns 0, or the signal that asked to stop; a snapshot is then written.

    ``workers`` processes load the pictures; with ``on_device`` they decode, and the trainer's device does the rest.
    ``log``, ``snapshots`` and ``scoring`` are the first process's to use; the others have None for a log.

    Raises :class:`TrainingError` where the loss is not finite, naming the last good snapshot.
    """
    net, network, processes = trainer.net, trainer.network, trainer.processes
    for tensor in network.state_dict().values():
        processes.same(tensor)
    sizes = Sizes(trainer)
    batches = load_batches(
        data, net.mini_batch, sizes.of_batch, sizes.largest, first=trainer.images,
        workers=workers, rank=processes.rank, world=processes.world, device=trainer.device if on_device else None,
    )  # fmt: skip

    with Stopping() as stopping:
        while trainer.batch < net.max_batches:
            before = trainer.batch
            size = sizes.of(trainer.updates)
            if sizes.drawn and trainer.updates % RESIZE_EVERY == 0 and log:
                log.detail(f"Resizing\n{size[0]}")
            if size != (network.width, network.height):
                network.resize(*size)
            clock, waited = time.perf_counter(), Waited()
            try:
                update = trainer.update(waited.take(batches, net.subdivisions), stop=stopping.asked != 0)
            except (TrainingError, PictureError) as error:
                kept = (
                    f"the last good snapshot is {snapshots.last}" if snapshots.last else "no snapshot was written yet"
                )
                raise TrainingError(f"{error}; {kept}") from None
            except torch.cuda.OutOfMemoryError:
                raise network.cfg.net.error(
                    f"the GPU's memory is too small for {net.mini_batch} pictures of {size[0]} x {size[1]} at once; "
                    f"raise subdivisions, of which {net.batch} is the most",
                    "subdivisions",
                ) from None
            seconds = time.perf_counter() - clock - waited.seconds
            if log:
                log.detail(f"Loaded: {waited.seconds:f} seconds")
                log.update(update, seconds, waited.seconds, images_per_update(net), processes.world)
                last = update.stop or update.batch >= net.max_batches
                score = None
                if scoring and (passed(before, update.batch, scoring.every) or update.batch >= net.max_batches):
                    score = _score(trainer, snapshots, log, scoring)
                log.row(update, seconds, waited.seconds, size, score)
                due = snapshots.due(before, update.batch)
                if last and snapshots.backup not in due:
                    due.append(snapshots.backup)
                for path in due:
                    log.say(f"Saving weights to {path}")
                    snapshots.save(trainer, path, _extra(scoring))
            # A stop asked for in the last update stops nothing: only the final weights are left to write.
            if update.stop and trainer.batch < net.max_batches:
                return stopping.asked or signal.SIGTERM
    if log:
        final = snapshots.path("_final.weights")
        log.say(f"Saving weights to {final}")
        snapshots.save(trainer, final)
    return 0


class Waited:
    """Takes batches, and counts the seconds that this waits for them."""

    seconds = 0.0

    def take(self, batches: Iterator[Batch], count: int) -> Iterator[Batch]:
        for _ in range(count):
            clock = time.perf_counter()
            batch = next(batches)
            self.seconds += time.perf_counter() - clock
            yield batch


class Sizes:
    """Width and height of the images of each update: the cfg's, or with ``random=1`` a new square now and then.

    The loader, far ahead, and the network ask here with the same number: that of the update in the whole training.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.drawn = bool(trainer.head.o.random)
        self.given = trainer.net.width, trainer.net.height
        self.largest = (SIZES[-1], SIZES[-1]) if self.drawn else self.given
        self.begun, self.seen = trainer.updates, trainer.network.seen

    def of(self, update: int) -> tuple[int, int]:
        """The size for update number ``update``, counted from 0."""
        if not self.drawn:
            return self.given
        trainer = self.trainer
        first = update - update % RESIZE_EVERY
        # Counted from where this run began: the updates before may have been those of fewer or more processes.
        seen = self.seen + (first - self.begun) * trainer.images_per_update
        side = picture_size(trainer.net, trainer.seed, first, batch_number(trainer.net, seen))
        return side, side

    def of_batch(self, index: int) -> tuple[int, int]:
        """The size for the mini-batch number ``index`` of this run, counted from 0."""
        return self.of(self.begun + index // self.trainer.net.subdivisions)


def _extra(scoring: Scoring | None) -> dict[str, Any]:
    return {"best": scoring.best if scoring else None}


def _score(trainer: Trainer, snapshots: Snapshots, log: Log, scoring: Scoring) -> float:
    """mAP at the cfg's own size, with the rolling statistics; a best one's weights are kept."""
    network = trainer.network
    size = network.width, network.height
    network.resize(trainer.net.width, trainer.net.height)
    network.eval()
    try:
        score = scoring.score()
    finally:
        network.train()
        network.resize(*size)
    if scoring.best is None or score > scoring.best:
        scoring.best = score
        snapshots.save(trainer, snapshots.path("_best.weights"))
    log.say(f"mAP {100 * score:.2f} %, best {100 * scoring.best:.2f} %")
    return score
