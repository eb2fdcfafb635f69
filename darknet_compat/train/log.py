"""What a training says: Darknet's lines, a progress bar, a table of every figure, a chart.

Source: the lines are those of ``examples/detector.c, train_detector``, of ``examples/classifier.c, train_classifier``
and of the heads.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import sys
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import regular_file, whole_file
from ..layers.head import Head
from ..output import drop
from .step import Update

# Of the table; behind them the heads' own, and the scores.
FIRST, SIZE = ("batch", "images", "loss", "avg_loss", "rate", "seconds", "loading_seconds"), "size"
CHARTED = ("batch", "loss", "avg_loss", "rate")  # and the scores
MAP = {"map": "mAP"}
NEW = 0.01  # of the last update in the mean of the time that is left
CHART_EVERY = 10.0  # seconds
CHART_SHARE = 0.02  # of the time at most goes into drawing


# The line of an update, its seconds and the images of one process's update.
Line = Callable[[Update, float, int], str]


def update_line(update: Update, seconds: float, images: int) -> str:
    """The line that ``detector train`` prints of each update."""
    return (
        f"{update.batch}: {update.loss:f}, {update.avg:f} avg, {update.rate:f} rate, {seconds:f} seconds, "
        f"{update.batch * images} images"
    )


class Hours:
    """How long a training still takes, by the time from update to update: AlexeyAB's running mean, in hours.

    Source: his ``src/detector.c, train_detector``; pjreddie's program does not say it.
    """

    def __init__(self, max_batches: int) -> None:
        self.max_batches = max_batches
        self.mean: float | None = None
        self.last = time.monotonic()

    def __call__(self, batch: int, world: int = 1) -> float:
        """Behind update ``batch``; one of ``world`` processes is so many batches."""
        now = time.monotonic()
        left = (self.max_batches - batch) // world * (now - self.last) / 3600
        self.last = now
        self.mean = left if self.mean is None else NEW * left + (1 - NEW) * self.mean
        return self.mean


def rewritten_line(rewritten: float, trained: float) -> str:
    """The line that AlexeyAB's program prints of each mini-batch (``src/network.c, train_network_datum``)."""
    return f" total_bbox = {trained:.0f}, rewritten_bbox = {100 * rewritten / trained:f} % "


def head_columns(heads: Sequence[Head]) -> list[list[str]]:
    """The names of each head's columns; of several heads with the layer's number, as ``avg_iou_16``."""
    return [[name if len(heads) == 1 else f"{name}_{head.index}" for name in head.columns] for head in heads]


class Lines:
    """A text file that grows by whole lines, each written at once.

    What a full disk takes only a part of is taken back, and written with the next lines: :meth:`add` may raise
    :class:`OSError`, and nothing is lost.
    """

    def __init__(self, path: str, more: bool) -> None:
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115
        if not more:
            self.file.truncate(0)
        self.size = os.fstat(self.file.fileno()).st_size
        self.left = b""

    def add(self, text: str) -> None:
        self.left += text.encode(errors="surrogateescape")
        written = 0
        try:
            while written < len(self.left):
                written += self.file.write(self.left[written:])
        except OSError:
            with contextlib.suppress(OSError):
                self.file.truncate(self.size)
            raise
        self.size += written
        self.left = b""


