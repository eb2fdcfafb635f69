"""AlexeyAB's darknet.py: his functions, names and results, without his library.

    from darknet_compat.compat import darknet    # in place of `import darknet`

Networks follow his program, whatever their cfg says. Lists of :class:`DETECTION` take the place of his pointers, and
so the functions that free memory have nothing to do. Source: ``darknet.py``; ``src/network.c``, ``src/box.c``.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int, pointer
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from ..boxes import nms_sort, unletterbox
from ..cfg import read_data, read_names
from ..engines import Engines
from ..errors import DataError, ImageError
from ..images import letterbox_image as letterbox
from ..images import load_image as load_file
from ..images import resize_image
from ..network import Network
from ..program import ALEXEYAB
from ..stock import find_stock
from ..weights import load_network as load

# Scripts for his older darknet.py take these from it, which took all of ctypes.
__all__ = [
    "BOX", "DETECTION", "DETNUMPAIR", "IMAGE", "METADATA", "POINTER", "bbox2points", "c_float", "c_int", "class_colors",
    "copy_image_from_bytes", "decode_detection", "detect_image", "do_nms_obj", "do_nms_sort", "draw_boxes",
    "free_batch_detections", "free_detections", "free_image", "free_network_ptr", "free_ptrs", "get_network_boxes",
    "init_cpu", "letterbox_image", "load_image", "load_meta", "load_net", "load_net_custom", "load_network",
    "make_image", "make_network_boxes", "network_height", "network_predict", "network_predict_batch", "network_width",
    "non_max_suppression_fast", "pointer", "predict", "predict_image", "predict_image_letterbox", "print_detections",
    "remove_negatives", "remove_negatives_faster", "reset_rnn", "rgbgr_image", "set_gpu",
]  # fmt: skip

Decoded = tuple[str, Any, Sequence[float]]
"""A name, a confidence, and x, y, w, h of a box in pixels: the centre, and the size."""
Text = str | bytes | os.PathLike[str]
FAR = 2**24  # pixels: beyond any image, and OpenCV can draw to there


class BOX(NamedTuple):
    """Centre, width and height."""

    x: float
    y: float
    w: float
    h: float


@dataclass
class DETECTION:
    """A box, and the probability of each class, float32 (classes,)."""

    bbox: BOX
    classes: int
    prob: np.ndarray
    objectness: float
    best_class_idx: int = 0
    sort_class: int = 0


class DETNUMPAIR(NamedTuple):
    """The detections of one image of a batch, and how many they are."""

    num: int
    dets: list[DETECTION]


@dataclass
class IMAGE:
    """Planes, float32 (c * h * w,), 0..1; ``data`` may be a pointer to them, and to those of further images."""

    w: int
    h: int
    c: int
    data: Any = None

    def planes(self, count: int = 1) -> np.ndarray:
        """float32 (count, c, h, w). Raises :class:`ImageError` where there are not so many numbers."""
        shape = (count, self.c, self.h, self.w)
        needed, data = math.prod(shape), self.data
        if data is not None and not isinstance(data, np.ndarray):
            data = np.ctypeslib.as_array(data, shape)
        there = 0 if data is None else data.size
        if there < needed or min(shape) < 1:
            raise ImageError(f"an image of {there} numbers; expected {needed}, for {shape} (images, c, h, w)")
        planes: np.ndarray = data.reshape(-1)[:needed].reshape(shape)
        return planes


class METADATA(NamedTuple):
    """Of a .data file: how many classes, and their names, bytes."""

    classes: int
    names: list[bytes]


class Loaded:
    """A network, and what its last run gave."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.start()
        self.outputs: list[torch.Tensor] = []

    def start(self) -> None:
        """With an engine that has run nothing yet: a state is the engine's own."""
        self.engines = Engines(self.network, "torch", "float32", 1)

    def run(self, planes: np.ndarray) -> None:
        """On planes (N, c, h, w) of the network's own size."""
        expected = (self.network.channels, self.network.height, self.network.width)
        if planes.shape[1:] != expected:
            raise ImageError(f"planes of {planes.shape[1:]} (c, h, w); expected {expected}, the network's input")
        engine, _ = self.engines.take(1)
        images = torch.from_numpy(np.ascontiguousarray(planes, np.float32))
        with torch.inference_mode():
            self.outputs = engine(images.to(self.network.device))


# --- networks


