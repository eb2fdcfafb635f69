#!/usr/bin/env python3
"""Put the test images of a set of make_shapes.py together, nine on each: objects that are small in large images.

    python tools/mosaic_shapes.py data/made/shapes data/made/nine
    darknet-compat detector map data/made/nine/nine.data CFG WEIGHTS -tiles 3

Writes images/, labels/, valid.txt and a .data file that is called like the folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from darknet_compat.cfg import read_list
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.files import whole_file
from darknet_compat.labels import label_line, label_path, read_labels

ACROSS = 3  # images on each side
SIDE = 192  # pixels of the place of one: the longer side of most
GREY = 128
NAMES = Path(__file__).resolve().parent.parent / "data/shapes.names"


def mosaic(paths: list[str]) -> tuple[np.ndarray, list[str]]:
    """uint8 (576, 576, 3) with the images, and its label lines."""
    canvas, lines = np.full((ACROSS * SIDE, ACROSS * SIDE, 3), GREY, np.uint8), []
    for place, path in enumerate(paths):
        image = cv2.imread(path)
        if image is None or max(image.shape) > SIDE:
            raise DataError(f"{path}: expected an image of {SIDE} pixels at the most, as make_shapes.py makes them")
        height, width = image.shape[:2]
        top, left = (SIDE * step for step in divmod(place, ACROSS))
        canvas[top : top + height, left : left + width] = image
        for number, x, y, w, h in read_labels(label_path(path)).tolist():
            box = np.array([left + x * width, top + y * height, w * width, h * height]) / (ACROSS * SIDE)
            lines.append(f"{label_line(int(number), box.tolist())}\n")
    return canvas, lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="what make_shapes.py made")
    parser.add_argument("dest", type=Path, help="folder to make")
    options = parser.parse_args()
    dest: Path = options.dest.absolute()
    try:
        paths = read_list(options.source / "2007_test.txt")
        for name in ("images", "labels"):
            (dest / name).mkdir(parents=True)
        listed = []
        for number in range(len(paths) // ACROSS**2):
            image, lines = mosaic(paths[number * ACROSS**2 : (number + 1) * ACROSS**2])
            path = dest / "images" / f"{number:04}.png"
            cv2.imwrite(str(path), image)
            (dest / "labels" / f"{number:04}.txt").write_text("".join(lines))
            listed.append(f"{path}\n")
        data = f"classes=6\nvalid={dest}/valid.txt\nnames={NAMES}\nresults={dest}/results\n"
        for name, text in (("valid.txt", "".join(listed)), (f"{dest.name}.data", data)):
            with whole_file(dest / name, "w") as file:
                file.write(text)
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{dest / f'{dest.name}.data'}: {len(listed)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
