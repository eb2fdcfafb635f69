"""OpenCV 4's reader of Darknet's networks, which OpenCV 5 has no longer: ``readNetFromDarknet`` and what it gave.

    from darknet_compat.compat.opencv import readNetFromDarknet    # in place of cv2.dnn.readNetFromDarknet

A :class:`Net` takes OpenCV's blobs and gives OpenCV's rows, of the same layers by the same names. Source: OpenCV 4.14,
``modules/dnn/src/darknet/darknet_io.cpp``, ``modules/dnn/src/layers/region_layer.cpp``, ``modules/dnn/src/model.cpp``;
what is said of numbers here was found by running it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, overload

import cv2
import numpy as np
import torch
from torch import Tensor

from ..boxes import nms_sort
from ..cfg import Cfg, parse_cfg
from ..errors import DataError, ImageError
from ..layers import Layer
from ..layers.head import Head
from ..network import Network
from ..weights import load_network

__all__ = ["DetectionModel", "Net", "readNetFromDarknet"]

YOLO_THRESH, REGION_THRESH = 0.2, 0.001  # where the section has no thresh=: a class under it has 0
REGION_NMS = 0.4  # [yolo] has none, but for nms_threshold=
Source = str | os.PathLike[str] | bytes | bytearray | np.ndarray
"""A file's path, or what it holds."""


def readNetFromDarknet(cfgFile: Source, darknetModel: Source | None = None) -> Net:
    """A network from a .cfg and a .weights, both paths or both the bytes of a file. Raises :class:`DarknetError`."""
    cfg: str | os.PathLike[str] | Cfg
    if isinstance(cfgFile, (str, os.PathLike)):
        cfg = cfgFile
    else:
        cfg = parse_cfg(_bytes(cfgFile).decode("utf-8", "surrogateescape"), "buffer")
    if darknetModel is None or isinstance(darknetModel, (str, os.PathLike)):
        return Net(load_network(cfg, darknetModel or None))
    with tempfile.NamedTemporaryFile(prefix="buffer.", suffix=".weights") as file:
        file.write(_bytes(darknetModel))
        file.flush()
        return Net(load_network(cfg, file.name))


def _bytes(buffer: Any) -> bytes:
    return memoryview(buffer).tobytes()


class Net:
    """What ``cv2.dnn.Net`` is for a network of Darknet's."""

    def __init__(self, network: Network) -> None:
        self.network = network.eval()
        self.blob: np.ndarray | None = None
        self.names: list[str] = []
        self.ends: dict[str, int] = {}
        """Of the last of the names of each of Darknet's layers: its number."""
        flat: set[int] = set()
        shift = 0
        for layer in network.layers:
            if layer.type == "connected" or flat & set(layer.sources):
                flat.add(layer.index)
            own, more = _names(layer, layer.index + shift)
            shift += more
            self.names += own
            self.ends[own[-1]] = layer.index
        self.flat = flat
        """Layers behind a [connected], whose outputs have no height and width."""
        read = {source for layer in network.layers for source in layer.sources}
        self.outputs = [name for name, index in self.ends.items() if index not in read]

    def empty(self) -> bool:
        return False

    def getLayerNames(self) -> tuple[str, ...]:
        """OpenCV's names of all layers; one of Darknet's is up to three of its."""
        return tuple(self.names)

    def getLayerId(self, name: str) -> int:
        """Its number, from 1 on; -1 where there is none."""
        return self.names.index(name) + 1 if name in self.names else -1

    def getUnconnectedOutLayersNames(self) -> tuple[str, ...]:
        """Those that no other layer reads."""
        return tuple(self.outputs)

    def getUnconnectedOutLayers(self) -> np.ndarray:
        """Their numbers, int32."""
        return np.array([self.getLayerId(name) for name in self.outputs], np.int32)

    def setPreferableBackend(self, backendId: int) -> None:
        """It runs by torch on the processor, whatever is preferred."""

    def setPreferableTarget(self, targetId: int) -> None:
        """As :meth:`setPreferableBackend`."""

    def enableFusion(self, fusion: bool) -> None:
        """As :meth:`setPreferableBackend`."""

    def setInput(
        self, blob: np.ndarray, name: str = "", scalefactor: float = 1.0, mean: float | Sequence[float] = (0, 0, 0, 0)
    ) -> None:
        """What ``cv2.dnn.blobFromImage`` gives, (N, c, h, w), of any size that the network can take.

        ``scalefactor`` times what is left of it without ``mean``. Raises :class:`ImageError` for another shape.
        """
        numbers = np.asarray(blob, np.float32)
        channels = self.network.channels
        if numbers.ndim != 4 or numbers.shape[1] != channels or not numbers.size:
            raise ImageError(f"a blob of {numbers.shape}; expected (images, {channels}, height, width)")
        if any(scalar := _scalar(mean)):
            numbers = numbers - np.asarray(scalar, np.float32)[:channels, None, None]
        self.blob = np.ascontiguousarray(numbers * np.float32(scalefactor))

    @overload
    def forward(self, outputName: str = "") -> np.ndarray: ...

    @overload
    def forward(self, outputName: list[str] | tuple[str, ...]) -> tuple[np.ndarray, ...]: ...

    def forward(self, outputName: Any = "") -> Any:
        """The output of a layer, or of several; "" is the last one.

        Of a head that finds boxes float32 (rows, 5 + classes), (N, rows, 5 + classes) of several images: centre x, y,
        width and height in parts of the input, objectness, and the probability of each class, 0 where it is under the
        section's ``thresh``. Of another layer (N, c, h, w), behind a [connected] (N, c). Raises :class:`DataError` for
        a name that is none of the last ones of Darknet's layers.
        """
        if self.blob is None:
            raise DataError("no input; expected setInput before forward")
        wanted = [outputName] if isinstance(outputName, str) else list(outputName)
        wanted = [name or self.names[-1] for name in wanted]
        for name in wanted:
            if name not in self.ends:
                known = "it is inside a layer of Darknet's, and not its last" if name in self.names else "no such layer"
                raise DataError(f"{name}: {known}; expected the last name of a layer, such as {self.outputs[0]}")
        found = self._run({self.ends[name] for name in wanted})
        given = [found[self.ends[name]] for name in wanted]
        return given[0] if isinstance(outputName, str) else tuple(given)

    def _run(self, wanted: set[int]) -> dict[int, np.ndarray]:
        network, blob = self.network, self.blob
        assert blob is not None
        if (network.width, network.height) != (blob.shape[3], blob.shape[2]):
            network.resize(blob.shape[3], blob.shape[2])
        images = torch.from_numpy(blob).to(network.device)
        with torch.inference_mode():
            outputs = network.outputs(images)
            found = {}
            for index in wanted:
                layer = network.layers[index]
                is_head = isinstance(layer, Head) and layer.finds_boxes
                output = _rows(layer, outputs[index]) if is_head else outputs[index]
                if index in self.flat:
                    output = output.flatten(1)
                found[index] = output.float().cpu().numpy()
        return found


