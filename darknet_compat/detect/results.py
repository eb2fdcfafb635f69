"""Detections into files: Darknet's result files, and those of AlexeyAB's ``detector test``. Each file is written whole
or not at all.

Source: ``examples/detector.c, print_detector_detections, print_cocos, print_imagenet_detections``;
``examples/yolo.c, print_yolo_detections``; AlexeyAB's ``src/network.c, detection_to_json``, ``src/detector.c,
test_detector``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from ..errors import ResultsError
from ..files import whole_file
from ..image_files import make_folder, written_or_said
from ..labels import basecfg, label_path
from ..program import ALEXEYAB, PJREDDIE
from .detections import Detections

# examples/detector.c, coco_ids: the 80 classes' ids among COCO's 90 categories.
COCO_IDS = [
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91),
]  # fmt: skip
LONGEST = 255  # bytes of a file's name, on all usual file systems


RESULT_THRESH = 0.005  # detection_to_json


class DrawingNames(dict[str, str]):
    """For each image the name of its drawing: its own name as .jpg, with a number where two images share it."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._given: set[str] = set()

    def __missing__(self, path: str) -> str:
        stem = Path(path).stem
        self._seen[stem] += 1
        name = f"{stem}.jpg" if self._seen[stem] == 1 else f"{stem}_{self._seen[stem]}.jpg"
        while name in self._given:  # a_2.jpg beside two of a.jpg
            self._seen[stem] += 1
            name = f"{stem}_{self._seen[stem]}.jpg"
        self._given.add(name)
        self[path] = name
        return name


def result_json(found: Sequence[Detections]) -> str:
    """AlexeyAB's result.json: what ``-out`` of his ``detector test`` writes of images, byte for byte.

    Boxes are relative to the image, not clipped; images are numbered from 1. Where his file would be no JSON it is
    another: he escapes nothing in names, and an infinite size is the largest float32 here.
    """
    images = [
        _image_json(one, f' "frame_id":{number}, \n "filename":{_quoted(one.path)}, \n')
        for number, one in enumerate(found, 1)
    ]
    return "[\n" + ", \n".join(images) + "\n]"


def frame_json(found: Detections, number: int) -> str:
    """The object of one frame of a video, as his ``-json_file_output`` has it (``src/image.c, detection_to_json``)."""
    return _image_json(found, f' "frame_id":{number}, \n')


def _image_json(found: Detections, head: str) -> str:
    return f'{{\n{head} "objects": [ \n' + ", \n".join(_result_objects(found)) + "\n ] \n}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _result_objects(detections: Detections) -> Iterator[str]:
    rows, classes = np.nonzero(detections.prob > np.float32(RESULT_THRESH))
    boxes = np.nan_to_num(detections.relative_boxes)[rows].tolist()
    found = zip(rows, classes, boxes, detections.prob[rows, classes], strict=True)
    for row, index, (x, y, width, height), prob in found:
        name = detections.name(int(index))
        number = detections.track_id(int(row))
        track = "" if number is None else f', "track_id":{number}'
        if not name.startswith("dont_show"):
            yield (
                f'  {{"class_id":{index}, "name":{_quoted(name)}, "relative_coordinates":{{"center_x":{x:f}, '
                f'"center_y":{y:f}, "width":{width:f}, "height":{height:f}}}, "confidence":{prob:f}{track}}}'
            )


def write_result_json(found: Sequence[Detections], path: str | os.PathLike[str]) -> None:
    """Raises :class:`ResultsError`."""
    with written_or_said(path), whole_file(path, "w") as file:
        file.write(result_json(found))


