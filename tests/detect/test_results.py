from __future__ import annotations

import json

import numpy as np
import pytest

from darknet_compat.detect.detections import Detections
from darknet_compat.detect.results import COCO_IDS, ResultFiles, coco_image_id, drawing_names, write_json
from darknet_compat.errors import ResultsError

NAMES = ["cat", "dog"]


def found(path, boxes, prob, size=(100, 80)):
    return Detections(path, *size, np.array(boxes, np.float32), np.array(prob, np.float32), relative=False)


def test_comp4_lines_are_darknets(tmp_path):
    """print_detector_detections: +1, clipped to 1..w and 1..h, six %f fields."""
    with ResultFiles(str(tmp_path / "results"), "voc", NAMES) as files:
        files.add(found("a/b.c/000012.x.jpg", [[10, 20, 8, 6], [95, 79, 40, 40]], [[0.5, 0], [0.25, 0.125]]))
    folder = tmp_path / "results"
    assert (folder / "comp4_det_test_cat.txt").read_text() == (
        "000012 0.500000 7.000000 18.000000 15.000000 24.000000\n"
        "000012 0.250000 76.000000 60.000000 100.000000 80.000000\n"
    )
    assert (folder / "comp4_det_test_dog.txt").read_text() == (
        "000012 0.125000 76.000000 60.000000 100.000000 80.000000\n"
    )


def test_coco_results_are_valid_json(tmp_path):
    with ResultFiles(str(tmp_path), "coco", NAMES) as files:
        files.add(found("val/COCO_val2014_000000000139.jpg", [[10, 20, 8, 6], [1, 1, 9, 9]], [[0.5, 0], [0, 0.25]]))
        files.add(found("val/000000000140.jpg", [[10, 20, 8, 6]], [[0, 0]]))
    content = json.loads((tmp_path / "coco_results.json").read_text())
    assert content[0] == {"image_id": 139, "category_id": 1, "bbox": [6, 17, 8, 6], "score": 0.5}
    assert content[1] == {"image_id": 139, "category_id": 2, "bbox": [0, 0, 5.5, 5.5], "score": 0.25}
    assert len(content) == 2


def test_no_detection_at_all_is_valid_json(tmp_path):
    with ResultFiles(str(tmp_path), "coco", NAMES):
        pass
    assert json.loads((tmp_path / "coco_results.json").read_text()) == []


def test_imagenet_lines(tmp_path):
    with ResultFiles(str(tmp_path), "imagenet", NAMES, "mine") as files:
        files.add(found("a.jpg", [[1, 1, 9, 9]], [[0, 0]]))
        files.add(found("b.jpg", [[1, 1, 9, 9]], [[0, 0.25]]))
    assert (tmp_path / "mine.txt").read_text() == "2 2 0.250000 0.000000 0.000000 5.500000 5.500000\n"


def test_files_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")

    def stopped():
        with ResultFiles(str(tmp_path), "voc", NAMES) as files:
            files.add(found("a.jpg", [[10, 20, 8, 6]], [[0.5, 0.5]]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["comp4_det_test_cat.txt"]
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == "older\n"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ResultsError, match="expected a folder to write to"),
        ResultFiles(str(tmp_path / "file/results"), "voc", NAMES),
    ):
        pass


def test_ids():
    assert len(COCO_IDS) == len(set(COCO_IDS)) == 80
    assert COCO_IDS[-1] == 90
    assert coco_image_id("val2014/COCO_val2014_000000581929.jpg") == 581929
    assert coco_image_id("val2017/000000000139.jpg") == 139


def test_drawings_of_the_same_name_do_not_overwrite_each_other():
    assert drawing_names(["a/x.jpg", "b/x.png", "y.jpg"]) == {
        "a/x.jpg": "x.jpg",
        "b/x.png": "x_2.jpg",
        "y.jpg": "y.jpg",
    }


def test_json_is_written_whole(tmp_path):
    write_json([found("ä.jpg", [[10, 20, 8, 6]], [[0.5, 0]])], NAMES, tmp_path / "out.json")
    (picture,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert picture["picture"] == "ä.jpg"
    assert picture["detections"] == [{"class_id": 0, "name": "cat", "prob": 0.5, "box": [6, 17, 8, 6]}]
    with pytest.raises(ResultsError, match="the file was not written"):
        write_json([], NAMES, tmp_path / "none" / "out.json")
