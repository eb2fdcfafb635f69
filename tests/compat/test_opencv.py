"""What OpenCV 4's reader of Darknet gave, under an OpenCV that has none: the same names, rows and boxes."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import warnings

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_network, read_cfg
from darknet_compat.compat.opencv import DetectionModel, Net, readNetFromDarknet
from darknet_compat.detect import detect
from darknet_compat.errors import CfgError, DataError, ImageError, WeightsError
from darknet_compat.network import Network
from tests.compat.test_darknet import FASTEST, weights_of
from tests.conftest import ROOT

CFG, WEIGHTS = ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights"
SAMPLE = ROOT / "data/shapes-sample.jpg"
# As OpenCV 4.14 names them.
YOLOV4_TINY = " ".join(
    [
        "conv_0 bn_0 leaky_1 conv_1 bn_1 leaky_2 conv_2 bn_2 leaky_3 slice_3 conv_4 bn_4 leaky_5 conv_5 bn_5",
        "leaky_6 concat_6 conv_7 bn_7 leaky_8 concat_8 pool_9 conv_10 bn_10 leaky_11 slice_11 conv_12 bn_12",
        "leaky_13 conv_13 bn_13 leaky_14 concat_14 conv_15 bn_15 leaky_16 concat_16 pool_17 conv_18 bn_18",
        "leaky_19 slice_19 conv_20 bn_20 leaky_21 conv_21 bn_21 leaky_22 concat_22 conv_23 bn_23 leaky_24",
        "concat_24 pool_25 conv_26 bn_26 leaky_27 conv_27 bn_27 leaky_28 conv_28 bn_28 leaky_29 conv_29",
        "permute_30 yolo_30 identity_31 conv_32 bn_32 leaky_33 upsample_33 concat_34 conv_35 bn_35 leaky_36",
        "conv_36 permute_37 yolo_37",
    ]
).split()
# A script as people wrote them. Its words are the .cfg, the .weights, an image, the input's size, and where to tell.
SCRIPT = """
import sys
import cv2
import numpy as np

cfg, weights, path, width, height, told = sys.argv[1:]
net = cv2.dnn.readNetFromDarknet(cfg, weights)
net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
image = cv2.imread(path)
blob = cv2.dnn.blobFromImage(image, 1 / 255, (int(width), int(height)), swapRB=True, crop=False)
net.setInput(blob)
outputs = net.forward(net.getUnconnectedOutLayersNames())
boxes, scores, ids = [], [], []
for row in np.vstack(outputs):
    best = int(np.argmax(row[5:]))
    if row[5 + best] > 0.3:
        x, y, w, h = row[:4] * [image.shape[1], image.shape[0], image.shape[1], image.shape[0]]
        boxes.append([int(x - w / 2), int(y - h / 2), int(w), int(h)])
        scores.append(float(row[5 + best]))
        ids.append(best)
