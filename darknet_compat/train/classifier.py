"""Training a classifier from a .data file, as ``classifier train`` does it.

Source: ``examples/classifier.c, train_classifier``; AlexeyAB's ``src/classifier.c, train_classifier``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..cfg import Cfg
from ..classify.classifier import DataClassifier, check_classifier, network_tree
from ..classify.labels import LabelRule, path_classes, read_classes, read_labels, read_top
from ..classify.validate import Judged, judge_paths
from ..image_files import check_some, listed_images
from ..layers.softmax import Softmax
from ..network import Network
from ..program import ALEXEYAB, PJREDDIE
from ..progress import Progress, unseen
from ..stock import find_stock
from .checkpoint import ROLLING, Snapshots, by_batches, by_epochs
from .class_images import TRAIN, image_classes, training_images
from .crop_augment import crop_augmentation
from .data import ClassTrainingSet
from .log import Line
from .loop import Scoring
from .schedule import images_per_update
from .sources import ImageFiles
from .step import Update
from .training import ImageTraining, Trained

TOP_EPOCHS, TOP_LEAST = 2, 100  # AlexeyAB's calc_topk_for_each: 2 epochs, and at least 100 batches
SNAPSHOT = {PJREDDIE: 1000, ALEXEYAB: 100}  # batches from one NAME.backup, or NAME_last.weights, to the next
NUMBERED = 1000  # batches from one NAME_1000.weights of AlexeyAB's program to the next
SCORED = 8  # images of the valid list in a batch


def train_classifier(
    data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Trained:  # fmt: skip
    """Train the classifier ``cfg`` on the train list of ``data``, from ``weights`` (which may end early) or from
    nothing.

    ``options`` and errors are those of :class:`ClassifierTraining`. While it runs in the main thread Ctrl-C, SIGTERM
    and SIGHUP save and end it; ``Trained.signal`` says so.
    """
    return ClassifierTraining(data, cfg, weights, **options).run()


class ClassifierTraining(ImageTraining[ClassTrainingSet]):
    """A classifier's training made ready.

    ``topk_every`` scores top 1 and top k on the valid list every so many batches, 0: every 2 epochs, but at least 100
    batches; None: never. ``top``: k; None is the .data file's. ``labels`` says where the class of an image stands
    (``classify/labels.py``). The other ``options`` are those of :class:`.training.ImageTraining`.
    """

    function, family = "train_classifier", "classifier"

    def __init__(
        self,
        data: str | os.PathLike[str],
        cfg: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        labels: LabelRule = "path",
        topk_every: int | None = None,
        top: int | None = None,
        **options: Any,
    ) -> None:
        self.labels, self.topk_every, self.asked_top = labels, topk_every, top
        self.labels_by = labels
        super().__init__(data, cfg, weights, **options)

    def _settings(self) -> dict[str, Any]:
        return {"labels": self.labels}

    def _snapshots(
        self, folder: str, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str, images: int
    ) -> Snapshots:
        numbered, end = by_epochs(images), ".weights"
        if program == ALEXEYAB:
            numbered, end = by_batches(NUMBERED), "_final.weights"
        return Snapshots(folder, cfg, settings, every or SNAPSHOT[program], numbered, end, ROLLING[program])

    def _check(self, network: Network) -> None:
        super()._check(network)
        check_classifier(network, self.data)
        if network.width != network.height:
            raise network.cfg.net.error(
                f"an input of {network.width} x {network.height}; expected a square, as training cuts squares", "width"
            )
        smooth = getattr(network.net, "label_smooth_eps", 0.0)
        if not 0 <= smooth <= 1:
            raise network.cfg.net.error(f"label_smooth_eps={smooth:g}; expected 0 to 1", "label_smooth_eps")
        if self.data.integer("tag", 0):
            raise self.data.error("tag", "training by tags is not built here; expected classes, and no tag=1")

    @property
    def top(self) -> int:
        """Of how many likeliest classes a score asks whether the truth is among them."""
        return read_top(self.data) if self.asked_top is None else min(self.asked_top, read_classes(self.data))

    def _paths(self) -> ImageFiles:
        return training_images(self.data, self.processes)

    def _training_set(self, paths: ImageFiles) -> ClassTrainingSet:
        network, net = self.trainer.network, self.trainer.net
        classes = image_classes(paths, read_labels(self.data), self.labels, self.data.source("train", TRAIN))
        return ClassTrainingSet(
            classes, read_classes(self.data), crop_augmentation(net, network.program), network_tree(network),
            getattr(net, "label_smooth_eps", 0.0), self.trainer.seed, replacement=not self.epochs, cache=self.cache,
        )  # fmt: skip

    def _scoring(self, best: float | None) -> Scoring | None:
        if self.topk_every is None:
            return None
        network, net = self.trainer.network, self.trainer.net
        file = self.data.require("valid")
        paths = self.processes.from_first(lambda: listed_images(find_stock(file)))
        check_some(paths, file)  # on this machine
        truths = path_classes(paths, read_labels(self.data), self.labels, file)
        batch = max(min(net.mini_batch, SCORED), 1)

        def score(progress: Progress[Judged] = unseen) -> list[float]:
            # Anew: its engines keep the weights.
            classifier = DataClassifier(self.data, network, batch=batch, processes=self.processes)
            found = judge_paths(classifier, truths, self.top, progress=progress)
            return [found.top1, found.topk][: len(self._scores())]

        if self.topk_every:
            return Scoring(score, self.topk_every, best)
        every = max(TOP_LEAST, TOP_EPOCHS * len(self.images) // images_per_update(net))
        return Scoring(score, every, best, first=max(every, net.burn_in))

    def _scores(self) -> dict[str, str]:
        return {f"top_{number}": f"top {number}" for number in sorted({1, self.top})}

    def _log(self) -> dict[str, Any]:
        return {"scores": self._scores(), "line": update_line(len(self.images))}

    def _said(self) -> str:
        least, most = self.images.options.sides(self.trainer.network.width)
        return f"{len(self.images)} images, {read_classes(self.data)} classes; sides of {least} to {most}"

    def _remarks(self) -> Iterator[str]:
        yield from super()._remarks()
        for head in self.trainer.network.heads:
            if self.images.smooth and isinstance(head, Softmax) and not head.o.noloss:
                yield (
                    f"label_smooth_eps={self.images.smooth:g} gives every class a truth, and layer {head.index} "
                    "[softmax] sums -ln p over all of them, as in Darknet: the loss rises while the network learns"
                )


def update_line(images: int) -> Line:
    """The line that ``classifier train`` prints of each update; ``images``: how many there are in the list."""

    def line(update: Update, seconds: float, taken: int) -> str:
        epochs = np.float32(update.seen) / np.float32(images)
        return (
            f"{update.batch}, {epochs:.3f}: {update.loss:f}, {update.avg:f} avg, {update.rate:f} rate, "
            f"{seconds:f} seconds, {update.seen} images"
        )

    return line
