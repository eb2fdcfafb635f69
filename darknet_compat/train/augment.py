"""Training images and truth: the random numbers of Darknet's load_data_detection, and what they do.

Drawing and applying are apart: ``draw`` takes the numbers for one image from a generator, ``augment_image`` and
``augment_truth`` are plain functions of them. Given C's random numbers, the outcome is Darknet's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..images import crop_image, place_image
from ..labels import SMALLEST

CLASS_ONLY = 999999.0  # src/data.c, correct_boxes: x, y, w, h of an object that has a class and no place (YOLO9000)


@dataclass(frozen=True)
class Augmentation:
    """What the cfg says on training images. The defaults are Darknet's; 0 for saturation or exposure means 1.

    ``flip`` and ``letter_box`` are AlexeyAB's names. With ``letter_box`` (Darknet) an image keeps near to its aspect
    and is placed on grey; without it a jittered rectangle of the image is stretched over the whole input.
    """

    jitter: float = 0.2
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    flip: bool = True
    letter_box: bool = True


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training image, in pixels of the network's input where not said otherwise."""

    width: np.float32
    """The width that the whole image takes."""
    height: np.float32
    dx: np.float32
    """The column at which the image's left side lands, before the flip; below 0 where it is cut off."""
    dy: np.float32
    crop: tuple[int, int, int, int] | None
    """left, top, width, height of the stretched rectangle in the image's pixels; None where it is placed whole."""
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


def draw(random: Random, image: tuple[int, int], size: tuple[int, int], objects: int, options: Augmentation) -> Draws:
    """Draw for an image of (width, height), an input of size (width, height) and so many objects in its label file.

    Distributions and order are those of ``src/data.c, load_data_detection``; without ``letter_box`` the rectangle is
    AlexeyAB's (his ``src/data.c``), cut to whole pixels.
    """
    where = _draw_place if options.letter_box else _draw_crop
    width, height, dx, dy, crop = where(random, image, size, options.jitter)
    hue = random.uniform(-options.hue, options.hue)
    saturation = _draw_scale(random, options.saturation or 1.0)
    exposure = _draw_scale(random, options.exposure or 1.0)
    flip = options.flip and random.randrange(2) == 1
    return Draws(width, height, dx, dy, crop, hue, saturation, exposure, flip, _draw_order(random, objects))


def _draw_place(
    random: Random, image: tuple[int, int], size: tuple[int, int], jitter: float
) -> tuple[np.float32, np.float32, np.float32, np.float32, None]:
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
    return width, height, dx, dy, None


def _draw_crop(
    random: Random, image: tuple[int, int], size: tuple[int, int], jitter: float
) -> tuple[np.float32, np.float32, np.float32, np.float32, tuple[int, int, int, int]]:
    (image_w, image_h), (w, h) = image, size
    jitter_w, jitter_h = int(image_w * jitter), int(image_h * jitter)
    left, right = (int(random.uniform(-jitter_w, jitter_w)) for _ in range(2))
    top, bottom = (int(random.uniform(-jitter_h, jitter_h)) for _ in range(2))
    crop_w, crop_h = image_w - left - right, image_h - top - bottom
    if crop_w <= 0 or crop_h <= 0 or left >= image_w or top >= image_h:  # a jitter near 1
        left, top, crop_w, crop_h = 0, 0, image_w, image_h
    across, down = np.float32(w / crop_w), np.float32(h / crop_h)
    return image_w * across, image_h * down, -left * across, -top * down, (left, top, crop_w, crop_h)


def _draw_scale(random: Random, most: float) -> float:
    scale = random.uniform(*sorted((1.0, most)))
    return scale if random.randrange(2) else 1 / scale


def _draw_order(random: Random, objects: int) -> np.ndarray:
    # src/data.c, randomize_boxes: not quite a uniform shuffle, but the one that Darknet makes.
    order = list(range(objects))
    for i in range(objects):
        j = random.randrange(objects)
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)


def augment_image(image: np.ndarray, draws: Draws, slot: np.ndarray) -> None:
    """Write the augmented uint8 image (h, w, 3) into ``slot``, float32 planes (3, H, W)."""
    colours = draws.hue, draws.saturation, draws.exposure, draws.flip
    if draws.crop:
        crop_image(image, slot, *draws.crop, *colours)
    else:
        place_image(image, slot, draws.width, draws.height, draws.dx, draws.dy, *colours)


def augment_truth(labels: np.ndarray, draws: Draws, size: tuple[int, int], most: int) -> np.ndarray:
    """Labels (objects, 5) of class, x, y, w, h -> truth, float32 (most, 5) of x, y, w, h, class; zeros end the list.

    The boxes move with the image, are shuffled, clipped to the input, and dropped where they come out below .001 in
    width or height; of the shuffled list only the first ``most`` are looked at (`src/data.c, correct_boxes` and
    `fill_truth_detection`). An object at x = y = 0 has a class but no place: its x, y, w, h are 999999.
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
    boxes = boxes[boxes[:, 2:4].min(1) >= SMALLEST]
    truth[: len(boxes)] = boxes
    return truth