def load_net_custom(config_file: Text, weights: Text, clear: int = 0, batch_size: int = 1) -> Loaded:
    """A network for detection; batches of any size go through it. Raises :class:`DarknetError`."""
    return Loaded(load(os.fsdecode(config_file), os.fsdecode(weights), program=ALEXEYAB, clear=bool(clear)).eval())


def load_net(config_file: Text, weights: Text, clear: int = 0) -> Loaded:
    return load_net_custom(config_file, weights, clear)


def load_meta(data_file: Text) -> METADATA:
    """The classes of a .data file: ``names=`` or ``labels=``."""
    data = read_data(find_stock(os.fsdecode(data_file)))
    key = "names" if data.get("names") is not None else "labels"
    names, classes = read_names(find_stock(data.require(key))), data.integer("classes", 2)
    if len(names) < classes:
        raise data.error(key, f"{len(names)} names; expected {classes}, as classes= says")
    return METADATA(classes, [name.encode() for name in names])


def load_network(
    config_file: Text, data_file: Text, weights: Text, batch_size: int = 1
) -> tuple[Loaded, list[str], dict[str, tuple[int, int, int]]]:
    """The network, the names of its classes, and a colour for each. Raises :class:`DarknetError`."""
    network = load_net_custom(config_file, weights, 0, batch_size)
    metadata = load_meta(data_file)
    names = [name.decode() for name in metadata.names[: metadata.classes]]
    found = network.network.detectors[-1].o.classes if network.network.detectors else len(names)
    if len(names) != found:
        raise DataError(
            f"{os.fsdecode(data_file)}: {len(names)} names; expected {found}, the classes of {os.fsdecode(config_file)}"
        )
    return network, names, class_colors(names)


def network_width(net: Loaded) -> int:
    return net.network.width


def network_height(net: Loaded) -> int:
    return net.network.height


def reset_rnn(net: Loaded) -> None:
    """Recurrent layers start anew."""
    net.start()


# --- images


def make_image(w: int, h: int, c: int) -> IMAGE:
    """A black image."""
    return IMAGE(w, h, c, np.zeros(c * h * w, np.float32))


def copy_image_from_bytes(image: IMAGE, data: bytes) -> None:
    """Into ``image`` the pixels of ``data``, bytes (h, w, c). Raises :class:`ImageError` where they are not so many."""
    shape, pixels = (image.h, image.w, image.c), np.frombuffer(data, np.uint8)
    if pixels.size != image.h * image.w * image.c:
        raise ImageError(f"{pixels.size} bytes; expected those of an image of {shape} (h, w, c)")
    pixels = pixels.reshape(shape)
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=image.planes()[0])


def load_image(path: Text, w: int = 0, h: int = 0) -> IMAGE:
    """An image file, RGB, and in another size where one is given. Raises :class:`ImageError`."""
    pixels = load_file(os.fsdecode(path))
    image = make_image(pixels.shape[1], pixels.shape[0], 3)
    copy_image_from_bytes(image, pixels.tobytes())
    return _resized(image, w, h) if w and h and (w, h) != (image.w, image.h) else image


def _resized(image: IMAGE, w: int, h: int) -> IMAGE:
    made = make_image(w, h, image.c)
    resize_image(_levels(image), made.planes()[0])
    return made


def _levels(image: IMAGE) -> np.ndarray:
    """float32 (h, w, 3), 0..255. Raises :class:`ImageError` for an image of other planes than three."""
    if image.c != 3:
        raise ImageError(f"an image of {image.c} planes in another size than the network's; expected 3 planes")
    levels: np.ndarray = np.ascontiguousarray(image.planes()[0].transpose(1, 2, 0)) * np.float32(255)
    return levels


def letterbox_image(image: IMAGE, w: int, h: int) -> IMAGE:
    """Fitted into w x h, with grey around it."""
    made = make_image(w, h, image.c)
    letterbox(_levels(image), made.planes()[0])
    return made


def rgbgr_image(image: IMAGE) -> None:
    """Red for blue, in place."""
    planes = image.planes()[0]
    planes[:] = planes[::-1].copy()


# --- detection


def predict_image(net: Loaded, image: IMAGE) -> np.ndarray:
    """Run the network on an image, stretched to its input; the output of its last layer, float32, comes back."""
    w, h = network_width(net), network_height(net)
    return _predict(net, image if (image.w, image.h) == (w, h) else _resized(image, w, h))


def predict_image_letterbox(net: Loaded, image: IMAGE) -> np.ndarray:
    """As :func:`predict_image`, fitted into the input."""
    w, h = network_width(net), network_height(net)
    return _predict(net, image if (image.w, image.h) == (w, h) else letterbox_image(image, w, h))


