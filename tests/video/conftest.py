"""Made videos, and a detector that finds something in them."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import cv2
import numpy as np
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


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Capture:
    """Stands for OpenCV's: so many frames, and what was asked of it."""

    def __init__(self, frames=3, said=()):
        self.frames, self.said = frames, dict(said)
        self.number, self.opened, self.asked, self.released = 0, None, {}, False

    def __call__(self, source):
        self.opened, self.number = source, 0
        return self

    def isOpened(self):
        return True

    def get(self, key):
        return self.said.get(key, 0.0)

    def set(self, key, value):
        self.asked[key] = value
        return True

    def read(self):
        self.number += 1
        return self.number <= self.frames, np.full((4, 6, 3), self.number, np.uint8)

    def release(self):
        self.released = True


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


@pytest.fixture
def display(monkeypatch):
    """A display on which nobody looks: what OpenCV is asked to show there, and the next keys."""
    said = SimpleNamespace(windows=[], full=[], shown=[], keys=[], destroyed=[])
    monkeypatch.setattr(cv2, "namedWindow", lambda title, kind: said.windows.append(title))
    monkeypatch.setattr(cv2, "setWindowProperty", lambda *words: said.full.append(words))
    monkeypatch.setattr(cv2, "imshow", lambda title, image: said.shown.append((title, image)))
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: said.keys.pop(0) if said.keys else -1)
    monkeypatch.setattr(cv2, "destroyWindow", said.destroyed.append)
    return said