def _scalar(given: float | Sequence[float]) -> tuple[float, float, float, float]:
    """As OpenCV takes one number or up to four."""
    first, second, third, fourth, *_ = (*np.atleast_1d(given), 0, 0, 0, 0)
    return float(first), float(second), float(third), float(fourth)


def _rows(head: Any, output: Tensor) -> Tensor:
    """Of each cell its anchors, and of each anchor the numbers of a row."""
    count, classes = output.shape[0], head.o.classes
    is_region = head.type == "region"
    usual = REGION_THRESH if is_region else YOLO_THRESH
    thresh = float(head.section.find("thresh").value) if head.section.find("thresh") else usual
    boxes, _, prob = head.boxes(output, thresh)
    planes = output.unflatten(1, (-1, 5 + classes))  # (N, anchors, 5 + classes, h, w)
    objectness = planes[:, :, 4].flatten(2).transpose(1, 2).flatten(1)
    if is_region:  # whose boxes stand anchor by anchor
        anchors = planes.shape[1]
        boxes, prob = (part.unflatten(1, (anchors, -1)).transpose(1, 2).flatten(1, 2) for part in (boxes, prob))
    nms = head.section.find("nms_threshold")
    overlap = REGION_NMS if is_region else float(nms.value) if nms else 0.0
    if overlap:
        prob, _ = nms_sort(boxes, objectness, prob, overlap)
    rows = torch.cat([boxes, objectness[..., None], prob], 2)
    return rows[0] if count == 1 else rows


def _names(layer: Layer, number: int) -> tuple[list[str], int]:
    """OpenCV's names for a layer of Darknet's, and how many numbers more than one it takes."""
    kind, section = layer.type, layer.section
    activation = getattr(layer.o, "activation", "linear")
    behind = [f"{activation}_{number + 1}"] if activation != "linear" else []
    if kind in ("convolutional", "connected"):
        own = f"{'conv' if kind == 'convolutional' else 'fullyConnected'}_{number}"
        return [own, *([f"bn_{number}"] if layer.o.batch_normalize else []), *behind], 0
    if kind in ("shortcut", "sam", "scale_channels"):
        return [f"{kind}_{number}", *behind], 0
    if kind == "route":
        several, grouped = len(layer.sources) > 1, getattr(layer.o, "groups", 1) > 1
        return [f"{'concat' if several else 'slice' if grouped else 'identity'}_{number}"], 0
    if kind == "crop" and not layer.o.noadjust:
        return [f"crop_{number}", f"adjust_crop_{number + 1}"], 1
    if kind == "region":
        return [f"permute_{number}", "detection_out"], 0
    if kind == "yolo":
        return [f"permute_{number}", f"yolo_{number}"], 0
    known = {"maxpool": "pool", "avgpool": "avgpool", "softmax": "softmax", "dropout": "identity", "cost": "identity",
             "upsample": "upsample", "reorg": "reorg", "crop": "crop"}  # fmt: skip
    if kind not in known:
        raise section.error(f"OpenCV's reader knows no [{kind}]; expected a network without one")
    return [f"{known[kind]}_{number}"], 0


