#!/usr/bin/env python3
"""By how much `detector map` and `voc_eval` differ on few images, and by which of their rules.

Draws sets of images from a VOCdevkit, scores the result files of each set by both, and turns voc_eval's rules into
those of map one by one. Prints, in points of mAP, the mean of each change and its range from the 5th to the 95th of
a hundred sets. Detections are the same on both sides.

example: python eval/map_and_voc.py results VOCdevkit -images 40 -sets 300
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np

from darknet_compat.cfg import read_names
from darknet_compat.errors import DarknetError
from darknet_compat.evaluate import voc
from darknet_compat.evaluate.annotations import LabelBoxes, Truths, read_voc
from darknet_compat.evaluate.darknet_map import detector_map
from darknet_compat.evaluate.results import Detections, read_comp4
from darknet_compat.stock import find_stock

STEPS = (
    "the area for the 11 points",
    "no +1 in the IOU",
    "difficult objects are none",
    "parts of the image in float32",
    "classes without truths count 0",
)
SCALE = 1000  # both sides of every image here: any one will do, an IOU has no unit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", help="folder of comp4 files")
    parser.add_argument("devkit", help="VOCdevkit with VOC2007")
    parser.add_argument("-images", type=int, default=40, help="images in a set (40)")
    parser.add_argument("-sets", type=int, default=300, help="sets to draw (300)")
    options = parser.parse_args()
    try:
        truths = read_voc(options.devkit, 2007, "test", read_names(find_stock("data/voc.names")))
        detections = read_comp4(options.results, truths.names, truths.images)
    except DarknetError as error:
        print(f"map_and_voc: {error}", file=sys.stderr)
        return 1
    random = np.random.default_rng(0)
    images = min(options.images, len(truths.images))
    rows = []
    for _ in range(options.sets):
        drawn = np.zeros(len(truths.images), bool)
        drawn[random.choice(len(drawn), images, replace=False)] = True
        rows.append(mean_aps(of_images(truths, drawn), of_images(detections, drawn)))
    points = 100 * np.array(rows)
    for what, change in zip(STEPS, np.diff(points).T, strict=True):
        print(line(what, change))
    print(line("map - voc_eval, the same classes", points[:, 4] - points[:, 0]))
    print(line("map - voc_eval", points[:, 5] - points[:, 0]))
    return 0


def of_images(rows: Truths | Detections, drawn: np.ndarray) -> Truths | Detections:
    """The rows of the images that were ``drawn``."""
    keep = drawn[rows.image]
    parts = ["image", "class_id", "box", "difficult" if isinstance(rows, Truths) else "prob"]
    return replace(rows, **{part: getattr(rows, part)[keep] for part in parts})


def mean_aps(truths: Truths, detections: Detections) -> list[float]:
    """voc_eval's mAP, then after each of STEPS; all but the last over the classes that have truths."""
    easy = ~truths.difficult
    known = {part: getattr(truths, part)[easy] for part in ("image", "class_id", "box", "difficult")}
    tables = [voc.score(truths, detections, "voc07"), voc.score(truths, detections, "area")]
    real = detections.box - (0, 0, 1, 1)  # pixel_iou adds the 1 again
    for some in (truths, replace(truths, **known)):
        bare = replace(some, box=some.box - (0, 0, 1, 1))
        tables.append(voc.score(bare, replace(detections, box=real), "area"))
    labels = LabelBoxes(known["image"], known["class_id"], centred(known["box"]))
    stored = np.argsort(detections.image, kind="stable")
    columns = (detections.image, detections.class_id, detections.prob, centred(detections.box))
    table = detector_map(truths.names, *(column[stored] for column in columns), labels)
    with_truths = [one.truths > 0 for one in tables[0].classes]
    aps = [[one.ap or 0.0 for one in each.classes] for each in (*tables, table)]
    return [*(float(np.mean(np.array(each)[with_truths])) for each in aps), table.mean]


def centred(box: np.ndarray) -> np.ndarray:
    """Corners (n, 4) in pixels -> centre x, y, width, height as parts of SCALE."""
    return np.concatenate([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], axis=1) / SCALE


def line(what: str, change: np.ndarray) -> str:
    low, high = np.percentile(change, [5, 95])
    return f"{what:<33} {change.mean():+6.2f}   {low:+6.2f} to {high:+6.2f}   furthest {np.abs(change).max():5.2f}"


if __name__ == "__main__":
    sys.exit(main())
