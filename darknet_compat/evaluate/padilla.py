"""One text file per image: ``class prob left top right bottom``, the form that Rafael Padilla's metrics tool reads.

Coordinates are those of the comp4 files: pixels, the first one is 1. A class name with blanks is written with
underscores, since the form knows no quotes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..cfg.data import MAX_LIST_BYTES
from ..cfg.reader import read_text
from ..errors import ResultsError
from .results import Detections, parse_numbers


def write_padilla(detections: Detections, folder: str | os.PathLike[str]) -> None:
    """Write ``folder/<id>.txt`` for every image, an empty file where nothing was detected.

    Numbers are written so that they read back equal. The folder appears whole or not at all; it must be new or empty.
    Raises ResultsError where it is not, or cannot be written.
    """
    words = [name.replace(" ", "_") for name in detections.names]
    order = np.argsort(detections.image, kind="stable")
    lines = [
        f"{words[class_id]} {prob} {' '.join(map(str, box))}\n"
        for class_id, prob, box in zip(
            detections.class_id[order].tolist(),
            detections.prob[order].tolist(),
            detections.box[order].tolist(),
            strict=True,
        )
    ]
    ends = np.cumsum(np.bincount(detections.image, minlength=len(detections.images))).tolist()
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ResultsError(
            f"{folder}: not empty; expected a new folder, since old files would be scored with the new ones"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            for name, start, end in zip(detections.images, [0, *ends], ends, strict=False):
                (made / f"{name}.txt").write_text("".join(lines[start:end]), encoding="utf-8")
            made.replace(folder)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot write: {error.strerror}") from None


def read_padilla(folder: str | os.PathLike[str], names: Sequence[str], images: Sequence[str]) -> Detections:
    """Read what :func:`write_padilla` or another tool wrote.

    An image without a file is taken as one without detections, as many tools mean it, and goes to ``missing``.
    Raises ResultsError with file and line for a malformed line, an unknown class, and a file of no image of the set.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; expected text files like {images[0]}.txt in it")
    found = {path.stem for path in folder.glob("*.txt")}
    if not found:
        raise ResultsError(f"{folder}: no text files in it; expected one per image, like {images[0]}.txt")
    strange = sorted(found - set(images))
    if strange:
        raise ResultsError(f"{folder / strange[0]}.txt: image {strange[0]} is not in the image set")
    index = {name: class_id for class_id, name in enumerate(names)}
    index |= {name.replace(" ", "_"): class_id for class_id, name in enumerate(names)}
    image: list[int] = []
    class_ids: list[int] = []
    numbers: list[list[float]] = []
    missing: list[Path] = []
    for position, name in enumerate(images):
        path = folder / f"{name}.txt"
        if name not in found:
            missing.append(path)
            continue
        for number, line in enumerate(read_text(path, ResultsError, MAX_LIST_BYTES).split("\n"), 1):
            fields = line.split()
            if not fields:
                continue
            where = f"{path}:{number}: {line.strip()!r}"
            if len(fields) < 6:
                raise ResultsError(f"{where}: {len(fields)} fields; expected six: class prob left top right bottom")
            label = " ".join(fields[:-5])
            if label not in index:
                raise ResultsError(f"{where}: class {label!r} is none of the {len(names)} names")
            numbers.append(parse_numbers(fields[-5:], where))
            class_ids.append(index[label])
            image.append(position)
    table = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    class_id = np.array(class_ids, dtype=np.int64)
    order = np.argsort(class_id, kind="stable")
    return Detections(
        names=list(names),
        images=list(images),
        image=np.array(image, dtype=np.int64)[order],
        class_id=class_id[order],
        prob=table[order, 0],
        box=table[order, 1:],
        missing=missing,
        absent=[],
    )
