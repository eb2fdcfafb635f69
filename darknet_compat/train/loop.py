"""The training from its first update to its last.

Source: ``examples/detector.c, train_detector``; ``examples/classifier.c, train_classifier``.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import torch

from ..errors import DarknetError, ImageError, LostProcessError, TrainingError
from ..processes import ShareDone
from ..program import ALEXEYAB
from ..progress import Result
from .batch import Batch
from .checkpoint import Snapshots, passed
from .copies import copies_to
from .data import STOPPING, ImageSet, load_batches
from .log import Log
from .schedule import (
    CLASSIFICATION,
    DETECTION,
    USUAL_FACTOR,
    Resizing,
    Scaling,
    batch_number,
    drawn_sizes,
    images_per_update,
)
from .step import Trainer

SAME = 1.0  # seconds; a launcher passes on the Ctrl-C that the terminal has sent already, and fingers press twice


class Stopped(BaseException):
    """Raised in the midst of a block of :meth:`Stopping.breaks_off`; no handler of errors is meant to catch it."""


class Stopping:
    """While it is entered, Ctrl-C, SIGTERM and SIGHUP ask to stop; a later second Ctrl-C raises KeyboardInterrupt.

    SIGHUP stays ignored where it was (``nohup``).
    """

    asked: int = 0
    """The signal that came first, 0 while none has."""

    def __enter__(self) -> Stopping:
        self._open = False
        self._before = {
            number: signal.signal(number, self._ask)
            for number in STOPPING
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self) -> None:
        """Ignore these signals from here on: all is saved, and this process about to end."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before.clear()

    @contextlib.contextmanager
    def breaks_off(self) -> Iterator[None]:
        """A block that a signal may break off anywhere, by :class:`Stopped`; also by one that came before."""
        self._open = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._open = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = number, now
        elif number == signal.SIGINT and now - self._since > SAME:
            raise KeyboardInterrupt
        if self._open:
            self._open = False
            raise Stopped


@dataclass
class Scoring:
    """Scores (0..1) while training: ``score()`` every ``every`` batches and at the end; the best so far is kept.

    The first time is batch ``first``, and the others count from there. With several processes all score together, and
    ``score`` is given a function (``progress.py``) that hands on what is found in the images.

    There is one for each of the log's; the first says which weights are the best.
    """

    score: Callable[..., Sequence[float]]
    every: int
    best: float | None = None
    first: int = 0


def train(
    trainer: Trainer,
    data: ImageSet,
    snapshots: Snapshots,
    log: Log | None,
    stopping: Stopping,
    *,
    workers: int = 0,
    on_device: bool = False,
    scoring: Scoring | None = None,
) -> int:
    """As :func:`train_on`, on images: ``workers`` processes load them; with ``on_device`` they decode, and the
    trainer's device does the rest.
    """
    net, processes, sizes = trainer.net, trainer.processes, Sizes(trainer)
    trainer.network.resize(*sizes.largest)  # a network that cannot is an error now, and not after the first updates
    batches = load_batches(
        data, net.mini_batch, sizes.of_batch, sizes.largest, counts=sizes.images, most=sizes.most, first=trainer.images,
        workers=workers, rank=processes.rank, world=processes.world, device=trainer.device if on_device else None,
        copies=copies_to(trainer.device),
    )  # fmt: skip
    return train_on(trainer, batches, sizes, snapshots, log, stopping, scoring)


