"""Lines of a frame where its boxes are odd; of usual ones ``test_run.py`` compares them with both programs'."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_compat.detect import Detections
from darknet_compat.video.lines import frame_lines


def boxes_of(lines):
    """The lines between the head and the frames a second."""
    head, _, rest = lines.partition("Objects:\n\n")
    assert head == "\033[H\033[J"
    return rest.partition("\nFPS:")[0]


def found(*rows):
    """Of boxes, relative to an image of 200 x 100, and probabilities of three classes."""
    boxes, prob = np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows], np.float32)
    return Detections("", 200, 100, boxes.reshape(-1, 4), prob.reshape(-1, 3), True, ["a", "dont_show", "b"])


@pytest.mark.parametrize(
    ("box", "numbers"),
    [
        ((0.5, 0.5, 0.5, 0.5), (50, 25, 100, 50)),
        ((0.5085, 0.5, 0.5, 0.5), (51, 25, 100, 50)),  # 51.7, without its fraction
        ((0.1, 0.1, 0.5, 0.5), (0, 0, 100, 50)),
        ((1.5, 0.75, 3.0, 0.25), (100, 62, 200, 25)),  # each number at most 1
        ((float("nan"), float("inf"), float("nan"), 0.5), (50, 25, 100, 50)),  # .5 for what is none
    ],
)
def test_boxes_are_printed_as_they_are_drawn(box, numbers):
    """draw_detections_cv_v3."""
    left, top, width, height = numbers
    one = found((box, (0.25, 0, 0.757)))
    assert boxes_of(frame_lines(one, "alexeyab", 9, 8, True, False)) == (
        f"a: 25% , b: 76% \t(left_x: {left:4d}   top_y: {top:4d}   width: {width:4d}   height: {height:4d})\n"
    )
    assert boxes_of(frame_lines(one, "alexeyab", 9, 8, False, False)) == "a: 25% , b: 76% \n"


def test_a_class_that_is_not_to_be_shown_and_a_box_of_none_are_no_lines():
    several = found(((0.5,) * 4, (0, 0.9, 0)), ((0.5,) * 4, (0, 0, 0)), ((0.5,) * 4, (0.5, 0.9, 0)))
    assert boxes_of(frame_lines(several, "alexeyab", 9, 8, False, False)) == "a: 50% \n"
    assert boxes_of(frame_lines(found(), "alexeyab", 9, 8, True, False)) == ""


def test_frames_a_second():
    one = found()
    assert frame_lines(one, "pjreddie", 12.345, 8, False, True) == "\033[2J\033[1;1H\nFPS:12.3\nObjects:\n\n"
    for writes, end in ((False, ""), (True, "\n cvWriteFrame \n")):
        assert frame_lines(one, "alexeyab", 12.345, 8.02, False, writes) == (
            f"\033[H\033[JObjects:\n\n\nFPS:12.3 \t AVG_FPS:8.0\n{end}"
        )
