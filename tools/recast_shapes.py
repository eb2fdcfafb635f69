#!/usr/bin/env python3
"""Recast a set of make_shapes.py as other people keep theirs, to try `darknet-compat new` on.

    python tools/recast_shapes.py coco data/made/shapes data/made/coco
    python tools/recast_shapes.py darknet data/made/shapes "data/made/Bilder für später"

coco: one JSON file, its images in sub-folders by the day. darknet: a label file beside each image, and spaces and
letters beyond ASCII in the names of folders, images and classes. All images of the set come along, undivided.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from darknet_compat.cfg import read_names
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.images import image_size
from darknet_compat.labels import label_path, read_labels

DAYS = 7  # sub-folders
NAMES = ["große Scheibe", "кольцо", "三角形", "quadrat, rot", "étoile", "cross & plus"]
WORD = "Aufnahme größer"  # of the images' names


def coco(images: list[Path], names: list[str], dest: Path) -> None:
    """instances.json, and images in photos/day 1, photos/day 2 ..."""
    listed, objects = [], []
    for number, image in enumerate(images, 1):
        name = f"day{1 + number % DAYS}/{image.name}"
        (dest / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(image, dest / name)
        width, height = image_size(image)
        listed.append({"id": number, "file_name": name, "width": width, "height": height})
        for kind, x, y, w, h in read_labels(label_path(str(image))).tolist():
            size = w * width, h * height
            box = [x * width - size[0] / 2, y * height - size[1] / 2, *size]
            objects.append(
                {"id": len(objects) + 1, "image_id": number, "category_id": 10 * (int(kind) + 1), "iscrowd": 0,
                 "bbox": np.round(box, 2).tolist(), "area": round(size[0] * size[1], 2)}
            )  # fmt: skip
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(names, 1)]
    written = {"images": listed, "annotations": objects, "categories": categories}
    (dest / "instances.json").write_text(json.dumps(written), encoding="utf-8")


def darknet(images: list[Path], names: list[str], dest: Path) -> None:
    """A label file beside each image, and classes.txt."""
    for number, image in enumerate(images, 1):
        path = dest / f"{WORD} ({number}).jpg"
        shutil.copyfile(image, path)
        shutil.copyfile(label_path(str(image)), path.with_suffix(".txt"))
    (dest / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES[: len(names)]), encoding="utf-8")


FORMS = {"coco": coco, "darknet": darknet}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("source", type=Path, help="what make_shapes.py made")
    parser.add_argument("dest", type=Path, help="folder to make")
    options = parser.parse_args()
    images = sorted(options.source.glob("VOCdevkit/VOC*/JPEGImages/*.jpg"))
    try:
        if not images:
            raise DataError(f"{options.source}: no VOCdevkit/VOC*/JPEGImages/*.jpg; expected what make_shapes.py makes")
        options.dest.mkdir(parents=True)
        names = read_names(Path(__file__).resolve().parent.parent / "data/shapes.names")
        FORMS[options.form](images, names, options.dest)
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.dest}: {len(images)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
