"""The network over the ``valid`` list, into Darknet's result files.

Source: ``examples/detector.c, validate_detector, validate_detector_flip``; ``examples/yolo.c, validate_yolo``.
"""

from __future__ import annotations

import os
import warnings
from itertools import chain
from pathlib import Path

from ..defaults import VALID, YOLO
from ..errors import DarknetError
from ..labels import image_ids
from ..progress import Progress, unseen
from ..tree import read_map
from .detections import Detections
from .detector import DataDetector
from .journal import Journal, made_by
from .results import ResultFiles, coco_image_id


def validate(
    detector: DataDetector,
    *,
    out: str | os.PathLike[str] | None = None,
    mirrored: bool = False,
    resume: bool = False,
    progress: Progress[Detections] = unseen,
) -> list[Path]:
    """Write the result files of the ``valid`` list, all or none; their paths come back.

    One comp4 file per class (``eval=voc``), coco_results.json (``eval=coco``) or imagenet-detection.txt
    (``eval=imagenet``), in the folder that ``results=`` names; ``out`` is the start of their names. ``mirrored``
    averages in the output for the mirrored image, as ``valid2`` does. ``progress`` takes the detections and their
    number and hands them on. For the verbs ``yolo`` the files are comp4 ones whatever ``eval=`` says, and their first
    pixel is 0 and not 1.

    Until the files are written a journal beside them keeps what is found. ``resume`` goes on with that of a run of the
    same network, list and options that was stopped or killed, and gives the same files; without one it begins anew.

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
    processes, total = detector.processes, len(paths)
    files = ResultFiles(folder, kind, detector.names, out, detector.names_file, first_pixel, program)
    options = {"mirrored": mirrored, "class_map": asked, **VALID[detector.rules]._asdict()}
    if not processes.first:
        start = processes.broadcast_number(0)
        processes.work_for_first(detector.detect(paths, start=start, relative=False, **options))
    engine, batch = detector.engine(total)
    made = made_by(
        detector.network, paths, batch=batch, threads=engine.threads, **detector.choices, **options, eval=kind,
        names=detector.names,
    )  # fmt: skip
    with Journal(files.journal, made, resume) as journal, files:
        start = processes.broadcast_number(journal.images)
        found = detector.detect(paths, start=start, relative=False, **options)
        try:
            for detections in progress(chain(journal.read(paths, detector.names), journal.kept(found, batch)), total):
                files.add(detections)
        except (DarknetError, KeyboardInterrupt) as error:
            if not journal.images:
                raise
            done = f"; {journal.images:,} of {total:,} images are kept, and -resume goes on"
            raise type(error)(f"{error}{done}") from error
    return files.paths
