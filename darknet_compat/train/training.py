"""A training from files: what ``detector train``, ``classifier train`` and ``rnn train`` share.

Source: ``examples/detector.c, train_detector``; ``examples/classifier.c, train_classifier``; ``examples/rnn.c,
train_char_rnn``.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from ..cfg import Cfg, DataFile, format_cfg, read_cfg, read_data, read_list
from ..device import find_device
from ..errors import TrainingError
from ..files import clear_parts
from ..network import Network
from ..processes import Processes, together
from ..program import read_program
from ..stock import find_stock
from ..weights import load_network
from .checkpoint import Snapshots
from .data import ImageSet
from .log import Log
from .loop import Scoring, Stopping, train
from .record import Record, read_record, record_path, write_record
from .step import Trainer, strict

Images = TypeVar("Images", bound=ImageSet)


@dataclass(frozen=True)
class Trained:
    """What a training left: the network, the .weights file that was written last, and how it ended."""

    network: Network
    weights: Path
    batch: int
    """The number of the last update, as Darknet counts them."""
    best: float | None
    """The best score (0..1), where one was asked for: mAP, or top 1."""
    signal: int
    """The signal that stopped it, 0 where it came to ``max_batches``."""


class Training:
    """A training made ready: everything that can be wrong with the files is found before the first update.

    What each kind does in its own way its class says: :class:`ImageTraining`, or :class:`.text.TextTraining`. They
    define the methods that raise NotImplementedError here.

    ``clear`` counts images seen from 0, whatever the weights say. ``resume`` goes on from ``NAME.backup.state`` in the
    folder of the snapshots. ``snapshot``: batches from one ``NAME.backup`` to the next. ``device``, ``numerics``,
    ``program``, ``amp``, ``fast``, ``gradient``, ``seed`` and ``compress`` are those of
    :func:`darknet_compat.load_network` and :class:`darknet_compat.train.step.Trainer`. ``processes`` are the others
    that train too; ``command`` gives the words that start this training anew or, called with True, go on with it.

    Raises :class:`DarknetError` in one line that names file and place. Of several processes the first raises what any
    of them found wrong, and the others :class:`ToldError`.
    """

    function: str
    """What to call from Python to train so."""
    family: str
    """What the verbs for such a network begin with."""
    file: str | os.PathLike[str]
    """The .data file, or the text."""
    labels_by: str = ""
    """How images get their classes."""
    scoring: Scoring | None = None

    def __init__(
        self,
        cfg: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        clear: bool = False,
        resume: bool = False,
        device: str | None = None,
        numerics: str = "cudnn",
        program: str | None = None,
        amp: str | None = None,
        fast: bool = False,
        gradient: Literal["darknet", "true"] = "darknet",
        seed: int | None = None,
        compress: str | None = None,
        snapshot: int | None = None,
        tensorboard: bool = False,
        processes: Processes | None = None,
        command: Callable[[bool], str] | None = None,
    ) -> None:
        if resume and (weights is not None or clear):
            raise TrainingError("resume continues an earlier training run; expected neither weights nor clear with it")
        if amp and numerics != "cudnn":
            raise TrainingError(f"amp={amp} needs numerics=cudnn, not {numerics}")
        self.processes = processes or Processes(find_device(device))
        self.resumed, self.tensorboard, self.numerics = resume, tensorboard, numerics
        self.command = command or (lambda resume: f"{self.function}(..., resume={resume})")
        # Before what one process alone may find wrong: it would not come here, and the others would wait for it.
        seed = self.processes.broadcast_number(int.from_bytes(os.urandom(4), "little") if seed is None else seed)
        with together(self.processes):
            self._read_data()
            read = read_cfg(find_stock(os.fspath(cfg)))
            follows = program or read_program(read)[0]
            settings = {
                "numerics": numerics, "program": follows, "amp": amp, "compress": compress, "gradient": gradient,
                **self._choices(),
            }  # fmt: skip
            self._check_alike(read, {"resume": resume, **settings})
            self.snapshots = self._make_snapshots(read, settings, snapshot, follows)
            self.snapshots.make_folder()
            self._check_final(weights)
            state = self._read_state()
            torch.manual_seed(seed + self.processes.rank)
            if not fast:
                strict()
            weights, clear = (None, False) if self.resumed else (weights, clear)
            network = load_network(read, weights, numerics=numerics, program=program, clear=clear)
            self._check(network)
            self.trainer = Trainer(
                network, self.processes, amp=amp, fast=fast, gradient=gradient, seed=seed, compress=compress
            )
            extra, self.changed = self.snapshots.resume(self.trainer, state) if self.resumed else ({}, [])
            if not self.resumed:
                self._check_batches()
            self._make_ready(extra.get("best"))

    def _check_alike(self, cfg: Cfg, flags: dict[str, Any]) -> None:
        """Refuse what differs from the first process's, on another machine: each would train a network of its own."""
        first, theirs = self.processes.from_first(lambda: (cfg.meaning(), flags))
        for name in sorted({*flags, *theirs}):
            if flags.get(name) != theirs.get(name):
                raise TrainingError(
                    f"process {self.processes.rank} has -{name} {flags.get(name)}, the first one {theirs.get(name)}; "
                    "expected the same command on all machines"
                )
        if cfg.meaning() != first:
            raise TrainingError(
                f"{cfg.file}: process {self.processes.rank} has another cfg than the first one; expected the same "
                "files on all machines"
            )

    def _read_state(self) -> bytes | None:
        """The .state to go on from, which the first process reads for all; None where the training begins.

        Where ``torchrun`` starts the processes again it gives the same command, and the training goes on from what it
        left before, if that is a .state.
        """
        self.snapshots.launchers = self.processes.launchers()
        if self.resumed:
            return self.processes.from_first(self.snapshots.read_state)
        state = self.processes.from_first(self.snapshots.read_own_state) if self.snapshots.launchers else None
        self.resumed = state is not None
        return state

    def _read_data(self) -> None:
        """Read what else the cfg is read for."""

    def _choices(self) -> dict[str, Any]:
        """Choices of one's own that a training must go on with."""
        raise NotImplementedError

    def _make_snapshots(self, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str) -> Snapshots:
        raise NotImplementedError

    def _check(self, network: Network) -> None:
        """Refuse a network that cannot be trained so."""
        raise NotImplementedError

    def _make_ready(self, best: float | None) -> None:
        """What is left to do once there is a trainer; ``best``: the best score of a training that goes on."""
        raise NotImplementedError

    def _train(self, log: Log | None, stopping: Stopping) -> int:
        """Train until ``max_batches``. Returns 0, or the signal that asked to stop."""
        raise NotImplementedError

    def _log(self) -> dict[str, Any]:
        """What the log is given: its scores, and its line of an update."""
        raise NotImplementedError

    def _said(self) -> str:
        """How the log begins its line on the data."""
        raise NotImplementedError

    def _check_final(self, weights: str | os.PathLike[str] | None) -> None:
        final = self.snapshots.final
        if weights is not None and final.exists() and os.path.exists(weights) and final.samefile(weights):
            raise TrainingError(
                f"{final}: this file is read as WEIGHTS, and would be overwritten at the end; expected another folder "
                "for snapshots, or another name for the file"
            )

    def _check_batches(self) -> None:
        trainer, net = self.trainer, self.trainer.net
        if trainer.batch >= net.max_batches:
            done = (
                f"{trainer.network.seen:,} images seen are {trainer.batch} batches, and max_batches={net.max_batches}"
            )
            raise trainer.network.cfg.net.error(
                f"nothing is left to train: {done}; raise max_batches, or count from 0 with -clear", "max_batches"
            )

    def run(self) -> Trained:
        """Train until ``max_batches``, or until a signal asks to stop."""
        trainer = self.trainer
        log = self._start_log() if self.processes.first else None
        begun = trainer.updates
        with Stopping() as stopping:
            try:
                stopped = self._train(log, stopping)
                if log:
                    if stopped:
                        log.say(self._stopped(anew=trainer.updates == begun))
                    log.draw()
            finally:
                if log:
                    log.close()
            self.processes.barrier()
            if stopped:
                stopping.leave()
        best = self.scoring.best if self.scoring else None
        written = self.snapshots.backup if stopped else self.snapshots.final
        return Trained(trainer.network.eval(), written, trainer.batch, best, stopped)

    def _stopped(self, anew: bool) -> str:
        command = self.command(self.resumed or not anew)
        if anew:
            return f"stopped before an update was done, and nothing was saved; to start again: {command}"
        return f"stopped after batch {self.trainer.batch}; to go on: {command}"

    def _write_record(self) -> None:
        path, trainer = record_path(self.snapshots.folder, self.snapshots.name), self.trainer
        before = []
        with contextlib.suppress(TrainingError):  # a damaged record stops no training
            before = read_record(path).commands if self.resumed else []
        record = Record(
            family=self.family, cfg=trainer.network.cfg.file, text=format_cfg(trainer.network.cfg),
            data=os.fspath(self.file), labels=self.labels_by, folder=os.getcwd(), final=self.snapshots.final.name,
            last=self.snapshots.backup.name, program=trainer.network.program, numerics=self.numerics,
            seed=trainer.seed, device=str(trainer.device), started=time.strftime("%Y-%m-%d %H:%M:%S"),
            commands=[*before, self.command(self.resumed)],
        )  # fmt: skip
        write_record(path, record)

    def _start_log(self) -> Log:
        trainer, net, world = self.trainer, self.trainer.net, self.processes.world
        clear_parts(self.snapshots.folder, self.snapshots.name)
        self._write_record()
        log = Log(
            self.snapshots.path(""), trainer.network.heads, trainer.batch, net.max_batches, self.resumed,
            self.tensorboard, **self._log(),
        )  # fmt: skip
        log.say(self.snapshots.name)
        if trainer.network.report:
            log.say(str(trainer.network.report))
        if self.resumed:
            log.say(f"going on after batch {trainer.batch}, {trainer.network.seen:,} images seen")
        elif self.snapshots.state.exists():
            warnings.warn(
                f"{self.snapshots.state} is of an earlier training run, and will be overwritten; "
                "-resume would continue that run",
                stacklevel=3,
            )
        for change in self.changed:
            log.say(f"changed since: {change}")
        if trainer.batch >= net.max_batches:
            # It was stopped or killed before its final weights were written.
            log.say(f"nothing is left to train: max_batches={net.max_batches}; raise it to train on")
        log.say(f"Learning Rate: {net.learning_rate * world:g}, Momentum: {net.momentum:g}, Decay: {net.decay:g}")
        where = f"{world} processes on {trainer.device.type}" if world > 1 else str(trainer.device)
        log.say(f"{self._said()}; seed {trainer.seed}; {where}")
        for remark in self._remarks():
            log.say(remark)
        return log

    def _remarks(self) -> Iterator[str]:
        """What a user is told of the losses, a line each."""
        return (head.remark for head in self.trainer.network.heads if head.remark)


