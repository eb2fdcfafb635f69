"""A classifier over the ``valid`` list: how often the truth is the likeliest class, or among the likeliest.

Source: ``examples/classifier.c, validate_classifier_single, _10, _multi, _full, _crop``; AlexeyAB's
``src/classifier.c``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..evaluate.classes import ClassScores
from ..image_files import make_folder
from ..program import PJREDDIE
from ..progress import Progress, unseen
from .classifier import DataClassifier
from .labels import LabelRule, PathClasses, path_classes
from .predictions import Prediction, as_it_is
from .prepare import MULTI_SIZE, SCALES, shorter_to

ValidVerb = Literal["valid", "valid10", "validmulti", "validfull", "validcrop"]
PART = 1000  # images of validcrop that a line tells of


@dataclass(frozen=True)
class Judged:
    """A prediction beside its truth, and the running figures that it ends."""

    prediction: Prediction
    index: int
    """Of the image in the list."""
    truth: int
    """The class, -1 for an image without one."""
    best: np.ndarray
    """The likeliest classes, the first of them first."""
    lines: Sequence[str]
    """What the C program prints after this image."""


def validate_classifier(
    classifier: DataClassifier,
    *,
    verb: ValidVerb = "valid",
    top: int | None = None,
    labels: LabelRule = "path",
    out: str | os.PathLike[str] | None = None,
    progress: Progress[Judged] = unseen,
) -> ClassScores:
    """Classify the images of the ``valid`` list, and hold them against their classes; ``verb`` says how.

    The truth of an image is the first label that occurs in its path; ``labels`` "folder" takes its folder's name
    instead. ``top`` None is the .data file's. ``out`` writes the figures of the classes and their confusions as tables
    and images into a folder (:meth:`ClassScores.write`). ``progress`` takes what is judged and the number of images,
    and hands it on.

    Raises :class:`DarknetError` in one line that names file and place, before the first image where that is possible.
    """
    names, paths = classifier.labels, classifier.images("valid")
    number = classifier.top if top is None else min(top, classifier.classes)
    if out is not None:
        make_folder(Path(out))
    truths = path_classes(paths, names, labels, classifier.list_file("valid"))
    scores = judge_paths(classifier, truths, number, verb, progress)
    if out is not None:
        scores.write(out)
    return scores


def judge_paths(
    classifier: DataClassifier,
    truths: PathClasses,
    top: int,
    verb: ValidVerb = "valid",
    progress: Progress[Judged] = unseen,
) -> ClassScores:
    """:func:`validate_classifier` of images whose classes are known; ``top`` is how many of the likeliest count."""
    running = _Parts(truths, top) if verb == "validcrop" else _Running(truths, top, verb, classifier)
    best = np.empty((len(truths), min(top, classifier.classes)), np.int64)
    for judged in progress(running.judge(_predictions(classifier, truths.paths, verb)), len(truths)):
        best[judged.index] = judged.best
    # Of the table's figures every one counts the first label.
    shown = classifier.names if len(set(classifier.names)) == classifier.classes else classifier.labels
    # validcrop scores what the network gives: the probability of a class where its parent is given.
    parent = classifier.tree.parent if classifier.tree and verb != "validcrop" else None
    return ClassScores(truths.first(), best, shown, parent)


def _predictions(classifier: DataClassifier, paths: Sequence[str], verb: ValidVerb) -> Iterator[Prediction]:
    network = classifier.network
    program, width = network.program, network.width
    if verb == "validmulti":
        finish, size = classifier.finish(), MULTI_SIZE[program]
        return classifier.classify_resized(
            paths, lambda image: [size(image, side) for side in SCALES[program]], mirrored=True, finish=finish
        )
    if verb == "validfull":
        return classifier.classify_resized(paths, lambda image: [shorter_to(image, width)], finish=classifier.finish())
    if verb == "validcrop":  # network_accuracies knows no tree
        return classifier.classify(paths, verb, as_it_is)
    return classifier.classify(paths, verb, classifier.finish(classifier.leaves if verb == "valid" else None))


class _Running:
    """The lines after each image: the parts of all images so far that are right, in float32 as in C."""

    def __init__(self, truths: PathClasses, top: int, verb: str, classifier: DataClassifier) -> None:
        self.truth, self.top = truths.first(), top
        self.tells_path = verb == "valid" and classifier.network.program == PJREDDIE

    def judge(self, predictions: Iterable[Prediction]) -> Iterator[Judged]:
        right = right_k = 0
        for index, prediction in enumerate(predictions):
            truth, best = int(self.truth[index]), prediction.top(self.top)
            right += bool(best[0] == truth)
            right_k += bool((best == truth).any())
            shares = [np.float32(count) / np.float32(index + 1) for count in (right, right_k)]
            lines = [f"{index}: top 1: {shares[0]:f}, top {self.top}: {shares[1]:f}"]
            if self.tells_path:
                first, second = [*prediction.prob[:2].tolist(), 0.0][:2]
                lines.insert(0, f"{prediction.path}, {truth}, {first:f}, {second:f}, ")
            yield Judged(prediction, index, truth, best, lines)


class _Parts:
    """The lines of validcrop, after each thousand of images: any label of a path is its truth.

    All parts have as many images as the first: of 2,003 images in two parts the last is not counted.
    """

    def __init__(self, truths: PathClasses, top: int) -> None:
        self.truths, self.top = truths, top

    def judge(self, predictions: Iterable[Prediction]) -> Iterator[Judged]:
        images, first = len(self.truths), self.truths.first()
        splits = max(images // PART, 1)
        count = images // splits
        begins = [part * images // splits for part in range(splits)]
        total, total_k = np.float32(0), np.float32(0)
        part, right, right_k, start = 0, 0, 0, time.perf_counter()
        for index, prediction in enumerate(predictions):
            best = prediction.top(self.top)
            lines: list[str] = []
            if part < splits and index >= begins[part]:
                is_true = np.isin(best, self.truths[index])
                right, right_k = right + bool(is_true[0]), right_k + bool(is_true.any())
            if part < splits and index + 1 == begins[part] + count:
                seconds = time.perf_counter() - start
                total += np.float32(right) / np.float32(count)
                total_k += np.float32(right_k) / np.float32(count)
                part += 1
                shares = [value / np.float32(part) for value in (total, total_k)]
                lines = [
                    f"{part}: top 1: {shares[0]:f}, top {self.top}: {shares[1]:f}, {seconds:f} seconds, {count} images"
                ]
                right, right_k, start = 0, 0, time.perf_counter()
            yield Judged(prediction, index, int(first[index]), best, lines)
