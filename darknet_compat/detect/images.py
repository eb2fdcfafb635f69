"""Detection in image files, with drawings, label files and JSON. Source: ``examples/detector.c, test_detector``;
``examples/yolo.c, test_yolo``; AlexeyAB's ``src/detector.c, test_detector``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..defaults import HIER
from ..errors import DarknetError, ImageError, ResultsError
from ..image_files import (
    check_file,
    check_written,
    find_images,
    kept_results,
    make_folder,
    pass_over,
    results_one_by_one,
    write_objects,
)
from ..images import save_image
from ..progress import Progress, unseen
from .detections import Detections
from .detector import DataDetector
from .results import DrawingNames, LabelFiles, write_result_json

FilePath = str | os.PathLike[str]


def detect_images(
    detector: DataDetector,
    images: Sequence[str],
    *,
    thresh: float | None = None,
    nms: float | None = None,
    hier: float = HIER,
    out: FilePath | None = None,
    json: FilePath | None = None,
    result: FilePath | None = None,
    save_labels: LabelFiles | None = None,
    skip: bool = False,
    progress: Progress[Detections] = unseen,
) -> list[Detections]:
    """The detections of ``images``: words that :func:`find_images` takes.

    ``out`` writes drawings into a folder: that of one image as predictions.jpg, those of several under the images'
    names. ``json`` writes the detections to a file, ``result`` does so in the form of AlexeyAB's result.json, and
    ``save_labels`` as label files. ``skip`` passes over images that cannot be read, with a warning each. The rest is
    that of :func:`detect`, ``progress`` that of :func:`validate`. ``thresh`` and ``nms`` None are those of the
    detector's verbs.

    Raises :class:`ImageError` for an image that cannot be read; what was found before it is written. Raises
    :class:`ResultsError` before the first image where the files could not be written, or would take the place of one
    that is read.
    """
    paths = find_images(images)
    files = _Files(detector, out, json, result, save_labels, one=len(paths) == 1)
    files.check(paths, images)
    thresh, nms = (detector.thresh if thresh is None else thresh), (detector.nms if nms is None else nms)

    def run(unreadable: Callable[[ImageError], None]) -> Iterator[Detections]:
        found = detector.detect(paths, thresh=thresh, nms=nms, hier=hier, unreadable=unreadable)
        for detections in progress(found, len(paths)):
            yield detections  # first, so that it is kept where its drawing fails
            files.write(detections)

    return kept_results(run, files.lists, skip)


def detect_each(
    detector: DataDetector,
    paths: Iterable[str],
    *,
    thresh: float | None = None,
    nms: float | None = None,
    hier: float = HIER,
    out: FilePath | None = None,
    json: FilePath | None = None,
    result: FilePath | None = None,
    save_labels: LabelFiles | None = None,
    refused: Callable[[DarknetError], None] = pass_over,
) -> Iterator[Detections]:
    """The detections of image files one by one, as their paths come: the next path is not asked for before.

    Arguments are those of :func:`detect_images`; ``out`` "" writes every drawing as predictions.jpg. The lists are
    written at the end, whatever the end is. ``refused`` takes the error of an image that cannot be read, or whose files
    cannot be written, and the next one follows.

    Raises :class:`ResultsError` before the first path where the lists could not be written.
    """
    files = _Files(detector, out, json, result, save_labels, one=out == "")
    files.check([], [])
    thresh, nms = (detector.thresh if thresh is None else thresh), (detector.nms if nms is None else nms)

    def run(path: str) -> Iterator[Detections]:
        files.check([path], [])
        for detections in detector.detect([path], thresh=thresh, nms=nms, hier=hier):
            yield detections
            files.write(detections)

    yield from results_one_by_one(paths, run, files.lists, refused)


class _Files:
    """What is written of the images of a job: drawings and label files of each, and lists of all at its end."""

    def __init__(
        self,
        detector: DataDetector,
        out: FilePath | None,
        json: FilePath | None,
        result: FilePath | None,
        labels: LabelFiles | None,
        one: bool,
    ) -> None:
        self.folder = None if out is None else Path(out)
        self.names = DrawingNames()
        self.one, self.labels = one, labels
        self.lists: dict[str, Callable[[list[Detections]], None]] = {}
        if json is not None:
            self.lists[os.fspath(json)] = lambda found: write_objects([one.as_json() for one in found], json)
        if result is not None:
            if json is not None and os.path.realpath(json) == os.path.realpath(result):
                raise ResultsError(f"{result}: two lists of detections would get this name; expected another for one")
            self.lists[os.fspath(result)] = lambda found: write_result_json(found, result)
        network = detector.network
        weights = getattr(network.report, "path", "")
        self.sources = [detector.data.file, detector.names_file, network.cfg.file, weights]

    def drawing(self, path: str) -> list[Path]:
        if self.folder is None:
            return []
        return [self.folder / ("predictions.jpg" if self.one else self.names[path])]

    def check(self, paths: Sequence[str], given: Sequence[str]) -> None:
        """That all can be written, and nothing that is read would be written over. Raises :class:`ResultsError`."""
        if self.folder is not None:
            make_folder(self.folder)
        for file in self.lists:
            check_file(file)
        labels = [] if self.labels is None else [self.labels.path(path) for path in paths]
        over = labels if self.labels is not None and self.labels.overwrite else []
        drawings = [drawing for path in paths for drawing in self.drawing(path)]
        check_written([*drawings, *over, *self.lists], [*given, *paths, *self.sources])

    def write(self, detections: Detections) -> None:
        """The drawing and the label file of an image. Raises :class:`DarknetError`."""
        for path in self.drawing(detections.path):
            save_image(detections.draw(bgr=False), path)
        if self.labels is not None:
            self.labels.write(detections)
