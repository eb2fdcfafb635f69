"""Small objects in large images: the image in overlapping tiles, each through the network.

Neither C program has this. The method is that of slicing aided inference (Akyon, Altinuc and Temizel, 2022): tiles that
overlap by a fifth, and the whole image besides, for what is larger than a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..boxes import nms_sort
from ..network import Network
from .detections import Detections

OVERLAP = 0.2  # of a tile's side, with the next one
NEAR = 0.01  # of a tile's side: a box that comes so near to a cut is taken for a part of an object


class Tile(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(width: int, height: int, tiles: int) -> list[Tile]:
    """``tiles`` x ``tiles`` that cover an image and overlap, and the whole of it."""
    across, down = (_cuts(side, tiles) for side in (width, height))
    parts = [Tile(left, top, right, bottom) for top, bottom in down for left, right in across]
    return [*parts, Tile(0, 0, width, height)]


def _cuts(side: int, tiles: int) -> list[tuple[int, int]]:
    length = math.ceil(side / (tiles - (tiles - 1) * OVERLAP))
    starts = np.linspace(0, side - length, tiles).round().astype(int).tolist()
    return [(start, start + length) for start in starts]


def join(
    found: Sequence[Detections], tiles: Sequence[Tile], network: Network, nms: float, relative: bool
) -> Detections:
    """One list of what was found in each of the ``tiles`` of an image, the last of which is the whole.

    A box that ends at a cut is left out: the next tile has the object whole, or the image. Of the others those of one
    object are suppressed as the network's last head says, by an IOU over ``nms`` (0: all stay).
    """
    whole = tiles[-1]
    boxes, prob = [], []
    for one, tile in zip(found, tiles, strict=True):
        corners = one.corners() + np.array([tile.left, tile.top] * 2, np.float32)
        near = NEAR * np.array([tile.right - tile.left, tile.bottom - tile.top], np.float32)
        cut = np.zeros(len(corners), bool)
        for axis in (0, 1):
            if tile[axis] > whole[axis]:
                cut |= corners[:, axis] < tile[axis] + near[axis]
            if tile[2 + axis] < whole[2 + axis]:
                cut |= corners[:, 2 + axis] > tile[2 + axis] - near[axis]
        kept = corners[~cut]
        boxes.append(np.concatenate([(kept[:, :2] + kept[:, 2:]) / 2, kept[:, 2:] - kept[:, :2]], 1))
        prob.append(one.prob[~cut])
    all_boxes, all_prob = torch.from_numpy(np.concatenate(boxes))[None], torch.from_numpy(np.concatenate(prob))[None]
    order = torch.arange(all_boxes.shape[1])[None]
    if nms and all_boxes.shape[1]:
        last = network.detector
        all_prob, order = nms_sort(all_boxes, all_prob.amax(-1), all_prob, nms, last.nms_kind, last.beta_nms)
    rows = order[0][(all_prob[0, order[0]] > 0).any(1)]
    size = np.array([whole.right, whole.bottom] * 2, np.float32)
    kept_boxes = all_boxes[0, rows].numpy() / (size if relative else np.float32(1))
    last_one = found[-1]
    return Detections(
        last_one.path, whole.right, whole.bottom, kept_boxes, all_prob[0, rows].numpy(), relative, last_one.classes
    )