kept = np.array(cv2.dnn.NMSBoxes(boxes, scores, 0.3, 0.4)).flatten()
model = cv2.dnn_DetectionModel(cv2.dnn.readNetFromDarknet(cfg, weights))
model.setInputParams(scale=1 / 255, size=(int(width), int(height)), swapRB=True)
classes, confidences, found = model.detect(image, confThreshold=0.3, nmsThreshold=0.4)
everything = model.detect(image, confThreshold=0.2)
np.savez(
    told, rows=np.vstack(outputs), boxes=[boxes[i] for i in kept], scores=[scores[i] for i in kept],
    ids=[ids[i] for i in kept], classes=np.array(classes).flatten(), confidences=np.array(confidences).flatten(),
    found=np.array(found), number=len(everything[0]), names=net.getLayerNames(), outputs=net.getUnconnectedOutLayers(),
)
"""
IMPORT = "from darknet_compat.compat import opencv\n"


def blob(path, size):
    return cv2.dnn.blobFromImage(cv2.imread(str(path)), 1 / 255, size, swapRB=True)


@pytest.fixture(scope="module")
def net():
    return readNetFromDarknet(CFG, WEIGHTS)


def test_layers_have_opencvs_names(tmp_path):
    made = Net(Network(read_cfg(ROOT / "cfg/yolov4-tiny.cfg")))
    assert list(made.getLayerNames()) == YOLOV4_TINY
    assert made.getUnconnectedOutLayersNames() == ("yolo_30", "yolo_37")
    assert made.getUnconnectedOutLayers().tolist() == [66, 78]
    assert (made.getLayerId("conv_0"), made.getLayerId("yolo_37"), made.getLayerId("none")) == (1, 78, -1)
    assert not made.empty()
    text = "[net]\nwidth=8\nheight=8\nchannels=3\n[crop]\ncrop_width=6\ncrop_height=6\n[conv]\nactivation=relu\n"
    text += "[shortcut]\nfrom=-1\nactivation=leaky\n[dropout]\n[connected]\noutput=4\nactivation=linear\n"
    text += "[softmax]\n[cost]\n"
    (tmp_path / "others.cfg").write_text(text)
    # [crop] takes two numbers.
    assert readNetFromDarknet(tmp_path / "others.cfg").getLayerNames() == (
        "crop_0", "adjust_crop_1", "conv_2", "relu_3", "shortcut_3", "leaky_4", "identity_4", "fullyConnected_5",
        "softmax_6", "identity_7",
    )  # fmt: skip
    for kind, pool in (("sam", ""), ("scale_channels", "[avgpool]\n")):
        text = f"[net]\nwidth=8\nheight=8\nchannels=3\n[maxpool]\n{pool}[{kind}]\nfrom=0\nactivation=leaky\n"
        at = text.count("[") - 2
        assert readNetFromDarknet(text.encode()).names[-2:] == [f"{kind}_{at}", f"leaky_{at + 1}"]
    head = b"[net]\nwidth=8\nheight=8\nchannels=3\n"
    unadjusted = b"[crop]\ncrop_width=6\ncrop_height=6\nnoadjust=1\n[conv]\nactivation=linear\n"
    assert readNetFromDarknet(head + unadjusted).getLayerNames() == ("crop_0", "conv_1")
    grouped = b"[conv]\nfilters=4\nactivation=linear\n[route]\nlayers=-1,-1\ngroups=2\n[maxpool]\n"
    assert readNetFromDarknet(head + grouped).getLayerNames() == ("conv_0", "concat_1", "pool_2"), "OpenCV has slices"
    (tmp_path / "gru.cfg").write_text("[net]\ninputs=4\n[gru]\noutput=4\n")
    with pytest.raises(CfgError, match=r"gru\.cfg:3: \[gru\]: OpenCV's reader knows no \[gru\]"):
        readNetFromDarknet(tmp_path / "gru.cfg")


def test_rows_are_the_cells_with_their_anchors(net):
    """[region]: x, y, w, h, objectness, and classes over the cfg's thresh, .6; NMS over .4 leaves the likeliest."""
    net.setInput(blob(SAMPLE, (128, 128)))
    rows = net.forward()
    assert rows.shape == (16 * 16 * 5, 5 + 6)
    network = load_network(CFG, WEIGHTS)
    with torch.inference_mode():
        raw = network.raw_maps(torch.from_numpy(blob(SAMPLE, (128, 128))))[0][0].double()
    anchors = network.detector.anchors.double()
    values = raw.unflatten(0, (5, 11))
    most = []
    for index in range(0, len(rows), 7):
        cell, anchor = divmod(index, 5)
        y, x = divmod(cell, 16)
        tx, ty, tw, th, to, *classes = values[anchor, :, y, x].tolist()
        where = [(x + 1 / (1 + np.exp(-tx))) / 16, (y + 1 / (1 + np.exp(-ty))) / 16]
        size = (np.exp([tw, th]) * anchors[anchor].numpy() / 16).tolist()
        np.testing.assert_allclose(rows[index, :5], [*where, *size, 1 / (1 + np.exp(-to))], rtol=1e-4, atol=1e-5)
        shares = np.exp(classes) / np.exp(classes).sum() / (1 + np.exp(-to))
        most.append(shares.max())
        for got, share in zip(rows[index, 5:], shares, strict=True):
            assert got == 0 or (share > 0.6 and got == pytest.approx(share, rel=1e-4))
    images = torch.from_numpy(blob(SAMPLE, (128, 128)))
    (found,) = detect(network, images, [(128, 128)], [""], thresh=0.6, nms=0.4, letter_box=False)
    np.testing.assert_allclose(np.sort(rows[:, 5:][rows[:, 5:] > 0]), np.sort(found.scores), rtol=1e-4)


