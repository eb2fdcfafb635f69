"""coco.py on small instances files, by the verb coco_label."""

from __future__ import annotations

import json

import numpy as np
import pytest

from darknet_compat.cfg import read_names
from darknet_compat.labels import label_path, read_labels
from tests.conftest import ROOT
from tests.tools.run import one_line, run_verb

# The ids of COCO's categories: 80 of 1 to 90 (examples/detector.c, coco_ids).
MISSING_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
IDS = [number for number in range(1, 91) if number not in MISSING_IDS]


@pytest.fixture
def coco(tmp_path):
    """Two images, three objects, a crowd and a box without width."""
    names = read_names(ROOT / "data" / "coco.names")
    (tmp_path / "images" / "val").mkdir(parents=True)
    annotations = [
        {"image_id": 7, "category_id": 90, "bbox": [10, 20, 30.5, 40], "iscrowd": 0},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 200, 100]},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 100, 100], "iscrowd": 1},
        {"image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 9], "iscrowd": 0},
        {"image_id": 7, "category_id": 13, "bbox": [50, 50, 20, 10], "iscrowd": 0},
    ]
    whole = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 200, "height": 100},
            {"id": 5, "file_name": "b.jpg", "width": 60, "height": 80},
        ],
        "categories": [{"id": number, "name": name} for number, name in zip(IDS, names, strict=True)][::-1],
        "annotations": annotations,
    }
    return tmp_path, whole


def run(folder, whole, *flags):
    (folder / "instances.json").write_text(whole if isinstance(whole, str) else json.dumps(whole))
    return run_verb("coco_label", folder / "instances.json", folder / "images" / "val", *flags)


def test_labels_list_and_names(coco):
    folder, whole = coco
    result = run(folder, whole)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:3] == [
        "2 images, 3 objects of 3 classes",
        "left out: 1 groups marked iscrowd (--keep-crowd keeps them)",
        "left out: 1 boxes without width or height",
    ]
    images = (folder / "images" / "val.txt").read_text().splitlines()
    assert images == [str(folder / "images" / "val" / name) for name in ("a.jpg", "b.jpg")]
    expected = [[79, 25.25 / 200, 0.4, 30.5 / 200, 0.4], [0, 0.5, 0.5, 1, 1], [11, 0.3, 0.55, 0.1, 0.1]]
    np.testing.assert_allclose(read_labels(label_path(images[0])), expected, rtol=1e-12)
    assert (folder / "labels" / "val" / "b.txt").read_text() == ""
    assert read_names(folder / "images" / "val.names") == read_names(ROOT / "data" / "coco.names")


def test_keep_crowd(coco):
    assert run(*coco, "--keep-crowd").stdout.startswith("2 images, 4 objects of 4 classes\n")


def test_errors(coco):
    folder, whole = coco
    assert "instances.json: no JSON" in one_line(run(folder, "{"))
    (folder / "images" / "val.txt").mkdir()
    assert "val.txt: Is a directory" in one_line(run(folder, whole))
    assert "expected the lists images, categories and annotations" in one_line(run(folder, "[]"))
    thing = whole["annotations"][1]
    for wrong, said in (
        ({"image_id": 99}, "annotations[1]: image_id 99 is not among the images"),
        ({"category_id": 12}, "annotations[1]: category_id 12 is not among the categories"),
        ({"bbox": [1, 2, 3]}, "annotations[1]: not enough values"),
        ({"bbox": "box!"}, "annotations[1]: could not convert string to float"),
    ):
        whole["annotations"][1] = {**thing, **wrong}
        assert said in one_line(run(folder, whole))
    del thing["bbox"]
    whole["annotations"][1] = thing
    assert "annotations[1] has no 'bbox'" in one_line(run(folder, whole))
    assert "no such folder" in one_line(run_verb("coco_label", folder / "instances.json", folder / "none"))
    (folder / "none").mkdir()
    thing["bbox"] = [1, 2, 3, 4]
    run(folder, whole)
    assert "expected a folder called images in the path" in one_line(
        run_verb("coco_label", folder / "instances.json", folder / "none")
    )
