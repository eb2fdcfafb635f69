"""The verbs ``detector ...``: test, and those of the other files of this folder."""

from __future__ import annotations

import argparse
import glob
import time
from pathlib import Path
from typing import Any

from .arguments import add_network, fraction, load, run_settings

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


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


def test(options: argparse.Namespace) -> int:
    paths = find_pictures(options.pictures)
    network, names, letter_box = load(options)
    # Now that the lists, DATA and CFG are read and right: this loads torch.
    from tqdm import tqdm

    from ..detect import detect_files
    from ..detect.draw import draw_detections
    from ..detect.results import drawing_names, write_json
    from ..images import load_picture, save_picture

    found = detect_files(
        network, paths, letter_box=letter_box, thresh=options.thresh, nms=options.nms, hier=options.hier,
        **run_settings(options, network, len(paths)),
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
