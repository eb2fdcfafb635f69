"""A detector made ready: a network with its names, and how to run it. Also what the verbs that detect share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, overload

import torch

from ..cfg import DataFile, check_names, class_names, read_data, read_list, read_names
from ..defaults import HIER, TEST, YOLO, Verbs, fraction
from ..engines import Engine, Engines, data_images, network_for
from ..images import FITTED, STRETCHED
from ..network import Network
from ..processes import ALONE, Processes
from ..program import ALEXEYAB
from ..sources import Source, read_source
from ..stock import find_stock
from .detections import Detections
from .many import detect_files, detect_many

BATCH = 4  # images per forward pass, where nothing else is asked for


class Detector:
    """A network that finds objects, and the names of their classes. Call it on images.

    ``cfg`` and ``weights`` are files, or ``cfg`` alone is a network that stands ready.
    ``names`` are those of the classes, or a file of them, a line each; None: they are called by their numbers.
    ``thresh``, the least probability, and ``nms``, the most IOU of two boxes of a class (0: all stay), are where not
    given those of ``detector test`` of the network's program. ``letter_box`` None does as the cfg says, or the program
    that it is for. ``device`` None takes a GPU where there is one and the engine is torch. ``engine`` and
    ``precision`` are those of :func:`darknet_compat.engines.start_engine`; ``precision`` "int8" needs a
    ``calibration``: image files, or a folder, a pattern, a list of them, best of those that it was trained on, of which
    up to 100 are looked at. ``batch`` is how many images go through the network at a time, the rest is that of
    :func:`darknet_compat.load_network`. ``verbs``: by which of Darknet's verbs;
    "yolo" takes YOLOv1's networks alone. ``tiles`` over 1 looks at each image in so many times so many parts that
    overlap, and at the whole of it, for objects that are small in it. ``processes``: this one and others that have the
    same detector; they share the images of a job, whose results the first one gets.

    Raises :class:`DarknetError` in one line that names file and place, and :class:`ValueError` for an option that has
    no such value.
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
        thresh: float | None = None,
        nms: float | None = None,
        letter_box: bool | None = None,
        batch: int = BATCH,
        verbs: Verbs = "detector",
        tiles: int = 1,
        processes: Processes = ALONE,
    ) -> None:
        cfg = network_for(cfg, weights, engine, precision, device=device, numerics=numerics, program=program)
        self.network = cfg
        self.network.check_verbs(verbs)
        self.verbs = verbs
        if not isinstance(tiles, int) or tiles < 1:
            raise ValueError(f"tiles is {tiles!r}; expected a whole number, 1 or more")
        self.tiles = tiles
        self.letter_box = self.network.letter_box if letter_box is None else letter_box
        """Are images fitted into the network's input (or stretched)?"""
        usual = TEST[self.rules]
        self.thresh = usual.thresh if thresh is None else fraction("thresh", thresh)
        self.nms = usual.nms if nms is None else fraction("nms", nms)
        classes = cfg.detector.o.classes
        self.names: list[str] = [str(index) for index in range(classes)]
        """Of the classes."""
        if names is not None:
            self.names = class_names(names, classes, cfg.cfg.file)
        self.processes = processes
        self._engines = Engines(cfg, engine, precision, batch, calibration, processes)

    @property
    def rules(self) -> str:
        """Whose thresholds count (``defaults.py``): those of the network's program, or of the verbs ``yolo``."""
        return YOLO if self.verbs == YOLO else self.network.program

    def printed(self, found: Detections, seconds: float, ext_output: bool = False) -> str:
        """What ``detector test`` of the network's program prints of an image that took so many ``seconds``.

        ``ext_output`` adds the boxes, as AlexeyAB's flag of that name does.
        """
        network = self.network
        text = f"{found.path}: Predicted in {seconds:f} seconds.\n"
        if self.rules == ALEXEYAB:
            numbers = [(index, getattr(layer, "alexeyabs_number", None)) for index, layer in enumerate(network.layers)]
            text = "".join(f" Detection layer: {index} - type = {kind} \n" for index, kind in numbers if kind)
            text += f"{found.path}: Predicted in {seconds * 1000:f} milli-seconds.\n"
        return text + "".join(f"{line}\n" for line in found.lines(network.program, ext_output))

    @overload
    def __call__(
        self, images: Source, *, bgr: bool = True, thresh: float | None = None, nms: float | None = None
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: list[Any] | tuple[Any, ...], *, bgr: bool = True, thresh: float | None = None,
        nms: float | None = None,
    ) -> list[Detections]: ...  # fmt: skip

    def __call__(
        self, images: Any, *, bgr: bool = True, thresh: float | None = None, nms: float | None = None
    ) -> Detections | list[Detections]:
        """The detections of an image, or of each in a list, in order.

        An image is the path of a file, a NumPy array, uint8 (h, w, 3), or an image of PIL's. The colours of an array
        stand in OpenCV's order, blue, green, red, or with ``bgr=False`` in the order red, green, blue. ``thresh`` and
        ``nms`` instead of the detector's own.

        The network is as it was at the first call: an engine keeps the weights in its own layout.

        Raises :class:`ImageError` for what is no image or cannot be read.
        """
        many = isinstance(images, (list, tuple))
        things = list(images) if many else [images]
        engine, batch = self.engine(len(things))
        found = list(
            detect_many(
                self.network, things, lambda thing: read_source(thing, bgr), batch, self.letter_box, engine, keep=True,
                tiles=self.tiles,
                thresh=self.thresh if thresh is None else fraction("thresh", thresh),
                nms=self.nms if nms is None else fraction("nms", nms), classes=self.names,
            )
        )  # fmt: skip
        return found if many else found[0]

    @property
    def choices(self) -> dict[str, object]:
        """What decides the last bits of its detections, beside the network and what :meth:`engine` says."""
        return {
            "engine": self._engines.name, "precision": self._engines.precision, "letter_box": self.letter_box,
            "tiles": self.tiles, "verbs": self.verbs, "device": self.network.device.type,
            "calibration": self._engines.images_digest,
        }  # fmt: skip

    def engine(self, inputs: int, letter_box: bool | None = None) -> tuple[Engine, int]:
        """What runs the network on so many inputs, and how many it takes at a time.

        ``letter_box``: how they are made of images, where not as the detector does.
        """
        fitted = self.letter_box if letter_box is None else letter_box
        return self._engines.take(inputs, FITTED if fitted else STRETCHED)

    def detect(
        self, paths: Sequence[str], *, start: int = 0, hier: float = HIER, **options: Any
    ) -> Iterator[Detections]:
        """The detections of image files, in order, as :func:`detect_files` gives them; its options may be given.

        ``start`` leaves out so many whole batches of images; those of the others are the same.
        """
        engine, batch = self.engine(len(paths), options.get("letter_box"))
        usual = {
            "letter_box": self.letter_box, "batch": batch, "engine": engine, "classes": self.names, "tiles": self.tiles,
            "processes": self.processes,
        }  # fmt: skip
        return detect_files(self.network, islice(paths, start, None), hier=hier, **{**usual, **options})


class DataDetector(Detector):
    """A detector of a .data file: what :func:`load_detector` gives."""

    def __init__(
        self, data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str], **options: Any
    ) -> None:
        self.data: DataFile = read_data(find_stock(os.fspath(data)))
        self.names_file = find_stock(self.data.source("names", "data/names.list"))
        names = read_names(self.names_file)
        options["calibration"] = data_images(self.data, **options)
        super().__init__(cfg, weights, None, **options)
        check_names(self.data, names, self.network.detector.o.classes, os.fspath(cfg))
        self.names = names

    @property
    def valid_file(self) -> str:
        """The list that ``valid=`` names."""
        return self.data.source("valid", "data/train.list")

    def valid_images(self) -> list[str]:
        """The paths in it. Raises :class:`DataError`."""
        return read_list(find_stock(self.valid_file))


def load_detector(
    data: str | os.PathLike[str], cfg: str | os.PathLike[str], weights: str | os.PathLike[str], **options: Any
) -> DataDetector:
    """Read a .data file, and the network that ``cfg`` and ``weights`` hold; ``options`` are :class:`Detector`'s.

    Raises :class:`DarknetError` in one line that names file and place.
    """
    return DataDetector(data, cfg, weights, **options)
