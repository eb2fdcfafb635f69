"""Reading COCO's instances files: the JSON that says which objects its images show."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from .errors import DataError

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
