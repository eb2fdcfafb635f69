"""How each verb makes the network's input of an image: they differ, verb by verb and program by program.

Source: ``examples/classifier.c`` of pjreddie's program, ``src/classifier.c`` of AlexeyAB's; ``src/image.c, resize_min,
resize_max, crop_image, center_crop_image``.
"""

from __future__ import annotations

import numpy as np

from ..images import FITTED, STRETCHED, Views, crop_resized, resize_image
from ..program import ALEXEYAB, PJREDDIE


def shorter_to(image: np.ndarray, side: int) -> tuple[int, int]:
    """Width and height of an image whose shorter side is made ``side`` long (``resize_min``)."""
    h, w = image.shape[:2]
    return (side, h * side // w) if w < h else (w * side // h, side)


def longer_to(image: np.ndarray, side: int) -> tuple[int, int]:
    """Width and height of an image whose longer side is made ``side`` long (``resize_max``)."""
    h, w = image.shape[:2]
    return (side, h * side // w) if w > h else (w * side // h, side)


def _centre_square(image: np.ndarray, slots: np.ndarray) -> None:
    h, w = image.shape[:2]
    side = min(w, h)
    left, top = (w - side) // 2, (h - side) // 2
    resize_image(image[top : top + side, left : left + side], slots[0])


def _shorter_side(image: np.ndarray, slots: np.ndarray) -> None:
    """The shorter side as wide as the network, and the middle of it; edges are repeated where it is too small."""
    height, width = slots.shape[2:]
    w, h = shorter_to(image, width)
    # Toward zero, as C divides.
    crop_resized(image, slots[0], w, h, int((w - width) / 2), int((h - height) / 2))


SHIFT = 32


def _ten_crops(image: np.ndarray, slots: np.ndarray) -> None:
    """Stretched to 32 more each way: five crops, and five of the mirrored image.

    Those at -32 mean to reach over the edge by that much (``validate_classifier_10``): edges are repeated.
    """
    height, width = slots.shape[2:]
    corners = (-SHIFT, -SHIFT), (SHIFT, -SHIFT), (0, 0), (-SHIFT, SHIFT), (SHIFT, SHIFT)
    for index, slot in enumerate(slots):
        left, top = corners[index % 5]
        crop_resized(image, slot, width + SHIFT, height + SHIFT, left, top, mirror=index >= 5)


CENTRE_SQUARE, SHORTER_SIDE, TEN_CROPS = Views(1, _centre_square), Views(1, _shorter_side), Views(10, _ten_crops)

VIEWS = {
    "predict": {PJREDDIE: FITTED, ALEXEYAB: SHORTER_SIDE},
    "label": {PJREDDIE: SHORTER_SIDE, ALEXEYAB: SHORTER_SIDE},
    "test": {PJREDDIE: STRETCHED, ALEXEYAB: STRETCHED},
    "demo": {PJREDDIE: FITTED, ALEXEYAB: STRETCHED},
    # AlexeyAB's program has neither of these two.
    "csv": {PJREDDIE: FITTED, ALEXEYAB: FITTED},
    "fout": {PJREDDIE: SHORTER_SIDE, ALEXEYAB: SHORTER_SIDE},
    "valid": {PJREDDIE: CENTRE_SQUARE, ALEXEYAB: SHORTER_SIDE},
    "valid10": {PJREDDIE: TEN_CROPS, ALEXEYAB: TEN_CROPS},
    "validcrop": {PJREDDIE: STRETCHED, ALEXEYAB: STRETCHED},
}

# Of validmulti: a side of the image, and how long the network sees it.
SCALES = {PJREDDIE: (224, 256, 288, 320), ALEXEYAB: (224, 288, 320, 352, 384)}
MULTI_SIZE = {PJREDDIE: longer_to, ALEXEYAB: shorter_to}

# try_classifier: ImageNet's mean and deviation of each colour, and what keeps a variance over 0 (src/blas.c).
TRY_SIDE, TRY_SIZE = 256, 224
MEAN = np.array([0.48263312050943, 0.45230225481413, 0.40099074308742], np.float32)
STD = np.array([0.22590347483426, 0.22120921437787, 0.22103996251583], np.float32)
_DEVIATION = {
    PJREDDIE: np.sqrt((STD * STD).astype(np.float64)) + np.float32(0.000001),
    ALEXEYAB: np.sqrt((STD * STD + np.float32(0.00001)).astype(np.float64)),
}


def normalised(image: np.ndarray, program: str) -> np.ndarray:
    """The input of ``try``, float32 (3, 224, 224): the shorter side to 256, the middle, mean 0, variance 1."""
    planes = np.empty((3, TRY_SIZE, TRY_SIZE), np.float32)
    w, h = shorter_to(image, TRY_SIDE)
    crop_resized(image, planes, w, h, (w - TRY_SIZE - 1) // 2 + 1, (h - TRY_SIZE - 1) // 2 + 1)
    deviation = _DEVIATION[program][:, None, None]
    shifted: np.ndarray = (planes - MEAN[:, None, None]) / deviation
    return shifted.astype(np.float32)


def resized(image: np.ndarray, w: int, h: int) -> np.ndarray:
    """An image as the planes of an input of its own size, float32 (3, h, w)."""
    planes = np.empty((3, h, w), np.float32)
    resize_image(image, planes)
    return planes
