"""From image files to the probabilities of their classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..engines import Engine
from ..errors import CfgError, ImageError
from ..flow import Item, forward_turns, read_file, results_in_order
from ..images import Views
from ..network import Network
from ..processes import ALONE, Processes
from ..program import PJREDDIE
from ..tree import Tree
from .prepare import resized

# What is made of a network's output (N, classes): the products along a tree.
Finish = Callable[[Tensor], Tensor]


def as_it_is(prob: Tensor) -> Tensor:
    """Nothing is made of it."""
    return prob


def top_k(values: np.ndarray, number: int) -> np.ndarray:
    """Where the greatest values stand, the greatest first; equal ones in Darknet's order (``src/utils.c, top_k``)."""
    order: np.ndarray = np.argsort(-values, kind="stable")
    if (np.diff(values[order[: number + 1]]) != 0).all():
        return order[:number]
    # A greater value that comes later puts an equal one behind its twin: only its loop has its order.
    top = [-1] * min(number, len(values))
    for place in np.flatnonzero(values >= values[order[len(top) - 1]]).tolist():
        for rank, other in enumerate(top):
            if other < 0 or values[place] > values[other]:
                top[rank], place = place, other
    return np.array(top)


@dataclass(frozen=True)
class Prediction:
    """``prob``: float32 (classes,), the probability of each. ``width``, ``height``: the image's.

    ``path`` is "" for an image that came from no file. ``classes``: the names of all; () where nobody gave them, and
    the names are the numbers. ``pixels``: the image, uint8 RGB (h, w, 3), where it was kept.
    """

    path: str
    width: int
    height: int
    prob: np.ndarray
    classes: Sequence[str] = ()
    pixels: np.ndarray | None = field(default=None, repr=False)

    @property
    def class_id(self) -> int:
        """The likeliest class."""
        return int(self.top(1)[0])

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.prob[self.class_id])

    @property
    def name(self) -> str:
        """Its name."""
        return self.name_of(self.class_id)

    def name_of(self, class_id: int) -> str:
        return self.classes[class_id] if self.classes else str(class_id)

    def top(self, number: int) -> np.ndarray:
        """The classes of the greatest probabilities, the likeliest first."""
        return top_k(self.prob, number)

    def lines(self, top: int, program: str, tree: Tree | None = None) -> list[str]:
        """What ``classifier predict`` prints."""
        best = [(int(index), float(self.prob[index])) for index in self.top(top)]
        name = self.name_of
        if program == PJREDDIE:
            return [f"{np.float32(prob) * np.float32(100):5.2f}%: {name(index)}" for index, prob in best]
        if tree is None:
            return [f"{name(index)}: {prob:f}" for index, prob in best]
        above = [int(tree.parent[index]) for index, _ in best]
        return [
            f"{index}, {name(index)}: {prob:f}, parent: {name(parent) if parent >= 0 else 'Root'} "
            for (index, prob), parent in zip(best, above, strict=True)
        ]

    def as_json(self, top: int = 5) -> dict[str, object]:
        """image, width, height and a list of {class_id, name, prob}, the likeliest first."""
        return {
            "image": self.path,
            "width": self.width,
            "height": self.height,
            "classes": [
                {"class_id": int(index), "name": self.name_of(int(index)), "prob": round(float(self.prob[index]), 6)}
                for index in self.top(top)
            ],
        }

    def frame_json(self, number: int, top: int = 5) -> str:
        """The object of one frame of a video: frame_id and the ``top`` likeliest classes, in the manner of
        AlexeyAB's ``-json_file_output``."""
        listed = ", \n".join(
            f'  {{"class_id":{index}, "name":{json.dumps(self.name_of(int(index)), ensure_ascii=False)}, '
            f'"confidence":{self.prob[index]:f}}}'
            for index in self.top(top)
        )
        return f'{{\n "frame_id":{number}, \n "classes": [ \n{listed}\n ] \n}}'


