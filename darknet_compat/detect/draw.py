"""Drawing detections on an image, in the manner of Darknet's predictions.

Source: ``src/image.c, draw_detections, get_color``. Darknet's letters are images of a fixed size; here OpenCV draws
them, so that labels can be read on any image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# src/image.c, colors: red, green, blue of six hues; classes are spread over them.
HUES = np.array([(1, 0, 1), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 1, 0), (1, 0, 0)], np.float32)

FAR = 2**24  # pixels: beyond the side of any image


def class_colour(class_id: int, classes: int) -> tuple[int, int, int]:
    """Red, green, blue (0..255) of a class, as ``get_color`` with ``class * 123457 % classes``."""
    ratio = class_id * 123457 % classes / classes * 5
    low = int(ratio)
    mixed = HUES[low] * (low + 1 - ratio) + HUES[min(low + 1, 5)] * (ratio - low)
    # draw_detections asks get_color for channel 2 as red and for channel 0 as blue.
    blue, green, red = (round(float(value) * 255) for value in mixed)
    return red, green, blue


def draw_boxes(
    image: np.ndarray,
    corners: np.ndarray,
    prob: np.ndarray,
    name: Callable[[int], str],
    bgr: bool = False,
    track: Callable[[int], str] = lambda row: "",
) -> np.ndarray:
    """A copy of ``image`` (h, w, 3) uint8 RGB, or ``bgr``, with a box and a label for each box that has a class.

    ``corners`` (M, 4) are left, top, right, bottom in pixels, ``prob`` (M, classes) is 0 where a box has not the class,
    and ``name`` gives that of a class. A box of several classes gets the colour of the first, and all their names, as
    Darknet does. ``track`` gives what the label of a box begins with.
    """
    import cv2

    drawn: np.ndarray = image.copy(order="C")
    height, width = drawn.shape[:2]
    line = max(int(height * 0.006), 1)
    labels = []
    # OpenCV takes C's integers.
    for row, (box, shares) in enumerate(zip(corners.clip(-FAR, FAR), prob, strict=True)):
        classes = np.flatnonzero(shares)
        if not len(classes):
            continue
        colour = class_colour(int(classes[0]), prob.shape[1])
        if bgr:
            colour = colour[2], colour[1], colour[0]
        left, top, right, bottom = (int(value) for value in box)
        left, right = max(left, 0), min(right, width - 1)
        top, bottom = max(top, 0), min(bottom, height - 1)
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)
        text = ", ".join(f"{name(int(index))} {shares[index] * 100:.0f}%" for index in classes)
        labels.append((track(row) + text, left, top, colour))
    # Labels come after all boxes, so that no box line runs through a word.
    for text, left, top, colour in labels:
        draw_text(drawn, text, left, top, colour, bgr, above=True)
    return drawn


def draw_text(
    drawn: np.ndarray, text: str, left: int, top: int, colour: tuple[int, int, int], bgr: bool = False,
    above: bool = False,
) -> int:  # fmt: skip
    """Write a line of text on an image, on a ground of ``colour``, and say how tall it is in pixels.

    It begins at ``left``, ``top``, or, where there is room, ends ``above`` that; it stays within the image where it
    can.
    """
    import cv2

    height, width = drawn.shape[:2]
    scale = max(min(height, width) / 900, 0.35)
    thickness = max(round(scale * 1.6), 1)
    text = text.encode("ascii", "replace").decode()
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(text_height // 4, 2)
    tall = text_height + below + 2 * pad
    x = max(min(left, width - text_width - 2 * pad), 0)
    y = top - tall if above and top >= tall else min(top, max(height - tall, 0))
    cv2.rectangle(drawn, (x, y), (x + text_width + 2 * pad, y + tall), colour, cv2.FILLED)
    red, green, blue = colour[::-1] if bgr else colour
    ink = (0, 0, 0) if red * 2 + green * 5 + blue > 4 * 255 else (255, 255, 255)
    origin = (x + pad, y + pad + text_height)
    cv2.putText(drawn, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)
    return tall