def train_on(
    trainer: Trainer,
    batches: Generator[Batch, None, None],
    sizes: Sizes,
    snapshots: Snapshots,
    log: Log | None,
    stopping: Stopping,
    scoring: Scoring | None = None,
) -> int:
    """Train on ``batches`` until ``max_batches``. Returns 0, or the signal that asked to stop.

    ``log`` and ``snapshots`` are the first process's to use; the others have None for a log.

    A signal does not wait for the update that is under way, which may take minutes, nor for images: the update is
    broken off as soon as the running layer, or backward pass of a mini-batch, returns, and what stood before it is
    saved. Resuming does it again, with the same images and the same outcome. So it is when a process dies or an image
    cannot be read; these raise :class:`TrainingError`. Where the loss is not finite nothing is saved, and the error
    names the last good snapshot.
    """
    for tensor in trainer.network.state_dict().values():
        trainer.processes.broadcast(tensor)
    begun = trainer.updates
    broken: BaseException | None = None
    with contextlib.closing(batches):
        try:
            if _updates(trainer, batches, sizes, snapshots, log, stopping, scoring):
                if log:
                    _save(trainer, snapshots, log, snapshots.final)
                return 0
        except (Stopped, ImageError, LostProcessError) as error:
            broken = error
        # First of all what could be lost; without a finished update there is nothing new.
        problem = _keep(trainer, snapshots, log, scoring) if log and trainer.updates > begun else None
        if broken:
            trainer.give_up()
    if isinstance(broken, DarknetError):
        raise TrainingError(f"{broken}; {problem or _last_good(snapshots)}" if log else str(broken)) from None
    if problem:
        raise problem
    return stopping.asked or signal.SIGTERM


