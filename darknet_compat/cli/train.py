"""The verbs ``detector train``, ``yolo train`` and ``classifier train``."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import DarknetError, ToldError
from ..output import complain
from .arguments import above_0, add_device, add_program, chosen_device, count, fraction, gpu_numbers, positive

if TYPE_CHECKING:
    from ..train.training import Trained

FAILED = 1
# The flags that a command to go on repeats: name -> its default. No verb has all of them.
REPEATED = {"gpus": None, "device": None, "threads": None, "numerics": "cudnn", "program": None, "seed": None,
            "map": None, "topk": None, "top": None, "amp": None, "compress": None, "fast": False, "workers": None,
            "cache": False, "augment": "loader", "epochs": False, "backup": None, "snapshot": None,
            "tensorboard": False, "gradient": "darknet", "classify": None, "ratio": None, "mAP_epochs": 4,
            "iou_thresh": 0.5}  # fmt: skip
LABELS = {"classifier": "path"}  # the default of -labels, where it is not "error"
OPTIONAL = ("map", "topk")  # flags whose number may be left away, which is 0 then

# What starts a training, of the command's options and what every verb hands on.
Start = Callable[[argparse.Namespace, dict[str, Any]], "Trained"]


def add(verbs: Any, example: str = "cfg/voc.data cfg/yolov2-voc.cfg darknet19_448.conv.23") -> None:
    """Make the verb known to a family of verbs that detect."""
    parser, flag = _parser(verbs, "a detection network", "NAME_100.weights ..., NAME_final.weights", example, 100)
    flag("gradient", choices=("darknet", "true"), default="darknet",
         help="train IOU losses of AlexeyAB's Darknet with its own deltas (default), or with the true derivatives of "
         "the losses")  # fmt: skip
    flag("labels", choices=("error", "warn"), default="error",
         help="bad label lines: an error before training starts (default), or left out with a warning")  # fmt: skip
    flag("map", type=positive, nargs="?", const=0, metavar="EVERY",
         help="mAP on the valid list every EVERY batches (default: every 4 epochs, at least 100, not during burn_in); "
         "the best weights are kept as NAME_best.weights")  # fmt: skip
    flag("mAP_epochs", type=positive, default=4, metavar="N", help="with -map alone: every N epochs (default 4)")
    flag("iou_thresh", type=fraction, default=0.5, help="with -map: the IOU that a right box exceeds (default .5)")
    flag("classify", metavar="LIST",
         help="for a network with a tree: a list of images without boxes that show one class each, with its label "
         "(labels=) in the path; trained together with the train list, as in YOLO9000")  # fmt: skip
    flag("ratio", type=above_0, metavar="N",
         help="how many images of -classify are drawn for each image of the train list (default 4)")  # fmt: skip
    parser.set_defaults(run=lambda options: train(parser, options, _detector))


def add_classifier(verbs: Any) -> None:
    """Make the verb known to the family ``classifier``."""
    parser, flag = _parser(
        verbs, "a classifier", "NAME_1.weights and so on after each epoch, NAME.weights at the end (AlexeyAB's: "
        "NAME_1000.weights ..., NAME_final.weights)",
        "cfg/imagenet1k.data cfg/darknet19.cfg", 1000,
    )  # fmt: skip
    flag("labels", choices=("path", "folder"), default="path",
         help="the classes of an image: every label that occurs in its path (default, as in Darknet), or the label "
         "that is the name of its folder")  # fmt: skip
    flag("topk", type=positive, nargs="?", const=0, metavar="EVERY",
         help="top 1 and top k on the valid list every EVERY batches (default: every 2 epochs, at least 100, not "
         "during burn_in); the best weights by top 1 are kept as NAME_best.weights")  # fmt: skip
    flag("top", type=positive, metavar="N", help="the k of top k (default: top= of DATA)")
    parser.set_defaults(verbs="classifier", run=lambda options: train(parser, options, _classifier))


def _parser(
    verbs: Any, what: str, files: str, example: str, snapshot: int
) -> tuple[argparse.ArgumentParser, Callable[..., None]]:
    """The verb with what all trainings have, and how to add a flag to it."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "train",
        help=f"train {what}",
        description="Train CFG on the train list of DATA, from WEIGHTS (which may end early) or from random "
        "weights. Snapshots go to the folder that -backup or backup= names: NAME.backup (AlexeyAB's Darknet: "
        f"NAME_last.weights), {files}, and with them NAME.log, NAME.csv, the chart NAME.png and NAME.run.json, for "
        "`report`. Ctrl-C, SIGTERM and SIGHUP save, and print the command that continues.",
        epilog=f"example: %(prog)s {example}",
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", help=".data file: train=, backup=, valid=, names=, classes=")
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", help="initial weights; layers missing in it start at random"
    )

    def flag(name: str, **options: Any) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **options)

    flag("clear", action="store_true", help="count images seen from 0, whatever WEIGHTS says")
    flag(
        "resume",
        action="store_true",
        help="continue from the .state beside the last snapshot as if there had been no stop",
    )
    flag("gpus", type=gpu_numbers, metavar="0,1", help="GPUs to train on, one process each; multiplies the rate")
    add_device(parser, "where torch runs: cuda (default where there is one), cpu, cuda:1 ...")
    flag("numerics", choices=("cudnn", "gpu", "cpu"), default="cudnn",
         help="which batch normalisation: cudnn's made the published weights (default)")  # fmt: skip
    add_program(parser)
    flag("amp", choices=("bf16", "fp16"), help="run the layers at half precision; the loss stays in float32")
    flag("compress", choices=("bf16",),
         help="send gradients between processes as bf16 numbers, half the bytes: for a slow network")  # fmt: skip
    flag("fast", action="store_true",
         help="channels last; on a GPU also TF32, and one compiled program for all sizes of images, or a CUDA graph "
         "for one: faster, with other last digits")  # fmt: skip
    flag("seed", type=_seed, metavar="N", help="seed of all random numbers (default: a new one, which is printed)")
    flag("epochs", action="store_true", help="show every image once in each epoch; Darknet draws with replacement")
    flag("backup", metavar="FOLDER", help="folder for all that training writes (default: backup= of DATA)")
    flag("snapshot", type=positive, metavar="N",
         help=f"write NAME.backup, or NAME_last.weights, every N batches (default {snapshot})")  # fmt: skip
    flag("tensorboard", action="store_true", help="write the figures for TensorBoard too, into NAME.tensorboard")
    flag("workers", type=count, metavar="N", help="processes that load images (default: 1 on a CPU, up to 8 on a GPU)")
    flag("cache", action="store_true", help="decode all images at the start and keep them in memory")
    flag("augment", choices=("loader", "device"), default="loader",
         help="where images are placed and recoloured: in the processes that load them (default), or a batch at a "
         "time where torch runs; they then wait in memory at their full size")  # fmt: skip
    return parser, flag


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 2^63 - 1")
    return seed


