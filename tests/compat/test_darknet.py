"""Scripts for AlexeyAB's darknet.py find the same with ours: his own, run with one changed import."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_network, save_weights
from darknet_compat.compat import darknet
from darknet_compat.errors import CfgError, DataError, ImageError
from tests.conftest import ROOT, real

IMPORT = "from darknet_compat.compat import darknet\n"
PHOTOGRAPHS = ("dog", "person", "horses")
FASTEST = ROOT.parent / "shared/data/yolo-fastest"
SHAPES = (str(ROOT / "cfg/yolov2-shapes.cfg"), str(ROOT / "weights/yolov2-shapes.weights"))


def lines(text):
    """Name, percent and box of each line behind "Objects:"."""
    found = re.findall(
        r"^(.+): ([\d.]+)%    \(left_x: (\S+)   top_y:  (\S+)   width:   (\S+)   height:  (\S+)\)$", text, re.M
    )
    return sorted((name, *map(float, numbers)) for name, *numbers in found)


def run(script, folder, *words):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, *map(str, words), "--dont_show", "--ext_output"], cwd=folder, capture_output=True,
        text=True, timeout=300, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def matched(ours, theirs):
    """Each has its like: percents within their last digit, and pixels. His texts sort "9.5" behind "80.1"."""
    left = list(ours)
    for word, *numbers in theirs:
        alike = [
            one for one in left
            if one[0] == word and abs(one[1] - numbers[0]) <= 0.0101
            and np.allclose(one[2:], numbers[1:], atol=1.01, rtol=1e-3)
        ]  # fmt: skip
        assert alike, (word, numbers)
        left.remove(alike[0])
    assert not left


@pytest.fixture
def scripts(alexeyab, tmp_path):
    """His darknet_images.py as it is, and with the one import changed."""
    text = (alexeyab / "darknet_images.py").read_text()
    assert text.count("\nimport darknet\n") == 1
    ours = tmp_path / "ours.py"
    ours.write_text(text.replace("import darknet\n", IMPORT))
    return alexeyab / "darknet_images.py", ours


@pytest.fixture
def photographs(darknet_share, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in PHOTOGRAPHS:
        cv2.imwrite(str(folder / f"{name}.png"), cv2.imread(str(darknet_share / f"data/{name}.jpg")))
    (tmp_path / "coco.data").write_text(f"classes=80\nnames={darknet_share}/data/coco.names\n")
    return folder


def weights_of(cfg, folder):
    """Start values, but for boxes of which few are sure, and differ."""
    torch.manual_seed(7)
    network = load_network(cfg, program="alexeyab")
    for layer in network.layers:
        if getattr(layer.o, "batch_normalize", 0):
            layer.rolling_variance.fill_(1)
    with torch.inference_mode():
        maps = network.raw_maps(torch.rand(1, 3, network.height, network.width))
    for head, raw in zip(network.detectors, maps, strict=True):
        layer = network.layers[head.index - 1]
        layer.weights.data *= 0.7 / float(raw.std())  # or boxes would have no end
        layer.biases.data.uniform_(-3, 1)
    save_weights(network, folder / "random.weights")
    return folder / "random.weights"


@pytest.mark.parametrize(("name", "thresh"), [real("yolo-fastest", 0.25), ("yolov3-tiny", 0.3), ("yolov4-tiny", 0.3)])
def test_his_script_for_images_finds_the_same_boxes(alexeyab, scripts, photographs, tmp_path, name, thresh):
    if name == "yolo-fastest":
        cfg, weights = FASTEST / "yolo-fastest-1.1.cfg", FASTEST / "yolo-fastest-1.1.weights"
    else:
        cfg = alexeyab / f"cfg/{name}.cfg"
        weights = weights_of(cfg, tmp_path)
    words = ["--config_file", cfg, "--weights", weights, "--data_file", tmp_path / "coco.data", "--input", photographs]
    theirs, ours = (lines(run(script, tmp_path, *words, "--thresh", thresh)) for script in scripts)
    assert len(theirs) > (4 if name == "yolo-fastest" else 100)
    print(name, len(theirs), "boxes")
    matched(ours, theirs)


HEADLESS = """
import os, threading
import cv2
cv2.waitKey = lambda *_: -1  # builds of OpenCV without windows lack it
cv2.destroyAllWindows = lambda: None
threading.Timer(12, lambda: os._exit(0)).start()  # the script's threads wait for each other when the video ends
"""


@pytest.mark.slow
@pytest.mark.real_data
def test_his_script_for_videos_finds_the_same_boxes(alexeyab, tmp_path, darknet_share):
    dog = cv2.resize(cv2.imread(str(darknet_share / "data/dog.jpg")), (384, 288))
    video = cv2.VideoWriter(str(tmp_path / "dog.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (384, 288))
    for frame in range(6):
        video.write(cv2.flip(dog, 1) if frame % 2 else dog)
    video.release()
    (tmp_path / "coco.data").write_text(f"classes=80\nnames={darknet_share}/data/coco.names\n")
    text = (alexeyab / "darknet_video.py").read_text()
    (tmp_path / "ours.py").write_text(HEADLESS + text.replace("import darknet\n", IMPORT))
    # His own looks for the library beside itself.
    (tmp_path / "theirs.py").write_text(f"import sys\nsys.path.insert(0, {str(alexeyab)!r})\n{HEADLESS}{text}")
    words = ["--config_file", FASTEST / "yolo-fastest-1.1.cfg", "--weights", FASTEST / "yolo-fastest-1.1.weights",
             "--data_file", "coco.data", "--input", "dog.avi", "--thresh", ".25"]  # fmt: skip
    theirs, ours = (
        lines(run(tmp_path / f"{name}.py", tmp_path, *words, "--out_filename", f"{name}.avi"))
        for name in ("theirs", "ours")
    )
    assert len(theirs) > 3 * 4
    matched(ours, theirs)
    assert (tmp_path / "ours.avi").stat().st_size > 10_000


SCRIPT = """
import json, random, sys
from ctypes import POINTER, c_float, c_int, pointer
import numpy as np
import darknet