def _predict(net: Loaded, image: IMAGE) -> np.ndarray:
    net.run(image.planes())
    output: np.ndarray = net.outputs[-1].flatten().cpu().numpy()
    return output


def network_predict(net: Loaded, data: Any) -> np.ndarray:
    """Run it on the planes of an image in its own size: an array, or a pointer."""
    return _predict(net, IMAGE(network_width(net), network_height(net), net.network.channels, data))


predict = network_predict


def get_network_boxes(
    net: Loaded, w: int, h: int, thresh: float, hier: float = 0.5, map: Any = None, relative: int = 0, pnum: Any = None,
    letter: int = 0,
) -> list[DETECTION]:  # fmt: skip
    """The boxes of the last run, of an image of ``w`` x ``h``, in its pixels or ``relative`` to it.

    ``pnum[0]`` becomes their number. ``letter``: the image had been fitted into the input.
    """
    found = _boxes(net, w, h, thresh, hier, relative, letter)[0]
    if pnum is not None:
        pnum[0] = len(found)
    return found


def _boxes(
    net: Loaded, w: int, h: int, thresh: float, hier: float, relative: int, letter: int
) -> list[list[DETECTION]]:
    """Of each image of the last run. Raises :class:`DataError` where there was none."""
    network = net.network
    if not net.outputs:
        raise DataError("the network has not run; expected predict_image before its boxes are asked for")
    if not network.detectors:
        return [[] for _ in net.outputs[-1]]
    with torch.inference_mode():
        boxes, objectness, prob = network.listed_boxes(net.outputs, thresh, hier)
        sizes = [(w, h)] * len(boxes)
        where = (network.width, network.height)
        boxes = unletterbox(boxes, sizes, where, relative=bool(relative), letter_box=bool(letter))
    classes = prob.shape[2]
    lists_all = all(head.lists_all for head in network.detectors)
    images = zip(*(part.cpu().numpy() for part in (boxes, objectness, prob)), strict=True)
    return [
        [
            DETECTION(BOX(*box), classes, shares, float(sure), int(shares.argmax()) if shares.any() else -1)
            for box, sure, shares in zip(rows.tolist(), objectnesses, probs, strict=True)
            if sure or lists_all
        ]
        for rows, objectnesses, probs in images
    ]


def make_network_boxes(net: Loaded) -> list[DETECTION]:
    """None yet: :func:`get_network_boxes` makes them and fills them."""
    return []


def network_predict_batch(
    net: Loaded, image: IMAGE, batch_size: int, w: int, h: int, thresh: float, hier: float = 0.5, map: Any = None,
    relative: int = 0, letter: int = 0,
) -> list[DETNUMPAIR]:  # fmt: skip
    """The boxes of each of ``batch_size`` images, whose planes lie one behind the other in ``image``.

    They have the network's own size there; ``w`` and ``h`` are what their boxes are for.
    """
    planes = IMAGE(network_width(net), network_height(net), image.c, image.data).planes(batch_size)
    net.run(planes)
    return [DETNUMPAIR(len(found), found) for found in _boxes(net, w, h, thresh, hier, relative, letter)]


def do_nms_sort(dets: list[DETECTION], total: int, classes: int, thresh: float) -> None:
    """Class by class, boxes that overlap a likelier one by more than ``thresh`` lose it; the list gets his order."""
    if not total:
        return
    prob = np.stack([one.prob for one in dets[:total]])
    kept, order = _suppressed(dets[:total], prob, thresh)
    for one, shares in zip(dets, kept, strict=False):
        one.prob = shares
    dets[:total] = [dets[index] for index in order]


def do_nms_obj(dets: list[DETECTION], total: int, classes: int, thresh: float) -> None:
    """Boxes that overlap one of higher objectness by more than ``thresh`` lose it, and all classes."""
    if not total:
        return
    objectness = np.array([one.objectness for one in dets[:total]], np.float32)
    kept, order = _suppressed(dets[:total], objectness[:, None], thresh)
    for one, left in zip(dets, kept[:, 0], strict=False):
        one.objectness = float(left)
        if not left:
            one.prob = np.zeros_like(one.prob)
    dets[:total] = [dets[index] for index in order]


def _suppressed(dets: Sequence[DETECTION], prob: np.ndarray, thresh: float) -> tuple[np.ndarray, list[int]]:
    boxes = torch.tensor([[one.bbox for one in dets]], dtype=torch.float32)
    objectness = torch.tensor([[one.objectness for one in dets]], dtype=torch.float32)
    kept, order = nms_sort(boxes, objectness, torch.from_numpy(prob)[None], thresh)
    return kept[0].numpy(), order[0].tolist()


