"""From a network's detections to the tables of ``detector map`` and ``detector recall``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..evaluate.annotations import LabelBoxes, read_label_files
from ..evaluate.darknet_map import MapTable, RecallTable, detector_map, recall_counts
from ..network import Network
from .defaults import RECALL
from .detections import Detections, detect_files


def map_of(
    found: Iterable[Detections],
    names: Sequence[str],
    truths: LabelBoxes,
    difficult: LabelBoxes | None = None,
    **options: Any,
) -> MapTable:
    """AlexeyAB's table of detections (relative to their images), image by image, against the label boxes.

    ``options`` are those of :func:`darknet_compat.evaluate.darknet_map.detector_map`.
    """
    image, class_id, prob, box = [], [], [], []
    for index, detections in enumerate(found):
        rows, classes = np.nonzero(detections.prob)
        image.append(np.full(len(rows), index))
        class_id.append(classes)
        prob.append(detections.prob[rows, classes])
        box.append(detections.boxes[rows])
    joined = [np.concatenate(parts) for parts in (image, class_id, prob, box)]
    return detector_map(names, *joined, truths, difficult, **options)


def recall_of(network: Network, paths: Sequence[str], **options: Any) -> RecallTable:
    """Darknet's recall: stretched images, every box over objectness .001 whatever its class, IOU .4.

    ``options`` are ``batch`` and ``engine`` of :func:`detect_files`.
    """
    truths = read_label_files(paths, network.detector.o.classes)
    image, objectness, box = [], [], []
    found = detect_files(
        network, paths, letter_box=False, by_objectness=True, **RECALL[network.program]._asdict(), **options,
    )  # fmt: skip
    for index, detections in enumerate(found):
        image.append(np.full(len(detections.prob), index))
        objectness.append(detections.prob[:, 0])
        box.append(detections.boxes)
    joined = [np.concatenate(parts) for parts in (image, objectness, box)]
    return recall_counts(*joined, truths, len(paths))
