"""What the demos of both programs print of a frame.

Source: pjreddie's ``src/demo.c, detect_in_thread``; AlexeyAB's ``src/demo.c, demo`` and ``src/image_opencv.cpp,
draw_detections_cv_v3``; ``demo_classifier`` of both.
"""

from __future__ import annotations

import numpy as np

from ..classify.predictions import Prediction
from ..detect.detections import Detections
from ..program import PJREDDIE


def frame_lines(found: Detections, program: str, fps: float, average_fps: float, ext_output: bool, writes: bool) -> str:
    """``writes``: goes the frame into a video file?"""
    if program == PJREDDIE:
        lines = "".join(f"{line}\n" for line in found.lines(program))
        return f"\033[2J\033[1;1H\nFPS:{fps:.1f}\nObjects:\n\n{lines}"
    lines = "".join(_box_lines(found, ext_output))
    end = "\n cvWriteFrame \n" if writes else ""
    return f"\033[H\033[JObjects:\n\n{lines}\nFPS:{fps:.1f} \t AVG_FPS:{average_fps:.1f}\n{end}"


def _box_lines(found: Detections, ext_output: bool) -> list[str]:
    """One of each box that has a class, with all its classes."""
    shown = ~np.array([found.name(index).startswith("dont_show") for index in range(found.prob.shape[1])], bool)
    # There a coordinate that is none is the middle or half of the image, and none is over 1.
    boxes = np.where(np.isfinite(found.relative_boxes), found.relative_boxes, 0.5).astype(np.float64)
    boxes = np.minimum(boxes, 1)
    size = np.array([found.width, found.height])
    left_top = np.maximum(np.trunc((boxes[:, :2] - boxes[:, 2:] / 2) * size), 0)
    sides = boxes[:, 2:] * size
    lines = []
    for row, prob in enumerate(found.prob):
        classes = np.flatnonzero((prob > 0) & shown)
        if not len(classes):
            continue
        text = found.track(row) + ", ".join(f"{found.name(int(index))}: {prob[index] * 100:.0f}% " for index in classes)
        if ext_output:
            (left, top), (width, height) = left_top[row], sides[row]
            text += f"\t(left_x: {left:4.0f}   top_y: {top:4.0f}   width: {width:4.0f}   height: {height:4.0f})"
        lines.append(f"{text}\n")
    return lines


def class_lines(found: Prediction, top: int) -> list[str]:
    """The likeliest classes, as both programs print them."""
    return [
        f"{np.float32(found.prob[index]) * np.float32(100):.1f}%: {found.name_of(int(index))}"
        for index in found.top(top)
    ]


def classified_lines(found: Prediction, top: int, program: str, fps: float) -> str:
    """What both programs' ``classifier demo`` print of a frame; pjreddie's says where it writes each line, too."""
    lines = class_lines(found, top)
    if program == PJREDDIE:
        tall = int(found.height * 0.03)
        places = "".join(f"{(3 + 2 * index) * tall}\n{line}\n" for index, line in enumerate(lines))
        return f"\033[2J\033[1;1H\nFPS:{fps:.0f}\n{places}"
    head = f"\033[H\033[J\rFPS: {fps:.2f}  (use -benchmark command line flag for correct measurement)\n"
    return head + "".join(f"{line}\n" for line in lines) + "\n"
