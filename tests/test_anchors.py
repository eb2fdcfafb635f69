"""Anchors against a k-means written out in loops, and the verb that prints them."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from darknet_compat.anchors import cfg_line, iou, kmeans, network_boxes, settle
from darknet_compat.cfg import read_cfg
from darknet_compat.cli import anchors as verb
from darknet_compat.errors import DataError, ImageError
from darknet_compat.network import Network
from tests.compare import net
from tests.evaluate.test_annotations import png_header


def loop_iou(box, anchor):
    w, h = min(box[0], anchor[0]), min(box[1], anchor[1])
    return w * h / (box[0] * box[1] + anchor[0] * anchor[1] - w * h)


def loop_kmeans(boxes, anchors):
    """Lloyd's rounds with 1 - IOU until no box changes sides; anchors and average IOU at the end."""
    anchors = [tuple(anchor) for anchor in anchors]
    sides = None
    while True:
        before, sides = sides, []
        for box in boxes:
            overlaps = [loop_iou(box, anchor) for anchor in anchors]
            sides.append(overlaps.index(max(overlaps)))
        if sides == before:
            return np.array(anchors), float(
                np.mean([loop_iou(b, anchors[s]) for b, s in zip(boxes, sides, strict=True)])
            )
        for index in range(len(anchors)):
            mine = [box for box, side in zip(boxes, sides, strict=True) if side == index]
            if mine:
                anchors[index] = (sum(box[0] for box in mine) / len(mine), sum(box[1] for box in mine) / len(mine))


@pytest.fixture
def boxes():
    random = np.random.default_rng(2)
    centres = np.array([[0.05, 0.08], [0.2, 0.2], [0.3, 0.6], [0.7, 0.4]])
    return (centres[random.integers(4, size=400)] * np.exp(random.normal(0, 0.12, (400, 2)))).clip(0.01, 1)


