"""The verbs ``detector ...``: test, and those of the other files of this folder."""

from __future__ import annotations

import argparse
import glob
import sys
import time
from pathlib import Path
from typing import Any

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def add(verbs: Any) -> None:
    """Make ``detector`` and its verbs known to the command line."""
    from . import anchors, train, valid

    parser = verbs.add_parser("detector", help="detect, train, validate and score with a detection network")
    detector = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))
    _add_test(detector)
    for family in (valid, train, anchors):
        family.add(detector)


def add_network(parser: argparse.ArgumentParser) -> None:
    """The arguments and flags that all verbs share which run a network on pictures."""
    parser.add_argument("data", metavar="DATA", help=".data file: names=, valid=, results= ...")
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument(
        "-numerics", "--numerics", choices=("cudnn", "gpu", "cpu"), default="cudnn",
        help="whose batch normalisation: cudnn made the published weights (default), cpu is the C program's",
    )  # fmt: skip
    parser.add_argument("-device", "--device", default="cpu", help="where torch runs: cpu (default), cuda, cuda:1 ...")
    parser.add_argument(
        "-engine", "--engine", choices=("torch", "onnxruntime", "openvino"),
        help="what runs the network (default: the fastest as measured, torch; openvino for bf16 where installed)",
    )  # fmt: skip
    parser.add_argument(
        "-precision", "--precision", choices=("float32", "bf16"), default="float32",
        help="float32 (default), or bf16: about twice as fast where the processor has it, probabilities to 2 digits",
    )  # fmt: skip
    parser.add_argument("-batch", "--batch", type=positive, default=1, help="pictures per forward pass (default 1)")
    parser.add_argument(
        "-letter_box", "--letter_box", type=int, choices=(0, 1), default=None,
        help="1: fit the picture into the network's input (default, unless the cfg says otherwise); 0: stretch it",
    )  # fmt: skip


def positive(text: str) -> int:
    """argparse type: a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is under 1")
    return value


def fraction(text: str) -> float:
    """argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def _add_test(verbs: Any) -> None:
    parser = verbs.add_parser(
        "test",
        help="detect in pictures, draw and list what is found",
        description="Detect in pictures. One: prints each class and its probability, and draws predictions.jpg. "
        "Many: writes one JSON file, and with -out a drawing of each.",
        epilog="example: darknet-compat detector test cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights dog.jpg",
        allow_abbrev=False,
    )
    add_network(parser)
    parser.add_argument(
        "pictures", metavar="PICTURE", nargs="+", help="picture, folder, pattern, or .txt list of paths"
    )
    parser.add_argument("-thresh", "--thresh", type=fraction, default=0.5, help="least probability (default .5)")
    parser.add_argument(
        "-nms", "--nms", type=fraction, default=0.45, help="most IOU of two boxes (default .45; 0: off)"
    )
    parser.add_argument("-hier", "--hier", type=fraction, default=0.5, help="how sure a tree must be (default .5)")
    parser.add_argument("-out", "--out", metavar="FOLDER", help="folder for the drawings (one picture: default here)")
    parser.add_argument("-json", "--json", metavar="FILE", help="detections as JSON (many: default predictions.json)")
    parser.set_defaults(run=test)


def find_pictures(given: list[str]) -> list[str]:
    """The picture paths that PICTURE arguments stand for, in order: pictures, folders, patterns, .txt lists.

    Raises :class:`PictureError` where one stands for nothing.
    """
    from ..cfg import read_list
    from ..errors import PictureError
    from ..stock import find_stock

    found: list[str] = []
    for text in given:
        path = Path(find_stock(text))
        if path.is_dir():
            inside = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in PICTURES)
            if not inside:
                raise PictureError(f"{text}: no picture in this folder; expected files ending in {', '.join(PICTURES)}")
            found += inside
        elif path.suffix == ".txt" and path.is_file():
            found += read_list(path)
        elif path.exists():
            found.append(str(path))
        elif matches := sorted(glob.glob(text, recursive=True)):
            found += matches
        else:
            raise PictureError(f"{text}: no such picture, folder or list, and no file matches it as a pattern")
    return found


def load(options: argparse.Namespace) -> tuple[Any, list[str], bool]:
    """Network, class names and whether to letterbox, from the shared arguments; prints what the weights held."""
    from .. import load_network
    from ..cfg import read_data, read_names
    from ..errors import DataError
    from ..stock import find_stock

    data = read_data(find_stock(options.data))
    names = read_names(find_stock(data.get("names", "data/names.list")))
    network = load_network(
        find_stock(options.cfg), find_stock(options.weights), device=options.device, numerics=options.numerics
    )
    print(network.report, file=sys.stderr)
    classes = network.head.o.classes
    if len(names) < classes:
        raise DataError(
            f"{options.data}: names= gives {len(names)} names; expected {classes}, the classes= of {options.cfg}"
        )
    letter_box = network.net.letter_box if options.letter_box is None else options.letter_box
    return network, names, bool(letter_box)


def engine(options: argparse.Namespace, network: Any) -> Any:
    """What runs the network, from the shared arguments."""
    from ..engines import start_engine

    return start_engine(network, options.engine, options.precision, options.batch)


def test(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..detect import detect_files
    from ..detect.draw import draw_detections
    from ..detect.results import drawing_names, write_json
    from ..images import load_picture, save_picture

    paths = find_pictures(options.pictures)
    network, names, letter_box = load(options)
    found = detect_files(
        network, paths, batch=options.batch, letter_box=letter_box, engine=engine(options, network),
        thresh=options.thresh, nms=options.nms, hier=options.hier,
    )  # fmt: skip
    folder = Path(options.out) if options.out else Path()
    folder.mkdir(parents=True, exist_ok=True)
    if len(paths) == 1:
        start = time.perf_counter()
        detections = next(found)
        print(f"{paths[0]}: Predicted in {time.perf_counter() - start:f} seconds.")
        for prob in detections.prob:
            for index in prob.nonzero()[0]:
                print(f"{names[index]}: {prob[index] * 100:.0f}%")
        save_picture(draw_detections(load_picture(paths[0]), detections, names), folder / "predictions.jpg")
        if options.json:
            write_json([detections], names, options.json)
        return 0
    drawings = drawing_names(paths) if options.out else {}
    everything = []
    for detections in tqdm(found, total=len(paths), unit="picture", disable=None):
        everything.append(detections)
        if options.out:
            drawn = draw_detections(load_picture(detections.path), detections, names)
            save_picture(drawn, folder / drawings[detections.path])
    file = options.json or "predictions.json"
    write_json(everything, names, file)
    boxes = sum(int((detections.prob > 0).sum()) for detections in everything)
    print(f"{len(paths)} pictures, {boxes} detections: {file}" + (f", drawings: {folder}" if options.out else ""))
    return 0
