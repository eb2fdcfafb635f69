"""Darknet's networks in PyTorch: the same cfg, the same .weights, the same numbers.

>>> from darknet_compat import load_network, read_cfg, save_weights
>>> network = load_network("cfg/yolov2-tiny-voc.cfg", "yolov2-tiny-voc.weights")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .cfg import Cfg, read_cfg
from .errors import DarknetError

if TYPE_CHECKING:
    from .anchors import calc_anchors
    from .classify.classifier import Classifier, load_classifier
    from .classify.images import classify_images, try_image
    from .classify.validate import validate_classifier
    from .detect.detector import Detector, load_detector
    from .detect.images import detect_each, detect_images
    from .detect.results import LabelFiles
    from .detect.scores import mean_average_precision, recall
    from .detect.validate import validate
    from .evaluate.voc_eval import voc_eval
    from .export import read_export
    from .text.reader import load_reader
    from .text.validate import validate_text
    from .text.write import generate
    from .train.classifier import train_classifier
    from .train.detector import train_detector
    from .train.text import train_text
    from .weights import load_network, save_weights

__version__ = "0.1.0"
__all__ = [
    "Cfg", "Classifier", "DarknetError", "Detector", "LabelFiles", "calc_anchors", "classify_images", "detect_each",
    "detect_images", "generate", "load_classifier", "load_detector", "load_network", "load_reader",
    "mean_average_precision", "read_cfg", "read_export", "recall", "save_weights", "train_classifier",
    "train_detector", "train_text", "try_image", "validate", "validate_classifier", "validate_text", "voc_eval",
]  # fmt: skip
# Where each name is at home. What loads torch, OpenCV or more is looked up when it is first asked for: reading a cfg
# needs none of them.
_HOMES = {
    "Classifier": "classify.classifier",
    "Detector": "detect.detector",
    "calc_anchors": "anchors",
    "classify_images": "classify.images",
    "LabelFiles": "detect.results",
    "detect_each": "detect.images",
    "detect_images": "detect.images",
    "generate": "text.write",
    "load_classifier": "classify.classifier",
    "load_detector": "detect.detector",
    "load_network": "weights",
    "load_reader": "text.reader",
    "mean_average_precision": "detect.scores",
    "read_export": "export",
    "recall": "detect.scores",
    "save_weights": "weights",
    "train_classifier": "train.classifier",
    "train_detector": "train.detector",
    "train_text": "train.text",
    "try_image": "classify.images",
    "validate": "detect.validate",
    "validate_classifier": "classify.validate",
    "validate_text": "text.validate",
    "voc_eval": "evaluate.voc_eval",
}


if not TYPE_CHECKING:  # to a type checker it would say that every name is here

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
