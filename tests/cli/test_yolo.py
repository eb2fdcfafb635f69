"""The verbs ``yolo`` against the C program's, written out over its library: its own read files of their author's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_compat.errors import CfgError
from darknet_compat.images import image_size
from darknet_compat.weights import save_weights
from tests.cli.conftest import CFG, NAMES, WEIGHTS
from tests.cli.test_valid import check_lines, read_lines
from tests.compare import network_of
from tests.train.nets import data_set, v1

PHOTOGRAPHS = ("dog", "horses", "person", "eagle")


@pytest.fixture
def network(tmp_path):
    """The cfg and weights of a network of YOLOv1 whose boxes are so large that they overlap."""
    made, *files = network_of(v1(classes=6, output=256), tmp_path)
    with torch.no_grad():
        classes, confidences, boxes = made.layers[-2].biases.split([96, 32, 128])
        classes += 0.4
        confidences += 0.3
        boxes += 0.5
        boxes.view(-1, 4)[:, 2:] += 0.3
    save_weights(made, files[1])
    return files


@pytest.fixture
def photographs(tmp_path, darknet_share):
    (tmp_path / "images").mkdir()
    return [Path(shutil.copy(darknet_share / f"data/{name}.jpg", tmp_path / "images")) for name in PHOTOGRAPHS]


@pytest.fixture
def detections(darknet, network):
    """What the C program's verbs ask its library for: of a stretched image boxes over a threshold, in pixels."""
    reference = darknet.load_network(*network)
    reference.set_batch(1)

    def found(path, thresh, nms, relative=False, size=None):
        planes = darknet.load_image_color(path)
        reference.predict(darknet.resize_image(planes, reference.width, reference.height)[None])
        return reference.boxes(*(size or planes.shape[:0:-1]), thresh, 0, relative, nms)

    return found


def test_test_prints_the_c_programs_lines(verb, data, network, photographs, detections, tmp_path, capsys):
    file, lines, others_lines = data([]), 0, {(0.5, 0.4): 0, (0.2, 0.45): 0, (0.2, 0.5): 0}
    for path in photographs:
        found = detections(path, 0.2, 0.4, size=(1, 1))
        expected = [
            f"{NAMES[index]}: {found.prob[row, index] * 100:.0f}%"
            for row in found.order
            for index in np.flatnonzero(found.prob[row] > 0.2)
        ]
        assert verb("yolo", "test", file, *network, path, "-numerics", "cpu") == 0
        first, *others = capsys.readouterr().out.splitlines()
        assert first.startswith(f"{path}: Predicted in ")
        assert others == expected
        lines += len(others)
        for thresholds in others_lines:
            others_lines[thresholds] += np.count_nonzero(detections(path, *thresholds, size=(1, 1)).prob)
    assert lines > 20
    assert lines not in others_lines.values(), "the thresholds of other verbs would print as many"
    assert (tmp_path / "predictions.jpg").exists()


def test_valid_writes_the_c_programs_lines(verb, data, network, photographs, detections, tmp_path):
    file, theirs = data(photographs, eval="coco"), []
    for path in photographs:
        found = detections(path, 0.001, 0.5)
        width, height = image_size(path)
        for row in found.order:
            x, y, w, h = found.boxes[row].astype(np.float64)
            corners = max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, width), min(y + h / 2, height)
            for index in found.prob[row].nonzero()[0]:
                theirs.append((NAMES[index], path.stem, float(found.prob[row, index]), *map(float, corners)))
    assert verb("yolo", "valid", file, *network, "-numerics", "cpu") == 0
    ours = read_lines(tmp_path / "results")
    # Of each class the images one after another, and an image's boxes in the order of the library.
    keys = [row[:2] for row in ours]
    assert keys == [row[:2] for row in sorted(theirs, key=lambda row: row[0])]
    check_lines("yolo valid", ours, theirs, 100, thresh=0.001, nms=0.5)
    assert min(min(row[3:5]) for row in ours) == 0


def test_recall_is_the_c_programs_with_boxes_as_its_truths_are(verb, data, network, photographs, detections, capsys):
    """The C program compares pixels with parts of an image: of an image of 1 x 1 both are the same."""
    rng = np.random.default_rng(4)
    truths = {
        path: np.concatenate([rng.uniform(0.3, 0.7, (6, 2)), rng.uniform(0.2, 0.6, (6, 2))], 1).round(4)
        for path in photographs
    }
    labels = {path: "".join("0 {} {} {} {}\n".format(*row) for row in rows) for path, rows in truths.items()}
    expected, total, correct, proposals, overlaps = [], 0, 0, 0, 0.0
    for number, path in enumerate(photographs):
        found = detections(path, 0.001, 0, True, (1, 1))
        boxes = found.boxes[found.objectness > 0.001]
        proposals += len(boxes)
        for truth in truths[path]:
            total += 1
            best = max(overlap(box, truth) for box in boxes)
            overlaps += best
            correct += best > 0.5
        expected.append(
            f"{number:5d} {correct:5d} {total:5d}\tRPs/Img: {proposals / (number + 1):.2f}\t"
            f"IOU: {overlaps * 100 / total:.2f}%\tRecall:{100 * correct / total:.2f}%"
        )
    assert verb("yolo", "recall", data(photographs, labels), *network, "-numerics", "cpu") == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert 0 < correct < total
    assert proposals < 32 * len(photographs)


def overlap(one, two):
    left, top = np.maximum(one[:2] - one[2:] / 2, two[:2] - two[2:] / 2)
    right, bottom = np.minimum(one[:2] + one[2:] / 2, two[:2] + two[2:] / 2)
    inside = max(right - left, 0) * max(bottom - top, 0)
    return inside / (one[2] * one[3] + two[2] * two[3] - inside)


def test_train_prints_the_c_programs_lines(verb, tmp_path, capsys):
    """train_yolo: the names of its lines, two of [detection] for two subdivisions."""
    data_set(tmp_path)
    (tmp_path / "v1.cfg").write_text(v1("max_batches=2"))
    assert verb("yolo", "train", "set.data", "v1.cfg", "-workers", 0, "-device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["v1", "Learning Rate: 0.0005, Momentum: 0.9, Decay: 0.0005"]
    update = [r"Loaded: \d\.\d{6} seconds", *2 * [r"Detection Avg IOU: .*, Any Obj: .*, count: \d+"]]
    update.append(r"{}: [\d.]+, [\d.]+ avg, 0\.000500 rate, [\d.]+ seconds, {} images, [\d.]+ hours left")
    expected = [line.format(number, 8 * number) if "avg" in line else line for number in (1, 2) for line in update]
    assert all(re.fullmatch(*pair) for pair in zip(expected, lines[3:-2], strict=True))
    assert (tmp_path / "backup/v1_final.weights").exists()


@pytest.mark.parametrize("name", ["test", "valid", "recall"])
def test_other_networks_are_refused(verb, data, wide, name):
    images = (wide,) if name == "test" else ()
    with pytest.raises(CfgError, match=r"the verbs `yolo` are for networks that end in \[detection\]; expected `det"):
        verb("yolo", name, data([wide]), CFG, WEIGHTS, *images)
