"""Training a detector from a .data file, as ``detector train`` and ``yolo train`` do it.

Source: ``examples/detector.c, train_detector``; ``examples/yolo.c, train_yolo``; the rhythm of mAP while training is
that of AlexeyAB's ``src/detector.c, train_detector``.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from ..cfg import Cfg, check_names, read_list, read_names
from ..defaults import MAP, MAP_HIER, YOLO, Verbs
from ..detect import detect_files
from ..detect.scores import map_of
from ..evaluate.annotations import read_label_files
from ..network import Network
from ..program import ALEXEYAB
from ..stock import find_stock
from .augment import Augmentation, Fit
from .checkpoint import Snapshots, by_batches
from .data import TrainingSet, check_labels
from .log import MAP as MAP_SCORE
from .loop import Scoring
from .schedule import images_per_update
from .training import ImageTraining, Trained

MAP_EPOCHS = 4  # AlexeyAB's src/detector.c: mAP_epochs, and at least 100 batches
MAP_LEAST = 100
MAP_BATCH = 8  # as many such batches as there are processors may be in memory
# Batches between numbered .weights files, from 1000 on.
NUMBERED: dict[Verbs, int] = {"detector": 10000, YOLO: 1000}


def train_detector(
    data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Trained:  # fmt: skip
    """Train ``cfg`` on the train list of ``data``, from ``weights`` (which may end early) or from nothing.

    ``options`` and errors are those of :class:`DetectorTraining`. While it runs in the main thread Ctrl-C, SIGTERM and
    SIGHUP save and end it; ``Trained.signal`` says so.
    """
    return DetectorTraining(data, cfg, weights, **options).run()


class DetectorTraining(ImageTraining[TrainingSet]):
    """A detector's training made ready.

    ``map_every`` scores mAP on the valid list every so many batches, 0: every 4 epochs, but at least 100 batches; None:
    never. ``labels`` "warn" leaves bad label lines out. ``verbs`` "yolo" takes YOLOv1's networks alone, and writes
    numbered snapshots more often. The other ``options`` are those of :class:`.training.ImageTraining`.
    """

    function = "train_detector"

    def __init__(
        self,
        data: str | os.PathLike[str],
        cfg: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        labels: Literal["error", "warn"] = "error",
        map_every: int | None = None,
        verbs: Verbs = "detector",
        **options: Any,
    ) -> None:
        self.labels, self.map_every, self.verbs = labels, map_every, verbs
        super().__init__(data, cfg, weights, **options)

    def _settings(self) -> dict[str, Any]:
        return {}

    def _snapshots(
        self, folder: str, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str, images: int
    ) -> Snapshots:
        return Snapshots(folder, cfg, settings, every or 100, by_batches(NUMBERED[self.verbs], early=100))

    def _check(self, network: Network) -> None:
        super()._check(network)
        network.check_verbs(self.verbs)
        classes = network.detector.o.classes
        if self.data.get("classes") is not None and self.data.integer("classes") != classes:
            raise self.data.error("classes", f"the last section of {self.snapshots.cfg.file} has classes={classes}")

    def _training_set(self, paths: list[str]) -> TrainingSet:
        network, net, head = self.trainer.network, self.trainer.net, self.trainer.network.detector
        fit: Fit = "stretch" if head.stretches else "place" if net.letter_box else "crop"
        if network.program == ALEXEYAB and fit != "stretch":
            # What his loader and his loop do with these is not what pjreddie's do; load_data_region is alike in both.
            for name, built in (("resize", 1), ("random", 0)):
                if getattr(head.o, name, built) != built:
                    raise head.section.error(
                        f"{name}={getattr(head.o, name):g} of AlexeyAB's program is not built here yet; "
                        f"expected {name}={built}",
                        name,
                    )
        if self.on_device and fit == "crop":
            raise network.cfg.net.error(
                "letter_box=0 cuts rectangles out of the images in bytes, which only the loader does; expected "
                "letter_box=1, or no -augment device",
                "letter_box",
            )
        found = check_labels(paths, head.truth_classes, self.labels, class_only=head.class_only)
        augmentation = Augmentation(head.o.jitter, net.hue, net.saturation, net.exposure, bool(net.flip), fit)
        most = found.most if fit == "stretch" else head.o.max  # fill_truth_region looks at all
        made = TrainingSet(
            paths, found, augmentation, most, self.trainer.seed, replacement=not self.epochs, cache=self.cache
        )
        if self.on_device:
            _ = made.most_pixels  # reads the head of every image, now rather than before the first batch
        return made

    def _scoring(self, best: float | None) -> Scoring | None:
        if self.map_every is None:
            return None
        network, net = self.trainer.network, self.trainer.net
        classes = network.detector.o.classes
        paths = read_list(find_stock(self.data.require("valid")))
        names = read_names(find_stock(self.data.source("names", "data/names.list")))
        check_names(self.data, names, classes, self.snapshots.cfg.file)
        truths = read_label_files(paths, classes)

        def score() -> list[float]:
            found = detect_files(
                network, paths, batch=min(net.mini_batch, MAP_BATCH), hier=MAP_HIER, **MAP[network.program]._asdict(),
            )  # fmt: skip
            return [map_of(found, names, truths).mean]

        every = self.map_every or max(MAP_LEAST, MAP_EPOCHS * len(self.images) // images_per_update(net))
        return Scoring(score, every, best)

    def _log(self) -> dict[str, Any]:
        return {"scores": MAP_SCORE}

    def _said(self) -> str:
        return f"{len(self.images)} images, {len(self.images.labels.objects)} objects"
