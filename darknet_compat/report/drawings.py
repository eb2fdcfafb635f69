"""What a report draws of images, their truth and the boxes of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..anchors import draw as draw_sizes
from ..anchors import iou
from ..check import Part
from ..detect import Detections
from ..detect.draw import class_colour
from ..evaluate.annotations import Truths
from ..images import load_image, save_image
from ..network import Network

SIDE, GAP, ACROSS, DOWN = 256, 6, 4, 3  # of the sheet of samples: pixels, and images
LARGEST = 640  # pixels of a side of an image on the page


def spread(number: int, most: int) -> list[int]:
    """Indices of ``most`` of so many things at the most, from all over them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int)).tolist() if number else []


def draw_samples(part: Part, classes: int, path: Path) -> None:
    """Some images of a list with the objects of their label files, on one sheet (PNG).

    Boxes have the colours of their classes, of which there are so many, and no labels, which would hide what is small.
    """
    import cv2

    rows: list[list[np.ndarray]] = [[]]
    for index in spread(len(part.images), ACROSS * DOWN):
        pixels = load_image(part.images[index])
        factor = SIDE / max(pixels.shape[:2])
        width, height = (max(1, round(side * factor)) for side in pixels.shape[1::-1])
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
        tile = np.ascontiguousarray(cv2.resize(pixels, (width, height), interpolation=kind))
        for number, x, y, w, h in part.labels[index].tolist():
            ends = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            left, top, right, bottom = (round(end) for end in ends)
            cv2.rectangle(tile, (left, top), (right, bottom), class_colour(int(number), classes), 2)
        if len(rows[-1]) == ACROSS:
            rows.append([])
        rows[-1].append(tile)
    tall = [max((tile.shape[0] for tile in row), default=0) + GAP for row in rows]
    sheet = np.full((sum(tall) + GAP, ACROSS * (SIDE + GAP) + GAP, 3), 255, np.uint8)
    for row, top in zip(rows, np.cumsum([GAP, *tall[:-1]]).tolist(), strict=True):
        for column, tile in enumerate(row):
            left = GAP + column * (SIDE + GAP)
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    save_image(sheet, path)


def draw_anchors(part: Part, network: Network, path: Path) -> bool:
    """The boxes by width and height, with the anchors of all heads; False where there are none of one kind."""
    found = [head.relative_anchors for head in network.detectors]
    given = [anchors.numpy() for anchors in found if anchors is not None]
    boxes = part.sizes[(part.sizes > 0).all(1)]
    if not given or not len(boxes):
        return False
    anchors = np.unique(np.concatenate(given), axis=0) * (network.net.width, network.net.height)
    draw_sizes(path, boxes, anchors, float(iou(boxes, anchors).max(1).mean()))
    return True


def draw_small(found: Detections, path: Path) -> None:
    """An image with its boxes, no larger than a page shows it (JPEG)."""
    import cv2

    pixels = load_image(found.path) if found.pixels is None else found.pixels
    factor = min(1.0, LARGEST / max(pixels.shape[:2]))
    width, height = (max(1, round(side * factor)) for side in pixels.shape[1::-1])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA) if factor < 1 else pixels
    shown = Detections(found.path, width, height, found.relative_boxes, found.prob, True, found.classes, small)
    save_image(shown.draw(bgr=False), path)


def truth_of(truths: Truths, image: int, path: str) -> Detections:
    """The objects of an image, whose file is ``path``, as if they had been found with a probability of 1."""
    mine = truths.image == image
    corners = truths.box[mine] - (1, 1, 0, 0)  # VOC's first pixel is 1, and its last one lies inside
    boxes = np.column_stack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
    prob = np.zeros((len(boxes), len(truths.names)), np.float32)
    prob[np.arange(len(boxes)), truths.class_id[mine]] = 1
    pixels = load_image(path)
    height, width = pixels.shape[:2]
    return Detections(path, width, height, boxes.astype(np.float32), prob, False, truths.names, pixels)
