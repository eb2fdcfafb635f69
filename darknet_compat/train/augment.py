"""Training images and truth: the random numbers of Darknet's loaders, and what they do.

Drawing and applying are apart: ``draw`` takes the numbers for one image from a generator, ``augment_image`` and
``augment_truth`` are plain functions of them. Given C's random numbers, the outcome is Darknet's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ..images import Placement, place_image, placement, stretch_image, stretching
from ..labels import SMALLEST

CLASS_ONLY = 999999.0  # src/data.c, correct_boxes: x, y, w, h of an object that has a class and no place (YOLO9000)

Fit = Literal["place", "stretch"]
"""How an image gets into the network's input, by the functions of ``images.py``: whole and near to its aspect, on grey
(load_data_detection); a jittered rectangle of it over the whole input, its edge pixels repeated around it
(load_data_region, YOLOv1's). AlexeyAB's load_data_detection is in ``alexeyab_augment.py``."""
# A box narrower or lower than this part of the input is dropped (src/data.c, fill_truth_detection, fill_truth_region).
LEAST: dict[Fit, float] = {"place": SMALLEST, "stretch": 0.005}


@dataclass(frozen=True)
class Augmentation:
    """What the cfg says on training images. The defaults are Darknet's; 0 for saturation or exposure means 1.

    ``flip`` is AlexeyAB's name.
    """

    jitter: float = 0.2
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    flip: bool = True
    fit: Fit = "place"


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training image, in pixels of the network's input where not said otherwise."""

    fit: Fit
    crop: tuple[int, int, int, int]
    """left, top, width, height of the part that is shown, in the image's pixels; placed, it is the whole image."""
    width: np.float32
    """The width that the whole image takes."""
    height: np.float32
    dx: np.float32
    """The column at which the image's left side lands, before the flip; below 0 where it is cut off."""
    dy: np.float32
    hue: float
    """Turns to add to the hue."""
    saturation: float
    exposure: float
    flip: bool
    order: np.ndarray
    """Indices of the label file's objects, shuffled."""


class Random(Protocol):
    """What is asked of ``random.Random``, which is faster than numpy's generators at one number at a time."""

    # Of two np.float32, too, in their arithmetic; typeshed knows of floats alone.
    def uniform(self, a: Any, b: Any, /) -> float: ...

    def randrange(self, stop: int, /) -> int: ...

    # Many at once, in a tenth of the time.
    def choices(self, population: Sequence[int], *, k: int) -> list[int]: ...


def draw(random: Random, image: tuple[int, int], size: tuple[int, int], objects: int, options: Augmentation) -> Draws:
    """Draw for an image of (width, height), an input of size (width, height) and so many objects in its label file.

    Distributions and order are those of ``src/data.c``, load_data_detection and load_data_region.
    """
    where = _draw_place if options.fit == "place" else _draw_crop
    place = where(random, image, size, options.jitter)
    early = options.fit == "stretch"  # load_data_region draws the flip before the colours
    flip = early and _draw_flip(random, options)
    hue = random.uniform(-options.hue, options.hue)
    saturation = draw_scale(random, options.saturation or 1.0)
    exposure = draw_scale(random, options.exposure or 1.0)
    flip = flip if early else _draw_flip(random, options)
    return Draws(options.fit, *place, hue, saturation, exposure, flip, draw_order(random, objects))


Place = tuple[tuple[int, int, int, int], np.float32, np.float32, np.float32, np.float32]


def _draw_place(random: Random, image: tuple[int, int], size: tuple[int, int], jitter: float) -> Place:
    float32 = np.float32  # as in C: where the image lands hangs on these roundings
    (image_w, image_h), (w, h) = image, size
    jitter_w, jitter_h = float32(jitter) * float32(image_w), float32(jitter) * float32(image_h)
    across = float32(image_w) + float32(random.uniform(-jitter_w, jitter_w))
    down = float32(image_h) + float32(random.uniform(-jitter_h, jitter_h))
    aspect = across / down
    if aspect < 1:
        height = float32(h)
        width = height * aspect
    else:
        width = float32(w)
        height = width / aspect
    dx = float32(random.uniform(*sorted((float32(0), float32(w) - width))))
    dy = float32(random.uniform(*sorted((float32(0), float32(h) - height))))
    return (0, 0, *image), width, height, dx, dy


def _draw_crop(random: Random, image: tuple[int, int], size: tuple[int, int], jitter: float) -> Place:
    (image_w, image_h), (w, h) = image, size
    jitter_w, jitter_h = (int(np.float32(side) * np.float32(jitter)) for side in image)
    left, right = (int(random.uniform(-jitter_w, jitter_w)) for _ in range(2))
    top, bottom = (int(random.uniform(-jitter_h, jitter_h)) for _ in range(2))
    crop_w, crop_h = image_w - left - right, image_h - top - bottom
    if crop_w <= 0 or crop_h <= 0 or left >= image_w or top >= image_h:  # a jitter near 1
        left, top, crop_w, crop_h = 0, 0, image_w, image_h
    across, down = np.float32(w / crop_w), np.float32(h / crop_h)
    return (left, top, crop_w, crop_h), image_w * across, image_h * down, -left * across, -top * down


def _draw_flip(random: Random, options: Augmentation) -> bool:
    return options.flip and random.randrange(2) == 1


def draw_scale(random: Random, most: float) -> float:
    """Uniform between 1 and ``most``, or one over it (``src/utils.c``, rand_scale)."""
    scale = random.uniform(*sorted((1.0, most)))
    return scale if random.randrange(2) else 1 / scale


def draw_order(random: Random, objects: int) -> np.ndarray:
    # src/data.c, randomize_boxes: not quite a uniform shuffle, but the one that Darknet makes.
    order = list(range(objects))
    for i, j in enumerate(random.choices(range(objects), k=objects)):
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)


