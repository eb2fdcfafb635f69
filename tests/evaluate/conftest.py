"""A real devkit with real detections, and a small made one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHAPES, real

NAMES = (ROOT / "data/voc.names").read_text(encoding="utf-8").split()


@dataclass(frozen=True)
class Devkit:
    devkit: Path
    results: Path
    names: list[str]


@pytest.fixture(scope="session")
def voc2007(shared, tmp_path_factory):
    """VOC2007 test: 4,952 annotations and 254,590 detections of 20 classes."""
    folder = tmp_path_factory.mktemp("voc2007")
    subprocess.run([sys.executable, shared / "voc2007-test" / "unpack.py", folder], check=True, stdout=subprocess.PIPE)
    return Devkit(folder / "VOCdevkit", folder / "results", NAMES)


@pytest.fixture(scope="session", params=["made", real("voc2007")])
def detected(request, tmp_path_factory):
    """A devkit with detections of a trained network: made shapes, and VOC2007 test."""
    if request.param == "voc2007":
        return request.getfixturevalue("voc2007")
    made, folder = request.getfixturevalue("made_shapes"), tmp_path_factory.mktemp("detected")
    names = ROOT / "data/shapes.names"
    (folder / "made.data").write_text(f"names={names}\nvalid={made}/2007_test.txt\nresults={folder}/results\n")
    command = [sys.executable, "-m", "darknet_compat", "detector", "valid", folder / "made.data", *SHAPES]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return Devkit(made / "VOCdevkit", folder / "results", names.read_text().split())


OBJECT = """  <object>
    <name>{}</name>
    <difficult>{}</difficult>
    <bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
  </object>
"""


def write_devkit(folder, images, year="2007", image_set="test"):
    """A devkit of ``images``: id -> list of (name, difficult, xmin, ymin, xmax, ymax)."""
    root = folder / "VOCdevkit" / f"VOC{year}"
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for name, objects in images.items():
        body = "".join(OBJECT.format(*one) for one in objects)
        size = "  <size><width>100</width><height>80</height><depth>3</depth></size>\n"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>\n{size}{body}</annotation>\n")
    (root / "ImageSets" / "Main" / f"{image_set}.txt").write_text("\n".join(images) + "\n")
    return folder / "VOCdevkit"


def write_results(folder, lines, prefix="comp4_det_test_"):
    """Result files of ``lines``: class -> list of lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in lines.items():
        (folder / f"{prefix}{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    return folder


@pytest.fixture
def small(tmp_path):
    """Two images, three classes (bird has no truths), a results folder and a names file."""
    images = {
        "one": [("cat", 0, 10, 10, 29, 29), ("cat", 1, 50, 10, 69, 29), ("dog", 0, 10, 50, 29, 69)],
        "two": [("dog", 0, 1, 1, 40, 40), ("zebra", 0, 1, 1, 9, 9)],
    }
    results = {
        "cat": ["one 0.9 10 10 29 29", "one 0.8 10 10 29 29", "one 0.7 50 10 69 29", "two 0.6 1 1 5 5"],
        "dog": ["one 0.9 60 60 70 70", "two 0.8 1 1 40 40"],
        "bird": ["two 0.1 1 1 40 40"],
    }
    (tmp_path / "small.names").write_text("cat\ndog\nbird\n")
    return Devkit(write_devkit(tmp_path, images), write_results(tmp_path / "results", results), ["cat", "dog", "bird"])