def _updates(
    trainer: Trainer,
    batches: Iterator[Batch],
    sizes: Sizes,
    snapshots: Snapshots,
    log: Log | None,
    stopping: Stopping,
    scoring: Scoring | None,
) -> bool:
    """Update after update up to ``max_batches``; False where another process asked to stop."""
    net, network = trainer.net, trainer.network
    while trainer.batch < net.max_batches:
        before = network.seen
        size = sizes.of(trainer.updates)
        if sizes.drawn and trainer.updates % sizes.resizing.every == 0 and log:
            log.detail(sizes.resizing.line(net, size))
        network.resize(*size)
        clock, waited = time.perf_counter(), Waited()
        try:
            together = trainer.processes.world > 1
            update = trainer.update(waited.take(batches, net.subdivisions, stopping, together))
        except LostProcessError:
            raise
        except TrainingError as error:
            raise TrainingError(f"{error}; {_last_good(snapshots)}") from None
        except torch.cuda.OutOfMemoryError:
            raise network.cfg.net.error(
                f"the GPU's memory is too small for {sizes.count(size)} images of {size[0]} x {size[1]} at once; "
                f"raise subdivisions, to {net.batch} at most",
                "subdivisions",
            ) from None
        if update is None:
            return False
        seconds = time.perf_counter() - clock - waited.seconds
        last = update.batch >= net.max_batches
        images = images_per_update(net)
        if log:
            log.update(update, seconds, waited.seconds, images, trainer.processes.world)
        scores = None
        if scoring and (last or passed(before // images, update.batch, scoring.every, scoring.first)):
            with contextlib.suppress(Stopped, ShareDone):
                scores = _score(trainer, snapshots, log, scoring, stopping)
        if log:
            log.row(update, seconds, waited.seconds, size, scores)
            due = snapshots.due(before, network.seen, images)
            if last and snapshots.backup not in due:
                due.append(snapshots.backup)
            for path in due:
                _save(trainer, snapshots, log, path, scoring)
    return True


def _save(trainer: Trainer, snapshots: Snapshots, log: Log, path: Path, scoring: Scoring | None = None) -> None:
    log.say(f"Saving weights to {path}")
    snapshots.save(trainer, path, {"best": scoring.best if scoring else None})


def _keep(trainer: Trainer, snapshots: Snapshots, log: Log, scoring: Scoring | None) -> DarknetError | None:
    """Save the .backup and its .state; returns what stood in the way."""
    try:
        _save(trainer, snapshots, log, snapshots.backup, scoring)
    except DarknetError as error:
        return error
    return None


def _last_good(snapshots: Snapshots) -> str:
    return f"the last good snapshot is {snapshots.last}" if snapshots.last else "no snapshot was written yet"


class Waited:
    """Takes batches, and counts the seconds that this waits for them."""

    seconds = 0.0

    def take(self, batches: Iterator[Batch], count: int, stopping: Stopping, together: bool) -> Iterator[Batch]:
        """``count`` of them; a signal breaks off the wait for one, and what is done with it until the next is asked.

        With ``together`` it does not break off what is done with the last one: gradients are summed with those of
        other processes meanwhile.
        """
        with stopping.breaks_off():
            for _ in range(count - together):
                yield self._next(batches)
            last = [self._next(batches) for _ in range(together)]
        yield from last

    def _next(self, batches: Iterator[Batch]) -> Batch:
        clock = time.perf_counter()
        batch = next(batches)
        self.seconds += time.perf_counter() - clock
        return batch


class Sizes:
    """Width and height of the images of each update: the cfg's, or with ``random=1`` a new square now and then.

    The loader, far ahead, and the network ask here with the same number: that of the update in the whole training.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        drawn = drawn_sizes(trainer.network)
        self.drawn = bool(drawn)
        self.resizing: Resizing | Scaling = CLASSIFICATION
        if trainer.network.detectors:
            self.resizing = DETECTION
            if trainer.network.program == ALEXEYAB:
                self.resizing = Scaling(USUAL_FACTOR if drawn == 1 else drawn)
        self.given = trainer.net.width, trainer.net.height
        self.largest = self.resizing.largest(trainer.net) if self.drawn else self.given
        self.most = self.resizing.most_images(trainer.net) if self.drawn else trainer.net.mini_batch
        self.begun, self.seen = trainer.updates, trainer.network.seen

    def of(self, update: int) -> tuple[int, int]:
        """The size for update number ``update``, counted from 0."""
        if not self.drawn:
            return self.given
        trainer = self.trainer
        first = update - update % self.resizing.every
        # Counted from where this run began: the updates before may have been those of fewer or more processes.
        seen = self.seen + (first - self.begun) * trainer.images_per_update
        return self.resizing.size(trainer.net, trainer.seed, first, batch_number(trainer.net, seen))

    def of_batch(self, index: int) -> tuple[int, int]:
        """The size for the mini-batch number ``index`` of this run, counted from 0."""
        return self.of(self.begun + index // self.trainer.net.subdivisions)

    def images(self, index: int) -> int:
        """How many images that mini-batch has."""
        return self.count(self.of_batch(index))

    def count(self, size: tuple[int, int]) -> int:
        """How many images of such a size a mini-batch has."""
        count: int = self.resizing.images(self.trainer.net, size) if self.drawn else self.trainer.net.mini_batch
        return count


def _score(
    trainer: Trainer, snapshots: Snapshots, log: Log | None, scoring: Scoring, stopping: Stopping
) -> Sequence[float]:
    """The scores at the cfg's own size, with the rolling statistics; a best one's weights are kept.

    Several processes share the images, with the statistics of the first. All but the first end by :class:`ShareDone`.
    """
    network = trainer.network
    network.resize(trainer.net.width, trainer.net.height)
    network.eval()
    try:
        if trainer.processes.world == 1:
            with stopping.breaks_off():
                scores = scoring.score()
        else:
            for buffer in network.buffers():  # rolling means and variances, each process's own so far
                trainer.processes.broadcast(buffer)
            scores = scoring.score(lambda found, total: _until_asked(found, stopping))
    finally:
        network.train()
    assert log is not None  # this is the first process
    if scoring.best is None or scores[0] > scoring.best:
        scoring.best = scores[0]
        snapshots.save(trainer, snapshots.path("_best.weights"))
    said = [f"{title} {100 * score:.2f} %" for title, score in zip(log.scores.values(), scores, strict=True)]
    log.say(", ".join([*said, f"best {100 * scoring.best:.2f} %"]))
    return scores


def _until_asked(found: Iterable[Result], stopping: Stopping) -> Iterator[Result]:
    """Results up to a signal, between two of them: it would break off what processes say to each other."""
    for one in found:
        if stopping.asked:
            raise Stopped
        yield one