class LabelFiles:
    """Detections as label files, where AlexeyAB's program reads them (``-save_labels`` of his ``detector test``).

    A file that is there is somebody's annotation, and stays, unless ``overwrite``. What this object has written itself
    it never writes over: two images may share a label file. ``kept`` lists the files that stayed.
    """

    def __init__(self, overwrite: bool = False) -> None:
        self.overwrite = overwrite
        self.kept: list[str] = []
        self._written: set[str] = set()

    @staticmethod
    def path(image: str) -> str:
        """Raises :class:`ResultsError` for an image that AlexeyAB's program has no label file for."""
        path = label_path(image, ALEXEYAB)
        if path == image:
            raise ResultsError(
                f"{image}: AlexeyAB's Darknet has no label file for such a name; expected .jpg, .png, .bmp, .ppm or "
                ".tiff"
            )
        return path

    def write(self, detections: Detections) -> None:
        """A line for each box that has a class: its likeliest one, and the box, relative to the image."""
        path = self.path(detections.path)
        if path in self._written or (os.path.lexists(path) and not self.overwrite):
            self.kept.append(path)
            return
        rows = np.flatnonzero(detections.prob.any(1))
        boxes = detections.relative_boxes[rows].tolist()
        lines = [
            f"{index} {x:2.4f} {y:2.4f} {width:2.4f} {height:2.4f}\n"
            for index, (x, y, width, height) in zip(detections.prob[rows].argmax(1), boxes, strict=True)
        ]
        make_folder(Path(path).parent)
        with written_or_said(path), whole_file(path, "w") as file:
            file.writelines(lines)
        self._written.add(path)


def _clipped(detections: Detections, first: int) -> np.ndarray:
    """Corners (M, 4) in pixels counted from ``first``, clipped to first..width and first..height."""
    centre, size = detections.boxes[:, :2].astype(np.float64), detections.boxes[:, 2:].astype(np.float64)
    # In C the sum is of doubles (w/2.) and lands in a float.
    corners = np.concatenate([centre - size / 2 + first, centre + size / 2 + first], 1).astype(np.float32)
    corners[:, :2] = np.maximum(corners[:, :2], first)
    corners[:, 2:] = np.minimum(corners[:, 2:], (detections.width, detections.height))
    return corners


