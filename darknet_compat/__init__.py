"""Darknet's networks in PyTorch: the same cfg, the same .weights, the same numbers.

>>> from darknet_compat import load_network, read_cfg, save_weights
>>> network = load_network("cfg/yolov2-tiny-voc.cfg", "yolov2-tiny-voc.weights")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from .cfg import Cfg, read_cfg
from .errors import DarknetError

if TYPE_CHECKING:
    import torch

    from .anchors import calc_anchors
    from .detect.detector import load_detector
    from .detect.images import detect_images
    from .detect.scores import mean_average_precision, recall
    from .detect.validate import validate
    from .evaluate.voc_eval import voc_eval
    from .export import read_export
    from .network import Network
    from .train.detector import train_detector

__version__ = "0.1.0"
__all__ = [
    "Cfg", "DarknetError", "calc_anchors", "detect_images", "load_detector", "load_network",
    "mean_average_precision", "read_cfg", "read_export", "recall", "save_weights", "train_detector", "validate",
    "voc_eval",
]  # fmt: skip
# The jobs of the verbs, and where each is. They load torch, OpenCV or more, so they are looked up when first asked for.
_JOBS = {
    "calc_anchors": "anchors",
    "detect_images": "detect.images",
    "load_detector": "detect.detector",
    "mean_average_precision": "detect.scores",
    "read_export": "export",
    "recall": "detect.scores",
    "train_detector": "train.detector",
    "validate": "detect.validate",
    "voc_eval": "evaluate.voc_eval",
}


def __getattr__(name: str) -> object:
    if name not in _JOBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_JOBS[name]}"), name)


def load_network(
    cfg: str | os.PathLike[str] | Cfg,
    weights: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str | None = None,
    numerics: str = "cudnn",
    program: str | None = None,
    clear: bool = False,
) -> Network:
    """Build the network of a .cfg file and fill it, in inference mode.

    ``weights`` may end early; the layers it does not reach, or all without it, get Darknet's random start values.
    ``network.report`` says which layers got numbers. ``clear`` sets ``network.seen`` to 0, as Darknet's ``-clear``.
    ``numerics`` is "cudnn" (how the published weights were made), "gpu" or "cpu". ``program`` is the Darknet to follow,
    "pjreddie" or "alexeyab": by default his whose options the cfg has, and ``network.follows`` says which that is.

    Raises :class:`DarknetError` with one line that names file and place.
    """
    cfg = cfg if isinstance(cfg, Cfg) else read_cfg(cfg)
    # torch takes a second to load, so it is loaded where it is needed: reading a cfg needs none.
    from .network import Network
    from .weights import load_into

    network = Network(cfg, numerics, program=program)
    network.report = load_into(network, weights, clear=clear)
    return network.eval().to(device or "cpu")


def save_weights(network: Network, path: str | os.PathLike[str], cutoff: int | None = None) -> None:
    """Write a .weights file that Darknet reads: the layers before layer ``cutoff``, or all.

    The header keeps the version that the network was loaded with (0.2.0 for a new one). The file is written whole or
    not at all.
    """
    from .weights import save_weights as save

    save(network, path, cutoff)