class DetectionModel:
    """What ``cv2.dnn.DetectionModel`` is: boxes of images by a :class:`Net`, or by a .weights and a .cfg."""

    def __init__(self, model: Net | str | os.PathLike[str], config: str | os.PathLike[str] | None = None) -> None:
        if not isinstance(model, Net):
            if config is None:
                raise DataError("expected a Net, or the paths of a .weights and a .cfg")
            # cv2.dnn.readNet takes the two in any order.
            files = sorted((os.fspath(model), os.fspath(config)), key=lambda path: not path.endswith(".cfg"))
            model = readNetFromDarknet(*files)
        for layer in (model.network.layers[model.ends[name]] for name in model.getUnconnectedOutLayersNames()):
            if not (isinstance(layer, Head) and layer.finds_boxes):
                raise layer.section.error("an output that holds no boxes; expected a network that ends in its heads")
        self.net = model
        self.scale, self.size, self.mean = 1.0, (model.network.width, model.network.height), _scalar(0)
        self.swap, self.crop, self.across = False, False, False

    def setInputParams(
        self, scale: float = 1.0, size: tuple[int, int] | None = None, mean: float | Sequence[float] = (0, 0, 0),
        swapRB: bool = False, crop: bool = False,
    ) -> None:  # fmt: skip
        """How an image becomes a blob: the words of ``cv2.dnn.blobFromImage``."""
        self.scale, self.size, self.swap, self.crop = scale, size or self.size, swapRB, crop
        self.mean = _scalar(mean)

    def setNmsAcrossClasses(self, value: bool) -> DetectionModel:
        """Do boxes of different classes suppress each other?"""
        self.across = value
        return self

    def getNmsAcrossClasses(self) -> bool:
        return self.across

    def setPreferableBackend(self, backendId: int) -> DetectionModel:
        """As :meth:`Net.setPreferableBackend`."""
        return self

    def setPreferableTarget(self, targetId: int) -> DetectionModel:
        """As :meth:`Net.setPreferableBackend`."""
        return self

    def detect(
        self, frame: np.ndarray, confThreshold: float = 0.5, nmsThreshold: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Classes, int32 (K,), their probabilities, float32 (K,), and left, top, width, height in pixels, int32 (K, 4).

        Of each row its likeliest class. ``nmsThreshold`` 0: nothing is suppressed but what the network itself does.
        Raises :class:`ImageError` for what is no image, such as what ``cv2.imread`` gives of a file that is not there.
        """
        if not isinstance(frame, np.ndarray) or not frame.size:
            raise ImageError(f"{type(frame).__name__} is no image, or an empty one; expected an array (h, w, 3)")
        blob = cv2.dnn.blobFromImage(frame, self.scale, self.size, self.mean, self.swap, self.crop)
        self.net.setInput(blob)
        rows = np.concatenate(self.net.forward(self.net.getUnconnectedOutLayersNames()))
        classes = rows[:, 5:].argmax(1).astype(np.int32)
        shares = rows[:, 5:].max(1)
        kept = shares >= np.float32(confThreshold)
        rows, classes, shares = rows[kept], classes[kept], shares[kept]
        height, width = frame.shape[:2]
        pixels = (rows[:, :4] * np.array([width, height, width, height], np.float32)).astype(np.int64)
        # C's division of what may be negative goes toward 0; a size is never.
        first = np.clip(pixels[:, :2] - pixels[:, 2:] // 2, 0, [width - 1, height - 1])
        sizes = np.clip(pixels[:, 2:], 1, None)
        sizes = np.maximum(1, np.minimum(sizes, [width, height] - first))
        boxes = np.concatenate([first, sizes], 1).astype(np.int32)
        if nmsThreshold:
            order = list(self._suppress(boxes, shares, classes, confThreshold, nmsThreshold))
            boxes, shares, classes = boxes[order], shares[order], classes[order]
        return classes, shares, boxes

    def _suppress(
        self, boxes: np.ndarray, shares: np.ndarray, classes: np.ndarray, least: float, overlap: float
    ) -> Iterable[int]:
        groups = (
            [np.arange(len(classes))] if self.across else [np.flatnonzero(classes == one) for one in np.unique(classes)]
        )
        for group in groups:
            if len(group):
                picked = cv2.dnn.NMSBoxes(boxes[group].tolist(), shares[group].tolist(), least, overlap)
                yield from group[np.asarray(picked, int).reshape(-1)].tolist()
