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
    assert 0.1 < given["low"][given["low"] > 0].min() < 0.2
    assert 0.001 < given["none"][given["none"] > 0].min() < 0.01


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
        DataError, match=r"^bn_0: it is one in the midst of a layer of Darknet's; .* such as detection_out$"
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
    with pytest.raises(CfgError, match=r"^buffer:1: "):
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
