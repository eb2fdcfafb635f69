#!/usr/bin/env python3
"""Turn a COCO instances file into Darknet's labels, a list and a names file.

    python tools/coco_label.py annotations/instances_train2017.json coco/images/train2017

Labels go where Darknet looks for them: coco/images/train2017/x.jpg has coco/labels/train2017/x.txt. The list and the
names go beside the images: coco/images/train2017.txt and .names. Classes stand in the order of the categories' ids;
for COCO that is the order of data/coco.names.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from darknet_compat.coco import read_instances
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.files import whole_file
from darknet_compat.labels import label_path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=Path, help="the JSON file of annotations")
    parser.add_argument("images", type=Path, help="folder of its images; a part of its path must be called images")
    parser.add_argument("--keep-crowd", action="store_true", help="label groups marked iscrowd too")
    args = parser.parse_args()
    try:
        for line in label(args.instances, args.images.resolve(), args.keep_crowd):
            print(line)
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def label(instances: Path, folder: Path, keep_crowd: bool) -> list[str]:
    """Write labels, list and names; the lines to print come back."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the images of {instances} there")
    images, names, objects, left_out = read_instances(instances, keep_crowd)
    kept: Counter[str] = Counter()
    paths = [str(folder / image["file_name"]) for image in images]
    for image, listed in zip(tqdm(images, desc="labels", unit=" images", disable=None), paths, strict=True):
        path = labels_of(listed)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for index, (left, top, width, height) in objects[image["id"]]:
            kept[names[index]] += 1
            across, down = image["width"], image["height"]
            centre = (left + width / 2) / across, (top + height / 2) / down
            lines.append(f"{index} {centre[0]} {centre[1]} {width / across} {height / down}\n")
        path.write_text("".join(lines))
    lists = {folder.parent / f"{folder.name}.txt": paths, folder.parent / f"{folder.name}.names": names}
    for path, lines in lists.items():
        with whole_file(path, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
    report = [f"{len(paths)} images, {kept.total()} objects of {len(kept)} classes"]
    report += [f"left out: {count} {what}" for what, count in left_out.items()]
    return [*report, "written: " + ", ".join(map(str, lists))]


def labels_of(image: str) -> Path:
    """The label file of an image; an error where Darknet would look beside the image itself."""
    path = Path(label_path(image))
    if path.suffix != ".txt" or path.parent == Path(image).parent:
        raise DataError(
            f"{image}: Darknet would look for the labels in {path}; expected a folder called images in the path, "
            "and an image that ends in .jpg, .png, .JPG or .JPEG"
        )
    return path


if __name__ == "__main__":
    sys.exit(main())
