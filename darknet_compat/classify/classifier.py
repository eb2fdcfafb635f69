"""A classifier made ready: a network with its classes, and how to run it. What the verbs that classify share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from ..cfg import DataFile, class_names, read_data, read_list
from ..cfg.sections import printable
from ..engines import MANY, Engines, data_images, network_for
from ..errors import DataError, ExportError
from ..image_files import listed_images
from ..layers.softmax import Softmax
from ..network import Network
from ..processes import ALONE, Processes
from ..program import ALEXEYAB
from ..sources import Source, read_source
from ..stock import find_stock
from ..tree import Tree, section_tree
from .labels import read_class_names, read_classes, read_labels, read_top
from .predictions import Finish, Prediction, as_it_is, classify_files, classify_resized
from .prepare import VIEWS

BATCH = 8  # inputs per forward pass, where nothing else is asked for
IMAGENET = "cfg/imagenet1k.data"  # of the short form `classify`


class Classifier:
    """A network that says what an image shows, and the names of its classes. Call it on images.

    ``cfg`` and ``weights`` are files, or ``cfg`` alone is a network that stands ready. ``names`` are those of the
    classes, or a file of them, a line each; None: those of the network's tree, or the numbers. The rest is that of
    :class:`darknet_compat.Detector`.

    Raises :class:`DarknetError` in one line that names file and place, also where the network finds boxes, and
    :class:`ValueError` for an option that has no such value.
    """

    def __init__(
        self,
        cfg: str | os.PathLike[str] | Network,
        weights: str | os.PathLike[str] | None = None,
        names: str | os.PathLike[str] | Sequence[str] | None = None,
        *,
        program: str | None = None,
        numerics: str = "cudnn",
        device: str | torch.device | None = None,
        engine: str | None = None,
        precision: str = "float32",
        calibration: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        batch: int = BATCH,
        processes: Processes = ALONE,
    ) -> None:
        cfg = network_for(cfg, weights, engine, precision, device=device, numerics=numerics, program=program)
        check_no_boxes(cfg)
        self.network = cfg
        self.tree = network_tree(cfg)
        """Along which the network's output is multiplied."""
        self.processes = processes
        self._engines = Engines(cfg, engine, precision, batch, calibration, processes)
        if names is not None:
            self.names = class_names(names, self.classes, cfg.cfg.file)

    @cached_property
    def names(self) -> list[str]:
        """Of the classes."""
        return list(self.tree.names) if self.tree else [str(index) for index in range(self.classes)]

    @property
    def classes(self) -> int:
        return self.network.layers[-1].output.outputs

    @overload
    def __call__(self, images: Source, *, bgr: bool = True) -> Prediction: ...

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...], *, bgr: bool = True) -> list[Prediction]: ...

    def __call__(self, images: Any, *, bgr: bool = True) -> Prediction | list[Prediction]:
        """What an image shows, or each in a list, in order, as ``classifier predict`` makes its inputs.

        What an image is, and what ``bgr``, says :meth:`darknet_compat.Detector.__call__`.
        """
        many = isinstance(images, (list, tuple))
        things = list(images) if many else [images]
        # AlexeyAB's predict lists the classes above the leaves too.
        finish = self.finish(inner=self.network.program == ALEXEYAB)
        found = list(
            self.classify(things, "predict", finish, classes=self.names, read=lambda thing: read_source(thing, bgr))
        )
        return found if many else found[0]

    def finish(self, leaves: np.ndarray | None = None, inner: bool = False) -> Finish:
        """What is made of the output: along a tree the probability of every class (``hierarchy_predictions``).

        Classes that are no leaves, or not among ``leaves``, get 0, but for ``inner``.
        """
        tree, softmax = self.tree, _last_softmax(self.network)
        if tree is None or softmax is None:
            return as_it_is
        hierarchy = softmax.hierarchy
        kept = np.ones(tree.n, bool) if inner else (tree.child < 0) if leaves is None else leaves
        mask = torch.from_numpy(kept.astype(np.float32)).to(self.network.device)

        def along(prob: Tensor) -> Tensor:
            return hierarchy.predictions(prob, 1) * mask

        return along

    def classify(
        self, things: Iterable[Any], verb: str, finish: Finish, number: int | None = None, **options: Any
    ) -> Iterator[Prediction]:
        """The predictions of image files, in order, of inputs as ``verb`` makes them (``prepare.py``).

        ``number``: how many images may be looked at together, where ``things`` is no sequence. ``options`` are those
        of :func:`classify_files`, one of which makes images of other things than paths.
        """
        views = VIEWS[verb][self.network.program]
        number = len(things) if isinstance(things, Sized) else MANY if number is None else number
        engine, batch = self._engines.take(number * views.number, views)
        return classify_files(
            self.network, things, views, batch=batch, engine=engine, finish=finish, processes=self.processes, **options
        )

    def classify_resized(
        self, paths: Sequence[str], sizes: Callable[[np.ndarray], Sequence[tuple[int, int]]], **options: Any
    ) -> Iterator[Prediction]:
        """The same, of images in ``sizes`` of their own (:func:`classify_resized`)."""
        if (self._engines.name, self._engines.precision) != ("torch", "float32"):
            raise ExportError(
                "this verb runs the network in the size of each image; expected -engine torch and -precision float32"
            )
        return classify_resized(self.network, paths, sizes, processes=self.processes, **options)


