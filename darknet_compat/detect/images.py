"""Detection in image files, with drawings and a JSON file. Source: ``examples/detector.c, test_detector``;
``examples/yolo.c, test_yolo``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..defaults import HIER
from ..errors import ImageError
from ..image_files import check_file, check_written, find_images, kept_results, make_folder
from ..images import save_image
from ..progress import Progress, unseen
from .detections import Detections
from .detector import DataDetector
from .results import drawing_names


def detect_images(
    detector: DataDetector,
    images: Sequence[str],
    *,
    thresh: float | None = None,
    nms: float | None = None,
    hier: float = HIER,
    out: str | os.PathLike[str] | None = None,
    json: str | os.PathLike[str] | None = None,
    skip: bool = False,
    progress: Progress[Detections] = unseen,
) -> list[Detections]:
    """The detections of ``images``: words that :func:`find_images` takes.

    ``json`` writes them to a file, and ``out`` drawings into a folder: that of one image as predictions.jpg, those of
    several under the images' names. ``skip`` passes over images that cannot be read, with a warning each. The rest is
    that of :func:`detect`, ``progress`` that of :func:`validate`. ``thresh`` and ``nms`` None are those of the
    detector's verbs.

    Raises :class:`ImageError` for an image that cannot be read; what was found before it is written. Raises
    :class:`ResultsError` before the first image where the files could not be written, or would take the place of one
    that is read.
    """
    paths = find_images(images)
    one = len(paths) == 1
    names = {} if out is None else {paths[0]: "predictions.jpg"} if one else drawing_names(paths)
    drawings = {path: Path(out or "") / name for path, name in names.items()}
    _check_written(detector, [*images, *paths], None if out is None else Path(out), json, list(drawings.values()))

    thresh, nms = (detector.thresh if thresh is None else thresh), (detector.nms if nms is None else nms)

    def run(unreadable: Callable[[ImageError], None]) -> Iterator[Detections]:
        found = detector.detect(paths, thresh=thresh, nms=nms, hier=hier, unreadable=unreadable)
        for detections in progress(found, len(paths)):
            yield detections  # first, so that it is kept where its drawing fails
            if detections.path in drawings:
                save_image(detections.draw(bgr=False), drawings[detections.path])

    return kept_results(run, Detections.as_json, json, skip)


def _check_written(
    detector: DataDetector,
    given: list[str],
    folder: Path | None,
    file: str | os.PathLike[str] | None,
    drawings: list[Path],
) -> None:
    if folder is not None:
        make_folder(folder)
    if file is not None:
        check_file(file)
    sources = [detector.data.file, detector.network.cfg.file, getattr(detector.network.report, "path", "")]
    check_written([*drawings, *([file] if file is not None else [])], [*given, *sources])
