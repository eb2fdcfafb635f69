"""The verb ``detector train``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import warnings
from typing import TYPE_CHECKING, Any

from ..errors import DarknetError, TrainingError
from ..output import complain

if TYPE_CHECKING:
    from ..train.distributed import Processes
    from ..train.log import Log
    from ..train.loop import Scoring

FAILED = 1
# The flags that a command to go on repeats: name -> its default.
REPEATED = {"gpus": None, "device": None, "numerics": "cudnn", "program": None, "seed": None, "map": None, "amp": None,
            "fast": False, "workers": None, "cache": False, "augment": "loader", "epochs": False, "labels": "error",
            "snapshot": 100, "tensorboard": False}  # fmt: skip
MAP_EPOCHS = 4  # AlexeyAB's src/detector.c: mAP_epochs, and at least 100 batches
MAP_LEAST = 100
MAP_BATCH = 8  # as many such batches as there are processors may be in memory


def add(detector_verbs: Any) -> None:
    """Make the verb known to ``detector``."""
    from .arguments import add_program, count, positive

    parser = detector_verbs.add_parser(
        "train",
        help="train a detection network",
        description="Train CFG on the train list of DATA, from WEIGHTS (which may end early) or from nothing. "
        "Snapshots go to the folder that backup= names: NAME.backup, NAME_100.weights ..., NAME_final.weights, and "
        "with them NAME.log, NAME.csv and the chart NAME.png. Ctrl-C, SIGTERM and SIGHUP save and say how to go on.",
        epilog="example: darknet-compat detector train cfg/voc.data cfg/yolov2-voc.cfg darknet19_448.conv.23",
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", help=".data file: train=, backup=, valid=, names=, classes=")
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="start values; layers it lacks start at random")

    def flag(name: str, **options: Any) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **options)

    flag("clear", action="store_true", help="count images seen from 0, whatever WEIGHTS says")
    flag("resume", action="store_true", help="go on from backup/NAME.backup.state as if nothing had happened")
    flag("gpus", type=_gpus, metavar="0,1", help="GPUs to train on, one process each; the rate is times their number")
    flag("device", metavar="DEVICE", help="where torch runs: cuda (default where there is one), cpu, cuda:1 ...")
    flag("numerics", choices=("cudnn", "gpu", "cpu"), default="cudnn",
         help="whose batch normalisation: cudnn made the published weights (default)")  # fmt: skip
    add_program(parser)
    flag("amp", choices=("bf16", "fp16"), help="run the layers at half precision; the loss stays in float32")
    flag("fast", action="store_true",
         help="channels last, torch.compile, on a GPU TF32 too: quicker, other last digits")  # fmt: skip
    flag("seed", type=_seed, metavar="N", help="of all random numbers (default: a new one, which is printed)")
    flag("epochs", action="store_true", help="show every image once in each epoch; Darknet draws with replacement")
    flag("labels", choices=("error", "warn"), default="error",
         help="bad label lines: an error before the start (default), or left out with a warning")  # fmt: skip
    flag("map", type=positive, nargs="?", const=0, metavar="EVERY",
         help="mAP on the valid list every EVERY batches (default: every 4 epochs, at least 100); "
         "the best is kept as NAME_best.weights")  # fmt: skip
    flag("snapshot", type=positive, default=100, metavar="N", help="write NAME.backup every N batches (default 100)")
    flag("tensorboard", action="store_true", help="write the figures for TensorBoard too, into NAME.tensorboard")
    flag("workers", type=count, metavar="N", help="processes that load images (default: 1 on a CPU, up to 8 on a GPU)")
    flag("cache", action="store_true", help="decode all images at the start and keep them in memory")
    flag("augment", choices=("loader", "device"), default="loader",
         help="where images are placed and recoloured: in the processes that load them (default), or a batch at a "
         "time where torch runs; they then wait in memory at their full size")  # fmt: skip
    parser.set_defaults(run=lambda options: train(parser, options))


def _gpus(text: str) -> list[int]:
    try:
        gpus = [int(word) for word in text.split(",")]
    except ValueError:
        gpus = [-1]
    if min(gpus) < 0 or len(set(gpus)) < len(gpus):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of GPU numbers such as 0,1")
    return gpus


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 2^63 - 1")
    return seed


def train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """``examples/detector.c, train_detector``; 128 + its number where a signal stopped it: 130, 143, 129."""
    if options.resume and options.weights:
        parser.error("-resume goes on from backup/NAME.backup.state, WEIGHTS starts anew: give one of them")
    if options.resume and options.clear:
        parser.error("-resume goes on where the training was, -clear starts counting anew: give one of them")
    if options.gpus and options.device:
        parser.error("-gpus and -device exclude each other")
    if options.amp and options.numerics != "cudnn":
        parser.error(f"-amp needs -numerics cudnn, not {options.numerics}")
    from ..train.distributed import join, launch, leave

    if options.gpus and "RANK" not in os.environ:
        if len(options.gpus) > 1:
            return launch(options.gpus, _arguments(options, options.resume))
        options.device = f"cuda:{options.gpus[0]}"
    processes = join(options.device)
    try:
        job = _prepare(options, processes)
        return job.run() if job else FAILED
    except DarknetError as error:
        if processes.first:
            raise
        complain(f"darknet-compat: process {processes.rank}: {error}")
        return FAILED
    finally:
        leave()


def _prepare(options: argparse.Namespace, processes: Processes) -> Job | None:
    """The job; of several processes the first raises what any of them found wrong, and the others return None."""
    job, problem = None, None
    with contextlib.ExitStack() as quiet:
        if not processes.first:
            quiet.enter_context(contextlib.redirect_stderr(quiet.enter_context(open(os.devnull, "w"))))
        try:
            job = Job(options, processes)
        except DarknetError as error:
            problem = error
    problems = [found for found in processes.gather(str(problem) if problem else None) if found]
    if not problems:
        return job
    if processes.first:
        raise problem or TrainingError(problems[0])
    processes.wait()
    return None


def _arguments(options: argparse.Namespace, resume: bool) -> list[str]:
    """The command's words, as given or to go on with."""
    words = ["detector", "train", options.data, options.cfg]
    if resume:
        words.append("-resume")
    else:
        words += [options.weights] if options.weights else []
        words += ["-clear"] if options.clear else []
    for name, default in REPEATED.items():
        value = getattr(options, name)
        # The state holds the seed.
        if value == default or (resume and name == "seed"):
            continue
        words.append(f"-{name}")
        if name == "gpus":
            words.append(",".join(map(str, value)))
        elif value is not True and not (name == "map" and value == 0):
            words.append(str(value))
    return words


