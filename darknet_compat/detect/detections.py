"""From images to detections: run the network, decode its head, suppress, map back to the image.

Source: ``examples/detector.c, test_detector, validate_detector``; ``src/network.c, get_network_boxes``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..boxes import nms_sort, unletterbox
from ..defaults import HIER, TEST
from ..engines import Engine
from ..errors import ExportError
from ..images import load_image
from ..network import Network
from ..program import PJREDDIE
from .draw import draw_boxes


@dataclass(frozen=True)
class Detections:
    """The detections of one image, in the order in which Darknet holds them after NMS.

    ``boxes`` (M, 4) float32: centre x, y, width, height in pixels of the image, or ``relative`` to it.
    ``prob`` (M, classes) float32, 0 where under the threshold or suppressed. ``width``, ``height``: the image's.
    ``classes``: the names of all classes; () where nobody gave them, and the names are the numbers. ``pixels``: the
    image, uint8 RGB (h, w, 3), where it was kept; ``path`` is "" for one that came from no file. ``track_ids`` (M,): of
    a video, the number of each box's object, -1 where it has none (yet); None where nothing is tracked.

    A box may have several classes. What has one row for each class of each box, K rows, is a property.
    """

    path: str
    width: int
    height: int
    boxes: np.ndarray
    prob: np.ndarray
    relative: bool
    classes: Sequence[str] = ()
    pixels: np.ndarray | None = field(default=None, repr=False)
    track_ids: np.ndarray | None = None

    @functools.cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        rows, classes = np.nonzero(self.prob)
        return rows, classes

    @property
    def xyxy(self) -> np.ndarray:
        """Left, top, right, bottom, float32 (K, 4), in pixels of the image, neither clipped nor rounded."""
        corners: np.ndarray = self.corners()[self._rows[0]]
        return corners

    @property
    def xywh(self) -> np.ndarray:
        """Centre x, y, width and height, float32 (K, 4), in pixels of the image."""
        left_top, right_bottom = self.xyxy[:, :2], self.xyxy[:, 2:]
        found: np.ndarray = np.concatenate([(left_top + right_bottom) / 2, right_bottom - left_top], 1)
        return found

    @property
    def scores(self) -> np.ndarray:
        """The probability of the class, float32 (K,), 0..1."""
        scores: np.ndarray = self.prob[self._rows]
        return scores

    @property
    def class_ids(self) -> np.ndarray:
        """The class, int64 (K,)."""
        return self._rows[1]

    @property
    def names(self) -> list[str]:
        """The name of the class, K of them."""
        return [self.name(index) for index in self.class_ids.tolist()]

    def name(self, class_id: int) -> str:
        return self.classes[class_id] if self.classes else str(class_id)

    def track_id(self, row: int) -> int | None:
        """The number of a box's object, if it has one."""
        return None if self.track_ids is None or self.track_ids[row] < 0 else int(self.track_ids[row])

    def track(self, row: int) -> str:
        """What a line about a box begins with: "#3 " where it has a number, else nothing."""
        number = self.track_id(row)
        return "" if number is None else f"#{number} "

    def corners(self) -> np.ndarray:
        """Left, top, right, bottom (M, 4) in pixels, neither clipped nor rounded, but all finite.

        A size is e to the power of a value of the map, so that it may be infinite.
        """
        centre, half = self.boxes[:, :2], self.boxes[:, 2:] / np.float32(2)
        corners = np.concatenate([centre - half, centre + half], 1)
        with np.errstate(over="ignore"):
            corners = corners * np.array([self.width, self.height] * 2, np.float32) if self.relative else corners
        finite: np.ndarray = np.nan_to_num(corners)
        return finite

    @property
    def relative_boxes(self) -> np.ndarray:
        """``boxes`` as parts of the image."""
        whole = (1, 1) if self.relative else (self.width, self.height)
        boxes: np.ndarray = self.boxes / np.array([*whole, *whole], np.float32)
        return boxes

    def lines(self, program: str, ext_output: bool = False) -> list[str]:
        """What ``detector test`` prints: a line for each class of each box, with ``ext_output`` its box in pixels too.

        pjreddie's program goes by its boxes, and within one by the class (``draw_detections``). AlexeyAB's goes from
        left to right, and within a box the likeliest class comes first; a box that has none but classes named
        "dont_show" is left out (``draw_detections_v3``).
        """
        rows, classes = np.nonzero(self.prob)
        if program != PJREDDIE:
            names = map(self.name, range(self.prob.shape[1]))
            shown = np.where([name.startswith("dont_show") for name in names], 0, self.prob)
            left, first = self.boxes[:, 0] - self.boxes[:, 2] / 2, np.argmax(shown, 1)
            order = np.lexsort([classes, classes != first[rows], rows, left[rows]])
            order = order[(shown.max(1) > 0)[rows[order]]]
            rows, classes = rows[order], classes[order]
        found = zip(rows, classes, self.prob[rows, classes], strict=True)
        lines = [f"{self.track(int(row))}{self.name(int(index))}: {prob * 100:.0f}%" for row, index, prob in found]
        if not ext_output:
            return lines
        places = [
            f"(left_x: {left:4.0f}   top_y: {top:4.0f}   width: {width:4.0f}   height: {height:4.0f})"
            for left, top, width, height in self._rounded()[rows].tolist()
        ]
        return [f"{line}\t{place}" for line, place in zip(lines, places, strict=True)]

    def _rounded(self) -> np.ndarray:
        """Left, top, width, height (M, 4) in pixels, not clipped, rounded as C does: halves away from 0."""
        left_top = self.boxes[:, :2] - self.boxes[:, 2:] / np.float32(2)
        pixels = np.concatenate([left_top, self.boxes[:, 2:]], 1)
        if self.relative:
            with np.errstate(over="ignore"):
                pixels = pixels * np.array([self.width, self.height] * 2, np.float32)
        exact = pixels.astype(np.float64)
        rounded: np.ndarray = np.trunc(exact + np.copysign(0.5, exact))
        return rounded

    def as_json(self) -> dict[str, object]:
        """image, width, height and a list of {class_id, name, prob, box: [left, top, width, height] in pixels}, and
        track_id where the box has one."""
        corners = self.corners().astype(float)
        rows, classes = self._rows
        return {
            "image": self.path,
            "width": self.width,
            "height": self.height,
            "detections": [
                {
                    "class_id": int(index),
                    "name": self.name(int(index)),
                    "prob": round(float(self.prob[row, index]), 6),
                    "box": [round(value, 3) for value in (left, top, right - left, bottom - top)],
                    **({} if self.track_id(row) is None else {"track_id": self.track_id(row)}),
                }
                for row, index, (left, top, right, bottom) in zip(rows, classes, corners[rows], strict=True)
            ],
        }

    def draw(self, bgr: bool = True) -> np.ndarray:
        """The image with its boxes and labels, uint8 (h, w, 3), in OpenCV's order of colours, or, not ``bgr``, RGB.

        Raises ImageError where the image was not kept and its file cannot be read.
        """
        pixels = load_image(self.path) if self.pixels is None else self.pixels
        drawn = draw_boxes(pixels, self.corners(), self.prob, self.name, track=self.track)
        return drawn[..., ::-1].copy() if bgr else drawn

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, for those who have the package supervision."""
        try:
            import supervision
        except ModuleNotFoundError:
            raise ExportError("to_supervision needs the package supervision: pip install supervision") from None
        return supervision.Detections(
            self.xyxy, confidence=self.scores, class_id=self.class_ids, data={"class_name": np.array(self.names)},
            tracker_id=None if self.track_ids is None else self.track_ids[self._rows[0]],
        )  # fmt: skip


def detect(
    network: Network,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    paths: Sequence[str],
    *,
    thresh: float | None = None,
    nms: float | None = None,
    hier: float = HIER,
    letter_box: bool | None = None,
    relative: bool = True,
    class_map: Sequence[int] | None = None,
    mirrored: bool = False,
    by_objectness: bool = False,
    boxes_by_objectness: bool = False,
    engine: Engine | None = None,
    classes: Sequence[str] = (),
) -> list[Detections]:
    """Detections of a batch: ``images`` (N, channels, height, width) made from images of the N (width, height).

    ``get_network_boxes`` with ``relative``, then ``do_nms_sort``: only probabilities over ``thresh`` are left, and of a
    class no two boxes with an IOU over ``nms`` (0: all stay); None is what ``detector test`` of the network's program
    has. ``letter_box`` says whether the images were fitted into the input or stretched over it; None is the network's
    way. How boxes are suppressed its last head says. ``hier`` is how sure a tree must be to go deeper, ``class_map``
    the tree's classes to ask for. ``mirrored`` averages in the mirrored image's output, as ``valid2`` does.
    ``boxes_by_objectness`` suppresses boxes, with all their classes, by their objectness (``do_nms_obj``);
    ``by_objectness`` takes that as the only class too. ``engine`` runs the network, if not torch
    layer by layer (:func:`darknet_compat.engines.start_engine`). ``classes``: their names.
    """
    thresh = TEST[network.program].thresh if thresh is None else thresh
    nms = TEST[network.program].nms if nms is None else nms
    letter_box = network.letter_box if letter_box is None else letter_box
    forward = engine or network.predict
    with torch.inference_mode():
        outputs = forward(images)
        if mirrored:
            outputs = [
                head.average_mirrored(output, other) if head.finds_boxes else output
                for head, output, other in zip(network.detectors, outputs, forward(images.flip(3)), strict=True)
            ]
        boxes, objectness, prob = network.listed_boxes(outputs, thresh, hier, class_map)
        if by_objectness:
            prob = objectness[..., None]
        boxes = unletterbox(boxes, sizes, (network.width, network.height), relative=relative, letter_box=letter_box)
        if nms and boxes_by_objectness:
            kept, order = nms_sort(boxes, objectness, objectness[..., None], nms)
            prob = torch.where(kept > 0, prob, 0)
        elif nms:
            last = network.detector
            kind = ("default",) if by_objectness else (last.nms_kind, last.beta_nms)
            prob, order = nms_sort(boxes, objectness, prob, nms, *kind)
        else:
            order = torch.arange(boxes.shape[1], device=boxes.device).expand(len(boxes), -1)
        # Of all images at once: a GPU is waited for as often as for one.
        alive = prob.any(-1).gather(1, order)
        image, place = alive.nonzero().unbind(1)
        row = order[image, place]
        ends = alive.sum(1).cumsum(0).tolist()
        kept_boxes, kept_prob = boxes[image, row].cpu().numpy(), prob[image, row].cpu().numpy()
        return [
            Detections(path, width, height, kept_boxes[start:end], kept_prob[start:end], relative, classes)
            for path, (width, height), start, end in zip(paths, sizes, [0, *ends[:-1]], ends, strict=True)
        ]