def test_a_section_may_say_its_thresholds(tmp_path):
    text = CFG.read_text()
    assert text.count("thresh = .6") == 1
    given = {}
    for name, line in (("low", "thresh = 0.1"), ("none", "")):
        net = readNetFromDarknet(text.replace("thresh = .6", line).encode(), WEIGHTS.read_bytes())
        net.setInput(blob(SAMPLE, (128, 128)))
        given[name] = net.forward()[:, 5:]
    assert 0.1 < given["low"][given["low"] > 0].min() < 0.3
    assert 0.001 < given["none"][given["none"] > 0].min() < 0.01


YOLO = """[net]
width=64
height=32
channels=3
[conv]
filters=21
size=3
stride=8
pad=1
activation=linear
[yolo]
mask=1,2,4
anchors=4,4, 40,40, 50,50, 20,20, 60,50
classes=2
num=5
"""


REGION = YOLO.split("[yolo]")[0].replace("21", "35") + (
    "[region]\nthresh=.05\nanchors=.5,.5, 3.2,2.5, 3,3, 3,2, 2,2\nclasses=2\nnum=5\nsoftmax=1\n"
)


def made(text):
    """A network whose boxes are of all probabilities, and overlap; the same numbers each time."""
    torch.manual_seed(2)
    net = readNetFromDarknet(text.encode())
    with torch.no_grad():
        net.network.layers[0].weights *= 4
    return net


