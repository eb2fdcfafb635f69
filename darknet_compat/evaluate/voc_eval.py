"""Result files against their truth, as the verb ``voc_eval`` scores them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..errors import ResultsError
from .annotations import Truths, find_images, read_truths
from .padilla import read_padilla
from .results import Detections, read_comp4
from .voc import Metric, Scores, score


@dataclass(frozen=True)
class Scored:
    """The table, and what it was made of."""

    scores: Scores
    truths: Truths
    detections: Detections


def voc_eval(
    results: str | os.PathLike[str],
    *,
    devkit: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    year: str | int = "2007",
    image_set: str = "test",
    names: str | os.PathLike[str] | None = None,
    metric: Metric = "voc07",
    iou: float = 0.5,
    padilla: bool = False,
    images: str | os.PathLike[str] | None = None,
    program: str = "pjreddie",
) -> Scored:
    """Average precision of a folder of result files, as py-faster-rcnn's voc_eval computes it.

    The truth is that of a VOCdevkit's ``year`` and ``image_set``, or the label files of the valid list of ``data``;
    ``program`` says where these stand (:func:`..labels.label_path`).
    ``names`` is a file of class names (default: data/voc.names, or those of ``data``). ``metric`` is "voc07", of 11
    points, or "area"; a right box has an IOU over ``iou``. ``padilla``: the folder holds one text file per image.
    ``images`` is a folder of images to draw from, where they lie elsewhere than the truth says.

    Raises :class:`DarknetError` with file and line.
    """
    if (devkit is None) == (data is None):
        raise ResultsError("expected either devkit or data")
    if not 0 <= iou < 1:
        raise ResultsError(f"-iou is {iou:g}; expected 0 to 1, such as .5")
    truths = read_truths(devkit, data, year, image_set, names, program)
    if images is not None:
        truths = replace(truths, paths=find_images(images, truths.images))
    detections = (read_padilla if padilla else read_comp4)(results, truths.names, truths.images)
    return Scored(score(truths, detections, metric, iou), truths, detections)