def classify_files(
    network: Network,
    things: Iterable[Item],
    views: Views,
    *,
    batch: int = 1,
    engine: Engine | None = None,
    finish: Finish = as_it_is,
    unreadable: Callable[[ImageError], None] | None = None,
    classes: Sequence[str] = (),
    keep: bool = False,
    read: Callable[[Item], tuple[str, np.ndarray]] = read_file,  # type: ignore[assignment]  # of things that are paths
    processes: Processes = ALONE,
) -> Iterator[Prediction]:
    """The predictions of many images, in order; of several views of an image their sum, each view's after ``finish``.

    ``batch`` counts inputs, ``classes`` are the names of the classes, ``keep`` keeps the images in what comes out, and
    ``read`` makes path and pixels of a thing.
    Threads, ``engine`` and ``unreadable`` are those of :func:`darknet_compat.detect_files`: decoding runs beside the
    network. Several ``processes`` share the batches (:func:`.flow.results_in_order`).
    """
    network.check_images()
    device = network.device
    run = engine or Engine(network.predict, torch.get_num_threads())
    turn = forward_turns(run.threads, device)

    at_once = max(batch // views.number, 1)

    def predicted(opened: Iterator[tuple[str, np.ndarray]]) -> list[Prediction]:
        inputs = torch.empty(at_once, views.number, 3, network.height, network.width)
        found: list[tuple[str, int, int, np.ndarray | None]] = []
        for path, image in opened:
            views.fill(image, inputs[len(found)].numpy())
            found.append((path, image.shape[1], image.shape[0], image if keep else None))
        if not found:
            return []
        with turn, torch.inference_mode():
            prob = _probabilities(run, inputs[: len(found)].flatten(0, 1).to(device), finish)
        prob = prob.unflatten(0, (-1, views.number)).sum(1).cpu()
        return [
            Prediction(path, width, height, numbers, classes, pixels)
            for (path, width, height, pixels), numbers in zip(found, prob.numpy(), strict=True)
        ]

    yield from results_in_order(predicted, things, at_once, unreadable, read, processes)


def classify_resized(
    network: Network,
    paths: Iterable[str],
    sizes: Callable[[np.ndarray], Sequence[tuple[int, int]]],
    *,
    mirrored: bool = False,
    finish: Finish = as_it_is,
    unreadable: Callable[[ImageError], None] | None = None,
    processes: Processes = ALONE,
) -> Iterator[Prediction]:
    """The predictions of images that the network sees in sizes (width, height) of their own: their sum.

    ``mirrored`` adds those of the mirrored image, without ``finish``, as ``validmulti`` does. The network is resized
    for each, and has its own size again at the end. Several ``processes`` share the images. Raises :class:`CfgError`
    where it cannot be resized.
    """
    network.check_images()
    device = network.device
    before = network.width, network.height
    run = Engine(network.predict, processes.threads)
    turn = forward_turns(run.threads, device)  # one at a time: there is one network to be resized

    def predicted(path: str, image: np.ndarray) -> Prediction:
        planes = [(size, _planes(image, size, path)) for size in sizes(image)]
        with turn, torch.inference_mode():
            total: Tensor | None = None
            for (w, h), x in planes:
                try:
                    network.resize(w, h)
                except CfgError as error:
                    raise CfgError(f"{error}; {path} is seen as {w} x {h}") from None
                inputs = x.to(device)
                prob = _probabilities(run, inputs, finish)
                if mirrored:
                    prob = prob + _probabilities(run, inputs.flip(3), as_it_is)
                total = prob if total is None else total + prob
        assert total is not None
        return Prediction(path, image.shape[1], image.shape[0], total[0].cpu().numpy())

    try:
        yield from results_in_order(
            lambda read: [predicted(*one) for one in read], paths, 1, unreadable, processes=processes
        )
    finally:
        network.resize(*before)


def _planes(image: np.ndarray, size: tuple[int, int], path: str) -> Tensor:
    if min(size) < 1:
        h, w = image.shape[:2]
        raise ImageError(
            f"{path}: {w} x {h} pixels, of which {size[0]} x {size[1]} would be left; too thin to classify"
        )
    return torch.from_numpy(resized(image, *size))[None]


def _probabilities(run: Engine, inputs: Tensor, finish: Finish) -> Tensor:
    """The output of the last layer, (N, classes)."""
    return finish(run(inputs)[-1].flatten(1))
