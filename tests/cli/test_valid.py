"""``detector valid`` and its sisters against the C program, as whole programs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.boxes import diou, iou
from darknet_compat.cfg import read_cfg
from darknet_compat.errors import DarknetError
from darknet_compat.images import load_image
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.cli.conftest import CFG, NAMES, WEIGHTS
from tests.cli.test_main import run
from tests.compare import calibrate, randomise
from tests.conftest import ROOT, SHAPES, network_files, real
from tests.oracle import PROGRAM

PROBABILITY, CORNER = 1e-4, 0.05  # allowed differences; corners in pixels
THRESH, NMS = 0.005, 0.45
VOC = {"classes": 20, "names": ROOT / "data/voc.names"}


def data_file(folder, paths, **keys):
    """A .data file over a list of images; the results folder exists, as the C program needs it."""
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    names = ROOT / "data/shapes.names"
    keys = {"classes": 6, "names": names, "valid": folder / "list.txt", "results": folder / "results", **keys}
    (folder / "valid.data").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
    (folder / "results").mkdir(exist_ok=True)
    return folder / "valid.data"


def read_lines(folder):
    """(class, image, prob, corners...) of all comp4 files of a folder, in the order of the files."""
    rows = []
    for path in sorted(folder.glob("comp4_det_test_*.txt")):
        for line in path.read_text().splitlines():
            image, *numbers = line.split()
            rows.append((path.stem[15:], image, *map(float, numbers)))
    return rows


def pair(ours, theirs):
    """Lines of the same class and image, in the order of the files, paired by nearest corners; and those left over."""
    pairs, only = [], []
    keys = {row[:2] for row in ours} | {row[:2] for row in theirs}
    for key in sorted(keys):
        left = [row for row in ours if row[:2] == key]
        right = [row for row in theirs if row[:2] == key]
        numbers = [np.array([row[2:] for row in rows]).reshape(-1, 5) for rows in (left, right)]
        distances = np.abs(numbers[0][:, None] - numbers[1]).max(2, initial=0)
        taken = [], []
        while distances.size and distances.min() <= 1:
            i, j = np.unravel_index(distances.argmin(), distances.shape)
            pairs.append((left[i], right[j]))
            distances[i], distances[:, j] = np.inf, np.inf
            taken[0].append(i)
            taken[1].append(j)
        only += [
            row for rows, gone in zip((left, right), taken, strict=True) for n, row in enumerate(rows) if n not in gone
        ]
    return pairs, only


def at_the_edge(row, everything, thresh=THRESH, nms=NMS, overlap=iou):
    """Whether a line's presence hangs on the last digits: its probability at the threshold, or its IOU at NMS's."""
    if abs(row[2] - thresh) < PROBABILITY:
        return True
    same = np.array([other[3:] for other in everything if other[:2] == row[:2]])
    box = np.array(row[3:])

    def centred(corners):
        return np.concatenate([corners[..., :2] + corners[..., 2:], 2 * (corners[..., 2:] - corners[..., :2])], -1) / 2

    overlaps = overlap(torch.tensor(centred(box)), torch.tensor(centred(same)))
    return bool(((overlaps - nms).abs() < 0.02).any())


def check_lines(what, ours, theirs, least, **edge):
    """The lines here are the C program's, within the allowed differences; ``edge`` is for :func:`at_the_edge`."""
    pairs, only = pair(ours, theirs)
    numbers = np.array([(a[2:], b[2:]) for a, b in pairs])
    differences = np.abs(numbers[:, 0] - numbers[:, 1])
    print(f"{what}: {len(ours)} lines here, {len(theirs)} there, {len(only)} on one side only, "
          f"probability {differences[:, 0].max():.1g}, corner {differences[:, 1:].max():.2g} pixel")  # fmt: skip
    assert len(pairs) > least
    assert differences[:, 0].max() <= PROBABILITY
    assert differences[:, 1:].max() <= CORNER
    assert not [row for row in only if not at_the_edge(row, ours + theirs, **edge)]


