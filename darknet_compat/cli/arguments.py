"""The arguments that several verbs share, and what they stand for."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_network(parser: argparse.ArgumentParser) -> None:
    """The arguments and flags that all verbs share which run a network on images."""
    parser.add_argument("data", metavar="DATA", help=".data file: names=, valid=, results= ...")
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("weights", metavar="WEIGHTS")
    add_numerics(parser)
    parser.add_argument(
        "-device", "--device", metavar="DEVICE",
        help="where the network runs: cuda (default where there is one, with -engine torch), cpu, cuda:1 ...",
    )  # fmt: skip
    parser.add_argument(
        "-engine", "--engine", choices=("torch", "onnxruntime", "openvino"), default="torch",
        help="what runs the network (default: torch, the fastest in float32; in bf16 the most exact)",
    )  # fmt: skip
    parser.add_argument(
        "-precision", "--precision", choices=("float32", "bf16"), default="float32",
        help="float32 (default), or bf16: about twice as fast where the processor has it, probabilities to 2 digits",
    )  # fmt: skip
    parser.add_argument("-batch", "--batch", type=positive, default=4, help="most images per forward pass (default 4)")


def add_numerics(parser: argparse.ArgumentParser) -> None:
    """The flags that say whose arithmetic a network has."""
    parser.add_argument(
        "-numerics", "--numerics", choices=("cudnn", "gpu", "cpu"), default="cudnn",
        help="whose batch normalisation: cudnn made the published weights (default), cpu is the C program's",
    )  # fmt: skip
    add_program(parser)


def add_program(parser: argparse.ArgumentParser) -> None:
    """The flag that says which Darknet to follow."""
    parser.add_argument(
        "-program", "--program", choices=("pjreddie", "alexeyab"),
        help="which Darknet to follow (default: alexeyab where CFG has what only his program knows, else pjreddie)",
    )  # fmt: skip


def add_letter_box(parser: argparse.ArgumentParser) -> None:
    """The flag of the verbs that can either letterbox or stretch; :func:`wants_letter_box` reads it."""
    parser.add_argument(
        "-letter_box", "--letter_box", type=int, choices=(0, 1), default=None,
        help="1: fit the image into the network's input (default, unless the cfg says otherwise); 0: stretch it",
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


def load(options: argparse.Namespace) -> tuple[Any, list[str]]:
    """Network and class names, from the shared arguments; prints what the weights held."""
    from .. import load_network
    from ..cfg import check_names, read_data, read_names
    from ..device import find_device
    from ..stock import find_stock

    data = read_data(find_stock(options.data))
    names = read_names(find_stock(data.source("names", "data/names.list")))
    # The other engines run on the processor, so a GPU is theirs only by mistake.
    device = find_device(options.device or (None if options.engine == "torch" else "cpu"))
    network = load_network(
        find_stock(options.cfg),
        find_stock(options.weights),
        device=device,
        numerics=options.numerics,
        program=options.program,
    )
    print(network.report, file=sys.stderr)
    check_names(data, names, network.detector.o.classes, options.cfg)
    return network, names


def wants_letter_box(options: argparse.Namespace, network: Any) -> bool:
    """Whether to fit images into the network's input, or to stretch them: the flag's word, else the network's."""
    return bool(network.letter_box if options.letter_box is None else options.letter_box)


def run_settings(options: argparse.Namespace, network: Any, images: int) -> dict[str, Any]:
    """``batch`` and ``engine`` of :func:`darknet_compat.detect.detect_files` for so many images."""
    import torch

    from ..engines import start_engine

    batch = max(min(options.batch, images), 1)
    batches = max(-(-images // batch), 1)
    threads = max(torch.get_num_threads() // batches, 1)
    return {"batch": batch, "engine": start_engine(network, options.engine, options.precision, batch, threads)}
