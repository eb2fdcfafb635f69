"""Training a detector from a .data file, as ``detector train`` and ``yolo train`` do it.

Source: ``examples/detector.c, train_detector``; ``examples/yolo.c, train_yolo``; the rhythm of mAP while training is
that of AlexeyAB's ``src/detector.c, train_detector``.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..cfg import check_names, read_cfg, read_data, read_list, read_names
from ..defaults import MAP, MAP_HIER, Verbs
from ..detect import detect_files
from ..detect.scores import map_of
from ..device import find_device
from ..errors import DarknetError, ToldError, TrainingError
from ..evaluate.annotations import read_label_files
from ..files import clear_parts
from ..network import Network
from ..program import ALEXEYAB, read_program
from ..stock import find_stock
from ..weights import load_network
from .augment import Augmentation, Fit
from .checkpoint import NUMBERED, Snapshots
from .data import TrainingSet, check_labels
from .distributed import Processes
from .log import Log
from .loop import Scoring, Stopping, train
from .schedule import images_per_update
from .step import Trainer, strict

MAP_EPOCHS = 4  # AlexeyAB's src/detector.c: mAP_epochs, and at least 100 batches
MAP_LEAST = 100
MAP_BATCH = 8  # as many such batches as there are processors may be in memory


@dataclass(frozen=True)
class Trained:
    """What a training left: the network, the .weights file that was written last, and how it ended."""

    network: Network
    weights: Path
    batch: int
    """The number of the last update, as Darknet counts them."""
    best: float | None
    """The best mAP (0..1), where mAP was asked for."""
    signal: int
    """The signal that stopped it, 0 where it came to ``max_batches``."""


def train_detector(
    data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Trained:  # fmt: skip
    """Train ``cfg`` on the train list of ``data``, from ``weights`` (which may end early) or from nothing.

    ``options`` and errors are those of :class:`Training`. While it runs in the main thread Ctrl-C, SIGTERM and SIGHUP
    save and end it; ``Trained.signal`` says so.
    """
    return Training(data, cfg, weights, **options).run()


class Training:
    """A training made ready: everything that can be wrong with the files is found before the first update.

    ``clear`` counts images seen from 0, whatever the weights say. ``resume`` goes on from ``NAME.backup.state`` in the
    folder that ``backup=`` names. ``map_every`` scores mAP on the valid list every so many batches, 0: every 4 epochs,
    but at least 100 batches; None: never. ``snapshot``: batches from one ``NAME.backup`` to the next. ``epochs`` shows
    every image once in each epoch, where Darknet draws with replacement. ``labels`` "warn" leaves bad label lines out.
    ``workers`` processes load images (default: 1 on a CPU, up to 8 on a GPU), ``cache`` decodes all at the start,
    ``augment`` "device" places and recolours them a batch at a time where torch runs. ``device``, ``numerics``,
    ``program``, ``amp``, ``fast``, ``gradient`` and ``seed`` are those of :func:`darknet_compat.load_network` and
    :class:`darknet_compat.train.step.Trainer`. ``verbs`` "yolo" takes YOLOv1's networks alone, and writes numbered
    snapshots more often. ``processes`` are the others that train too; ``command`` gives the
    words that start this training anew or, called with True, go on with it.

    Raises :class:`DarknetError` in one line that names file and place. Of several processes the first raises what any
    of them found wrong, and the others :class:`ToldError`.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
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
        epochs: bool = False,
        labels: Literal["error", "warn"] = "error",
        map_every: int | None = None,
        snapshot: int = 100,
        tensorboard: bool = False,
        workers: int | None = None,
        cache: bool = False,
        augment: Literal["loader", "device"] = "loader",
        verbs: Verbs = "detector",
        processes: Processes | None = None,
        command: Callable[[bool], str] | None = None,
    ) -> None:
        if resume and (weights is not None or clear):
            raise TrainingError("resume goes on where a training was; expected neither weights nor clear beside it")
        if amp and numerics != "cudnn":
            raise TrainingError(f"amp={amp} needs numerics=cudnn, not {numerics}")
        self.processes = processes or Processes(find_device(device))
        self.resumed, self.tensorboard, self.on_device = resume, tensorboard, augment == "device"
        self.command = command or (lambda resume: f"train_detector(..., resume={resume})")
        # Before what one process alone may find wrong: it would not come here, and the others would wait for it.
        seed = self.processes.broadcast_number(int.from_bytes(os.urandom(4), "little") if seed is None else seed)
        with _together(self.processes):
            self.data = read_data(find_stock(os.fspath(data)))
            read = read_cfg(find_stock(os.fspath(cfg)))
            images = read_list(find_stock(self.data.source("train", "data/train.list")))
            settings = {
                "numerics": numerics, "program": program or read_program(read)[0], "amp": amp, "epochs": epochs,
                "gradient": gradient,
            }  # fmt: skip
            folder = self.data.get("backup", "backup")
            self.snapshots = Snapshots(folder, read, settings, snapshot, NUMBERED[verbs])
            self.snapshots.make_folder()
            torch.manual_seed(seed + self.processes.rank)
            if not fast:
                strict()
            network = load_network(read, weights, numerics=numerics, program=program, clear=clear)
            network.check_images()
            network.check_verbs(verbs)
            self._check_classes(network.detector.o.classes)
            self.trainer = Trainer(network, self.processes, amp=amp, fast=fast, gradient=gradient, seed=seed)
            extra, self.changed = self.snapshots.resume(self.trainer) if resume else ({}, [])
            if not resume:
                self._check_batches()
            self.images = self._training_set(images, labels, epochs, cache)
            self.scoring = None if map_every is None else self._scoring(map_every, extra.get("best"))
        self.workers = self._loading_processes() if workers is None else workers

    def _check_classes(self, classes: int) -> None:
        if self.data.get("classes") is not None and self.data.integer("classes") != classes:
            raise self.data.error("classes", f"the last section of {self.snapshots.cfg.file} has classes={classes}")

    def _check_batches(self) -> None:
        trainer, net = self.trainer, self.trainer.net
        if trainer.batch >= net.max_batches:
            done = (
                f"{trainer.network.seen:,} images seen are {trainer.batch} batches, and max_batches={net.max_batches}"
            )
            raise trainer.network.cfg.net.error(
                f"nothing is left to train: {done}; raise max_batches, or count from 0 with -clear", "max_batches"
            )

    def _training_set(
        self, images: list[str], labels: Literal["error", "warn"], epochs: bool, cache: bool
    ) -> TrainingSet:
        network, net, head = self.trainer.network, self.trainer.net, self.trainer.network.detector
        fit: Fit = "stretch" if head.stretches else "place" if net.letter_box else "crop"
        if network.program == ALEXEYAB and fit != "stretch":
            # What his loader and his loop do with these is not what pjreddie's do; load_data_region is alike in both.
            for name, built in (("resize", 1), ("random", 0)):
                if getattr(head.o, name, built) != built:
                    raise head.section.error(
                        f"{name}={getattr(head.o, name):g} of AlexeyAB's program is not built here yet; "
                        f"expected {name}={built}",
                        name,
                    )
        if self.on_device and fit == "crop":
            raise network.cfg.net.error(
                "letter_box=0 cuts rectangles out of the images in bytes, which only the loader does; expected "
                "letter_box=1, or no -augment device",
                "letter_box",
            )
        found = check_labels(images, head.truth_classes, labels, class_only=head.class_only)
        augmentation = Augmentation(head.o.jitter, net.hue, net.saturation, net.exposure, bool(net.flip), fit)
        most = found.most if fit == "stretch" else head.o.max  # fill_truth_region looks at all
        made = TrainingSet(images, found, augmentation, most, self.trainer.seed, replacement=not epochs, cache=cache)
        if self.on_device:
            _ = made.most_pixels  # reads the head of every image, now rather than before the first batch
        return made

    def _scoring(self, every: int, best: float | None) -> Scoring:
        network, net = self.trainer.network, self.trainer.net
        classes = network.detector.o.classes
        paths = read_list(find_stock(self.data.require("valid")))
        names = read_names(find_stock(self.data.source("names", "data/names.list")))
        check_names(self.data, names, classes, self.snapshots.cfg.file)
        truths = read_label_files(paths, classes)

        def score() -> float:
            found = detect_files(
                network, paths, batch=min(net.mini_batch, MAP_BATCH), hier=MAP_HIER, **MAP[network.program]._asdict(),
            )  # fmt: skip
            return map_of(found, names, truths).mean

        every = every or max(MAP_LEAST, MAP_EPOCHS * len(self.images) // images_per_update(net))
        return Scoring(score, every, best)

    def _loading_processes(self) -> int:
        if self.trainer.device.type == "cpu":
            return 1
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(8, here // self.processes.world))

    def run(self) -> Trained:
        """Train until ``max_batches``, or until a signal asks to stop."""
        trainer = self.trainer
        log = self._start_log() if self.processes.first else None
        begun = trainer.updates
        with Stopping() as stopping:
            try:
                stopped = train(
                    trainer, self.images, self.snapshots, log, stopping, workers=self.workers,
                    on_device=self.on_device, scoring=self.scoring,
                )  # fmt: skip
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
        written = self.snapshots.backup if stopped else self.snapshots.path("_final.weights")
        return Trained(trainer.network.eval(), written, trainer.batch, best, stopped)

    def _stopped(self, anew: bool) -> str:
        command = self.command(self.resumed or not anew)
        if anew:
            return f"stopped before an update was done, and nothing was saved; to start again: {command}"
        return f"stopped after batch {self.trainer.batch}; to go on: {command}"

    def _start_log(self) -> Log:
        trainer, net, world = self.trainer, self.trainer.net, self.processes.world
        clear_parts(self.snapshots.folder, self.snapshots.name)
        log = Log(
            self.snapshots.path(""), trainer.network.heads, trainer.batch, net.max_batches, self.resumed,
            self.tensorboard,
        )  # fmt: skip
        log.say(self.snapshots.name)
        if trainer.network.report:
            log.say(str(trainer.network.report))
        if self.resumed:
            log.say(f"going on after batch {trainer.batch}, {trainer.network.seen:,} images seen")
        elif self.snapshots.state.exists():
            warnings.warn(
                f"{self.snapshots.state} is of an earlier training and will be written over; "
                "-resume would go on with it instead",
                stacklevel=3,
            )
        for change in self.changed:
            log.say(f"changed since: {change}")
        if trainer.batch >= net.max_batches:
            # It was stopped or killed before its final weights were written.
            log.say(f"nothing is left to train: max_batches={net.max_batches}; raise it to train on")
        log.say(f"Learning Rate: {net.learning_rate * world:g}, Momentum: {net.momentum:g}, Decay: {net.decay:g}")
        where = f"{world} processes on {trainer.device.type}" if world > 1 else str(trainer.device)
        objects = len(self.images.labels.objects)
        log.say(f"{len(self.images)} images, {objects} objects; seed {trainer.seed}; {where}")
        return log


@contextlib.contextmanager
def _together(processes: Processes) -> Iterator[None]:
    """What each process does by itself; then the first raises what any of them found wrong, the others ToldError."""
    problem = None
    with contextlib.ExitStack() as quiet:
        if not processes.first:
            quiet.enter_context(contextlib.redirect_stderr(quiet.enter_context(open(os.devnull, "w"))))
        try:
            yield
        except DarknetError as error:
            problem = error
    problems = [found for found in processes.all_gather(str(problem) if problem else None) if found]
    if not problems:
        return
    if processes.first:
        raise problem or TrainingError(problems[0])
    processes.barrier()
    raise ToldError(problems[0])