def detect_image(
    network: Loaded, class_names: Sequence[str], image: IMAGE, thresh: float = 0.5, hier_thresh: float = 0.5,
    nms: float = 0.45,
) -> list[Decoded]:  # fmt: skip
    """Each class of each box: name, confidence in percent as text, and box in pixels of ``image``.

    In the order of the confidences as texts, as his are: "9.5" comes behind "80.1".
    """
    predict_image(network, image)
    detections = get_network_boxes(network, image.w, image.h, thresh, hier_thresh)
    if nms:
        do_nms_sort(detections, len(detections), len(class_names), nms)
    predictions = decode_detection(remove_negatives(detections, class_names, len(detections)))
    return sorted(predictions, key=lambda one: one[1])


def remove_negatives(detections: Sequence[DETECTION], class_names: Sequence[str], num: int) -> list[Decoded]:
    """Every class of every box that it has a probability of, 0..1."""
    return [
        (class_names[index], float(one.prob[index]), tuple(one.bbox))
        for one in detections[:num]
        for index in np.flatnonzero(one.prob[: len(class_names)] > 0).tolist()
    ]


def remove_negatives_faster(detections: Sequence[DETECTION], class_names: Sequence[str], num: int) -> list[Decoded]:
    """The likeliest class of every box that has one. (His library sets best_class_idx for [region] alone.)"""
    return [
        (class_names[one.best_class_idx], float(one.prob[one.best_class_idx]), tuple(one.bbox))
        for one in detections[:num]
        if one.best_class_idx != -1
    ]


def decode_detection(detections: Sequence[Decoded]) -> list[Decoded]:
    """Confidences become percent with two digits, as texts."""
    return [(str(label), str(round(confidence * 100, 2)), bbox) for label, confidence, bbox in detections]


def non_max_suppression_fast(detections: Sequence[Any], overlap_thresh: float) -> list[Any]:
    """Those of (.., .., .., (x, y, w, h)) of whose area no kept one below them covers more than ``overlap_thresh``."""
    if not detections:
        return []
    x, y, w, h = np.array([one[3] for one in detections], np.float64).T
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    area = (right - left + 1) * (bottom - top + 1)
    rest, picked = np.argsort(bottom), []
    while len(rest):
        last, rest = rest[-1], rest[:-1]
        picked.append(detections[last])
        across = np.minimum(right[last], right[rest]) - np.maximum(left[last], left[rest]) + 1
        down = np.minimum(bottom[last], bottom[rest]) - np.maximum(top[last], top[rest]) + 1
        rest = rest[across.clip(0) * down.clip(0) / area[rest] <= overlap_thresh]
    return picked


# --- what is shown


def bbox2points(bbox: Sequence[float]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom, rounded, of a centre and a size, which may be infinite."""
    x, y, w, h = np.clip(bbox, -FAR, FAR).tolist()
    return round(x - w / 2), round(y - h / 2), round(x + w / 2), round(y + h / 2)


def class_colors(names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """A colour for each name, drawn by ``random``."""

    def level() -> int:
        return random.randint(0, 255)

    return {name: (level(), level(), level()) for name in names}


def print_detections(detections: Sequence[Decoded], coordinates: bool = False) -> None:
    """A line for each, with its box where ``coordinates`` are asked for."""
    print("\nObjects:")
    for label, confidence, (x, y, w, h) in detections:
        box = f"    (left_x: {x:.0f}   top_y:  {y:.0f}   width:   {w:.0f}   height:  {h:.0f})" if coordinates else ""
        print(f"{label}: {confidence}%{box}")


def draw_boxes(detections: Sequence[Decoded], image: np.ndarray, colors: dict[str, Any]) -> np.ndarray:
    """``image``, uint8 (h, w, 3), with the boxes drawn on it."""
    for label, confidence, bbox in detections:
        left, top, right, bottom = bbox2points(bbox)
        cv2.rectangle(image, (left, top), (right, bottom), colors[label], 1)
        said = f"{label} [{float(confidence):.2f}]"
        cv2.putText(image, said, (left, top - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colors[label], 2)
    return image


# --- what has nothing to do here


def _nothing(*_: Any) -> None:
    """There is no memory to free, and no device to choose."""


free_image = free_detections = free_batch_detections = free_ptrs = free_network_ptr = set_gpu = init_cpu = _nothing
