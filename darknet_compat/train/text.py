"""Training a network to foretell a text, as ``rnn train`` does it.

Source: ``examples/rnn.c, train_char_rnn, get_rnn_data, get_rnn_token_data``; AlexeyAB's ``src/rnn.c``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from itertools import count
from typing import Any

import numpy as np
import torch

from ..cfg import Cfg
from ..network import Network
from ..program import ALEXEYAB, PJREDDIE
from ..stock import find_stock
from ..text.corpus import read_symbols
from ..text.reader import check_reader
from .batch import Batch
from .checkpoint import Snapshots, by_batches
from .log import Log
from .loop import Sizes, Stopping, train_on
from .step import Trainer, Update
from .training import Trained, Training

TEXT = "data/shakespeare.txt"  # run_char_rnn
RESTART = {PJREDDIE: 64, ALEXEYAB: 10}  # a stream starts at another place behind one of so many mini-batches
SNAPSHOT = {PJREDDIE: 100, ALEXEYAB: 10}  # batches from one NAME.backup to the next
NUMBERED = {PJREDDIE: 10000, ALEXEYAB: 1000}  # batches from one NAME_1000.weights to the next

# Of a mini-batch's number: which streams start anew there, and where; both arrays hold one value for each stream.
Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]


def train_text(cfg: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None, **options: Any) -> Trained:
    """Train ``cfg`` to foretell a text, from ``weights`` (which may end early) or from nothing.

    ``options`` and errors are those of :class:`TextTraining`. While it runs in the main thread Ctrl-C, SIGTERM and
    SIGHUP save and end it; ``Trained.signal`` says so.
    """
    return TextTraining(cfg, weights, **options).run()


class TextTraining(Training):
    """A training on a text made ready.

    ``text`` is its file; ``tokenized`` says that it holds numbers of tokens rather than letters. Snapshots go to the
    folder ``backup``. ``draw``: where streams start, in the place of :func:`draw_starts`. The other ``options`` are
    those of :class:`.training.Training`.
    """

    function, family = "train_text", "rnn"

    def __init__(
        self,
        cfg: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        text: str | os.PathLike[str] = TEXT,
        tokenized: bool = False,
        backup: str | os.PathLike[str] = "backup",
        draw: Draw | None = None,
        **options: Any,
    ) -> None:
        self.file, self.tokenized, self.backup, self.draw = text, tokenized, backup, draw
        super().__init__(cfg, weights, **options)

    def _choices(self) -> dict[str, Any]:
        return {"tokenized": self.tokenized}

    def _make_snapshots(self, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str) -> Snapshots:
        return Snapshots(self.backup, cfg, settings, every or SNAPSHOT[program], by_batches(NUMBERED[program]))

    def _check(self, network: Network) -> None:
        self.text = read_symbols(find_stock(os.fspath(self.file)), check_reader(network), self.tokenized)

    def _make_ready(self, best: float | None) -> None:
        trainer, net = self.trainer, self.trainer.net
        self.streams = net.mini_batch // net.time_steps
        if self.draw is None:
            self.draw = draw_starts(
                len(self.text), self.streams, RESTART[trainer.network.program], trainer.seed, self.processes.rank
            )

    def _train(self, log: Log | None, stopping: Stopping) -> int:
        assert self.draw is not None
        trainer = self.trainer
        batches = text_batches(trainer, self.text, self.draw)
        return train_on(trainer, batches, Sizes(trainer), self.snapshots, log, stopping)

    def _log(self) -> dict[str, Any]:
        return {"scores": {}, "line": update_line(len(self.text)), "loads": False}

    def _said(self) -> str:
        letters = "tokens" if self.tokenized else "letters"
        return f"{len(self.text)} {letters}; {self.streams} streams, {self.trainer.net.time_steps} steps each"


def draw_starts(size: int, streams: int, restart: int, seed: int, rank: int = 0) -> Draw:
    """Darknet's chances, by numbers of our own: a start anywhere in a text of ``size`` symbols, and with each further
    mini-batch one anew in ``restart``.

    What is drawn for a mini-batch hangs on its number alone, so that a training can go on anywhere.
    """

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng((seed, rank, number))
        again = random.random(streams) < 1 / restart if number else np.ones(streams, bool)
        return again, random.integers(size, size=streams)

    return draw


def starts(draw: Draw, number: int, steps: int) -> np.ndarray:
    """Where each stream stands at the start of mini-batch ``number``, behind so many steps in each since its start.

    From the last start of each on, found by going back.
    """
    again, at = draw(number)
    back = number
    while not again.all():
        back -= 1
        earlier, places = draw(back)
        at = np.where(again, at, places + (number - back) * steps)
        again = again | earlier
    return at


def text_batches(trainer: Trainer, text: np.ndarray, draw: Draw) -> Generator[Batch, None, None]:
    """The mini-batches that come next, without end: the symbols as one-hot vectors, and as their truth those behind.

    Rows are time first, as recurrent layers take them. A stream reads on where it stood, around the end of the text to
    its start; where it starts anew, the network forgets it.
    """
    network, net = trainer.network, trainer.net
    first = trainer.updates * net.subdivisions
    at = starts(draw, first, net.time_steps)
    for number in count(first):
        again, places = draw(number)
        at = np.where(again, places, at)
        for stream in [None] if again.all() else np.flatnonzero(again).tolist():
            network.reset_state(stream)
        rows = (at + np.arange(net.time_steps)[:, None]).reshape(-1)
        symbols, following = (torch.from_numpy(text[(rows + next) % len(text)]) for next in (0, 1))
        one_hot = [torch.zeros(len(rows), network.input.outputs, device=trainer.device) for _ in range(2)]
        for vectors, which in zip(one_hot, (symbols, following), strict=True):
            vectors.scatter_(1, which[:, None].to(trainer.device), 1)
        images, truth = one_hot
        yield Batch(images.reshape(-1, *network.input), truth)
        at = at + net.time_steps


def update_line(size: int) -> Callable[[Update, float, int], str]:
    """The line that ``rnn train`` prints of each update, with a text of ``size`` symbols."""

    def line(update: Update, seconds: float, taken: int) -> str:
        epochs = np.float32(update.seen) / np.float32(size)
        return (
            f"{update.batch}: {update.loss:f}, {update.avg:f} avg, {update.rate:f} rate, {seconds:f} seconds, "
            f"{epochs:f} epochs"
        )

    return line