class DataClassifier(Classifier):
    """A classifier of a .data file: what :func:`load_classifier` gives."""

    def __init__(
        self,
        data: str | os.PathLike[str] | DataFile,
        cfg: str | os.PathLike[str] | Network,
        weights: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self.data = data if isinstance(data, DataFile) else read_data(find_stock(os.fspath(data)))
        options["calibration"] = data_images(self.data, **options)
        super().__init__(cfg, weights, None, **options)
        check_classifier(self.network, self.data)

    @cached_property
    def names(self) -> list[str]:
        """Of the classes: those of ``names=``, or else the labels."""
        return read_class_names(self.data)

    @cached_property
    def labels(self) -> list[str]:
        """Of the classes: what stands in the paths of their images."""
        return read_labels(self.data)

    @property
    def top(self) -> int:
        """The .data file's ``top=``."""
        return read_top(self.data)

    def images(self, key: str) -> list[str]:
        """The images of the list or folder that ``key`` ("valid", "test") of the .data file names.

        Raises :class:`DataError`.
        """
        return listed_images(find_stock(self.list_file(key)))

    def list_file(self, key: str) -> str:
        """Its path."""
        return self.data.source(key, "data/train.list")

    @cached_property
    def leaves(self) -> np.ndarray | None:
        """(classes,) bool: the classes that ``leaves=`` of the .data file leaves in ``valid``; None without it."""
        file = self.data.get("leaves")
        if file is None:
            return None
        if self.tree is None:
            raise self.data.error("leaves", "the network has no tree; expected a [softmax] with tree=")
        wanted = set(read_list(find_stock(file)))
        mask = np.array([name in wanted for name in self.tree.names])
        if not mask.any():
            raise self.data.error("leaves", f"no line of {printable(file)} is a name in the tree")
        return mask


def _last_softmax(network: Network) -> Softmax | None:
    """That whose tree, or none, is the network's: parse_network_cfg takes that of each [softmax] in turn."""
    found = [layer for layer in network.layers if isinstance(layer, Softmax)]
    return found[-1] if found else None


def load_classifier(
    data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str], **options: Any
) -> DataClassifier:
    """Read a .data file, and the network that ``cfg`` and ``weights`` hold; ``options`` are :class:`Classifier`'s.

    Raises :class:`DarknetError` in one line that names file and place: also where the network finds boxes, or has not
    as many outputs as the .data file has classes.
    """
    return DataClassifier(data, cfg, weights, **options)


def check_no_boxes(network: Network) -> None:
    """Refuse a network that finds boxes."""
    for boxes in network.detectors[:1]:
        raise boxes.section.error(f"the network finds boxes in [{boxes.type}]; expected `detector`, not `classifier`")


def check_classifier(network: Network, data: DataFile) -> None:
    """Refuse a network that finds boxes, or has not as many outputs as the .data file has classes."""
    check_no_boxes(network)
    classes, outputs = read_classes(data), network.layers[-1].output.outputs
    if classes != outputs:
        told = "classes" if data.get("classes") else ""
        raise data.error(told, f"{classes} classes; expected classes={outputs}, as {network.cfg.file} has them")


def network_tree(network: Network) -> Tree | None:
    """The tree of the network's classes: that of its last [softmax]. Raises :class:`CfgError` where that has others."""
    softmax = _last_softmax(network)
    if softmax is None or not softmax.o.tree:
        return None
    return section_tree(softmax.section, softmax.o.tree, network.layers[-1].output.outputs)


def imagenet_data() -> str:
    """The .data file of the short form ``classify``. Raises :class:`DataError` where nobody has it."""
    found = find_stock(IMAGENET)
    if not os.path.exists(found):
        raise DataError(
            f"{IMAGENET}: no such file, nor in Debian's package: ImageNet's names are not part of this project; "
            "apt-get install darknet, or run it in a folder of pjreddie's Darknet, or use `classifier predict` with "
            "your .data file"
        )
    return found