def augment_image(image: np.ndarray, draws: Draws, slot: np.ndarray) -> None:
    """Write the augmented uint8 image (h, w, 3) into ``slot``, float32 planes (3, H, W)."""
    colours = draws.hue, draws.saturation, draws.exposure, draws.flip
    if draws.fit == "place":
        place_image(image, slot, draws.width, draws.height, draws.dx, draws.dy, *colours)
    else:
        stretch_image(image, slot, *draws.crop, *colours)


def sources(image: tuple[int, int], draws: Draws, size: tuple[int, int]) -> Placement:
    """Which pixels of an image of (width, height) are mixed in each of the input's."""
    if draws.fit == "place":
        return placement(image, size, draws.width, draws.height, draws.dx, draws.dy, draws.flip)
    return stretching(image, size, *draws.crop, draws.flip)


def augment_truth(labels: np.ndarray, draws: Draws, size: tuple[int, int], most: int) -> np.ndarray:
    """Labels (objects, 5) of class, x, y, w, h -> truth, float32 (most, 5) of x, y, w, h, class; zeros end the list.

    The boxes move with the image, are shuffled, clipped to the input, and dropped where they come out below LEAST in
    width or height; of the shuffled list only the first ``most`` are looked at (`src/data.c`, correct_boxes,
    fill_truth_detection and fill_truth_region). An object at x = y = 0 has a class but no place: its x, y, w, h are
    999999.
    """
    truth = np.zeros((most, 5), np.float32)
    objects = labels[draws.order[:most]].astype(np.float32, copy=False)
    centres, halves = objects[:, 1:3], objects[:, 3:] / 2
    across, down = draws.width / size[0], draws.height / size[1]
    corners = np.concatenate([centres - halves, centres + halves], 1)  # left, top, right, bottom
    corners *= np.array([across, down, across, down], np.float32)
    corners += np.array([draws.dx / size[0], draws.dy / size[1]] * 2, np.float32)
    if draws.flip:
        corners[:, [0, 2]] = 1 - corners[:, [2, 0]]
    np.clip(corners, 0, 1, out=corners)
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2], objects[:, :1]], 1)
    boxes[(centres == 0).all(1), :4] = CLASS_ONLY
    # In C floats are compared with the double.
    boxes = boxes[boxes[:, 2:4].min(1).astype(np.float64) >= LEAST[draws.fit]]
    truth[: len(boxes)] = boxes
    return truth
