"""The likeliest classes written on an image.

Source: pjreddie's ``examples/classifier.c, demo_classifier``; ``src/image.c, draw_label``. OpenCV draws the
letters, as it does for boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..detect.draw import draw_text

LINE = 0.03  # of the image's height: half of a line, and the distance from the left edge


def draw_lines(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """A copy of ``image``, uint8 (h, w, 3), with lines of black on white from its left upper corner down."""
    drawn: np.ndarray = image.copy(order="C")
    half = LINE * drawn.shape[0]
    y = int(half)
    for line in lines:
        y += max(draw_text(drawn, line, int(half), y, (255, 255, 255)), int(2 * half))
    return drawn