class Job:
    """A training made ready: everything that can be wrong with the files is found before the first update."""

    def __init__(self, options: argparse.Namespace, processes: Processes) -> None:
        import torch

        from .. import load_network
        from ..cfg import read_cfg, read_data, read_list
        from ..program import read_program
        from ..stock import find_stock
        from ..train.augment import Augmentation
        from ..train.checkpoint import Snapshots
        from ..train.data import TrainingSet, check_labels
        from ..train.step import Trainer, strict

        self.options, self.processes = options, processes
        self.data = read_data(find_stock(options.data))
        cfg = read_cfg(find_stock(options.cfg))
        images = read_list(find_stock(self.data.source("train", "data/train.list")))
        program = options.program or read_program(cfg)[0]
        settings = {
            "numerics": options.numerics, "program": program, "amp": options.amp, "epochs": options.epochs,
        }  # fmt: skip
        self.snapshots = Snapshots(self.data.get("backup", "backup"), cfg, settings, options.snapshot)
        self.snapshots.make_folder()

        seed = int.from_bytes(os.urandom(4), "little") if options.seed is None else options.seed
        seed = processes.same_number(seed)
        torch.manual_seed(seed + processes.rank)
        if not options.fast:
            strict()
        weights = find_stock(options.weights) if options.weights else None
        network = load_network(cfg, weights, numerics=options.numerics, program=options.program, clear=options.clear)
        network.check_images()
        head = network.detector
        self._check_classes(head.o.classes)
        self.trainer = Trainer(network, processes, amp=options.amp, fast=options.fast, seed=seed)
        extra, self.changed = self.snapshots.resume(self.trainer) if options.resume else ({}, [])
        if not options.resume:
            self._check_batches()
        labels = check_labels(images, head.truth_classes, options.labels, class_only=head.class_only)
        net = network.net
        augmentation = Augmentation(
            head.o.jitter, net.hue, net.saturation, net.exposure, bool(net.flip), bool(net.letter_box)
        )
        if options.augment == "device" and not net.letter_box:
            raise network.cfg.net.error(
                "letter_box=0 cuts rectangles out of the images in bytes, which only the loader does; expected "
                "letter_box=1, or no -augment device",
                "letter_box",
            )
        self.scoring = None
        if options.map is not None:
            self.scoring = self._scoring(head.o.classes, len(images), extra.get("best"))
        self.images = TrainingSet(
            images, labels, augmentation, head.o.max, self.trainer.seed,
            replacement=not options.epochs, cache=options.cache,
        )  # fmt: skip
        if options.augment == "device":
            _ = self.images.most_pixels  # reads the head of every image, now rather than before the first batch

    def _check_classes(self, classes: int) -> None:
        if self.data.get("classes") is not None and self.data.integer("classes") != classes:
            raise self.data.error("classes", f"the last section of {self.options.cfg} has classes={classes}")

    def _check_batches(self) -> None:
        trainer, net = self.trainer, self.trainer.net
        if trainer.batch >= net.max_batches:
            done = (
                f"{trainer.network.seen:,} images seen are {trainer.batch} batches, and max_batches={net.max_batches}"
            )
            raise trainer.network.cfg.net.error(
                f"nothing is left to train: {done}; raise max_batches, or count from 0 with -clear", "max_batches"
            )

    def _scoring(self, classes: int, images: int, best: float | None) -> Scoring:
        from ..cfg import check_names, read_list, read_names
        from ..detect import detect_files
        from ..detect.defaults import MAP, MAP_HIER
        from ..detect.scores import map_of
        from ..evaluate.annotations import read_label_files
        from ..stock import find_stock
        from ..train.loop import Scoring
        from ..train.schedule import images_per_update

        paths = read_list(find_stock(self.data.require("valid")))
        names = read_names(find_stock(self.data.source("names", "data/names.list")))
        check_names(self.data, names, classes, self.options.cfg)
        truths = read_label_files(paths, classes)
        network, net = self.trainer.network, self.trainer.net

        def score() -> float:
            found = detect_files(
                network,
                paths,
                batch=min(net.mini_batch, MAP_BATCH),
                hier=MAP_HIER,
                **MAP[network.program]._asdict(),
            )
            return map_of(found, names, truths).mean

        every = self.options.map or max(MAP_LEAST, MAP_EPOCHS * images // images_per_update(net))
        return Scoring(score, every, best)

    def run(self) -> int:
        """Train; returns the exit code."""
        from ..files import clear_parts
        from ..train.log import Log
        from ..train.loop import Stopping
        from ..train.loop import train as run

        options, trainer, first = self.options, self.trainer, self.processes.first
        log = None
        if first:
            clear_parts(self.snapshots.folder, self.snapshots.name)
            log = Log(
                self.snapshots.path(""), trainer.network.heads, trainer.batch, trainer.net.max_batches,
                options.resume, options.tensorboard,
            )  # fmt: skip
            self._greet(log)
        begun = trainer.updates
        with Stopping() as stopping:
            try:
                stopped = run(
                    trainer, self.images, self.snapshots, log, stopping, workers=self._workers(),
                    on_device=options.augment == "device", scoring=self.scoring,
                )  # fmt: skip
                if log:
                    if stopped:
                        log.say(self._stopped(anew=trainer.updates == begun))
                    log.draw()
            finally:
                if log:
                    log.close()
            self.processes.wait()
            if stopped:
                stopping.leave()
        return 128 + stopped if stopped else 0

    def _stopped(self, anew: bool) -> str:
        resume = self.options.resume or not anew
        command = shlex.join(["darknet-compat", *_arguments(self.options, resume)])
        if anew:
            return f"stopped before an update was done, and nothing was saved; to start again: {command}"
        return f"stopped after batch {self.trainer.batch}; to go on: {command}"

    def _greet(self, log: Log) -> None:
        trainer, net, world = self.trainer, self.trainer.net, self.processes.world
        log.say(self.snapshots.name)
        if trainer.network.report:
            log.say(str(trainer.network.report))
        if self.options.resume:
            log.say(f"going on after batch {trainer.batch}, {trainer.network.seen:,} images seen")
        elif self.snapshots.state.exists():
            warnings.warn(
                f"{self.snapshots.state} is of an earlier training and will be written over; "
                "-resume would go on with it instead",
                stacklevel=2,
            )
        for change in self.changed:
            log.say(f"changed since: {change}")
        if trainer.batch >= net.max_batches:
            # It was stopped or killed before its final weights were written.
            log.say(f"nothing is left to train: max_batches={net.max_batches}; raise it to train on")
        log.say(f"Learning Rate: {net.learning_rate * world:g}, Momentum: {net.momentum:g}, Decay: {net.decay:g}")
        where = f"{world} processes on {trainer.device.type}" if world > 1 else str(trainer.device)
        log.say(f"{len(self.images)} images, {len(self.images.labels.objects)} objects; seed {trainer.seed}; {where}")

    def _workers(self) -> int:
        if self.options.workers is not None:
            return self.options.workers
        if self.trainer.device.type == "cpu":
            return 1
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(8, here // self.processes.world))
