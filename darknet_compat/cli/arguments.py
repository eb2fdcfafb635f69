"""The arguments that several verbs share, and what they stand for."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ..errors import ImageError
from ..memory import without_garbage_collection
from ..output import complain

if TYPE_CHECKING:
    from ..classify.classifier import DataClassifier
    from ..detect.detector import DataDetector

Result = TypeVar("Result")
LONGEST_LINE = 2**16  # bytes of a path that is typed in

# Of each family of verbs a network, for the examples in the help.
EXAMPLE = {"detector": "cfg/yolov2-voc.cfg yolov2-voc.weights", "yolo": "cfg/yolov1.cfg yolov1.weights",
           "detect": "cfg/yolov3.cfg yolov3.weights"}  # fmt: skip
BATCH = 4


def add_network(parser: argparse.ArgumentParser, data: bool = True, batch: int = BATCH) -> None:
    """The arguments and flags that all verbs share which run a network on images; ``batch`` is the usual one."""
    if data:
        parser.add_argument("data", metavar="DATA", help=".data file: names=, valid=, results= ...")
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("weights", metavar="WEIGHTS")
    add_numerics(parser)
    add_device(parser, "where the network runs: cuda (default where there is one, with -engine torch), cpu, cuda:1 ...")
    parser.add_argument(
        "-engine", "--engine", choices=("torch", "onnxruntime", "openvino"),
        help="what runs the network (default: torch, the fastest in float32; in bf16 the most exact; int8 runs in "
        "openvino)",
    )  # fmt: skip
    parser.add_argument(
        "-precision", "--precision", choices=("float32", "bf16", "int8"), default="float32",
        help="float32 (default); bf16: about twice as fast if the CPU has it, probabilities to 2 digits; or int8: "
        "faster again if the CPU has VNNI, less exact",
    )  # fmt: skip
    parser.add_argument(
        "-calibration", "--calibration", metavar="IMAGES",
        help="for int8: images like those to come, a folder, a pattern or a .txt list, of which 100 are looked at "
        "(default: those of train=)",
    )  # fmt: skip
    parser.add_argument(
        "-batch", "--batch", type=positive, default=batch, help=f"most images per forward pass (default {batch})"
    )


def add_device(parser: argparse.ArgumentParser, what: str) -> None:
    """The flags that say where the network runs, ours and those of the C programs, and on how many threads."""
    parser.add_argument("-device", "--device", metavar="DEVICE", help=what)
    parser.add_argument(
        "-i", "--i", type=int, metavar="N", help="the same as -device cuda:N if torch finds a GPU; below 0: the CPU"
    )
    parser.add_argument("-nogpu", "--nogpu", action="store_true", help="the same as -device cpu")
    parser.add_argument(
        "-threads", "--threads", type=positive, metavar="N", help="CPU threads (default: as many as there are cores)"
    )


def chosen_device(options: argparse.Namespace) -> str | None:
    """The name of the device that the flags ask for, if they ask for one."""
    device: str | None = options.device
    number: int | None = options.i
    if device is None and (options.nogpu or (number is not None and number < 0)):
        return "cpu"
    if device is None and number is not None:
        import torch

        from ..engines import engine_name

        name = engine_name(getattr(options, "engine", None), getattr(options, "precision", "float32"))
        if torch.cuda.is_available() and name == "torch":
            return f"cuda:{number}"
        complain(f"{options.command}: -i {number} has no meaning here: the network runs on the CPU")
    return device


def gpu_numbers(text: str) -> list[int]:
    """argparse type: numbers of GPUs, such as 0,1."""
    try:
        gpus = [int(word) for word in text.split(",")]
    except ValueError:
        gpus = [-1]
    if min(gpus) < 0 or len(set(gpus)) < len(gpus):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of GPU numbers such as 0,1")
    return gpus


def add_numerics(parser: argparse.ArgumentParser) -> None:
    """The flags that say whose arithmetic a network has."""
    parser.add_argument(
        "-numerics", "--numerics", choices=("cudnn", "gpu", "cpu"), default="cudnn",
        help="which batch normalisation: cudnn's, which made the published weights (default), or a C program's on a "
        "GPU or CPU",
    )  # fmt: skip
    add_program(parser)


def add_program(parser: argparse.ArgumentParser) -> None:
    """The flag that says which Darknet to follow."""
    parser.add_argument(
        "-program", "--program", choices=("pjreddie", "alexeyab"),
        help="which Darknet to follow (default: alexeyab if CFG has an option, or `detector` a flag, that only his "
        "program knows; else pjreddie)",
    )  # fmt: skip


def add_label_rule(parser: argparse.ArgumentParser) -> None:
    """The flag of the verbs that read label files and no CFG."""
    parser.add_argument(
        "-program", "--program", choices=("pjreddie", "alexeyab"), default="pjreddie",
        help="where label files are: pjreddie: in labels/ for images/ or JPEGImages/ (default); alexeyab: beside the "
        "images, except for JPEGImages/ and COCO's folders",
    )  # fmt: skip


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """The flag for small objects in large images."""
    parser.add_argument(
        "-tiles", "--tiles", type=positive, default=1, metavar="N",
        help="also detect in N x N overlapping parts of each image, for small objects (default 1)",
    )  # fmt: skip


def add_top(parser: argparse.ArgumentParser) -> None:
    """The flag of the verbs that list classes."""
    parser.add_argument(
        "-t", "-top", "--top", type=positive, metavar="N", help="how many of the likeliest classes (default: top=)"
    )


def add_letter_box(parser: argparse.ArgumentParser) -> None:
    """The flag of the verbs that can either letterbox or stretch."""
    parser.add_argument(
        "-letter_box", "--letter_box", type=int, choices=(0, 1), nargs="?", const=1,
        help="alone or 1: fit the image into the network's input (default, unless the cfg says otherwise); 0: stretch "
        "it",
    )  # fmt: skip


def count(text: str, least: int = 0) -> int:
    """argparse type: a whole number of ``least`` or more."""
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is under {least}")
    return value


def positive(text: str) -> int:
    """argparse type: a whole number of 1 or more."""
    return count(text, 1)


def fraction(text: str) -> float:
    """argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def above_0(text: str) -> float:
    """argparse type: a number over 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def end_by_signal(number: int, frame: object) -> NoReturn:
    """A signal's handler, so that what was begun is made whole or taken away, as by Ctrl-C."""
    raise SystemExit(128 + number)