@pytest.fixture
def photographs(darknet_share):
    """Debian's photographs."""
    return sorted((darknet_share / "data").glob("*.jpg"))


@pytest.fixture
def made(made_shapes):
    """What the network that comes along was trained for."""
    return sorted(made_shapes.glob("VOCdevkit/VOC2007/JPEGImages/*.jpg"))


@pytest.fixture
def bccd(shared):
    """Photographs through a microscope."""
    return sorted((shared / "bccd/BCCD/JPEGImages").glob("*.jpg"))[:60]


@pytest.mark.parametrize("images", ["photographs", "made", real("bccd")])
def test_lines_are_the_c_programs(darknet, detector, tmp_path, images, request):
    data = data_file(tmp_path, request.getfixturevalue(images), **({} if detector == SHAPES else VOC))
    subprocess.run([PROGRAM, "detector", "valid", data, *detector], check=True, capture_output=True, cwd=tmp_path)
    theirs = read_lines(tmp_path / "results")
    shutil.rmtree(tmp_path / "results")
    result = run("detector", "valid", data, *detector, "-numerics", "cpu", "-batch", "4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    ours = read_lines(tmp_path / "results")
    check_lines(f"{detector[0].stem}, {images}", ours, theirs, 100)


def test_fewer_than_four_images_are_enough_here(darknet_share, photographs, tmp_path):
    """pjreddie's program hands the first four lines of the list to four threads without a look at its length."""
    data = data_file(tmp_path, photographs[:3])
    done = subprocess.run([PROGRAM, "detector", "valid", data, *SHAPES], capture_output=True, cwd=tmp_path)
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGABRT)
    result = run("detector", "valid", data, *SHAPES, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [row for path in (tmp_path / "results").iterdir() for row in path.read_text().splitlines()]
    assert {row.split()[0] for row in rows} == {path.stem for path in photographs[:3]}


# As v3: anchors shared between heads of two resolutions, a shortcut and an upsampled route.
V3 = """[net]
batch=1
width=160
height=128
channels=3
[convolutional]
filters=8
size=3
stride=4
pad=1
batch_normalize=1
activation=leaky
[convolutional]
filters=16
size=3
stride=4
pad=1
batch_normalize=1
activation=leaky
[convolutional]
filters=16
size=3
stride=1
pad=1
batch_normalize=1
activation=leaky
[shortcut]
from=-2
activation=linear
[convolutional]
filters=33
size=1
stride=1
activation=linear
[yolo]
mask=3,4,5
anchors=10,14, 23,27, 37,58, 81,82, 135,169, 344,319
classes=6
num=6
[route]
layers=-3
[upsample]
stride=2
[convolutional]
filters=33
size=1
stride=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58, 81,82, 135,169, 344,319
classes=6
num=6
"""


def test_lines_of_a_v3_network_are_the_c_programs(darknet, photographs, tmp_path):
    (tmp_path / "v3.cfg").write_text(V3)
    network = randomise(Network(read_cfg(tmp_path / "v3.cfg")), 5)
    for number in (4, 8):  # few boxes with an objectness, as a trained network has
        network.layers[number].biases.data.unflatten(0, (3, 11))[:, 4] -= 6
    save_weights(network, tmp_path / "v3.weights")
    files = tmp_path / "v3.cfg", tmp_path / "v3.weights"
    data = data_file(tmp_path, photographs[:4])  # the C program wants four
    subprocess.run([PROGRAM, "detector", "valid", data, *files], check=True, capture_output=True, cwd=tmp_path)
    theirs = read_lines(tmp_path / "results")
    shutil.rmtree(tmp_path / "results")
    result = run("detector", "valid", data, *files, "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    check_lines("v3", read_lines(tmp_path / "results"), theirs, 500)


@pytest.mark.parametrize(
    ("name", "eval"),
    [("yolov2-shapes", "voc"), real("yolo-fastest/yolo-fastest-1.1", "voc"),
     real("yolo-fastest/yolo-fastest-1.1", "coco"), real("yolo-fastest/yolo-fastest-1.1_body", "voc")],
)  # fmt: skip
def test_lines_are_alexeyabs(alexeyab, darknet_share, tmp_path, request, name, eval):
    """On PNG files, since he reads JPEG by another decoder; over .001, suppressed at .6 in the head's own kind."""
    (tmp_path / "png").mkdir()
    photographs = sorted((darknet_share / "data").glob("*.jpg"))
    paths = [tmp_path / f"png/{number}_{path.stem}.png" for number, path in enumerate(photographs)]
    for path, photograph in zip(paths, photographs, strict=True):
        cv2.imwrite(str(path), cv2.imread(str(photograph)))
    files = network_files(request, name)
    head = load_network(*files).detector
    (tmp_path / "the.names").write_text("".join(f"class{number}\n" for number in range(head.o.classes)))
    data = data_file(tmp_path, paths, classes=head.o.classes, names=tmp_path / "the.names", eval=eval)
    subprocess.run(
        [alexeyab / "darknet", "detector", "valid", data, *files], check=True, capture_output=True, cwd=tmp_path
    )
    theirs = read_result_files(tmp_path / "results", eval)
    shutil.rmtree(tmp_path / "results")
    result = run("detector", "valid", data, *files, "-program", "alexeyab", "-numerics", "gpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    overlap = iou if head.nms_kind == "default" else lambda a, b: diou(a, b, 0.6)
    ours = read_result_files(tmp_path / "results", eval)
    check_lines(name, ours, theirs, 100, thresh=0.001, nms=0.6, overlap=overlap)


def network_of(classes, folder):
    """The shapes' network with so many classes, the class planes at random: cfg and .weights files, and their names."""
    if classes == 6:
        return CFG, WEIGHTS, NAMES
    source = load_network(CFG, WEIGHTS)
    cfg = folder / "more.cfg"
    text = CFG.read_text().replace("classes = 6", f"classes = {classes}")
    cfg.write_text(text.replace("filters = 55", f"filters = {5 * (5 + classes)}"))
    network = randomise(Network(read_cfg(cfg)))
    with torch.no_grad():
        for layer, known in zip(network.layers[:-2], source.layers, strict=False):
            layer.load_state_dict(known.state_dict())
        for name, tensor in network.layers[-2].numbers():
            planes = tensor.unflatten(0, (5, 5 + classes))
            planes[:, :5] = dict(source.layers[-2].numbers())[name].unflatten(0, (5, 11))[:, :5]
            planes[:, 5:] *= 2
    save_weights(network, folder / "more.weights")
    return cfg, folder / "more.weights", [f"class{index}" for index in range(classes)]


def read_result_files(folder, eval):
    """(class, image, prob, corners...) of the result files of a folder."""
    if eval == "voc":
        return read_lines(folder)
    if eval == "imagenet":
        rows = [line.split() for line in (folder / "imagenet-detection.txt").read_text().splitlines()]
        return [(class_id, image, *map(float, numbers)) for image, class_id, *numbers in rows]
    return [
        (one["category_id"], one["image_id"], one["score"], *one["bbox"][:2],
         *(sum(side) for side in zip(one["bbox"][:2], one["bbox"][2:], strict=True)))
        for one in json.loads((folder / "coco_results.json").read_text())
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["valid", "valid2"])
@pytest.mark.parametrize(("eval", "classes"), [("voc", 6), ("coco", 80), ("imagenet", 200)])
def test_result_files_are_the_c_programs(verb, data, darknet_share, tmp_path, name, eval, classes):
    (tmp_path / "images").mkdir()
    paths = [tmp_path / f"images/x_{number}.jpg" for number in range(6)]
    for path, photograph in zip(paths, ("dog", "eagle", "giraffe", "horses", "person", "scream"), strict=True):
        shutil.copy(darknet_share / f"data/{photograph}.jpg", path)
    cfg, weights, names = network_of(classes, tmp_path)
    (tmp_path / "the.names").write_text("".join(f"{one}\n" for one in names))
    file = data(paths, classes=classes, names=tmp_path / "the.names", eval=eval)
    (tmp_path / "results").mkdir()  # the C program needs it
    subprocess.run([PROGRAM, "detector", name, file, cfg, weights], check=True, capture_output=True, cwd=tmp_path)
    theirs = read_result_files(tmp_path / "results", eval)
    shutil.rmtree(tmp_path / "results")
    assert verb("detector", name, file, cfg, weights, "-numerics", "cpu") == 0
    ours = read_result_files(tmp_path / "results", eval)
    check_lines(f"{name} eval={eval}", ours, theirs, 500)


def test_out_begins_the_names_of_the_result_files(verb, data, wide, tmp_path):
    for name in ("valid", "valid2"):
        assert verb("detector", name, data([wide]), CFG, WEIGHTS, "-out", f"{name}_") == 0
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        f"{start}_{one}.txt" for start in ("valid", "valid2") for one in NAMES
    }


@pytest.mark.parametrize("name", ["valid", "valid2"])
@pytest.mark.parametrize(
    ("lines", "keys", "found"),
    [
        ("a b c d b f", {}, r"the\.names: lines 2 and 5 are both 'b'"),
        ("a b c/d d e f", {}, r"the\.names:3: 'c/d' cannot be part of a file's name"),
        ("a b c d e f", {"eval": "coco"}, r"my\.data:5: eval=coco: 6 classes would be written; expected the 80 of"),
        ("a b c d e f", {"eval": "imagenet"}, r"my\.data:5: .* 6 classes would be written; expected the 200 of"),
        ("a b c d e f", {"map": "the.map"}, r"my\.data:5: map=the\.map: the map asks for class 6; expected 0 to 5"),
        ("a b c d e f", {"results": "list.txt"}, r"list\.txt: File exists; expected a folder to write to"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_run(
    verb, data, wide, tmp_path, monkeypatch, name, lines, keys, found
):
    monkeypatch.setattr("darknet_compat.detect.detect_files", lambda *_, **__: pytest.fail("it ran"))
    (tmp_path / "the.names").write_text("\n".join(lines.split()) + "\n")
    (tmp_path / "the.map").write_text("0\n6\n")
    file = data([wide], names=tmp_path / "the.names", **keys)
    with pytest.raises(DarknetError, match=found) as error:
        verb("detector", name, file, CFG, WEIGHTS)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "results").exists()


def tree_cfg(folder):
    """The shapes' network, whose classes are a tree: 0 over 2 and 3, 1 over 4 and 5."""
    (folder / "the.tree").write_text("round -1\nangular -1\ndisc 0\nring 0\nsquare 1\nstar 1\n")
    cfg = folder / "tree.cfg"
    cfg.write_text(CFG.read_text().replace("classes = 6", f"classes = 6\ntree = {folder / 'the.tree'}"))
    return cfg


def test_map_of_the_data_file_chooses_the_trees_classes(verb, data, wide, tmp_path):
    cfg, found = tree_cfg(tmp_path), []
    for order in ((2, 3, 4, 5), (5, 4, 3, 2)):
        (tmp_path / "the.map").write_text("".join(f"{number}\n" for number in order))
        assert verb("detector", "valid", data([wide], map="the.map"), cfg, WEIGHTS) == 0
        files = [tmp_path / f"results/comp4_det_test_{one}.txt" for one in NAMES]
        found.append([sorted(file.read_text().splitlines()) for file in files])
    assert all(found[0][:4])
    assert found[1][:4] == found[0][3::-1]
    assert found[0][4:] == found[1][4:] == [[], []]


def test_without_a_tree_the_map_of_the_data_file_chooses_nothing(verb, data, wide, tmp_path):
    (tmp_path / "the.map").write_text("0\n" * 200)
    with pytest.raises(DarknetError, match=r"eval=imagenet: 6 classes would be written; expected the 200 of"):
        verb("detector", "valid", data([wide], map="the.map", eval="imagenet"), CFG, WEIGHTS)


@pytest.mark.slow
def test_yolo9000_and_combine9k(darknet, darknet_share, verb, tmp_path, monkeypatch, capsys):
    """The whole network with random numbers: its 200 classes' lines are those of get_region_detections and do_nms_sort
    of his library, for the map that his layers make of the same images. (His program without a GPU takes its softmax
    over other values.)
    """
    monkeypatch.chdir(darknet_share)  # where data/9k.tree is
    cfg, weights = darknet_share / "cfg/yolo9000.cfg", tmp_path / "yolo9000.weights"
    paths = [darknet_share / f"data/{name}.jpg" for name in ("dog", "person", "eagle", "horses")]
    network = randomise(Network(read_cfg(cfg), "cpu"))
    planes = [np.ascontiguousarray(load_image(path).transpose(2, 0, 1), np.float32) / 255 for path in paths]
    inputs = np.stack([darknet.letterbox_image(image, 544, 544) for image in planes])
    calibrate(network, torch.from_numpy(inputs), weights)
    network.layers[-2].weights.data *= 3  # so that it is sure of something
    save_weights(network, weights)

    text = (darknet_share / "cfg/combine9k.data").read_text()
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    text = re.sub("^valid .*$", f"valid = {tmp_path}/list.txt", text, flags=re.M)
    (tmp_path / "combine9k.data").write_text(re.sub("^results .*$", f"results = {tmp_path}/results", text, flags=re.M))
    assert verb("detector", "valid", tmp_path / "combine9k.data", cfg, weights, "-numerics", "cpu") == 0
    lines = (tmp_path / "results/imagenet-detection.txt").read_text().splitlines()

    reference = darknet.load_network(cfg, weights, folder=darknet_share)
    region = darknet.region(
        1, 17, 17, 3, 9418, network.detector.o.anchors, tree=darknet_share / "data/9k.tree", softmax=1
    )
    asked = [int(number) for number in (darknet_share / "data/inet9k.map").read_text().split()]
    expected = []
    for number, (image, x) in enumerate(zip(planes, inputs, strict=True), 1):
        height, width = image.shape[1:]
        reference.predict(x[None])
        region.forward(reference.layer_output(23).reshape(region.shape))
        boxes = region.boxes(width, height, 544, 544, THRESH, relative=False, nms=NMS, map=asked)
        for at in boxes.order:
            (x, y, w, h), prob = boxes.boxes[at], boxes.prob[at, :200]
            corners = max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, width), min(y + h / 2, height)
            expected += [(number, index + 1, prob[index], *corners) for index in np.flatnonzero(prob)]
    found = np.array([line.split() for line in lines], float)
    expected = np.array(expected)
    with capsys.disabled():
        off = np.abs(found - expected).max(0)
        print(f"\n{len(expected)} lines; probabilities within {off[2]:.1g}, corners within {off[3:].max():.2g} pixels")
    assert len(expected) > 20
    np.testing.assert_array_equal(found[:, :2], expected[:, :2])
    np.testing.assert_allclose(found[:, 2], expected[:, 2], atol=PROBABILITY)
    np.testing.assert_allclose(found[:, 3:], expected[:, 3:], atol=5 * CORNER)  # of boxes as large as the image


def test_a_missing_image_leaves_no_results(darknet_share, tmp_path):
    data = data_file(tmp_path, [darknet_share / "data/dog.jpg", tmp_path / "none.jpg"])
    result = run("detector", "valid", data, *SHAPES, cwd=tmp_path)
    assert result.returncode == 1
    assert "none.jpg" in result.stderr.splitlines()[-1]
    assert list((tmp_path / "results").iterdir()) == []


def test_an_unknown_eval_is_named(darknet_share, tmp_path):
    data = data_file(tmp_path, [darknet_share / "data/dog.jpg"], eval="vok")
    result = run("detector", "valid", data, *SHAPES, cwd=tmp_path)
    assert result.returncode == 1
    assert "valid.data:5: eval=vok" in result.stderr
    assert result.stderr.count("\n") == 2, "what the weights held, and the error"


def test_recall_is_the_c_programs(verb, data, darknet_share, tmp_path):
    """Stretched images, objectness over .001, NMS at .4 by objectness, IOU over .5: any other changes these lines."""
    paths, labels = [], {}
    (tmp_path / "images").mkdir()
    for name in ("dog", "horses", "person", "scream", "eagle"):
        paths.append(tmp_path / f"images/{name}.jpg")
        shutil.copy(darknet_share / f"data/{name}.jpg", paths[-1])
        rows = np.random.default_rng(len(name)).uniform(0.2, 0.8, (20, 2))
        labels[paths[-1]] = "".join(f"0 {x:f} {y:f} {0.1 + 0.4 * y:f} {0.5 - 0.4 * x:f}\n" for x, y in rows)
    file = data(paths, labels)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/coco_val_5k.list").write_text((tmp_path / "list.txt").read_text())  # the list it always reads
    theirs = subprocess.run(
        [PROGRAM, "detector", "recall", file, CFG, WEIGHTS], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    expected = [line for line in theirs.stderr.splitlines() if "RPs/Img" in line]
    assert len(expected) == 5
    with contextlib.redirect_stdout(io.StringIO()) as ours:
        assert verb("detector", "recall", file, CFG, WEIGHTS, "-numerics", "cpu") == 0
    assert ours.getvalue().splitlines() == expected


def table(verb, *words):
    """What ``detector map`` printed: {class: (ap in %, TP, FP)}, and the whole text."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert verb("detector", "map", *words) == 0
    rows = re.findall(r"name = (\S+), ap = (\S+)%.*TP = (\d+), FP = (\d+)", printed.getvalue())
    return {name: (float(ap), int(tp), int(fp)) for name, ap, tp, fp in rows}, printed.getvalue()


def found_in(verb, tmp_path, path, cfg, *flags):
    """The detections of ``detector test`` over .005: those that ``detector map`` holds against the labels."""
    file = tmp_path / "found.json"
    assert (
        verb("detector", "test", tmp_path / "my.data", cfg, WEIGHTS, path, "-thresh", THRESH, "-json", file, *flags)
        == 0
    )
    return json.loads(file.read_text())[0]["detections"]


def label(detection, size, width=1.0):
    """A label line of a detection's box in an image of ``size``, or of a part of its width around the centre."""
    (w, h), (left, top, wide, high) = size, detection["box"]
    return f"{detection['class_id']} {(left + wide / 2) / w} {(top + high / 2) / h} {wide / w * width} {high / h}\n"


def test_map_says_what_it_sees(verb, data, wide):
    file = data([wide], {wide: "2 .5 .5 .1 .1\n"})
    for program, words in (("pjreddie", "letterboxed to 128 x 128"), ("alexeyab", "stretched to 128 x 128")):
        assert table(verb, file, CFG, WEIGHTS, "-program", program)[1].splitlines()[0] == f"images {words}"


def test_map_takes_detections_over_005(verb, data, wide, tmp_path):
    """A cross of which the network is sure to 1 % only is found: its AP is 100 %, and it is no TP at -thresh."""
    data([wide])
    crosses = [one for one in found_in(verb, tmp_path, wide, CFG) if one["name"] == "cross"]
    best = max(crosses, key=lambda one: one["prob"])
    assert THRESH < best["prob"] < 0.2
    found, _ = table(verb, data([wide], {wide: label(best, (192, 110))}), CFG, WEIGHTS)
    assert found["cross"] == (100, 0, 0)


def test_map_goes_down_to_the_leaves_of_a_tree(verb, data, wide, tmp_path):
    """hier_thresh is 0 in validate_detector_map."""
    file, cfg = data([wide], {wide: "2 .5 .5 .1 .1\n"}), tree_cfg(tmp_path)
    leaves, others = (
        Counter(one["name"] for one in found_in(verb, tmp_path, wide, cfg, *flags)) for flags in (("-hier", 0), ())
    )
    assert leaves != others
    found, _ = table(verb, file, cfg, WEIGHTS, "-thresh", THRESH)
    assert {name: tp + fp for name, (_, tp, fp) in found.items() if tp + fp} == leaves


def test_thresh_iou_thresh_and_points_of_map(verb, data, wide, tmp_path):
    data([wide])
    detections = found_in(verb, tmp_path, wide, CFG)
    best = max(detections, key=lambda one: one["prob"])
    words = data([wide], {wide: label(best, (192, 110), width=0.7)}), CFG, WEIGHTS
    for thresh, iou_thresh, right, points, flags in (
        (0.25, 0.5, 1, "Area-Under-Curve for each unique Recall", ()),
        (0.1, 0.65, 1, "11 Recall-points", ("-thresh", 0.1, "-iou_thresh", 0.65, "-points", 11)),
        (0.5, 0.75, 0, "101 Recall-points", ("-thresh", 0.5, "-iou_thresh", 0.75, "-points", 101)),
    ):
        found, text = table(verb, *words, *flags)
        assert f"for conf_thresh = {thresh:.2f}" in text
        assert sum(tp + fp for _, tp, fp in found.values()) == sum(one["prob"] > thresh for one in detections)
        # The label is .7 of the box that was found.
        assert found[best["name"]][:2] == (100 * right, right)
        assert f"IoU threshold = {iou_thresh * 100:.0f} %, used {points} " in text


def test_map_and_recall_print_their_tables(tmp_path):
    """The arithmetic is tested in tests/evaluate; here, that the verbs feed it with the right boxes."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    shutil.copy(ROOT / "data/shapes-sample.jpg", tmp_path / "images")
    # The disc of shapes-sample.jpg, by eye, relative to 187 x 192.
    (tmp_path / "labels/shapes-sample.txt").write_text("0 0.148 0.207 0.246 0.26\n")
    data = data_file(tmp_path, [tmp_path / "images/shapes-sample.jpg"])
    result = run("detector", "map", data, *SHAPES, "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "class_id = 0, name = disc, ap = 100.00%" in result.stdout
    result = run("detector", "recall", data, *SHAPES, "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[:3] == ["0", "1", "1"]


MEMORY = """
import resource, sys
from darknet_compat.memory import keep_memory
keep_memory()  # as the command does
from darknet_compat import load_network
from darknet_compat.detect import detect_files
network = load_network(sys.argv[1], sys.argv[2])
paths = sys.argv[4:] * (int(sys.argv[3]) // len(sys.argv[4:]))
for index, found in enumerate(detect_files(network, paths, batch=4, thresh=.005, relative=False)):
    if index == 200:
        early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early) / 1024)
"""


@pytest.mark.slow
def test_memory_stays_flat_over_5000_images(darknet_share):
    images = sorted((darknet_share / "data").glob("*.jpg"))
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, *map(str, SHAPES), "5000", *map(str, images)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    print(f"after 200 images, 4,800 more took {float(result.stdout):.1f} MiB")
    assert float(result.stdout) < 40


@pytest.mark.slow
def test_valid_is_five_times_as_fast(darknet, darknet_share, tmp_path):
    """Images per second on yolov2-tiny-voc at 416, in one run, by the detection time that both programs print.

    The C program runs the network on one core; ours on all.
    """
    cfg = ROOT / "cfg/yolov2-tiny-voc.cfg"
    save_weights(randomise(Network(read_cfg(cfg))), tmp_path / "tiny.weights")
    data = data_file(tmp_path, sorted((darknet_share / "data").glob("*.jpg")) * 10, **VOC)
    seconds = {}
    for name, command in (("C", [PROGRAM]), ("ours", [sys.executable, "-m", "darknet_compat"])):
        result = subprocess.run(
            [*command, "detector", "valid", data, cfg, tmp_path / "tiny.weights"],
            check=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        seconds[name] = float(re.search(r"Total Detection Time: (\S+) Seconds", result.stderr).group(1))
    ratio = seconds["C"] / seconds["ours"]
    print(f"80 images: C {seconds['C']:.1f} s, ours {seconds['ours']:.1f} s, {ratio:.1f} times")
    assert ratio >= 5
