"""What the tests of the verbs share: the network that comes along, an image that is not square, the C programs."""

from __future__ import annotations

import os
import sys

import cv2
import pytest

from darknet_compat.cli import build_parser
from tests.conftest import ROOT
from tests.oracle import PROGRAM

CFG = ROOT / "cfg/yolov2-shapes.cfg"
WEIGHTS = ROOT / "weights/yolov2-shapes.weights"
NAMES = (ROOT / "data/shapes.names").read_text().split()


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """A function that runs a command in this process and in ``tmp_path``, and returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        options = build_parser().parse_args([str(word) for word in words])
        return options.run(options)

    return run


@pytest.fixture
def wide(tmp_path):
    """An image of shapes, 192 x 110, as tmp_path/JPEGImages/wide.png: letterboxed it is another one than stretched."""
    (tmp_path / "JPEGImages").mkdir()
    path = tmp_path / "JPEGImages/wide.png"
    cv2.imwrite(str(path), cv2.imread(str(ROOT / "data/shapes-sample.jpg"))[:110])
    return path


@pytest.fixture
def data(tmp_path):
    """A function that writes tmp_path/my.data over a list of images, and label files as {path: lines}."""

    def write(paths, labels=None, **keys):
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
        (tmp_path / "labels").mkdir(exist_ok=True)
        for path, lines in (labels or {}).items():
            (tmp_path / f"labels/{path.stem}.txt").write_text(lines)
        keys = {"classes": 6, "names": ROOT / "data/shapes.names", "valid": tmp_path / "list.txt",
                "results": tmp_path / "results", **keys}  # fmt: skip
        (tmp_path / "my.data").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
        return tmp_path / "my.data"

    return write


@pytest.fixture(scope="session")
def pjreddie():
    """The C program."""
    if not os.path.isfile(PROGRAM):
        pytest.skip(f"needs the real Darknet ({PROGRAM}): apt-get install darknet")
    return PROGRAM


@pytest.fixture
def program(request):
    """The path of the C program that the parameter names."""
    if request.param == "pjreddie":
        return request.getfixturevalue("pjreddie")
    return request.getfixturevalue("alexeyab") / "darknet"


@pytest.fixture
def typed(verb, tmp_path, capfd):
    """A function that runs a verb with a text on standard input: its exit code, and what it printed."""
    before = os.dup(0)

    def run(text, *words):
        (tmp_path / "typed").write_text(text)
        with open(tmp_path / "typed", "rb") as file:
            os.dup2(file.fileno(), 0)
        capfd.readouterr()
        code = verb(*words)
        sys.stdout.flush()
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    yield run
    os.dup2(before, 0)
    os.close(before)
