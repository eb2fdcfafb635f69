"""A detector made ready: a network with its names, and how to run it. What the verbs that detect share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..cfg import DataFile, check_names, read_data, read_list, read_names
from ..defaults import YOLO, Verbs
from ..engines import engine_device, start_engine_for
from ..network import Network
from ..stock import find_stock
from ..weights import load_network
from .detections import Detections, detect_files

BATCH = 4  # images per forward pass, where nothing else is asked for


@dataclass(frozen=True)
class Detector:
    """What :func:`load_detector` gives."""

    data: DataFile
    names: list[str]
    """Of the classes."""
    names_file: str
    network: Network
    letter_box: bool
    """Are images fitted into the network's input (or stretched)?"""
    engine: str
    precision: str
    batch: int
    verbs: Verbs
    """Of which family the job is."""

    @property
    def rules(self) -> str:
        """Whose thresholds count (``defaults.py``): those of the network's program, or of the verbs ``yolo``."""
        return YOLO if self.verbs == YOLO else self.network.program

    @property
    def valid_file(self) -> str:
        """The list that ``valid=`` names."""
        return self.data.source("valid", "data/train.list")

    def valid_images(self) -> list[str]:
        """The paths in it. Raises :class:`DataError`."""
        return read_list(find_stock(self.valid_file))

    def detect(self, paths: Sequence[str], **options: Any) -> Iterator[Detections]:
        """The detections of image files, in order, as :func:`detect_files` gives them; its options may be given."""
        engine, batch = start_engine_for(len(paths), self.network, self.engine, self.precision, self.batch)
        return detect_files(
            self.network, paths, **{"letter_box": self.letter_box, "batch": batch, "engine": engine, **options}
        )


def load_detector(
    data: str | os.PathLike[str],
    cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    *,
    device: str | None = None,
    numerics: str = "cudnn",
    program: str | None = None,
    letter_box: bool | None = None,
    engine: str = "torch",
    precision: str = "float32",
    batch: int = BATCH,
    verbs: Verbs = "detector",
) -> Detector:
    """Read a .data file, and the network that ``cfg`` and ``weights`` hold.

    ``letter_box`` None does as the cfg says, or the program it is for. ``device`` None takes a GPU where there is one
    and ``engine`` is "torch". ``engine`` and ``precision`` are those of :func:`darknet_compat.engines.start_engine`,
    ``batch`` is how many images go through the network at a time, the rest is that of
    :func:`darknet_compat.load_network`. ``verbs``: for a job as the C program does it by these verbs; "yolo" takes
    YOLOv1's networks alone.

    Raises :class:`DarknetError` in one line that names file and place.
    """
    read = read_data(find_stock(os.fspath(data)))
    names_file = find_stock(read.source("names", "data/names.list"))
    names = read_names(names_file)
    where = engine_device(engine, device)
    network = load_network(cfg, weights, device=where, numerics=numerics, program=program)
    network.check_verbs(verbs)
    check_names(read, names, network.detector.o.classes, os.fspath(cfg))
    fitted = network.letter_box if letter_box is None else letter_box
    return Detector(read, names, names_file, network, fitted, engine, precision, batch, verbs)
