"""Image files to their classes: the verbs predict, label, csv, test, fout and try.

Source: ``examples/classifier.c, predict_classifier, label_classifier, csv_classifier, test_classifier,
file_output_classifier, try_classifier``; AlexeyAB's ``src/classifier.c``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..cfg import read_list
from ..errors import CfgError, DarknetError, ImageError
from ..image_files import (
    check_file,
    check_written,
    find_images,
    kept_results,
    pass_over,
    results_one_by_one,
    write_objects,
)
from ..images import SUFFIXES, load_image
from ..program import ALEXEYAB
from ..progress import Progress, unseen
from ..stock import find_stock
from .classifier import DataClassifier
from .predictions import Finish, Prediction, as_it_is
from .prepare import TRY_SIZE, normalised

ImageVerb = Literal["predict", "label", "csv", "test", "fout"]


def classify_images(
    classifier: DataClassifier,
    images: Sequence[str] | None = None,
    *,
    verb: ImageVerb = "predict",
    top: int | None = None,
    json: str | os.PathLike[str] | None = None,
    skip: bool = False,
    progress: Progress[Prediction] = unseen,
) -> list[Prediction]:
    """The predictions of ``images``: words that :func:`find_images` takes; None is the list of ``test=``.

    ``verb`` says how an image becomes the network's input, and what is made of the output along a tree. ``json``
    writes the ``top`` likeliest classes of each to a file (None: the .data file's ``top=``). ``skip`` passes over
    images that cannot be read, with a warning each. ``progress`` takes the predictions and their number and hands
    them on.

    Raises :class:`ImageError` for an image that cannot be read; what was found before it is written. Raises
    :class:`ResultsError` before the first image where the file could not be written, or is read too.
    """
    paths = classifier.images("test") if images is None else find_images(images)
    number = classifier.top if top is None else top
    # Of the others nobody asks names, which need not be there.
    names = classifier.names if verb == "predict" or json is not None else ()
    _check(classifier, json, [*(images or []), *paths])

    def run(unreadable: Callable[[ImageError], None]) -> Iterable[Prediction]:
        finish = _finish(classifier, verb)
        found = classifier.classify(paths, verb, finish, classes=names, unreadable=unreadable)
        return progress(found, len(paths))

    return kept_results(run, _lists(json, number), skip)


def _check(classifier: DataClassifier, json: str | os.PathLike[str] | None, images: Iterable[str]) -> None:
    """That the file can be written, and is none of those that are read. Raises :class:`ResultsError`."""
    if json is not None:
        check_file(json)
        network = classifier.network
        lists = [find_stock(file) for key in ("names", "labels", "test") if (file := classifier.data.get(key))]
        sources = [classifier.data.file, network.cfg.file, getattr(network.report, "path", "")]
        check_written([json], [*images, *lists, *sources])


def _lists(json: str | os.PathLike[str] | None, number: int) -> dict[str, Callable[[list[Prediction]], None]]:
    """What writes the file of a job's predictions, if one is asked for."""
    if json is None:
        return {}
    return {os.fspath(json): lambda found: write_objects([one.as_json(number) for one in found], json)}


def classify_each(
    classifier: DataClassifier,
    paths: Iterable[str],
    *,
    top: int | None = None,
    json: str | os.PathLike[str] | None = None,
    refused: Callable[[DarknetError], None] = pass_over,
) -> Iterator[Prediction]:
    """The predictions of image files one by one, as their paths come: the next path is not asked for before.

    ``top`` and ``json`` are those of :func:`classify_images`; the file is written at the end, whatever the end is.
    ``refused`` takes the error of an image that cannot be read, or that ``json`` would be written over, and the next
    one follows.

    Raises :class:`ResultsError` before the first path where the file could not be written, or is read too.
    """
    number = classifier.top if top is None else top
    finish = _finish(classifier, "predict")
    _check(classifier, json, [])

    def run(path: str) -> Iterator[Prediction]:
        _check(classifier, json, [path])
        return classifier.classify([path], "predict", finish, classes=classifier.names)

    yield from results_one_by_one(paths, run, _lists(json, number), refused)


def list_images(file: str) -> list[str]:
    """The images of a file of paths, whatever it is called; or those that the word stands for (:func:`find_images`)."""
    path = Path(find_stock(file))
    return read_list(path) if path.is_file() and path.suffix.lower() not in SUFFIXES else find_images([file])


def _finish(classifier: DataClassifier, verb: ImageVerb) -> Finish:
    if verb in ("label", "test"):
        return as_it_is
    # AlexeyAB's predict lists the classes above the leaves too, as both programs' fout does.
    inner = verb == "fout" or (verb == "predict" and classifier.network.program == ALEXEYAB)
    return classifier.finish(inner=inner)


@dataclass(frozen=True)
class Tried:
    """What :func:`try_image` gives. ``statistics`` (n, 3): rolling mean and variance, and scale, of a channel."""

    prediction: Prediction
    statistics: np.ndarray
    output: np.ndarray
    """Of the layer, in Darknet's order."""


def try_image(classifier: DataClassifier, path: str, layer: int) -> Tried:
    """What a layer makes of an image that is brought to ImageNet's mean and deviation (``try_classifier``).

    Raises :class:`CfgError` where the network is not of 224 x 224, which is the size of that image, or has no such
    layer.
    """
    network = classifier.network
    network.check_images()
    if (network.width, network.height) != (TRY_SIZE, TRY_SIZE):
        raise network.cfg.net.error(
            f"`classifier try` makes an input of {TRY_SIZE} x {TRY_SIZE}; expected width={TRY_SIZE} height={TRY_SIZE}"
        )
    if not 0 <= layer < len(network.layers):
        raise CfgError(
            f"{network.cfg.file}: no layer {layer}; expected 0 to {len(network.layers) - 1}, as `net` lists them"
        )
    image = load_image(path)
    inputs = torch.from_numpy(normalised(image, network.program))[None].to(network.device)
    with torch.inference_mode():
        outputs = network.outputs(inputs)
    prob = outputs[-1].flatten(1)[0].cpu().numpy()
    norm: Any = network.layers[layer]
    statistics = np.zeros((0, 3), np.float32)
    if hasattr(norm, "rolling_mean"):
        columns = (norm.rolling_mean, norm.rolling_variance, norm.scales)
        rows = np.stack([column.detach().cpu().numpy() for column in columns], 1)
        # As many as the layer's input has channels, which is where Darknet's loop ends.
        statistics = rows[: network.layers[layer].input.c]
    found = Prediction(path, image.shape[1], image.shape[0], prob)
    return Tried(found, statistics, outputs[layer].flatten().cpu().numpy())
