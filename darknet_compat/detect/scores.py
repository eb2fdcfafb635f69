"""From a network's detections to the tables of ``detector map`` and ``detector recall``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..defaults import MAP, MAP_HIER, RECALL
from ..evaluate.annotations import LabelBoxes, read_difficult, read_label_files
from ..evaluate.darknet_map import MapTable, RecallTable, detector_map, recall_counts
from ..progress import Progress, unseen
from .detections import Detections
from .detector import DataDetector

REPORT_THRESH = 0.25  # AlexeyAB's src/detector.c, run_detector: his map counts true and false positives over it


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
    images, classes, probs, boxes = (np.concatenate(parts) for parts in (image, class_id, prob, box))
    return detector_map(names, images, classes, probs, boxes, truths, difficult, **options)


def mean_average_precision(
    detector: DataDetector,
    *,
    thresh: float = REPORT_THRESH,
    iou_thresh: float = 0.5,
    points: int = 0,
    progress: Progress[Detections] = unseen,
) -> MapTable:
    """AlexeyAB's mAP over the ``valid`` list, against its label files (``src/detector.c, validate_detector_map``).

    True and false positives are counted at ``thresh``. ``points`` is 0 (the area), 11 (VOC 2007) or 101 (COCO).
    ``progress`` is that of :func:`validate`.

    Raises :class:`DarknetError` in one line that names file and place.
    """
    paths, classes = detector.valid_images(), len(detector.names)
    program = detector.network.program
    found: Iterable[Detections] = detector.detect(paths, hier=MAP_HIER, **MAP[program]._asdict())
    if not detector.processes.first:
        detector.processes.work_for_first(found)
    truths = read_label_files(paths, classes, program)
    difficult = read_difficult(detector.data, paths, classes, program)
    return map_of(
        progress(found, len(paths)),
        detector.names,
        truths,
        difficult,
        thresh=thresh,
        iou_thresh=iou_thresh,
        points=points,
    )


def recall(detector: DataDetector, *, progress: Progress[Detections] = unseen) -> RecallTable:
    """Darknet's recall over the ``valid`` list (``validate_detector_recall``, ``validate_yolo_recall``).

    Stretched images, every box over objectness .001 whatever its class; suppressed over an IOU of .4, for the verbs
    ``yolo`` not at all. ``progress`` is that of :func:`validate`.
    """
    paths = detector.valid_images()
    found = detector.detect(paths, letter_box=False, by_objectness=True, **RECALL[detector.rules]._asdict())
    if not detector.processes.first:
        detector.processes.work_for_first(found)
    truths = read_label_files(paths, detector.network.detector.o.classes, detector.network.program)
    image, objectness, box = [], [], []
    for index, detections in enumerate(progress(found, len(paths))):
        image.append(np.full(len(detections.prob), index))
        objectness.append(detections.prob[:, 0])
        box.append(detections.boxes)
    images, scores, boxes = (np.concatenate(parts) for parts in (image, objectness, box))
    return recall_counts(images, scores, boxes, truths, len(paths))
