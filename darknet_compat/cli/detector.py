"""The verbs ``detector ...``: test, and those of the other files of this folder."""

from __future__ import annotations

import argparse
import glob
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_letter_box, add_network, fraction, load, run_settings, wants_letter_box

if TYPE_CHECKING:
    from ..detect import Detections

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")


def add(verbs: Any) -> None:
    """Make ``detector`` and its verbs known to the command line."""
    from . import anchors, train, valid

    parser = verbs.add_parser("detector", help="detect, train, validate and score with a detection network")
    detector = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))
    _add_test(detector)
    for family in (valid, train, anchors):
        family.add(detector)


def _add_test(verbs: Any) -> None:
    parser = verbs.add_parser(
        "test",
        help="detect in images, draw and list what is found",
        description="Detect in images. One: prints each class and its probability, and draws predictions.jpg. "
        "Many: writes one JSON file, and with -out a drawing of each.",
        epilog="example: darknet-compat detector test cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights dog.jpg",
        allow_abbrev=False,
    )
    add_network(parser)
    add_letter_box(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image, folder, pattern, or .txt list of paths")
    parser.add_argument(
        "-thresh", "--thresh", type=fraction, help="least probability (default .5; of AlexeyAB's program .25)"
    )
    parser.add_argument("-nms", "--nms", type=fraction, help="most IOU of two boxes (default .45; 0: off)")
    parser.add_argument("-hier", "--hier", type=fraction, default=0.5, help="how sure a tree must be (default .5)")
    parser.add_argument(
        "-out", "--out", type=_folder, metavar="FOLDER", help="folder for the drawings (one image: default here)"
    )
    parser.add_argument("-json", "--json", metavar="FILE", help="detections as JSON (many: default predictions.json)")
    parser.add_argument(
        "-skip", "--skip", action="store_true",
        help="pass over images that cannot be read, with a warning each, and exit with 1 at the end (default: stop at "
        "the first; what was found before it is written)",
    )  # fmt: skip
    parser.set_defaults(run=test)


def _folder(text: str) -> str:
    """argparse type: a folder to write to. AlexeyAB's -out names a JSON file, so that a file's name is a slip."""
    if Path(text).suffix.lower() in (".json", ".txt", *IMAGES) and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file's name; expected a folder (-json FILE writes detections)")
    return text


def find_images(given: list[str]) -> list[str]:
    """The image paths that IMAGE arguments stand for, in order: images, folders, patterns, .txt lists.

    Raises :class:`ImageError` where one stands for nothing.
    """
    from ..cfg import read_list
    from ..errors import ImageError
    from ..stock import find_stock

    found: list[str] = []
    for text in given:
        path = Path(find_stock(text))
        if text and path.is_dir():  # an empty name is no folder, though Path takes it for the present one
            inside = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in IMAGES)
            if not inside:
                raise ImageError(f"{text}: no image in this folder; expected files ending in {', '.join(IMAGES)}")
            found += inside
        elif path.suffix == ".txt" and path.is_file():
            found += read_list(path)
        elif text and path.exists():
            found.append(str(path))
        elif matches := sorted(glob.glob(text, recursive=True)):
            found += matches
        else:
            raise ImageError(f"{text}: no such image, folder or list, and no file matches it as a pattern")
    return found


def test(options: argparse.Namespace) -> int:
    """``examples/detector.c, test_detector``; 1 where ``-skip`` passed over an image."""
    paths = find_images(options.images)
    network, names = load(options)
    # Now that the lists, DATA and CFG are read and right: this loads torch.
    from tqdm import tqdm

    from ..detect import detect_files
    from ..detect.draw import draw_detections
    from ..detect.results import drawing_names, make_folder, write_json
    from ..errors import ImageError, ResultsError
    from ..images import load_image, save_image

    one = len(paths) == 1
    folder = Path(options.out or "")
    file = options.json or (None if one else "predictions.json")
    drawings = {paths[0]: "predictions.jpg"} if one else drawing_names(paths) if options.out else {}
    # Hours of detection should not end where the results cannot be written.
    make_folder(folder)
    if file:
        make_folder(Path(file).parent)
        if Path(file).is_dir():
            raise ResultsError(f"{file}: a folder; expected a file's name for the detections")
    read = {os.path.realpath(path) for path in (*paths, *options.images, options.data, options.cfg, options.weights)}
    for path in (*(folder / name for name in drawings.values()), *([file] if file else [])):
        if os.path.realpath(path) in read:
            raise ResultsError(f"{path}: it is read too, and would be written over; expected another -out or -json")

    skipped: list[ImageError] = []

    def unreadable(error: ImageError) -> None:
        if not options.skip:
            raise ImageError(f"{error}; or add -skip to pass over such images")
        warnings.warn(f"{error}; passed over", stacklevel=2)
        skipped.append(error)

    found = detect_files(
        network, paths, letter_box=wants_letter_box(options, network), thresh=options.thresh, nms=options.nms,
        hier=options.hier, unreadable=unreadable, **run_settings(options, network, len(paths)),
    )  # fmt: skip
    everything: list[Detections] = []
    problem = None
    start = time.perf_counter()
    try:
        for detections in found if one else tqdm(found, total=len(paths), unit="image", disable=None):
            everything.append(detections)
            if one:
                _print_found(detections, names, time.perf_counter() - start)
            if detections.path in drawings:
                drawn = draw_detections(load_image(detections.path), detections, names)
                save_image(drawn, folder / drawings[detections.path])
    except ImageError as error:
        problem = error
    # What was found before the problem is worth keeping; nothing at all is no reason to write over older results.
    if everything or not problem:
        if file:
            write_json(everything, names, file)
        if not one:
            boxes = sum(int((detections.prob > 0).sum()) for detections in everything)
            drawn = f", drawings: {folder}" if options.out else ""
            print(f"{len(everything)} images, {boxes} detections: {file}{drawn}")
    if problem:
        raise problem
    if skipped:
        print(f"{len(skipped)} of {len(paths)} images could not be read", file=sys.stderr)
    return 1 if skipped else 0


def _print_found(detections: Detections, names: list[str], seconds: float) -> None:
    print(f"{detections.path}: Predicted in {seconds:f} seconds.")
    for prob in detections.prob:
        for index in prob.nonzero()[0]:
            print(f"{names[index]}: {prob[index] * 100:.0f}%")
