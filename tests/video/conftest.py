"""Made videos, and a detector that finds something in them."""

from __future__ import annotations

import cv2
import pytest

from darknet_compat.detect.detector import load_detector
from tests.conftest import ROOT, SHAPES


def write_video(path, frames, fps=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, frames[0].shape[1::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def read_video(path):
    """All frames of a file, and how many there are a second."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


@pytest.fixture(scope="session")
def shapes_video(tmp_path_factory):
    """14 frames of 128 x 96: crops that wander over the sample image, with a jump in the middle."""
    image = cv2.imread(str(ROOT / "data/shapes-sample.jpg"))
    image = cv2.resize(image, (224, 192))
    frames = [image[k * 3 : k * 3 + 96, (k + 40 * (k > 7)) : (k + 40 * (k > 7)) + 128] for k in range(14)]
    return write_video(tmp_path_factory.mktemp("videos") / "shapes.avi", frames)


@pytest.fixture
def shapes_detector(tmp_path):
    """The repository's own network, whose program is pjreddie's."""
    (tmp_path / "shapes.data").write_text(f"classes=6\nnames={ROOT}/data/shapes.names\n")
    return load_detector(tmp_path / "shapes.data", *SHAPES, device="cpu", numerics="cpu", batch=2)
