"""Training a detector from a .data file, as ``detector train`` and ``yolo train`` do it.

Source: ``examples/detector.c, train_detector``; ``examples/yolo.c, train_yolo``; the rhythm of mAP while training is
that of AlexeyAB's ``src/detector.c, train_detector``.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

from ..cfg import Cfg, check_names, read_list, read_names
from ..cfg.sections import printable
from ..classify.labels import match_labels, read_labels
from ..defaults import MAP, MAP_HIER, YOLO, Verbs
from ..detect import Detections, detect_files
from ..detect.scores import map_of
from ..errors import DataError, TrainingError
from ..evaluate.annotations import LabelBoxes, read_label_files
from ..image_files import check_some
from ..labels import Labels, class_labels
from ..layers.net import read_net
from ..network import Network
from ..program import ALEXEYAB
from ..progress import Progress, unseen
from ..stock import find_stock
from .alexeyab_augment import alexeyab_augmentation
from .augment import Augmentation, Fit
from .checkpoint import ROLLING, Snapshots, by_batches
from .data import AlexeyabTrainingSet, DetectionSet, TrainingSet, check_labels
from .log import MAP as MAP_SCORE
from .loop import Scoring
from .schedule import images_per_update
from .training import ImageTraining, Trained

MAP_EPOCHS = 4  # AlexeyAB's src/detector.c: mAP_epochs, and at least 100 batches
MAP_LEAST = 100
RATIO = 4.0  # of the joint training of YOLO9000 (Redmon and Farhadi, 2017, section 4): ImageNet to COCO
MAP_BATCH = 8  # as many such batches as there are processors may be in memory
# Batches between numbered .weights files, from 1000 on.
NUMBERED: dict[Verbs, int] = {"detector": 10000, YOLO: 1000}
LAST = 100  # batches from one NAME.backup, or NAME_last.weights, to the next
# Of AlexeyAB's program, and with fewer max_batches than the second the first. savelast= and saveweights= of the .data
# file say otherwise.
EARLY, MANY = 1000, 10000


def train_detector(
    data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Trained:  # fmt: skip
    """Train ``cfg`` on the train list of ``data``, from ``weights`` (which may end early) or from nothing.

    ``options`` and errors are those of :class:`DetectorTraining`. While it runs in the main thread Ctrl-C, SIGTERM and
    SIGHUP save and end it; ``Trained.signal`` says so.
    """
    return DetectorTraining(data, cfg, weights, **options).run()


def detection_set(
    network: Network, paths: list[str], labels: Labels, **drawing: Any
) -> TrainingSet | AlexeyabTrainingSet:
    """The images and objects that ``network`` is trained on, as its program augments them; ``drawing`` is what
    :class:`.data.DetectionSet` takes besides.
    """
    net, head = network.net, network.detector
    if _alexeyabs_loader(network):
        options = alexeyab_augmentation(network.cfg.net, net, head)
        return AlexeyabTrainingSet(paths, labels, options, most=head.o.max, **drawing)
    fit: Fit = "stretch" if head.stretches else "place"
    augmentation = Augmentation(head.o.jitter, net.hue, net.saturation, net.exposure, bool(net.flip), fit)
    most = labels.most if fit == "stretch" else head.o.max  # fill_truth_region looks at all
    return TrainingSet(paths, labels, augmentation, most, **drawing)


def _alexeyabs_loader(network: Network) -> bool:
    # load_data_region is alike in both programs.
    return network.program == ALEXEYAB and not network.detector.stretches


class DetectorTraining(ImageTraining[DetectionSet]):
    """A detector's training made ready.

    ``map_every`` scores mAP on the valid list every so many batches, 0: every ``map_epochs``, but at least 100
    batches, and not before ``burn_in``; None: never. A box is right there whose IOU is over ``iou_thresh``. ``labels``
    "warn" leaves bad label lines out. ``verbs`` "yolo" takes YOLOv1's networks alone, and writes numbered snapshots
    more often. ``classify`` is a list of images that show a class each and have no boxes, as YOLO9000 is trained with
    them: the class of each is the one of ``labels=`` in its path, and ``ratio`` of them (None: 4) are drawn for each
    image of the train list. The other ``options`` are those of :class:`.training.ImageTraining`.
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
        map_epochs: int = MAP_EPOCHS,
        iou_thresh: float = 0.5,
        verbs: Verbs = "detector",
        classify: str | os.PathLike[str] | None = None,
        ratio: float | None = None,
        **options: Any,
    ) -> None:
        if classify is not None and options.get("epochs"):
            raise TrainingError(
                "-epochs shows every image once, -classify draws from two lists by a ratio; expected one of them"
            )
        if classify is None and ratio is not None:
            raise TrainingError("-ratio counts the images of -classify, which is not given; expected both or neither")
        ratio = RATIO if ratio is None else ratio
        if not ratio > 0:
            raise TrainingError(f"ratio is {ratio:g}; expected more than 0")
        self.labels, self.map_every, self.verbs, self.family = labels, map_every, verbs, verbs
        self.map_epochs, self.iou_thresh = map_epochs, iou_thresh
        self.classify, self.ratio = None if classify is None else os.fspath(classify), ratio
        super().__init__(data, cfg, weights, **options)

    def _settings(self) -> dict[str, Any]:
        return {} if self.classify is None else {"classify": self.classify, "ratio": self.ratio}

    def _snapshots(
        self, folder: str, cfg: Cfg, settings: dict[str, Any], every: int | None, program: str, images: int
    ) -> Snapshots:
        if program == ALEXEYAB:
            usual = EARLY if read_net(cfg.net, program)[0].max_batches < MANY else MANY
            numbered = by_batches(max(1, self.data.integer("saveweights", usual)))
            every = every or max(1, self.data.integer("savelast", LAST))
        else:
            numbered, every = by_batches(NUMBERED[self.verbs], early=100), every or LAST
        return Snapshots(folder, cfg, settings, every, numbered, rolling=ROLLING[program])

    def _check(self, network: Network) -> None:
        super()._check(network)
        network.check_verbs(self.verbs)
        classes = network.detector.o.classes
        if self.data.get("classes") is not None and self.data.integer("classes") != classes:
            raise self.data.error("classes", f"the last section of {self.snapshots.cfg.file} has classes={classes}")

    def _training_set(self, paths: list[str]) -> DetectionSet:
        network, head = self.trainer.network, self.trainer.network.detector
        alexeyabs = _alexeyabs_loader(network)
        if alexeyabs and self.on_device:
            raise network.cfg.net.error(
                "-augment device is not for AlexeyAB's program, whose loader works on bytes; expected no such flag"
            )
        # Of objects without a place his load_data_detection says "Wrong annotation", and leaves them out.
        class_only = head.o.classes if head.class_only and not alexeyabs else 0
        found = check_labels(paths, head.truth_classes, self.labels, class_only, network.program, self.processes)
        mix = None
        if self.classify is not None:
            if alexeyabs:
                raise network.cfg.net.error(
                    "-classify is not for AlexeyAB's Darknet, whose loader leaves out images without boxes; expected "
                    "-program pjreddie"
                )
            images, shown = self.processes.from_first(self._classified)
            mix = len(paths), self.ratio
            paths, found = [*paths, *images], found.join(shown)
        made = detection_set(
            network, paths, found, seed=self.trainer.seed, replacement=not self.epochs, cache=self.cache, mix=mix
        )
        if self.on_device and isinstance(made, TrainingSet):
            # Now rather than before the first batch.
            made.most_pixels = max(self.processes.look_through(range(len(made)), made.most_pixels_of))
        return made

    def _classified(self) -> tuple[list[str], Labels]:
        """The images that show a class each, and nobody knows where; and what stands in the place of label files."""
        assert self.classify is not None
        images = read_list(find_stock(self.classify))
        head = self.trainer.network.detector
        if not head.class_only:
            raise head.section.error(
                "-classify trains along a tree of classes, and this network has none; expected tree=, or no -classify"
            )
        self.data.require("classes")  # or the labels of two would be read
        check_some(images, self.classify)
        labels = read_labels(self.data)
        found = match_labels(images, labels)
        classes = found.first()
        if (classes < 0).any():
            path = images[int(np.flatnonzero(classes < 0)[0])]
            raise DataError(
                f"{printable(path)}: no label of {self.data.file} is in the path; expected one in each of -classify's, "
                f"and {int((classes < 0).sum())} have none"
            )
        found.warn(labels)
        return images, class_labels(classes)

    def _scoring(self, best: float | None) -> Scoring | None:
        if self.map_every is None:
            return None
        network, net = self.trainer.network, self.trainer.net
        classes = network.detector.o.classes
        file = self.data.require("valid")

        def labelled() -> tuple[list[str], LabelBoxes]:
            paths = read_list(find_stock(file))
            check_some(paths, file)
            return paths, read_label_files(paths, classes, network.program)

        paths, truths = self.processes.from_first(labelled)
        check_some(paths, file)  # on this machine
        names = read_names(find_stock(self.data.source("names", "data/names.list")))
        check_names(self.data, names, classes, self.snapshots.cfg.file)

        def score(progress: Progress[Detections] = unseen) -> list[float]:
            found = detect_files(
                network, paths, batch=min(net.mini_batch, MAP_BATCH), processes=self.processes, hier=MAP_HIER,
                **MAP[network.program]._asdict(),
            )  # fmt: skip
            return [map_of(progress(found, len(paths)), names, truths, iou_thresh=self.iou_thresh).mean]

        if self.map_every:
            return Scoring(score, self.map_every, best)
        every = max(MAP_LEAST, self.map_epochs * len(self.images) // images_per_update(net))
        return Scoring(score, every, best, first=max(every, net.burn_in))

    def _log(self) -> dict[str, Any]:
        return {"scores": MAP_SCORE}

    def _said(self) -> str:
        images, objects = len(self.images), len(self.images.labels.objects)
        if self.images.mix is None:
            return f"{images} images, {objects} objects"
        first, ratio = self.images.mix
        shown = images - first
        counts = f"{first} images, {objects - shown} objects"
        return f"{counts}; and {shown} images that show a class alone, {ratio:g} of them for each one with boxes"