cfg, weights, data, photograph = sys.argv[1:]
random.seed(3)
network, names, colours = darknet.load_network(cfg, data, weights, batch_size=2)
w, h = darknet.network_width(network), darknet.network_height(network)
told = {"names": names, "colours": list(colours.items()), "size": [w, h]}
image = darknet.load_image(photograph.encode(), 0, 0)
told["image"] = [image.w, image.h, image.c]


def planes(image, count=3000):
    return [float(image.data[index * 97]) for index in range(min(count, image.w * image.h * 3 // 97))]


def lines(dets, num):
    boxes = [(dets[i].bbox.x, dets[i].bbox.y, dets[i].bbox.w, dets[i].bbox.h, dets[i].objectness) for i in range(num)]
    return boxes, [[float(p) for p in dets[i].prob[: len(names)]] for i in range(num)]


told["pixels"] = planes(image)
told["fitted"] = planes(darknet.letterbox_image(image, w, h))
told["sized"] = planes(darknet.load_image(photograph.encode(), w, h))
for kind in ("predict_image", "predict_image_letterbox"):
    output = getattr(darknet, kind)(network, image)
    told[kind] = [float(output[index]) for index in range(500)]
for letter in (0, 1):
    for relative in (0, 1):
        number = pointer(c_int(0))
        dets = darknet.get_network_boxes(network, image.w, image.h, .3, .5, None, relative, number, letter)
        told[f"boxes {letter} {relative}"] = lines(dets, number[0])
darknet.do_nms_sort(dets, number[0], len(names), .45)
told["sorted"] = lines(dets, number[0])
darknet.free_detections(dets, number[0])
number = pointer(c_int(0))
dets = darknet.get_network_boxes(network, image.w, image.h, .3, .5, None, 0, number, 0)
darknet.do_nms_obj(dets, number[0], len(names), .45)
told["by objectness"] = lines(dets, number[0])
told["positive"] = darknet.remove_negatives(dets, names, number[0])
told["decoded"] = darknet.decode_detection(told["positive"][:50])
found = darknet.detect_image(network, names, image, thresh=.4)
told["found"] = found
told["sequence"] = [one[1] for one in found] == sorted(one[1] for one in found)
unsuppressed = darknet.detect_image(network, names, image, thresh=.05, nms=0)
told["unsuppressed"] = len(unsuppressed)
told["of few"] = len(darknet.detect_image(network, names[:40], image, thresh=.05, nms=0))
texts = [one[1] for one in unsuppressed]
told["texts"] = [texts == sorted(texts), texts == sorted(texts, key=float)]
network, names, _ = darknet.load_network(cfg, data, weights, batch_size=2)
both = np.random.default_rng(0).random((2, 3, h, w)).astype(np.float32)
given = darknet.IMAGE(w, h, 3, both.ctypes.data_as(POINTER(c_float)))
for index, pair in enumerate(darknet.network_predict_batch(network, given, 2, 640, 480, .3, .5, None, 0, 0)[:2]):
    told[f"batch {index}"] = lines(pair.dets, pair.num)
darknet.rgbgr_image(image)
told["turned"] = planes(image)
overlapping = [("a", 1, 2, (50, 50, 20, 20)), ("b", 1, 2, (52, 51, 20, 20)), ("c", 1, 2, (90, 50, 20, 25.5))]
told["fast"] = [one[0] for one in darknet.non_max_suppression_fast(overlapping, .5)]
numbers = np.random.default_rng(1).integers(2, 30, (3, 60, 4)).tolist()
told["many"] = [
    [one[0] for one in darknet.non_max_suppression_fast([(i, 1, 2, box) for i, box in enumerate(boxes)], most)]
    for most, boxes in zip((.2, .5, .8), numbers)
]
told["points"] = [darknet.bbox2points(box) for box in ((10.5, 20.5, 5, 6), (1, 2, 7.1, 3.3), (100, 50, 2.5, 3.5))]
canvas = np.full((90, 120, 3), 50, np.uint8)
drawn = darknet.draw_boxes([("a", "93.25", (50, 50, 30, 20))], canvas, {"a": (1, 2, 250)})
told["drawn"] = drawn.reshape(-1).tolist()
darknet.print_detections(told["decoded"][:5])
darknet.print_detections(told["decoded"][:5], True)
json.dump(told, open("told.json", "w"))
"""


def near(ours, theirs, where):
    """Numbers within 1e-3 relative (of a pixel or a probability at the least), all else equal."""
    if isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3), where
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            near(one, other, (*where, index))
    else:
        assert ours == theirs, where


def test_function_by_function_they_give_the_same(alexeyab, tmp_path, darknet_share):
    cfg = alexeyab / "cfg/yolov3-tiny.cfg"
    (tmp_path / "small.cfg").write_text(
        cfg.read_text().replace("width=416", "width=160").replace("height=416", "height=96")
    )
    weights = weights_of(tmp_path / "small.cfg", tmp_path)
    (tmp_path / "coco.data").write_text(f"classes=80\nnames={darknet_share}/data/coco.names\n")
    cv2.imwrite(str(tmp_path / "dog.png"), cv2.imread(str(darknet_share / "data/dog.jpg")))
    told = []
    for name, text in (
        ("theirs", SCRIPT),
        ("ours", SCRIPT.replace("import darknet\n", "from darknet_compat.compat import darknet\n")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "script.py").write_text(text)
        words = [tmp_path / "small.cfg", weights, tmp_path / "coco.data", tmp_path / "dog.png"]
        path = os.pathsep.join([str(alexeyab) if name == "theirs" else str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "script.py", *map(str, words)], cwd=tmp_path / name, capture_output=True, text=True,
            timeout=300, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        printed = done.stdout[done.stdout.index("\nObjects:") :]
        told.append((json.loads((tmp_path / name / "told.json").read_text()), printed))
    (theirs, their_lines), (ours, our_lines) = told
    assert len(theirs["boxes 0 0"][0]) > 20
    assert theirs["sequence"] is True
    assert theirs["texts"] == [True, False]
    assert theirs["unsuppressed"] > theirs["of few"] > 100
    order = theirs.pop("found"), ours.pop("found")
    for key in theirs:
        near(ours[key], theirs[key], (key,))
    assert our_lines.count("%") == their_lines.count("%")
    matched(*([(name, float(percent), *box) for name, percent, box in found] for found in order[::-1]))


def test_what_does_not_fit_is_one_line(tmp_path):
    (tmp_path / "two.data").write_text(f"classes=2\nnames={ROOT}/data/shapes.names\n")
    with pytest.raises(DataError, match=r"two\.data: 2 names; expected 6, the classes of .*yolov2-shapes\.cfg$"):
        darknet.load_network(SHAPES[0], str(tmp_path / "two.data"), SHAPES[1])
    (tmp_path / "many.data").write_text(f"classes=9\nnames={ROOT}/data/shapes.names\n")
    with pytest.raises(DataError, match=r"6 names; expected 9, as classes= says"):
        darknet.load_meta(str(tmp_path / "many.data"))
    image = darknet.make_image(4, 2, 3)
    with pytest.raises(ImageError, match=r"^5 bytes; expected those of an image of \(2, 4, 3\) \(h, w, c\)$"):
        darknet.copy_image_from_bytes(image, bytes(5))
    network = darknet.load_net_custom(SHAPES[0].encode(), SHAPES[1].encode(), 0, 1)
    with pytest.raises(ImageError, match=r"planes of \(3, 64, 64\) \(c, h, w\); expected \(3, 128, 128\)"):
        network.run(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(DataError, match="the network has not run; expected predict_image before its boxes"):
        darknet.get_network_boxes(network, 640, 480, 0.5)
    for few in (darknet.IMAGE(128, 128, 3), darknet.make_image(0, 0, 3), darknet.IMAGE(128, 128, 3, np.zeros(9))):
        with pytest.raises(
            ImageError, match=r"^an image of \d numbers; expected \d+, for \(1, 3, \d+, \d+\) \(images, c"
        ):
            darknet.predict_image(network, few)
    with pytest.raises(ImageError, match=r"^an image of 49152 numbers; expected 98304, for \(2, 3, 128, 128\)"):
        darknet.network_predict_batch(network, darknet.make_image(128, 128, 3), 2, 640, 480, 0.5)
    for predict in (darknet.predict_image, darknet.predict_image_letterbox):
        with pytest.raises(ImageError, match=r"^an image of 1 planes in another size than the network's; expected 3"):
            predict(network, darknet.make_image(20, 30, 1))
    with pytest.raises(CfgError, match=r"^\\udcff\.cfg: no such file"):
        darknet.load_net_custom(b"\xff.cfg", b"no.weights")


def test_a_classifier_has_no_boxes(tmp_path):
    (tmp_path / "toy.cfg").write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[conv]\nfilters=3\n[avgpool]\n[softmax]\n")
    save_weights(load_network(tmp_path / "toy.cfg"), tmp_path / "toy.weights")
    network = darknet.load_net(tmp_path / "toy.cfg", tmp_path / "toy.weights")
    assert darknet.predict_image(network, darknet.make_image(8, 8, 3)).tolist() == pytest.approx([1 / 3] * 3)
    assert darknet.get_network_boxes(network, 8, 8, 0.5) == []


def test_networks_follow_his_program_and_clear_forgets_what_they_have_seen():
    assert [darknet.load_net_custom(*SHAPES, clear).network.seen for clear in (0, 1)] == [30400, 0]
    assert load_network(*SHAPES).program == "pjreddie"
    assert darknet.load_net(*SHAPES).network.program == "alexeyab"


def test_a_data_file_may_call_its_names_labels_and_has_two_classes(tmp_path):
    """get_metadata: "names", or else "labels"; classes=2."""
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    (tmp_path / "the.data").write_text(f"labels={tmp_path}/three.txt\n")
    assert darknet.load_meta(tmp_path / "the.data") == (2, [b"a", b"b", b"c"])


def test_a_recurrent_network_starts_anew_when_it_is_told(tmp_path):
    (tmp_path / "net.cfg").write_text(
        "[net]\nwidth=1\nheight=1\nchannels=3\n[rnn]\noutput=4\nhidden=4\nactivation=tanh\n"
    )
    save_weights(load_network(tmp_path / "net.cfg"), tmp_path / "net.weights")
    network = darknet.load_net(tmp_path / "net.cfg", tmp_path / "net.weights")
    first, second = (darknet.network_predict(network, np.ones(3, np.float32)).tolist() for _ in range(2))
    assert first != second
    darknet.reset_rnn(network)
    assert darknet.network_predict(network, np.ones(3, np.float32)).tolist() == first


def test_images_of_a_batch_have_as_many_boxes_as_alone(tmp_path):
    (tmp_path / "net.cfg").write_text(
        "[net]\nwidth=64\nheight=64\nchannels=3\n[conv]\nfilters=7\nsize=3\nstride=8\nactivation=linear\n"
        "[yolo]\nclasses=2\nnum=1\nmask=0\nanchors=9,9\n"
    )
    torch.manual_seed(1)
    save_weights(load_network(tmp_path / "net.cfg", program="alexeyab"), tmp_path / "net.weights")
    network = darknet.load_net(tmp_path / "net.cfg", tmp_path / "net.weights")
    planes = np.random.default_rng(0).random((2, 3, 64, 64)).astype(np.float32)
    planes[1] *= 9
    together = darknet.network_predict_batch(network, darknet.IMAGE(64, 64, 3, planes), 2, 64, 64, 0.52)
    alone = []
    for image in planes:
        darknet.network_predict(network, image)
        alone.append(darknet.get_network_boxes(network, 64, 64, 0.52))
    assert [pair.num for pair in together] == [len(pair.dets) for pair in together] == [len(found) for found in alone]
    assert together[0].num != together[1].num
    assert all(one.best_class_idx == (int(one.prob.argmax()) if one.prob.any() else -1) for one in alone[1])


def test_a_box_of_no_class_is_passed_over():
    none, some = (
        darknet.DETECTION(darknet.BOX(1, 2, 3, 4), 2, np.float32(prob), 1, best)
        for prob, best in (([0, 0], -1), ([0.25, 0.5], 1))
    )
    assert darknet.remove_negatives_faster([none, some, some], ["a", "b"], 2) == [("b", 0.5, (1, 2, 3, 4))]


def test_a_box_without_end_is_drawn(tmp_path):
    canvas = np.zeros((50, 50, 3), np.uint8)
    darknet.draw_boxes([("a", "50.0", (25, 25, np.inf, 10))], canvas, {"a": (255, 255, 255)})
    assert canvas[20].any()


def test_names_have_colours_of_their_own_that_a_seed_repeats():
    random.seed(3)
    first = darknet.class_colors(["a", "b", "c"])
    random.seed(3)
    assert darknet.class_colors(["a", "b", "c"]) == first
    assert len(set(first.values())) == 3


def test_what_has_nothing_to_free_takes_it():
    for name in ("free_image", "free_detections", "free_batch_detections", "free_ptrs", "free_network_ptr", "set_gpu"):
        assert getattr(darknet, name)(object(), 1) is None
    assert set(darknet.__all__) <= set(dir(darknet))