@contextlib.contextmanager
def loading(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Where a network goes that is loaded meanwhile: its device, and the processes that load it with this one, if any.

    What one of them finds wrong the first one raises.
    """
    processes = getattr(options, "processes", None)
    if processes is None:
        yield {"device": chosen_device(options)}
        return
    from ..processes import together

    with together(processes):
        yield {"device": str(processes.device), "processes": processes}


def load(options: argparse.Namespace) -> DataDetector:
    """The detector that the shared arguments ask for; says what its weights held."""
    asked = getattr(options, "letter_box", None)
    with without_garbage_collection():
        from ..detect.detector import load_detector

        with loading(options) as where:
            detector = load_detector(
                options.data, options.cfg, options.weights, numerics=options.numerics, program=options.program,
                letter_box=None if asked is None else bool(asked), engine=options.engine, precision=options.precision,
                calibration=options.calibration, batch=options.batch, verbs=options.verbs,
                tiles=getattr(options, "tiles", 1), **where,
            )  # fmt: skip
    said_by = getattr(options, "said_by", None)
    print(f"{detector.network.report}{f', as -{said_by} says' if said_by else ''}", file=sys.stderr)
    _say_int8(options)
    return detector


def _say_int8(options: argparse.Namespace) -> None:
    """That another engine runs than by default, and which images it has seen."""
    if options.precision == "int8":
        print(
            f"int8: OpenVINO runs the network, calibrated on images of {options.calibration or 'train='}",
            file=sys.stderr,
        )


def load_classifier(options: argparse.Namespace) -> DataClassifier:
    """The classifier that the shared arguments ask for; says what its weights held."""
    with without_garbage_collection():
        from ..classify import classifier as classifiers

        with loading(options) as where:
            classifier = classifiers.load_classifier(
                options.data or classifiers.imagenet_data(), options.cfg, options.weights, numerics=options.numerics,
                program=options.program, engine=options.engine, precision=options.precision,
                calibration=options.calibration, batch=options.batch, **where,
            )  # fmt: skip
    print(classifier.network.report, file=sys.stderr)
    _say_int8(options)
    return classifier


def bar(found: Iterable[Result], total: int) -> Iterator[Result]:
    """Results as they come, with a progress bar on a terminal."""
    from tqdm import tqdm

    yield from tqdm(found, total=total, unit="image", disable=None)


def typed_paths() -> Iterator[str]:
    """The paths on standard input, a line each, asked for one by one. Raises ImageError for what is no text."""
    with open(0, "rb", closefd=False) as file:
        while True:
            print("Enter Image Path: ", end="", flush=True)
            line = file.readline(LONGEST_LINE)
            if not line:
                break
            if len(line) == LONGEST_LINE or b"\0" in line:
                what = "a zero byte" if b"\0" in line else f"a line of {LONGEST_LINE:,} bytes or more"
                raise ImageError(f"standard input: {what}; expected paths, one a line")
            if path := os.fsdecode(line.strip()):
                yield path
    if sys.stdin.isatty():
        print()  # the shell's next line would stand behind ours


class TypedImages:
    """The paths on standard input, for a verb that looks at them one by one; says which are refused."""

    def __init__(self, command: str) -> None:
        self.failed = False
        self._command = command
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """Since the last path was there."""
        return time.perf_counter() - self._start

    def refused(self, error: Exception) -> None:
        """An image cannot be read."""
        self.failed = True
        complain(f"{self._command}: {error}")

    def __iter__(self) -> Iterator[str]:
        for path in typed_paths():
            self._start = time.perf_counter()
            yield path


def table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> list[str]:
    """The lines of a table of counts: a name before each row."""
    width = max(_columns(name) for name, _ in rows)
    lines = [(name, [f"{count}" for count in counts]) for name, counts in rows]
    return [
        name + " " * (width - _columns(name)) + "".join(f"{cell:>9}" for cell in cells)
        for name, cells in [("", columns), *lines]
    ]


def _columns(text: str) -> int:
    """How many columns of a terminal it takes: two for each letter of Chinese and the like, none for an accent."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text
    )