def train(parser: argparse.ArgumentParser, options: argparse.Namespace, start: Start) -> int:
    """``train_detector``, ``train_yolo``, ``train_classifier``; 128 + its number where a signal stopped it."""
    if options.resume and options.weights:
        parser.error("-resume goes on from the last snapshot, WEIGHTS starts anew: give one of them")
    if options.resume and options.clear:
        parser.error("-resume goes on where the training was, -clear starts counting anew: give one of them")
    if options.gpus and options.device:
        parser.error("-gpus and -device exclude each other")
    if options.amp and options.numerics != "cudnn":
        parser.error(f"-amp needs -numerics cudnn, not {options.numerics}")
    from ..processes import join, launch, leave

    if options.gpus and "RANK" not in os.environ:
        if len(options.gpus) > 1:
            return launch(options.gpus, _arguments(options, options.resume))
        device: str | None = f"cuda:{options.gpus[0]}"
    else:
        # What -i or -nogpu chose, the command to go on chooses too.
        device = options.device = None if options.gpus else chosen_device(options)
    processes = join(device)
    shared = {
        "clear": options.clear, "resume": options.resume, "device": device, "numerics": options.numerics,
        "program": options.program, "amp": options.amp, "fast": options.fast, "seed": options.seed,
        "compress": options.compress,
        "epochs": options.epochs, "backup": options.backup, "snapshot": options.snapshot,
        "tensorboard": options.tensorboard, "workers": options.workers, "cache": options.cache,
        "augment": options.augment, "processes": processes,
        "command": lambda resume: shlex.join([options.command, *_arguments(options, resume)]),
    }  # fmt: skip
    try:
        done = start(options, shared)
    except ToldError:
        return FAILED
    except DarknetError as error:
        if processes.first:
            raise
        complain(f"{options.command}: process {processes.rank}: {error}")
        return FAILED
    finally:
        leave()
    return 128 + done.signal if done.signal else 0


def _detector(options: argparse.Namespace, shared: dict[str, Any]) -> Trained:
    from ..train.detector import train_detector

    return train_detector(
        options.data, options.cfg, options.weights, gradient=options.gradient, labels=options.labels,
        map_every=options.map, map_epochs=options.mAP_epochs, iou_thresh=options.iou_thresh, verbs=options.verbs,
        classify=options.classify, ratio=options.ratio, **shared,
    )  # fmt: skip


def _classifier(options: argparse.Namespace, shared: dict[str, Any]) -> Trained:
    from ..train.classifier import train_classifier

    return train_classifier(
        options.data, options.cfg, options.weights, labels=options.labels, topk_every=options.topk, top=options.top,
        **shared,
    )  # fmt: skip


def _arguments(options: argparse.Namespace, resume: bool) -> list[str]:
    """The command's words, as given or to go on with."""
    words = [options.verbs, "train", options.data, options.cfg]
    if resume:
        words.append("-resume")
    else:
        words += [options.weights] if options.weights else []
        words += ["-clear"] if options.clear else []
    for name, default in {**REPEATED, "labels": LABELS.get(options.verbs, "error")}.items():
        value: Any = getattr(options, name, None)
        # The state holds the seed.
        if value in (None, default) or (resume and name == "seed"):
            continue
        words.append(f"-{name}")
        if name == "gpus":
            words.append(",".join(map(str, value)))
        elif value is not True and not (name in OPTIONAL and value == 0):
            words.append(str(value))
    return words
