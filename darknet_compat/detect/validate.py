"""The network over the ``valid`` list, into Darknet's result files.

Source: ``examples/detector.c, validate_detector, validate_detector_flip``; ``examples/yolo.c, validate_yolo``.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from ..defaults import VALID, YOLO
from ..labels import image_ids
from ..progress import Progress, unseen
from ..tree import read_map
from .detections import Detections
from .detector import DataDetector
from .results import ResultFiles, coco_image_id


def validate(
    detector: DataDetector,
    *,
    out: str | os.PathLike[str] | None = None,
    mirrored: bool = False,
    progress: Progress[Detections] = unseen,
) -> list[Path]:
    """Write the result files of the ``valid`` list, all or none; their paths come back.

    One comp4 file per class (``eval=voc``), coco_results.json (``eval=coco``) or imagenet-detection.txt
    (``eval=imagenet``), in the folder that ``results=`` names; ``out`` is the start of their names. ``mirrored``
    averages in the output for the mirrored image, as ``valid2`` does. ``progress`` takes the detections and their
    number and hands them on. For the verbs ``yolo`` the files are comp4 ones whatever ``eval=`` says, and their first
    pixel is 0 and not 1.

    Raises :class:`DarknetError` before the first image where files could not be written, or not be scored.
    """
    data, head, paths = detector.data, detector.network.detector, detector.valid_images()
    program = detector.network.program
    yolo = detector.verbs == YOLO
    kind = "voc" if yolo else data.get("eval", "voc")
    if kind not in ResultFiles.PREFIX:
        raise data.error("eval", f"eval is {kind!r}; expected one of {', '.join(ResultFiles.PREFIX)}")
    if kind == "voc":
        image_ids(paths, detector.valid_file)
    elif kind == "coco" and len({coco_image_id(path, program) for path in paths}) < len(paths):
        where = detector.valid_file
        warnings.warn(f"{where}: images share an image id, the number in the name of a COCO file", stacklevel=2)
    classes_asked = data.get("map")
    asked = read_map(classes_asked) if classes_asked else None
    if asked and max(asked) >= head.o.classes:
        raise data.error("map", f"the map asks for class {max(asked)}; expected 0 to {head.o.classes - 1}")
    classes = len(asked) if asked and head.chooses_classes else head.o.classes
    expected = ResultFiles.CLASSES.get(kind, classes)
    if classes != expected:
        raise data.error("eval", f"{classes} classes would be written; expected the {expected} of eval={kind}")
    folder = data.get("results", "results")
    first_pixel = 0 if yolo else 1
    with ResultFiles(folder, kind, detector.names, out, detector.names_file, first_pixel, program) as files:
        thresholds = VALID[detector.rules]._asdict()
        found = detector.detect(paths, mirrored=mirrored, relative=False, class_map=asked, **thresholds)
        for detections in progress(found, len(paths)):
            files.add(detections)
    return files.paths