def test_iou_against_loops(boxes):
    expected = [[loop_iou(box, anchor) for anchor in boxes[:7]] for box in boxes]
    np.testing.assert_allclose(iou(boxes, boxes[:7]), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_rounds_against_loops(boxes, seed):
    """From the same start, both end in the same anchors."""
    start = boxes[np.random.default_rng(seed).choice(len(boxes), 4, replace=False)]
    expected, average = loop_kmeans(boxes.tolist(), start.tolist())
    anchors, found = settle(boxes, start)
    np.testing.assert_allclose(anchors, expected, rtol=1e-9)
    assert found == pytest.approx(average, abs=1e-12)


def test_best_of_many_starts(boxes):
    """As good as the best of 40 plain runs from random boxes, within a thousandth."""
    random = np.random.default_rng(9)
    plain = max(loop_kmeans(boxes.tolist(), boxes[random.choice(400, 4, replace=False)].tolist())[1] for _ in range(40))
    assert kmeans(boxes, 4)[1] >= plain - 1e-3


def test_finds_the_four_groups(boxes):
    anchors, average = kmeans(boxes, 4)
    np.testing.assert_allclose(anchors, [[0.05, 0.08], [0.2, 0.2], [0.3, 0.6], [0.7, 0.4]], rtol=0.25)
    assert average > 0.8


def test_one_cluster_is_the_mean_box(boxes):
    anchors, average = kmeans(boxes, 1)
    np.testing.assert_allclose(anchors, [boxes.mean(0)])
    assert average == pytest.approx(np.mean([loop_iou(box, anchors[0]) for box in boxes]))


def test_as_many_clusters_as_boxes():
    sizes = np.array([[0.1, 0.2], [0.5, 0.5], [0.2, 0.1], [0.5, 0.5]])
    anchors, average = kmeans(sizes, 3)
    assert average == pytest.approx(1)
    assert sorted(map(tuple, anchors.tolist())) == [(0.1, 0.2), (0.2, 0.1), (0.5, 0.5)]
    with pytest.raises(DataError, match=r"4 clusters asked for, but the labels hold boxes of 3 different sizes"):
        kmeans(sizes, 4)


def test_sorted_deterministic_and_free_of_scale(boxes):
    anchors, average = kmeans(boxes, 5)
    assert (np.diff(anchors.prod(1)) >= 0).all()
    again, same = kmeans(boxes.copy(), 5)
    np.testing.assert_array_equal(anchors, again)
    assert average == same
    wide, stretched = kmeans(boxes * (416, 256), 5)
    np.testing.assert_allclose(wide, anchors * (416, 256), rtol=1e-9)
    assert stretched == pytest.approx(average)


def test_cfg_line():
    anchors = np.array([[10.6, 31.2], [64, 96]])
    assert cfg_line(anchors, 32) == "anchors = 0.3312,0.9750, 2.0000,3.0000"
    assert cfg_line(anchors, None) == "anchors = 11,31, 64,96"


def test_the_line_is_that_of_the_sections(darknet, alexeyab_darknet, tmp_path):
    """[yolo] of both programs reads it in pixels of the network's input, [region] in cells."""
    anchors, cfg = np.array([[10.6, 31.2], [64, 96]]), tmp_path / "net.cfg"
    for section, stride in (("yolo", None), ("region", 32)):
        head = f"[{section}]\nnum=2\n{cfg_line(anchors, stride)}\n"
        cfg.write_text(net(32, 64, 3, "[conv]\nfilters=50\nactivation=linear", head))
        for library in (darknet, alexeyab_darknet):
            ours = Network(read_cfg(cfg), program=library.program).detector.anchors.flatten().tolist()
            assert library.load_network(cfg).layer_tensor(1, "biases").tolist() == ours
            np.testing.assert_allclose(
                np.multiply(ours, stride or 1), anchors.flatten(), atol=0.5 if not stride else 0.01
            )


SIZES = (640, 480), (300, 700), (416, 416)


def seen(boxes, width, height):
    """Where the boxes of the fixture ``data`` lie in the input, box by box: src/image.c, letterbox_image."""
    found = []
    for index, part in enumerate(np.array_split(boxes, 20)):
        w, h = SIZES[index % 3]
        new = (width, h * width // w) if width / w < height / h else (w * height // h, height)
        found += [(x * new[0], y * new[1]) for x, y in part.tolist()]
    return found


@pytest.fixture
def data(tmp_path, boxes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    parts = np.array_split(boxes, 20)
    for index, part in enumerate(parts):
        (tmp_path / "images" / f"{index}.jpg").write_bytes(png_header(*SIZES[index % 3]))
        lines = [f"0 .5 .5 {w!r} {h!r}\n" for w, h in part.tolist()]
        (tmp_path / "labels" / f"{index}.txt").write_text("".join(lines))
    (tmp_path / "train.txt").write_text("".join(f"images/{index}.jpg\n" for index in range(20)))
    (tmp_path / "made.data").write_text("classes=1\ntrain=train.txt\n")
    return tmp_path


def run(*arguments):
    parser = argparse.ArgumentParser()
    verb.add(parser.add_subparsers())
    options = parser.parse_args(["calc_anchors", *map(str, arguments)])
    return options.run(options)


def test_the_boxes_are_those_that_the_network_sees(data, boxes):
    images = [f"images/{index}.jpg" for index in range(20)]
    np.testing.assert_allclose(network_boxes(images, 608, 416), seen(boxes, 608, 416), rtol=1e-12)
    np.testing.assert_allclose(network_boxes(images, 608, 416, letter_box=False), boxes * (608, 416), rtol=1e-12)


def printed(out, stride=32):
    """Average IOU (0..1) and anchors in pixels, as the verb printed them."""
    lines = out.splitlines()
    numbers = [float(word) for word in lines[2].removeprefix("anchors = ").replace(",", " ").split()]
    return float(lines[1].split()[3]) / 100, np.reshape(numbers, (-1, 2)) * stride


def test_the_printed_average_is_reached_on_the_boxes_as_the_network_sees_them(data, boxes, capsys):
    flags = "made.data", "-num_of_clusters", 4, "-width", 608, "-height", 416
    there = seen(boxes, 608, 416)
    reached = []
    for letter_box in (1, 0):
        assert run(*flags, "-letter_box", letter_box) == 0
        average, anchors = printed(capsys.readouterr().out)
        reached.append(np.mean([max(loop_iou(box, anchor) for anchor in anchors) for box in there]))
        assert (reached[-1] == pytest.approx(average, abs=1e-4)) == (letter_box == 1)
    assert reached[0] > reached[1] + 0.03
    run(*flags)
    assert printed(capsys.readouterr().out)[0] == pytest.approx(reached[0], abs=1e-4), "1 is the default"


def test_verb(data, boxes, capsys):
    assert run("made.data", "-num_of_clusters", 4, "-width", 608, "-height", 416, "-show", "a.png") == 0
    anchors, average = kmeans(np.array(seen(boxes, 608, 416)), 4)
    assert capsys.readouterr().out.splitlines() == [
        "400 boxes in 20 images, 4 clusters",
        f"avg IoU = {100 * average:.2f} %",
        "anchors = " + ", ".join(f"{w / 32:.4f},{h / 32:.4f}" for w, h in anchors),
        "image: a.png",
    ]
    assert (data / "a.png").read_bytes()[:4] == b"\x89PNG"
    run("made.data", "-num_of_clusters", 4, "-width", 608, "-height", 416, "-v3")
    assert capsys.readouterr().out.splitlines()[-1] == "anchors = " + ", ".join(f"{w:.0f},{h:.0f}" for w, h in anchors)


def test_verb_warns_of_missing_label_files(data):
    (data / "labels" / "3.txt").unlink()
    with pytest.warns(UserWarning, match=r"^labels/3\.txt: no such label file; 1 of 20 images have none"):
        run("made.data")


def test_a_image_without_a_size_is_named(data):
    (data / "images" / "7.jpg").write_bytes(b"GIF89a")
    with pytest.raises(ImageError, match=r"images/7\.jpg: no JPEG, PNG or BMP file"):
        run("made.data")
    (data / "images" / "7.jpg").write_bytes(png_header(0, 80))
    with pytest.raises(ImageError, match=r"images/7\.jpg: 0 x 80 pixels by its header; expected"):
        run("made.data")
    run("made.data", "-letter_box", 0)


def test_no_boxes(data):
    for path in (data / "labels").iterdir():
        path.write_text("")
    with pytest.raises(DataError, match=r"no box in the labels of 20 images \(0 label files are missing"):
        run("made.data")
    for path in (data / "labels").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"20 label files are missing, the first is labels/0.txt"):
        run("made.data")


def test_malformed_labels(data):
    path = data / "labels" / "4.txt"
    path.write_text("0 .5 .5 .1 .2\n0 .5 .5 1.5 .2\n")
    with pytest.raises(DataError, match=r"labels/4.txt:2: a box outside of 0..1"):
        network_boxes(["images/4.jpg"], 416, 416)
    path.write_text("0 .5 .5 .1 .2\n0 .5 .5 0 .2\n")
    assert len(network_boxes(["images/4.jpg"], 416, 416)) == 1, "a box of no width is left out, as in training"
    path.write_text("0 .5 .5 .1\n")
    with pytest.raises(DataError, match=r"labels/4.txt:1: .*expected 5 numbers"):
        network_boxes(["images/4.jpg"], 416, 416)


@pytest.mark.parametrize("flag", ["-num_of_clusters", "-width", "-height", "-stride"])
def test_flags_below_one(data, flag):
    with pytest.raises(DataError, match=rf"^{flag} is 0; expected 1 or more$"):
        run("made.data", flag, 0)


def test_the_drawing_shows_the_same_boxes(data, boxes, monkeypatch):
    drawn = []
    monkeypatch.setattr("darknet_compat.anchors.draw", lambda path, *what: drawn.append(what))
    run("made.data", "-num_of_clusters", 4, "-width", 608, "-height", 416, "-show", "a.png")
    np.testing.assert_allclose(drawn[0][0], seen(boxes, 608, 416), rtol=1e-12)
    np.testing.assert_array_equal(drawn[0][1], kmeans(np.array(seen(boxes, 608, 416)), 4)[0])
