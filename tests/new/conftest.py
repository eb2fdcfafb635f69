"""One little data set in all the forms that people have."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

NAMES = ["bird", "cat"]
# Of each image its size and its objects: class, left, top, width, height in pixels from 0.
OBJECTS = {
    "one": ((60, 40), [(0, 10, 5, 20, 10), (1, 30, 20, 12, 16)]),
    "two words": ((40, 60), [(1, 1, 2, 30, 40)]),
    "три": ((64, 64), [(0, 8, 8, 16, 16)]),
    "none": ((50, 50), []),
}


class DataSet:
    """Images under a folder, and ways to label them."""

    def __init__(self, root: Path):
        self.root = root
        self.random = np.random.default_rng(0)

    def image(self, path, size=(60, 40), kind=".jpg"):
        """A noisy image: no two are alike."""
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(self.random.integers(0, 256, (6, 6, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
        path.write_bytes(cv2.imencode(kind, pixels)[1].tobytes())
        return path

    def xml(self, path, size, objects, difficult=()):
        """VOC counts pixels from 1, and both ends belong to a box."""
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(
            f"<object><name>{NAMES[number]}</name><difficult>{int(index in difficult)}</difficult><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + w + 1}</xmax><ymax>{top + h + 1}</ymax>"
            "</bndbox></object>"
            for index, (number, left, top, w, h) in enumerate(objects)
        )
        width, height = size
        path.write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size>{text}</annotation>",
            encoding="utf-8",
        )

    def txt(self, path, size, objects):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        across, down = size
        path.write_text(
            "".join(
                f"{number} {(left + w / 2) / across} {(top + h / 2) / down} {w / across} {h / down}\n"
                for number, left, top, w, h in objects
            )
        )

    def coco(self, path, images):
        """``images``: file name -> (size, objects). Categories have ids with gaps, as COCO's."""
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "images": [
                {"id": 7 * index, "file_name": name, "width": size[0], "height": size[1]}
                for index, (name, (size, _)) in enumerate(images.items())
            ],
            "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "bird"}],
            "annotations": [
                {"id": 0, "image_id": 7 * index, "category_id": (3, 9)[number], "bbox": [left, top, w, h]}
                for index, (_, objects) in enumerate(images.values())
                for number, left, top, w, h in objects
            ],
        }
        path.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def data_set(tmp_path):
    return DataSet(tmp_path / "data set")


def make_voc(made):
    for name, (size, objects) in OBJECTS.items():
        made.image(f"JPEGImages/{name}.jpg", size)
        made.xml(f"Annotations/{name}.xml", size, objects)


def make_coco(made):
    for name, (size, _) in OBJECTS.items():
        made.image(f"pictures/{name}.jpg", size)
    made.coco("annotations/instances.json", {f"{name}.jpg": value for name, value in OBJECTS.items()})


def make_darknet(made):
    for name, (size, objects) in OBJECTS.items():
        made.image(f"images/{name}.jpg", size)
        made.txt(f"labels/{name}.txt", size, objects)
    (made.root / "obj.names").write_text("bird\ncat\n")


MAKERS = {"voc": make_voc, "coco": make_coco, "darknet": make_darknet}