class ResultFiles:
    """The result files of one ``detector valid``: ``with ResultFiles(...) as files``, then ``files.add`` per image.

    ``eval`` is "voc" (FOLDER/PREFIX<name>.txt per class), "coco" (FOLDER/PREFIX.json) or "imagenet"
    (FOLDER/PREFIX.txt). All files appear together when the block ends well; otherwise none does, and those that stood
    there stay. ``names_file`` is where ``names`` come from, for errors; ``first_pixel`` is the number of an
    image's first column and row in files of "voc"; ``program`` is whose rule gives the image ids of "coco".

    Raises :class:`ResultsError`, before anything is written, where names cannot be those of files, or what stands in a
    file's place is no plain file; and where the files cannot be written.
    """

    PREFIX = {"voc": "comp4_det_test_", "coco": "coco_results", "imagenet": "imagenet-detection"}
    CLASSES = {"coco": len(COCO_IDS), "imagenet": 200}  # how many each form has; validate_detector: classes = 200

    def __init__(
        self,
        folder: str,
        eval: str,
        names: Sequence[str],
        prefix: str | os.PathLike[str] | None = None,
        names_file: str = "names",
        first_pixel: int = 1,
        program: str = PJREDDIE,
    ) -> None:
        self.eval = eval
        self.program = program
        self.first_pixel = first_pixel
        prefix = os.fspath(prefix or self.PREFIX[eval])
        if eval == "voc":
            _check_names(names, Path(prefix).name, names_file)
        stems = {"voc": [f"{prefix}{name}.txt" for name in names], "coco": [f"{prefix}.json"]}
        self.paths = [Path(folder) / name for name in stems.get(eval, [f"{prefix}.txt"])]
        self._folder = self.paths[0].parent
        self._part = self._folder / f".{Path(prefix).name}.part"
        self.journal = self._folder / f".{Path(prefix).name}.journal"
        """Where what is found may be kept until the files are written (``journal.py``)."""
        self._stranded = False
        self._first = True
        self._number = 0

    def __enter__(self) -> ResultFiles:
        make_folder(self._folder)
        for path in self.paths:
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise ResultsError(f"{path}: not a plain file; expected a file to replace, or a new name")
        with self._in_one_line(), ExitStack() as stack:
            shutil.rmtree(self._part, ignore_errors=True)  # of a run that was killed
            self._part.mkdir()
            stack.callback(self._clear)
            self._files = [
                stack.enter_context(open(self._part / path.name, "w", encoding="utf-8", errors="surrogateescape"))
                for path in self.paths
            ]
            if self.eval == "coco":
                self._files[0].write("[\n")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._in_one_line(), self._stack:
            if exception[0] is None:
                if self.eval == "coco":
                    self._files[0].write("\n]\n")
                for file in self._files:
                    file.flush()
                    os.fsync(file.fileno())
                self._put_in_place()

    def _put_in_place(self) -> None:
        """Give all files their names. What had a name goes aside first, and comes back where a later one fails."""
        aside = self._part / "aside"
        aside.mkdir()
        done: list[tuple[Path, Path]] = []
        try:
            for path in self.paths:
                moves = [(path, aside / path.name)] if path.is_file() else []
                for source, target in (*moves, (self._part / path.name, path)):
                    os.rename(source, target)
                    done.append((source, target))
        except BaseException as error:
            for source, target in reversed(done):
                with suppress(OSError):
                    os.rename(target, source)
            if any(aside.iterdir()):
                self._stranded = True
                raise ResultsError(f"{self._folder}: {error}; the older result files are in {aside} now") from None
            raise

    def _clear(self) -> None:
        if not self._stranded:
            shutil.rmtree(self._part, ignore_errors=True)

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResultsError(
                f"{error.filename2 or self._folder}: {error.strerror}; no result file was written"
            ) from None

    def add(self, detections: Detections) -> None:
        """Write one image's detections, in Darknet's lines. ``detections`` are in pixels (not relative)."""
        with self._in_one_line():
            self._add(detections)

    def _add(self, detections: Detections) -> None:
        self._number += 1
        rows, classes = np.nonzero(detections.prob)
        prob = detections.prob[rows, classes]
        if self.eval == "voc":
            name = basecfg(detections.path)
            corners = _clipped(detections, self.first_pixel)[rows]
            for index, p, (left, top, right, bottom) in zip(classes, prob, corners, strict=True):
                self._files[index].write(f"{name} {p:f} {left:f} {top:f} {right:f} {bottom:f}\n")
            return
        corners = _clipped(detections, 0)[rows]
        if self.eval == "coco":
            image = coco_image_id(detections.path, self.program)
            for index, p, (left, top, right, bottom) in zip(classes, prob, corners, strict=True):
                comma = "" if self._first else ",\n"
                self._first = False
                self._files[0].write(
                    f'{comma}{{"image_id":{image}, "category_id":{COCO_IDS[index]}, '
                    f'"bbox":[{left:f}, {top:f}, {right - left:f}, {bottom - top:f}], "score":{p:f}}}'
                )
        else:
            for index, p, (left, top, right, bottom) in zip(classes, prob, corners, strict=True):
                line = f"{self._number} {index + 1} {p:f} {left:f} {top:f} {right:f} {bottom:f}\n"
                self._files[0].write(line)


def _check_names(names: Sequence[str], prefix: str, names_file: str) -> None:
    """That each class can have a file of its own. Raises :class:`ResultsError`."""
    lines: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if lines.setdefault(name, line) != line:
            raise ResultsError(
                f"{names_file}: lines {lines[name]} and {line} are both {name!r}, and eval=voc writes a file for each "
                "name; expected names that differ"
            )
        if "/" in name or "\0" in name or len(f"{prefix}{name}.txt".encode()) > LONGEST:
            raise ResultsError(
                f"{names_file}:{line}: {name[:60]!r} cannot be part of a file's name, and eval=voc writes a file for "
                f"each name; expected neither / nor a zero byte, and with {prefix} and .txt at most {LONGEST} bytes"
            )


def coco_image_id(path: str, program: str) -> int:
    """The number in a COCO file name, read by atoi: pjreddie's program reads what follows the last _ or else the last /
    (``get_coco_image_id``), AlexeyAB's the whole name (``print_cocos``), so that COCO_val2014_000000000042 is 0."""
    name = path.rsplit("_", 1)[-1] if "_" in path and program == PJREDDIE else path.rsplit("/", 1)[-1]
    found = re.match(r"\s*[+-]?\d+", name)
    return int(found.group()) if found else 0
