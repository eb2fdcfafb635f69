"""Training images and truth of classifiers: the random numbers of Darknet's load_data_augment, and what they do.

As in ``augment.py``, drawing and applying are apart; given C's random numbers, the outcome is Darknet's own.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Literal, NamedTuple

import numpy as np

from ..errors import TrainingError
from ..images import Rotation, rotate_crop_image, stretch_image
from ..layers.base import ALEXEYAB, PJREDDIE
from ..tree import SECRET_NUM, Tree
from .augment import Random, draw_scale

TWO_PI = np.float32(2 * math.pi)  # his constant is a float

Mixing = Literal["", "mixup", "cutmix", "mosaic", "cutmix or mosaic"]
"""What AlexeyAB's program makes of one image and others, for half of the training images: their mean, one with a
rectangle of another, or four around a point."""
MIXINGS: tuple[Mixing, ...] = "", "mixup", "cutmix", "mosaic", "cutmix or mosaic"  # in the order of his numbers


class CropAugmentation(NamedTuple):
    """What [net] says on training images of classifiers. The defaults are Darknet's."""

    min_ratio: float = 1.0
    """The shorter side of the image, before a square is cut out of it, is drawn between these parts of the input's."""
    max_ratio: float = 2.0
    angle: float = 0.0
    """Degrees."""
    aspect: float = 1.0
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    flip: bool = True
    center: bool = False
    """The image's middle square instead, stretched to the input: `classifier train` never hands it over."""
    mixing: Mixing = ""
    program: str = PJREDDIE

    @property
    def most_mixed(self) -> int:
        """How many images go into one at most."""
        return 4 if "mosaic" in self.mixing else 2 if self.mixing else 1

    def sides(self, size: int) -> tuple[int, int]:
        """min and max for an input of ``size``; pjreddie's 256 of 227 comes out as 255, for his ratios are floats."""
        if self.program == PJREDDIE:
            least, most = (int(np.float32(ratio) * np.float32(size)) for ratio in (self.min_ratio, self.max_ratio))
        else:
            least, most = round(self.min_ratio * size), round(self.max_ratio * size)
        return least, most


def crop_augmentation(net: SimpleNamespace, program: str) -> CropAugmentation:
    """What ``classifier train`` reads of [net]. Raises TrainingError for sides or an aspect that are not above 0."""
    least = net.width if net.min_crop is None else net.min_crop
    most = 2 * net.width if net.max_crop is None else net.max_crop
    ratios = least / net.width, most / net.width
    if program == PJREDDIE:
        given = net.min_ratio, net.max_ratio
        ratios = tuple(own if ratio is None else ratio for own, ratio in zip(ratios, given, strict=True))
    colours = net.hue, net.saturation, net.exposure
    mixing = read_mixing(net) if program == ALEXEYAB else ""
    options = CropAugmentation(*ratios, net.angle, net.aspect, *colours, bool(net.flip), mixing=mixing, program=program)
    if min(options.sides(net.width)) < 1:
        raise TrainingError(
            f"[net]: min_crop and max_crop make sides of {options.sides(net.width)}; expected 1 pixel or more"
        )
    for name in ("aspect", "saturation", "exposure"):
        if not getattr(net, name) > 0:
            raise TrainingError(f"[net]: {name} is {getattr(net, name)}; expected more than 0")
    return options


def read_mixing(net: SimpleNamespace) -> Mixing:
    """``src/parser.c``, parse_net_options: of cutmix and mosaic each goes before mixup, both are "either"."""
    number = 2 * bool(net.cutmix) + 3 * bool(net.mosaic)
    if number:
        return MIXINGS[min(number, 4)]
    if not 0 <= net.mixup < len(MIXINGS):
        raise TrainingError(f"[net]: mixup is {net.mixup}; expected 0, or 1 for the mean of two images")
    return MIXINGS[int(net.mixup)]


class CropDraws(NamedTuple):
    """The random numbers of one training image."""

    rotation: Rotation | None
    """None: the middle square."""
    hue: float
    """Turns to add to the hue."""
    saturation: float
    exposure: float
    flip: bool


def draw_crop(random: Random, image: tuple[int, int], size: int, options: CropAugmentation) -> CropDraws:
    """Draw for an image of (width, height) and an input of ``size`` x ``size``.

    Distributions and order are those of ``src/data.c``, load_image_augment_paths, and ``src/image.c``,
    random_augment_args; where the program is AlexeyAB's, an image smaller than the square stays in its middle.
    """
    rotation = None if options.center else _draw_rotation(random, image, size, options)
    flip = options.flip and random.randrange(2) == 1
    hue = random.uniform(-options.hue, options.hue)
    saturation = draw_scale(random, options.saturation)
    exposure = draw_scale(random, options.exposure)
    return CropDraws(rotation, hue, saturation, exposure, flip)