class Log:
    """Prints a training's lines and keeps them in ``path`` + .log, its figures in .csv, its curves in .png.

    None of this ends a training. Where the reader of the screen is gone, the lines go to the .log alone; what a full
    disk does not take is written later; a chart that cannot be drawn is left out. Each is warned of once.

    On a terminal a bar stands in the place of the lines of each update. ``heads``: the network's. ``batch``: the batch
    to go on after; rows and lines that a broken-off training left behind it are taken out of the table.
    ``tensorboard`` writes the figures into the folder ``path`` + .tensorboard too. ``scores``: the columns of what is
    scored now and then, and what they are called. ``line`` makes the line of an update, but for the time that is left,
    up to ``last_batch``; ``loads``: is there one of
    what loading took?
    """

    def __init__(
        self,
        path: Path,
        heads: Sequence[Head],
        batch: int = 0,
        last_batch: int = 0,
        resumed: bool = False,
        tensorboard: bool = False,
        scores: Mapping[str, str] = MAP,
        line: Line = update_line,
        loads: bool = True,
    ) -> None:
        self.path = path
        self.heads = heads
        self.scores = scores
        self.line = line
        self.loads = loads
        self.rewritten = self.trained = 0.0  # boxes since this run began, as AlexeyAB's program counts
        self.table_columns = (*FIRST, *(name for names in head_columns(heads) for name in names), SIZE, *scores)
        self.columns = {name: array("d") for name in (*CHARTED, *scores)}
        self.warned: set[str] = set()
        end = ".csv"
        self.events = self._events(batch) if tensorboard else None
        try:
            if resumed:
                self._cut_table(batch)
            self.table = Lines(f"{path}{end}", resumed)
            end = ".log"
            self.text = Lines(f"{path}{end}", resumed)
        except OSError as error:
            raise TrainingError(f"{path}{end}: cannot write the log: {error.strerror}") from None
        self.lines: list[str] = []
        if not self.table.size:
            self._write_row(self.table_columns)
        self.bar = self._bar(batch, last_batch)
        self.hours = Hours(last_batch)
        self.drawn = time.monotonic()
        self.drawing_took = 0.0

    def _cut_table(self, batch: int) -> None:
        """Leave the rows up to ``batch`` in the table, and take up their curves."""
        path = f"{self.path}.csv"
        kept = []
        if os.path.exists(path):
            with regular_file(path, "utf-8", "replace") as file:
                kept = [
                    row
                    for row in csv.DictReader(file)
                    if _whole(row, self.table_columns, self.columns) and int(row["batch"]) <= batch
                ]
        with whole_file(path, "w") as file:
            writer = csv.DictWriter(file, self.table_columns, lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(kept)
        for row in kept:
            for name, column in self.columns.items():
                column.append(float(row[name] or "nan"))

    def _bar(self, batch: int, last_batch: int) -> Any:
        if not (sys.stdout.isatty() and sys.stderr.isatty()):
            return None
        from tqdm import tqdm

        return tqdm(total=last_batch, initial=batch, unit="batch", dynamic_ncols=True)

    def _events(self, batch: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError("-tensorboard needs a package: pip install tensorboard") from None
        return SummaryWriter(f"{self.path}.tensorboard", purge_step=batch + 1)

    def say(self, line: str) -> None:
        """A line for the screen and the log."""
        self.lines.append(line)
        self._write_lines()
        if self.bar is None:
            self._show(lambda: print(line, flush=True))
        else:
            self._show(lambda: self.bar.write(line))

    def detail(self, line: str) -> None:
        """A line of a single update: on a terminal the bar stands for it."""
        self.lines.append(line)
        if self.bar is None:
            self._show(lambda: print(line))

    def _show(self, show: Callable[[], None]) -> None:
        try:
            show()
        except OSError as error:
            if self.bar is not None:
                self.bar.disable = True
                self.bar = None
            drop(sys.stdout)
            self._warn(f"standard output: {error.strerror}; training continues, with its lines in {self.path}.log only")

    def _warn(self, what: str) -> None:
        if what not in self.warned:
            self.warned.add(what)
            warnings.warn(what, stacklevel=3)

    def _write_lines(self) -> None:
        self._add(self.text, ".log", "".join(f"{line}\n" for line in self.lines))
        self.lines.clear()

    def _write_row(self, cells: Sequence[Any]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerow(cells)
        self._add(self.table, ".csv", text.getvalue())

    def _add(self, lines: Lines, end: str, text: str) -> None:
        try:
            lines.add(text)
        except OSError as error:
            self._warn(f"{self.path}{end}: {error.strerror}; training continues, and tries again with each line")

    def update(self, update: Update, seconds: float, loading: float, images: int, world: int) -> None:
        """Darknet's lines of an update. ``images``: those of one process's update; ``world`` processes."""
        if self.loads:
            self.detail(f"Loaded: {loading:f} seconds")
        for figures in update.figures:
            for head, one in zip(self.heads, figures, strict=True):
                if line := head.line(one):
                    self.detail(line)
                rewritten, trained = head.rewritten(one)
                self.rewritten, self.trained = self.rewritten + rewritten, self.trained + trained
            if self.trained:
                self.detail(rewritten_line(self.rewritten, self.trained))
        self.detail(f"{self.line(update, seconds, images)}, {self.hours(update.batch, world):f} hours left")
        if self.bar is None:
            self._show(sys.stdout.flush)
        else:
            self.bar.set_postfix_str(
                f"loss {update.loss:.2f}, avg {update.avg:.2f}, rate {update.rate:.2g}, "
                f"{images * world / (seconds + loading):.1f} images/s",
                refresh=False,
            )
            self._show(lambda: self.bar.update(update.batch - self.bar.n))

    def row(
        self, update: Update, seconds: float, loading: float, size: tuple[int, int], scores: Sequence[float] | None
    ) -> None:
        """The update's row of the table, and a new chart when one is due."""
        scored = dict.fromkeys(self.scores) if scores is None else dict(zip(self.scores, scores, strict=True))
        row: dict[str, Any] = {
            "batch": update.batch, "images": update.seen, "loss": update.loss, "avg_loss": update.avg,
            "rate": update.rate, "seconds": round(seconds, 6), "loading_seconds": round(loading, 6),
            **self._totals(update), SIZE: f"{size[0]}x{size[1]}", **scored,
        }  # fmt: skip
        if self.events is not None:
            with self._spared("TensorBoard's figures"):
                for name, value in row.items():
                    if isinstance(value, float) and math.isfinite(value):
                        self.events.add_scalar(name, value, update.batch)
        for name, column in self.columns.items():
            column.append(math.nan if row[name] is None else row[name])
        self._write_row([_cell(row[name]) for name in self.table_columns])
        self._write_lines()
        if time.monotonic() - self.drawn > max(CHART_EVERY, self.drawing_took / CHART_SHARE):
            self.draw()

    def _totals(self, update: Update) -> dict[str, float]:
        totals = {}
        for number, (head, names) in enumerate(zip(self.heads, head_columns(self.heads), strict=True)):
            of_head = head.totals([heads[number] for heads in update.figures])
            totals.update({name: of_head[column] for name, column in zip(names, head.columns, strict=True)})
        return totals

    def draw(self) -> None:
        """Write the chart."""
        if not self.columns["batch"]:
            return
        from .chart import draw_chart

        start = time.monotonic()
        path = self.path.with_name(f"{self.path.name}.png")
        with self._spared(f"{path}: the chart"):
            draw_chart(path, self.columns, self.path.name, self.scores)
        self.drawn = time.monotonic()
        self.drawing_took = self.drawn - start

    @contextlib.contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """What is only for looking at ends no training, whatever goes wrong in it."""
        try:
            yield
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._warn(f"{what} cannot be written: {reason}; training continues without")

    def close(self) -> None:
        if self.bar is not None:
            self._show(self.bar.close)
        if self.events is not None:
            with self._spared("TensorBoard's figures"):
                self.events.close()
        self._write_lines()
        self._add(self.table, ".csv", "")
        self.text.file.close()
        self.table.file.close()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value


def _whole(row: dict[str, str], columns: Sequence[str], charted: Iterable[str]) -> bool:
    """False for a line that a kill cut off, or that is none of a table."""
    try:
        for name in charted:
            float(row[name] or "nan")
    except (KeyError, TypeError, ValueError):
        return False
    return all(row.get(name) is not None for name in columns) and row["batch"].isdecimal()