@pytest.mark.parametrize("size", [(64, 32), (96, 64)])
def test_rows_of_yolo_are_the_cells_with_their_anchors(size):
    """A class under .2 has 0, where the section says no other; nothing is suppressed. Anchors are pixels of a blob."""
    net, (width, height) = made(YOLO), size
    numbers = np.random.default_rng(1).random((1, 3, height, width), np.float32) - np.float32(0.5)
    net.setInput(numbers)
    rows = net.forward()
    with torch.inference_mode():
        raw = net.network.raw_maps(torch.from_numpy(numbers))[0][0].double().numpy()
    share = 1 / (1 + np.exp(-raw.reshape(3, 7, height // 8, width // 8)))
    expected = []
    for y, x in np.ndindex(height // 8, width // 8):
        for anchor, (w, h) in enumerate(((40, 40), (50, 50), (60, 50))):
            at = share[anchor, :, y, x]
            tw, th = raw.reshape(share.shape)[anchor, 2:4, y, x]
            where = (x + at[0]) / (width // 8), (y + at[1]) / (height // 8)
            classes = [at[4] * one if at[4] * one > 0.2 else 0 for one in at[5:]]
            expected.append([*where, np.exp(tw) * w / width, np.exp(th) * h / height, at[4], *classes])
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    shown = rows[:, 5:][rows[:, 5:] > 0]
    assert len(shown) > 20
    assert shown.min() < 0.25


@pytest.mark.parametrize(
    ("section", "more", "overlap"),
    [("yolo", "nms_threshold=.3", 0.3), ("yolo", "", None), ("region", "", 0.4)],
)
def test_rows_that_overlap_a_likelier_one_have_no_class(section, more, overlap):
    """[region] always over .4, [yolo] where it says over how much."""
    if section == "region":
        net = made(REGION)
    else:
        net = made(YOLO + more)
    net.setInput(np.random.default_rng(1).random((1, 3, 32, 64), np.float32) - np.float32(0.5))
    rows = net.forward()
    left = 0
    for number in (5, 6):
        shown = rows[rows[:, number] > 0]
        left += len(shown)
        over = [iou(one, other) for index, one in enumerate(shown) for other in shown[:index]]
        if overlap is None:
            assert max(over) > 0.6
        else:
            assert max(over) == pytest.approx(overlap, abs=0.1)
            assert max(over) <= overlap
    assert left > 10


def iou(one, other):
    """Of two boxes of centres and sizes."""
    sides = [
        max(0, min(a + la / 2, b + lb / 2) - max(a - la / 2, b - lb / 2))
        for a, la, b, lb in ((one[0], one[2], other[0], other[2]), (one[1], one[3], other[1], other[3]))
    ]
    shared = sides[0] * sides[1]
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_behind_a_connected_layer_there_is_no_height():
    """As OpenCV 4 has it: (N, c), and (N, c, 1, 1) behind an [avgpool]."""
    head = "[net]\nwidth=8\nheight=8\nchannels=3\n[conv]\nfilters=4\n[avgpool]\n"
    for more, expected in (
        ("[softmax]\n", [(2, 4, 8, 8), (2, 4, 1, 1), (2, 4, 1, 1)]),
        ("[connected]\noutput=5\n[dropout]\n[softmax]\n", [(2, 4, 8, 8), (2, 4, 1, 1), (2, 5), (2, 5), (2, 5)]),
    ):
        net = readNetFromDarknet((head + more).encode())
        net.setInput(np.ones((2, 3, 8, 8), np.float32))
        assert [one.shape for one in net.forward(list(net.ends))] == expected


# Of a frame of 100 x 80: centre and size, objectness, and three classes.
ROWS = np.array([
    [0.5, 0.5, 0.4, 0.5, 1, 0.9, 0.1, 0],
    [0.52, 0.5, 0.4, 0.5, 1, 0.8, 0.1, 0],  # overlaps the first
    [0.5, 0.52, 0.4, 0.5, 1, 0, 0.7, 0.1],  # too, of another class
    [0.99, 0.98, 0.5, 0.5, 1, 0, 0, 0.6],  # beyond the edges
    [1.4, 0.5, 0.1, 0.1, 1, 0, 0, 0.55],
    [-0.305, -0.205, 0.1, 0.1, 1, 0, 0, 0.53],
    [0.2, 0.2, 0, 0, 1, 0, 0, 0.52],  # no pixel
    [0.8, 0.2, 0.1, 0.1, 1, 0.5, 0, 0],  # as likely as is asked for
    [0.1, 0.8, 0.1, 0.1, 1, 0, 0.4999, 0],
], np.float32)  # fmt: skip
BOXES = [[30, 20, 40, 40], [32, 20, 40, 40], [30, 21, 40, 40], [74, 58, 26, 22], [99, 36, 1, 8], [0, 0, 10, 8],
         [20, 16, 1, 1], [75, 12, 10, 8]]  # fmt: skip


def test_boxes_of_a_model_row_by_row(net, monkeypatch):
    """modules/dnn/src/model.cpp, DetectionModel::detect, worked out by hand."""
    given = []
    monkeypatch.setattr(net, "forward", lambda names: given.append(net.blob) or (ROWS,))
    model, frame = DetectionModel(net), np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    words = {"scale": 1 / 200, "size": (64, 96), "mean": (3, 2, 1), "swapRB": True, "crop": True}
    model.setInputParams(**words)
    classes, shares, boxes = model.detect(frame)
    np.testing.assert_array_equal(boxes, BOXES)
    np.testing.assert_array_equal(classes, [0, 0, 1, 2, 2, 2, 2, 0])
    np.testing.assert_array_equal(shares, ROWS[:8, 5:].max(1))
    words["scalefactor"] = words.pop("scale")
    np.testing.assert_array_equal(given[0], cv2.dnn.blobFromImage(frame, **words))
    # NMSBoxes takes what is over the threshold, and not what is as likely.
    for across, overlap, left in (
        (False, 0.85, {0, 2, 3, 4, 5, 6}), (False, 0.95, {0, 1, 2, 3, 4, 5, 6}), (True, 0.4, {0, 3, 4, 5, 6}),
    ):  # fmt: skip
        boxes = model.setNmsAcrossClasses(across).detect(frame, 0.5, overlap)[2]
        assert {BOXES.index(box) for box in boxes.tolist()} == left, overlap
    assert len(model.detect(frame, 0.4)[0]) == 9


def test_blobs_of_several_images_and_of_another_size(net):
    one, two = blob(SAMPLE, (128, 128)), blob(SAMPLE, (128, 128))[..., ::-1]
    net.setInput(np.concatenate([one, two]))
    both, last = net.forward(["detection_out", net.getLayerNames()[-3]])
    assert (both.shape, last.shape) == ((2, 1280, 11), (2, 55, 16, 16))
    for index, single in enumerate((one, two)):
        net.setInput(single)
        np.testing.assert_allclose(net.forward("detection_out"), both[index], atol=1e-5)
    net.setInput(blob(SAMPLE, (192, 96)))
    assert net.forward().shape == (24 * 12 * 5, 11)
    net.setInput(one * 255, scalefactor=1 / 255)
    np.testing.assert_allclose(net.forward(), both[0], atol=1e-5)
    net.setInput(one + np.array([0.5, 0.25, 0], np.float32)[:, None, None], mean=(0.5, 0.25, 0))
    np.testing.assert_allclose(net.forward(), both[0], atol=1e-4)


def test_what_is_asked_wrongly_is_one_line(tmp_path):
    net = readNetFromDarknet(str(CFG), str(WEIGHTS))
    with pytest.raises(DataError, match="no input; expected setInput before forward"):
        net.forward()
    with pytest.raises(ImageError, match=r"a blob of \(1, 1, 4, 4\); expected \(images, 3, height, width\)"):
        net.setInput(np.zeros((1, 1, 4, 4), np.float32))
    net.setInput(blob(SAMPLE, (128, 128)))
    with pytest.raises(
        DataError, match=r"^bn_0: it is inside a layer of Darknet's, and not its last; .* such as detection_out$"
    ):
        net.forward("bn_0")
    with pytest.raises(DataError, match=r"^nothing: no such layer"):
        net.forward(["nothing"])
    with pytest.raises(DataError, match=r"expected a Net, or the paths of a \.weights and a \.cfg"):
        DetectionModel(str(WEIGHTS))
    for frame in (None, np.zeros((0, 4, 3), np.uint8), str(SAMPLE), [np.zeros((4, 4, 3), np.uint8)]):
        with pytest.raises(ImageError, match=r"is no image, or an empty one; expected an array \(h, w, 3\)$"):
            DetectionModel(net).detect(frame)
    text = b"[net]\nwidth=8\nheight=8\nchannels=3\n[avgpool]\n[softmax]\n"
    with pytest.raises(CfgError, match=r"^buffer:6: \[softmax\]: an output that holds no boxes"):
        DetectionModel(readNetFromDarknet(text))
    with pytest.raises(CfgError, match=r"^buffer:[0-9]+: "):
        readNetFromDarknet(WEIGHTS.read_bytes()[:99], str(WEIGHTS))
    with pytest.raises(WeightsError, match=r"^/\S*/buffer\.\w+\.weights: offset"):
        readNetFromDarknet(CFG.read_bytes(), WEIGHTS.read_bytes()[:99])
    with pytest.raises(TypeError, match="bytes-like"):  # and not as many zeros
        readNetFromDarknet(5)


def test_a_mean_is_a_scalar_of_opencvs(net):
    """One number, or up to four; what is not given is 0."""
    one = blob(SAMPLE, (128, 128))
    net.setInput(one)
    expected = net.forward()
    for mean, planes in ((0.5, (0.5, 0, 0)), ((0.5,), (0.5, 0, 0)), ((0.5, 0.25), (0.5, 0.25, 0)),
                         ((0.5, 0.25, 0, 1), (0.5, 0.25, 0))):  # fmt: skip
        net.setInput(one + np.array(planes, np.float32)[:, None, None], mean=mean)
        np.testing.assert_allclose(net.forward(), expected, atol=1e-4)
        model = DetectionModel(net)
        model.setInputParams(mean=mean)
        image = np.full((8, 8, 3), 9, np.uint8)
        model.detect(image, 1.0)
        theirs = cv2.dnn.blobFromImage(image, 1.0, (128, 128), mean)
        np.testing.assert_array_equal(net.blob, theirs)


def test_a_model_finds_what_a_plain_loop_finds(net):
    image = cv2.imread(str(SAMPLE))
    height, width = image.shape[:2]
    for model in (DetectionModel(net), DetectionModel(WEIGHTS, CFG), DetectionModel(str(CFG), str(WEIGHTS))):
        model.setInputParams(scale=1 / 255, size=(128, 128), swapRB=True)
        classes, shares, boxes = model.detect(image, 0.61, 0.4)
        net.setInput(blob(SAMPLE, (128, 128)))
        expected = []
        for row in net.forward():
            best = int(row[5:].argmax())
            if row[5 + best] < np.float32(0.61):
                continue
            x, y, w, h = (int(part * side) for part, side in zip(row[:4], (width, height) * 2, strict=True))
            left, top = (
                max(0, min(at - int(size / 2), side - 1)) for at, size, side in ((x, w, width), (y, h, height))
            )
            box = (left, top, max(1, min(w, width - left)), max(1, min(h, height - top)))
            expected.append((best, float(row[5 + best]), box))
        assert len(expected) > 1
        found = zip(classes.tolist(), shares.tolist(), map(tuple, boxes.tolist()), strict=True)
        assert sorted(found) == sorted(expected), "the network's own NMS has left no two that overlap"
        assert (classes.dtype, shares.dtype, boxes.dtype) == (np.int32, np.float32, np.int32)
        assert all(len(part) == 0 for part in model.detect(image, 0.9999))
    assert not model.getNmsAcrossClasses()
    assert model.setNmsAcrossClasses(True).getNmsAcrossClasses()


@pytest.fixture(scope="module")
def opencv4(tmp_path_factory):
    """The interpreter of an environment with OpenCV 4, for two versions of OpenCV do not live in one."""
    folder = tmp_path_factory.mktemp("opencv4")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "opencv-python-headless<5", "numpy"], check=True)
    return python


@pytest.mark.slow
def test_names_are_those_of_opencv_4(opencv4, alexeyab, darknet_share, tmp_path):
    code = """
import cv2, json, sys
told = {}
for path in sys.argv[2:]:
    try:
        net = cv2.dnn.readNetFromDarknet(path)
        ends = list(net.getUnconnectedOutLayersNames()), net.getUnconnectedOutLayers().tolist()
        told[path] = [list(net.getLayerNames()), *ends]
    except cv2.error:
        pass
json.dump(told, open(sys.argv[1], "w"))
"""
    paths = [*(ROOT / "cfg").glob("*.cfg"), *(darknet_share / "cfg").glob("*.cfg"), *(alexeyab / "cfg").glob("*.cfg")]
    subprocess.run([opencv4, "-c", code, tmp_path / "told.json", *paths], check=True, stderr=subprocess.DEVNULL)
    told = json.loads((tmp_path / "told.json").read_text())
    compared = 0
    for path, (names, ends, numbers) in told.items():
        if path.endswith("yolo9000.cfg"):  # its tree is not at hand
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = Net(Network(read_cfg(path)))
        assert list(net.getLayerNames()) == names, path
        assert list(net.getUnconnectedOutLayersNames()) == ends, path
        assert net.getUnconnectedOutLayers().tolist() == numbers, path
        compared += 1
    print(compared, "cfgs")
    assert compared > 140


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["yolo-fastest", "yolov3-tiny", "yolov4-tiny", "shapes"])
def test_a_script_for_opencv_4_finds_the_same(opencv4, alexeyab, darknet_share, tmp_path, name):
    if name == "yolo-fastest":
        cfg, weights, size = FASTEST / "yolo-fastest-1.1.cfg", FASTEST / "yolo-fastest-1.1.weights", (320, 320)
    elif name == "shapes":
        cfg, weights, size = CFG, WEIGHTS, (128, 128)
    else:
        cfg, size = alexeyab / f"cfg/{name}.cfg", (416, 416)
        weights = weights_of(cfg, tmp_path)
    image = SAMPLE if name == "shapes" else darknet_share / "data/dog.jpg"
    cv2.imwrite(str(tmp_path / "image.png"), cv2.imread(str(image)))
    words = [cfg, weights, tmp_path / "image.png", *size]
    subprocess.run([opencv4, "-c", SCRIPT, *map(str, words), str(tmp_path / "theirs.npz")], check=True)
    text = SCRIPT.replace("cv2.dnn.readNetFromDarknet", "opencv.readNetFromDarknet")
    text = IMPORT + text.replace("cv2.dnn_DetectionModel", "opencv.DetectionModel")
    subprocess.run([sys.executable, "-c", text, *map(str, words), str(tmp_path / "ours.npz")], check=True, cwd=ROOT)
    theirs, ours = np.load(tmp_path / "theirs.npz"), np.load(tmp_path / "ours.npz")
    assert ours["names"].tolist() == theirs["names"].tolist()
    np.testing.assert_allclose(ours["rows"][:, :5], theirs["rows"][:, :5], rtol=3e-3, atol=1e-3)
    differ = np.abs(ours["rows"][:, 5:] - theirs["rows"][:, 5:]) > 2e-3
    print(name, "rows", len(ours["rows"]), "greatest difference", np.abs(ours["rows"] - theirs["rows"]).max())
    assert differ.mean() < 1e-5, "but for a class that is as likely as the threshold"
    assert len(ours["boxes"]) == len(theirs["boxes"]) > 0
    for key, near in (("boxes", 1), ("scores", 2e-3), ("ids", 0), ("classes", 0), ("confidences", 2e-3), ("found", 1)):
        np.testing.assert_allclose(ours[key], theirs[key], atol=near, err_msg=key)
    assert ours["number"] == theirs["number"]
