"""COCO's instances files, the JSON that says which objects its images show: reading them, and making labels of them."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .errors import DataError
from .files import whole_file
from .labels import label_line, label_path

KEYS = "images", "categories", "annotations"
SIDES, LONGEST = ("width", "height"), 10**9  # pixels of a side


def read_instances(
    path: Path, keep_crowd: bool = False
) -> tuple[list[dict[str, Any]], list[str], dict[int, list[Any]], Counter[str]]:
    """Images, names of the classes, (class index, bbox) of the objects by image id, and what was left out.

    A ``bbox`` is left, top, width, height in pixels from 0. Classes stand in the order of the categories' ids; for
    COCO that is the order of data/coco.names. Raises :class:`DataError` that says which entry is wrong.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a COCO instances file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON: {error}") from None
    parts: list[Any] = [whole.get(key) if isinstance(whole, dict) else None for key in KEYS]
    if not all(isinstance(part, list) and part for part in parts):
        raise DataError(
            f"{path}: expected the lists images, categories and annotations, as a COCO instances file has them"
        )
    images, categories, annotations = parts
    where = ""
    try:
        known = set()
        for index, image in enumerate(images):
            where = f"images[{index}]"
            if not (isinstance(image["file_name"], str) and all(0 < image[side] < LONGEST for side in SIDES)):
                raise DataError(f"{path}: {where}: expected a file_name, and width and height over 0 and under 10^9")
            known.add(image["id"])
        where = "categories"
        categories = sorted(categories, key=lambda category: category["id"])
        classes = {category["id"]: index for index, category in enumerate(categories)}
        names = [str(category["name"]) for category in categories]
        objects: dict[int, list[Any]] = defaultdict(list)
        left_out: Counter[str] = Counter()
        for index, annotation in enumerate(annotations):
            where = f"annotations[{index}]"
            if annotation["image_id"] not in known:
                raise DataError(f"{path}: {where}: image_id {annotation['image_id']} is not among the images")
            if annotation["category_id"] not in classes:
                raise DataError(f"{path}: {where}: category_id {annotation['category_id']} is not among the categories")
            left, top, width, height = (float(value) for value in annotation["bbox"])
            if not all(map(math.isfinite, (left, top, width, height))):
                raise DataError(f"{path}: {where}: expected finite numbers in bbox, not {annotation['bbox']}")
            if annotation.get("iscrowd") and not keep_crowd:
                left_out["groups marked iscrowd (--keep-crowd keeps them)"] += 1
            elif not (width > 0 and height > 0):  # COCO itself has a few
                left_out["boxes without width or height"] += 1
            else:
                objects[annotation["image_id"]].append((classes[annotation["category_id"]], (left, top, width, height)))
    except KeyError as error:
        raise DataError(f"{path}: {where} has no {error}; expected a COCO instances file") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: {where}: {error}; expected a COCO instances file") from None
    return images, names, objects, left_out


def relative_box(image: dict[str, Any], box: Sequence[float]) -> tuple[float, float, float, float]:
    """x, y, w, h of a label line from a ``bbox`` of an entry of ``images``."""
    (left, top, width, height), across, down = box, image["width"], image["height"]
    return (left + width / 2) / across, (top + height / 2) / down, width / across, height / down


def coco_label(
    instances: str | os.PathLike[str], images: str | os.PathLike[str], *, keep_crowd: bool = False
) -> list[str]:
    """Write labels, a list and a names file for an instances file whose images are in the folder ``images``.

    Labels go where pjreddie's program looks for them: coco/images/train2017/x.jpg has coco/labels/train2017/x.txt. List
    and names go beside the images: coco/images/train2017.txt and .names. Groups marked iscrowd are left out unless
    ``keep_crowd``.

    Returns lines that say what was done and what was left out. Raises :class:`DataError` in one line.
    """
    instances, folder = Path(instances), Path(images).resolve()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the images of {instances} there")
    entries, names, objects, left_out = read_instances(instances, keep_crowd)
    kept: Counter[str] = Counter()
    paths = [str(folder / image["file_name"]) for image in entries]
    for image, listed in zip(tqdm(entries, desc="labels", unit=" images", disable=None), paths, strict=True):
        path = _labels_of(listed)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for index, box in objects[image["id"]]:
            kept[names[index]] += 1
            lines.append(f"{label_line(index, relative_box(image, box))}\n")
        path.write_text("".join(lines))
    lists = {folder.parent / f"{folder.name}.txt": paths, folder.parent / f"{folder.name}.names": names}
    for path, lines in lists.items():
        with whole_file(path, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
    report = [f"{len(paths)} images, {kept.total()} objects of {len(kept)} classes"]
    report += [f"left out: {count} {what}" for what, count in left_out.items()]
    return [*report, "written: " + ", ".join(map(str, lists))]


def _labels_of(image: str) -> Path:
    """The label file of an image; an error where Darknet would look beside the image itself."""
    path = Path(label_path(image))
    if path.suffix != ".txt" or path.parent == Path(image).parent:
        raise DataError(
            f"{image}: Darknet would look for the labels in {path}; expected a folder called images in the path, "
            "and an image that ends in .jpg, .png, .JPG or .JPEG"
        )
    return path