class ImageTraining(Training, Generic[Images]):
    """A training on the train list of a .data file, as of detectors and classifiers.

    What they do each in their own way, :class:`.detector.DetectorTraining` and
    :class:`.classifier.ClassifierTraining` say: they define the methods that raise NotImplementedError here.

    Snapshots go to the folder ``backup``; None: the one that ``backup=`` of the .data file names. ``epochs`` shows
    every image once in each epoch, where Darknet draws with replacement. ``workers`` processes load images (default: 1
    on a CPU, up to 8 on a GPU), ``cache`` decodes all at the start, ``augment`` "device" places and recolours them a
    batch at a time where torch runs. The other
    ``options`` are those of :class:`Training`.
    """

    images: Images

    def __init__(
        self,
        data: str | os.PathLike[str],
        cfg: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        epochs: bool = False,
        workers: int | None = None,
        cache: bool = False,
        augment: Literal["loader", "device"] = "loader",
        backup: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self.file, self.backup = data, backup
        self.epochs, self.cache, self.on_device = epochs, cache, augment == "device"
        super().__init__(cfg, weights, **options)
        self.workers = self._loading_processes() if workers is None else workers

    def _read_data(self) -> None:
        self.data: DataFile = read_data(find_stock(os.fspath(self.file)))
        self.paths = self._paths()

    def _paths(self) -> Sequence[str]:
        """Of the images to train on; :meth:`_training_set` is given them."""
        return self.processes.from_first(lambda: read_list(find_stock(self.data.source("train", "data/train.list"))))

    def _choices(self) -> dict[str, Any]:
        return {"epochs": self.epochs, **self._settings()}

    def _settings(self) -> dict[str, Any]:
        """Those that this kind has besides."""
        raise NotImplementedError

    def _make_snapshots(self, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str) -> Snapshots:
        folder = self.data.get("backup", "backup") if self.backup is None else os.fspath(self.backup)
        return self._snapshots(folder, cfg, settings, every, program, len(self.paths))

    def _snapshots(
        self, folder: str, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str, images: int
    ) -> Snapshots:
        raise NotImplementedError

    def _check(self, network: Network) -> None:
        """Refuse a network that cannot be trained so, or not with this .data file."""
        network.check_images()

    def _make_ready(self, best: float | None) -> None:
        self.images = self._training_set(self.paths)
        self.scoring = self._scoring(best)

    def _training_set(self, paths: Any) -> Images:
        raise NotImplementedError

    def _scoring(self, best: float | None) -> Scoring | None:
        raise NotImplementedError

    def _train(self, log: Log | None, stopping: Stopping) -> int:
        return train(
            self.trainer, self.images, self.snapshots, log, stopping, workers=self.workers, on_device=self.on_device,
            scoring=self.scoring,
        )  # fmt: skip

    def _loading_processes(self) -> int:
        if self.trainer.device.type == "cpu":
            return 1
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(8, here // self.processes.world))