def _draw_rotation(random: Random, image: tuple[int, int], size: int, options: CropAugmentation) -> Rotation:
    float32 = np.float32  # as in C: the pixels' places hang on these roundings
    width, height = map(float32, image)
    aspect = float32(draw_scale(random, options.aspect))
    least, most = sorted(options.sides(size))
    shorter = float32(least + random.randrange(most - least + 1))
    # Darknet divides by 0 where the image is a pixel wide and its aspect under 1.
    scale = shorter / float32(max(int(min(height, width * aspect)), 1))
    degrees = float32(random.uniform(-options.angle, options.angle))
    turned = degrees * TWO_PI if options.program == PJREDDIE else float(degrees) * 2 * math.pi
    angle = float32(float(turned) / 360)
    dx = (width * scale / aspect - float32(size)) * float32(0.5)
    dy = (height * scale - float32(size)) * float32(0.5)
    if options.program != PJREDDIE:
        dx, dy = max(dx, float32(0)), max(dy, float32(0))
    dx, dy = (float32(random.uniform(*sorted((-room, room)))) for room in (dx, dy))
    return Rotation(size, angle, scale, dx, dy, aspect)


class Patch(NamedTuple):
    """Where one of several images that are mixed is seen."""

    left: int
    top: int
    right: int
    bottom: int
    opacity: float
    """1 covers what is there; .5 makes the mean with it."""
    share: np.float32
    """Of the image's own truth in the whole's."""


def whole(size: int, share: float | np.float32 = 1.0, opacity: float = 1.0) -> Patch:
    """All of an input of ``size`` x ``size``."""
    return Patch(0, 0, size, size, opacity, np.float32(share))


def draw_mix(random: Random, size: int, mixing: Mixing) -> tuple[Patch, ...]:
    """Draw how images are mixed in an input of ``size`` x ``size``: a patch for each, the first of which is the ground.

    Distributions and order are those of AlexeyAB's ``src/data.c``, load_data_augment, behind its drawing of images.
    """
    if mixing == "cutmix or mosaic":
        mixing = ("cutmix", "mosaic")[random.randrange(2)]
    if mixing == "mixup":
        return whole(size, 0.5), whole(size, 0.5, 0.5)
    if mixing == "cutmix":
        w, h = (_draw_part(random, size, 0.3, 0.8) for _ in range(2))
        left, top = random.randrange(size - w), random.randrange(size - h)
        share = np.float32(w * h) / np.float32(size * size)
        return whole(size, 1 - share), Patch(left, top, left + w, top + h, 1.0, share)
    x, y = (_draw_part(random, size, 0.2, 0.8) for _ in range(2))
    corners = ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))
    shares = [
        np.float32((right - left) * (bottom - top)) / np.float32(size * size) for left, top, right, bottom in corners
    ]
    others = (Patch(*corner, 1.0, share) for corner, share in zip(corners[1:], shares[1:], strict=True))
    return whole(size, shares[0]), *others


def _draw_part(random: Random, size: int, least: float, most: float) -> int:
    low, high = (int(np.float32(size) * np.float32(part)) for part in (least, most))
    return low + random.randrange(high - low + 1)


def mix_in(slot: np.ndarray, other: np.ndarray, patch: Patch) -> None:
    """Lay a patch of the planes ``other`` over those in ``slot``, both float32 (3, size, size)."""
    where = np.s_[:, patch.top : patch.bottom, patch.left : patch.right]
    slot[where] *= 1 - patch.opacity
    slot[where] += patch.opacity * other[where]


def augment_crop(image: np.ndarray, draws: CropDraws, slot: np.ndarray) -> None:
    """Write the augmented uint8 image (h, w, 3) into ``slot``, float32 planes (3, size, size)."""
    colours = draws.hue, draws.saturation, draws.exposure, draws.flip
    if draws.rotation:
        rotate_crop_image(image, slot, draws.rotation, *colours)
    else:  # src/image.c, center_crop_image
        height, width = image.shape[:2]
        side = min(width, height)
        stretch_image(image, slot, (width - side) // 2, (height - side) // 2, side, side, *colours)


def fill_classes(truth: np.ndarray, classes: np.ndarray, smooth: float = 0.0) -> None:
    """Write the truth of an image that shows ``classes`` into ``truth``, float32 (all classes,).

    1 for each of them, else 0; with ``smooth`` 1 - smooth, and smooth / (all - 1) for the others (``src/data.c``,
    fill_truth; AlexeyAB's fill_truth_smooth).
    """
    truth[:] = smooth / max(len(truth) - 1, 1)
    truth[classes] = 1 - smooth


def fill_hierarchy(truth: np.ndarray, tree: Tree) -> None:
    """Add all that is above the classes in ``truth``, and hide each group of which nothing is known.

    Ancestors get 1; a group of zeros gets SECRET_NUM throughout (``src/data.c``, fill_hierarchy).
    """
    shown = np.flatnonzero(truth)
    while shown.size:
        shown = np.unique(tree.parent[shown])
        shown = shown[shown >= 0]
        truth[shown] = 1
    known = np.zeros(tree.groups, bool)
    known[tree.group[truth != 0]] = True
    truth[~known[tree.group]] = SECRET_NUM
