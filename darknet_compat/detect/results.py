"""Detections into files: Darknet's result files, and JSON. Each file is written whole or not at all.

Source: ``examples/detector.c, print_detector_detections, print_cocos, print_imagenet_detections``.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..errors import ResultsError
from ..files import whole_file
from ..labels import basecfg
from .detections import Detections

# examples/detector.c, coco_ids: the 80 classes' ids among COCO's 90 categories.
COCO_IDS = [
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91),
]  # fmt: skip


def write_json(everything: Iterable[Detections], names: Sequence[str], path: str | os.PathLike[str]) -> None:
    """One JSON list: an object per picture (:meth:`Detections.as_json`)."""
    try:
        with whole_file(path, "w") as file:
            json.dump([detections.as_json(names) for detections in everything], file, indent=1, ensure_ascii=False)
            file.write("\n")
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}; the file was not written") from None


def drawing_names(paths: Sequence[str]) -> dict[str, str]:
    """For each picture the name of its drawing: its own name as .jpg, with a number where two pictures share it."""
    seen: Counter[str] = Counter()
    names = {}
    for path in dict.fromkeys(paths):
        stem = Path(path).stem
        seen[stem] += 1
        names[path] = f"{stem}.jpg" if seen[stem] == 1 else f"{stem}_{seen[stem]}.jpg"
    return names


def _clipped(detections: Detections, least: float, shift: float) -> np.ndarray:
    """Corners (M, 4) in pixels, shifted, then clipped to least..width and least..height."""
    centre, size = detections.boxes[:, :2].astype(np.float64), detections.boxes[:, 2:].astype(np.float64)
    # In C the sum is of doubles (w/2.) and lands in a float.
    corners = np.concatenate([centre - size / 2 + shift, centre + size / 2 + shift], 1).astype(np.float32)
    corners[:, :2] = np.maximum(corners[:, :2], least)
    corners[:, 2:] = np.minimum(corners[:, 2:], (detections.width, detections.height))
    return corners


class ResultFiles:
    """The result files of one ``detector valid``: ``with ResultFiles(...) as files``, then ``files.add`` per picture.

    ``eval`` is "voc" (FOLDER/PREFIX<name>.txt per class), "coco" (FOLDER/PREFIX.json) or "imagenet"
    (FOLDER/PREFIX.txt). All files appear together when the block ends well, and none otherwise.
    """

    PREFIX = {"voc": "comp4_det_test_", "coco": "coco_results", "imagenet": "imagenet-detection"}

    def __init__(self, folder: str, eval: str, names: Sequence[str], prefix: str | None = None) -> None:
        self.eval = eval
        prefix = prefix or self.PREFIX[eval]
        stems = {"voc": [f"{prefix}{name}.txt" for name in names], "coco": [f"{prefix}.json"]}
        self.paths = [Path(folder) / name for name in stems.get(eval, [f"{prefix}.txt"])]
        self._stack = ExitStack()
        self._first = True
        self._number = 0

    def __enter__(self) -> ResultFiles:
        try:
            self.paths[0].parent.mkdir(parents=True, exist_ok=True)
            self._files = [self._stack.enter_context(whole_file(path, "w")) for path in self.paths]
        except OSError as error:
            self._stack.__exit__(type(error), error, None)
            raise ResultsError(f"{self.paths[0].parent}: {error.strerror}; expected a folder to write to") from None
        if self.eval == "coco":
            self._files[0].write("[\n")
        return self

    def __exit__(self, *exception: object) -> bool | None:
        if self.eval == "coco":
            self._files[0].write("\n]\n")
        return self._stack.__exit__(*exception)

    def add(self, detections: Detections) -> None:
        """Write one picture's detections, in Darknet's lines. ``detections`` are in pixels (not relative)."""
        self._number += 1
        rows, classes = np.nonzero(detections.prob)
        prob = detections.prob[rows, classes]
        if self.eval == "voc":
            name = basecfg(detections.path)
            corners = _clipped(detections, 1, 1)[rows]
            for index, p, (left, top, right, bottom) in zip(classes, prob, corners, strict=True):
                self._files[index].write(f"{name} {p:f} {left:f} {top:f} {right:f} {bottom:f}\n")
            return
        corners = _clipped(detections, 0, 0)[rows]
        if self.eval == "coco":
            picture = coco_image_id(detections.path)
            for index, p, (left, top, right, bottom) in zip(classes, prob, corners, strict=True):
                comma = "" if self._first else ",\n"
                self._first = False
                self._files[0].write(
                    f'{comma}{{"image_id":{picture}, "category_id":{COCO_IDS[index]}, '
                    f'"bbox":[{left:f}, {top:f}, {right - left:f}, {bottom - top:f}], "score":{p:f}}}'
                )
        else:
            for index, p, (left, top, right, bottom) in zip(classes, prob, corners, strict=True):
                line = f"{self._number} {index + 1} {p:f} {left:f} {top:f} {right:f} {bottom:f}\n"
                self._files[0].write(line)


def coco_image_id(path: str) -> int:
    """The number in a COCO file name (``get_coco_image_id``): what follows the last _ (or /), read by atoi."""
    name = path.rsplit("_", 1)[-1] if "_" in path else path.rsplit("/", 1)[-1]
    found = re.match(r"\s*[+-]?\d+", name)
    return int(found.group()) if found else 0
