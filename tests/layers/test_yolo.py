"""[yolo] against the libraries of both programs: maps, boxes, their order and their suppression."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.detect import detect
from darknet_compat.errors import CfgError, CfgWarning
from darknet_compat.layers.head import Head
from darknet_compat.layers.yolo import Yolo
from darknet_compat.network import Network
from tests.compare import EXACT, calibrate, check_layers, net, network_of, worst_step
from tests.oracle import PROGRAM
from tests.oracle.alexeyab import IOU_LOSSES, NMS_KINDS

# Two heads, of 8 and 16 pixels, that share one line of anchors as v3's do.
CONV = "[conv]\nfilters={}\nsize=3\nstride={}\npad=1\nactivation=leaky"
HEAD = "[yolo]\nmask={}\nanchors=10,14, 23,27, 37.5,58, 81,82, 135,169\nclasses=4\nnum=5\n{}"


def two_heads(options="", before="linear", width=96, height=64):
    last = f"[conv]\nfilters={{}}\nactivation={before}"
    return net(
        width, height, 3, CONV.format(8, 4), CONV.format(16, 2), CONV.format(16, 2),
        last.format(27), HEAD.format("2,3,4", options),
        "[route]\nlayers=-4", last.format(18), HEAD.format("0,1", options), batch=1,
    )  # fmt: skip


OPTIONS = {
    "plain": ("", "linear"),
    "scaled": ("scale_x_y=1.1", "linear"),
    "greedy": ("nms_kind=greedynms", "linear"),
    "diou": ("nms_kind=diounms\nbeta_nms=.3\nscale_x_y=1.05", "linear"),
    "new": ("new_coords=1\nscale_x_y=2.0", "logistic"),
}


@pytest.fixture(params=["pjreddie", *OPTIONS])
def case(request):
    """A driver of either library, and a cfg text that its program reads."""
    if request.param == "pjreddie":
        return request.getfixturevalue("darknet"), two_heads()
    return request.getfixturevalue("alexeyab_darknet"), two_heads(*OPTIONS[request.param])


def test_forward_is_darknets(case, tmp_path):
    network = check_layers(*case, tmp_path, batch=1)
    assert [head.type for head in network.heads] == ["yolo", "yolo"]


def random_image(network, seed=3):
    return np.random.default_rng(seed).random((1, *network.input), np.float32)


@pytest.mark.parametrize("size", [(96, 64), (33, 200)])
def test_boxes_are_darknets(case, tmp_path, size):
    """The same boxes in the same order, before and after their suppression, of a letterboxed or stretched image."""
    library, text = case
    network, *files = network_of(text, tmp_path, 1, library.numerics, library.program)
    reference, x = library.load_network(*files), random_image(network)
    alexeyab = library.program == "alexeyab"
    with torch.inference_mode():
        outputs = network.predict(torch.from_numpy(x))
    last = network.detector
    kind = {"kind": last.nms_kind, "beta": last.beta_nms} if alexeyab else {}
    for thresh in (0.5, 0.2, 0.01):
        for letter_box in (True, False) if alexeyab else (True,):
            letter = {"letter": letter_box} if alexeyab else {}
            reference.predict(x)
            listed = network.listed_boxes(outputs, thresh)
            expected = reference.boxes(96, 64, thresh, **letter)
            assert len(expected.objectness) == listed.objectness.shape[1] > 0
            np.testing.assert_allclose(listed.xywh[0], expected.boxes, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(listed.objectness[0], expected.objectness, rtol=1e-5)
            np.testing.assert_allclose(listed.prob[0], expected.prob, rtol=1e-4, atol=1e-6)
            (found,) = detect(network, torch.from_numpy(x), [size], [""], thresh=thresh, nms=0.3, letter_box=letter_box)
            expected = reference.boxes(*size, thresh, nms=0.3, **kind, **letter)
            kept = [number for number in expected.order if expected.prob[number].any()]
            assert kept
            np.testing.assert_allclose(found.boxes, expected.boxes[kept], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.prob, expected.prob[kept], rtol=1e-4, atol=1e-6)
    assert len(kept) < listed.objectness.shape[1]


@pytest.mark.parametrize("gaussian", [False, True])
def test_a_batch_lists_of_each_image_what_its_boxes_show(gaussian, tmp_path):
    """To the bit, image by image; rows that an image does not fill are 0."""
    text = two_heads("scale_x_y=1.1")
    if gaussian:
        text = text.replace("[yolo]", "[Gaussian_yolo]").replace("filters=27", "filters=39")
        text = text.replace("filters=18", "filters=26")
    network, *_ = network_of(text, tmp_path, program="alexeyab")
    x = torch.rand(4, *network.input, generator=torch.Generator().manual_seed(0))
    x[3] = 0
    with torch.no_grad():
        outputs, uneven = network.predict(x), False
    for head, output in zip(network.detectors, outputs, strict=True):
        thresh = float(head.boxes(output, 0.0).objectness.quantile(0.9))
        listed, whole = head.listed(output, thresh), head.boxes(output, thresh)
        counts = (whole.objectness != 0).sum(1)
        uneven |= len(set(counts.tolist())) > 1
        assert listed.objectness.shape[1] == counts.max() < whole.objectness.shape[1]
        for image, count in enumerate(counts):
            for part, every in zip(listed, whole, strict=True):
                assert torch.equal(part[image, :count], every[image][whole.objectness[image] != 0])
                assert not part[image, count:].any()
    assert uneven


def test_resizing_keeps_anchors_in_pixels(case, tmp_path):
    library, text = case
    network, *files = network_of(text, tmp_path, 1, library.numerics, library.program)
    network.resize(160, 128)
    other = tmp_path / "other.cfg"
    other.write_text(text.replace("width=96", "width=160").replace("height=64", "height=128"))
    reference, x = library.load_network(other, files[1]), random_image(network)
    reference.predict(x)
    with torch.inference_mode():
        found = network.listed_boxes(network.predict(torch.from_numpy(x)), 0.3)
    expected = reference.boxes(160, 128, 0.3)
    np.testing.assert_allclose(found.xywh[0], expected.boxes, rtol=1e-4, atol=1e-5)


def test_valid2_averages_as_darknet_does(darknet, tmp_path):
    """get_yolo_detections averages by itself when the batch is of two images."""
    network, *files = network_of(two_heads().replace("batch=1", "batch=2"), tmp_path, 1, "cpu")
    reference, x = darknet.load_network(*files), random_image(network)
    reference.predict(np.concatenate([x, x[..., ::-1]]))
    expected = reference.boxes(96, 64, 0.1, nms=0.4)
    (found,) = detect(network, torch.from_numpy(x), [(96, 64)], [""], thresh=0.1, nms=0.4, mirrored=True)
    kept = [number for number in expected.order if expected.prob[number].any()]
    assert len(kept) > 5
    np.testing.assert_allclose(found.boxes, expected.boxes[kept], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.prob, expected.prob[kept], rtol=1e-4, atol=1e-6)


def test_the_table_is_darknets(darknet, darknet_share):
    cfg = darknet_share / "cfg/yolov3-tiny.cfg"
    printed = subprocess.run([PROGRAM, "ops", cfg], capture_output=True, text=True).stderr
    printed = [line for line in printed.splitlines() if line[:5].strip().isdigit()]
    ours = Network(read_cfg(cfg), device="meta").table().splitlines()[1:]
    assert sum(line.split()[1] == "yolo" for line in printed) == 2
    for line, mine in zip(printed, ours, strict=False):
        assert " ".join(mine.split()).startswith(" ".join(line.split())), line
    assert len(ours) == len(printed) + 1  # the total


@pytest.mark.filterwarnings("ignore:.*repeated option")
@pytest.mark.parametrize(
    ("name", "heads"),
    [("yolov3", 3), ("yolov3-openimages", 3), ("yolov3-spp", 3), ("yolov3-tiny", 2), ("yolov3-voc", 3)],
)
def test_stock_networks_build(darknet_share, name, heads):
    network = Network(read_cfg(darknet_share / f"cfg/{name}.cfg"), device="meta")
    assert [head.type for head in network.heads] == ["yolo"] * heads
    assert (network.program, network.detector.n) == ("pjreddie", 3)


SLOW = ("yolov3", "yolov3-spp", "yolov3-openimages", "yolov3-voc")


@pytest.mark.filterwarnings("ignore:.*repeated option")
@pytest.mark.parametrize("name", ["yolov3-tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_layer_of_stock_networks(darknet, darknet_share, tmp_path, name):
    """Each layer by itself, heads too, and the boxes of libdarknet's maps, in its order; on a small input."""
    text = (darknet_share / f"cfg/{name}.cfg").read_text()
    for option, value in {"width": 96, "height": 96, "batch": 1, "subdivisions": 1}.items():
        text = re.sub(rf"(?m)^{option} *=.*$", f"{option}={value}", text)
    network, cfg, weights = network_of(text, tmp_path)
    x = random_image(network)
    calibrate(network, torch.from_numpy(np.concatenate([x, 1 - x])), weights)
    reference = darknet.load_network(cfg, weights)
    difference, index = worst_step(network, reference, x)
    print(f"{name}: worst layer {index}, {difference:.2g}")
    assert difference <= EXACT
    maps = [torch.from_numpy(reference.layer_output(head.index)).reshape(1, *head.output) for head in network.heads]
    for thresh in (0.5, 0.05):
        found, expected = network.listed_boxes(maps, thresh), reference.boxes(96, 96, thresh)
        assert len(expected.boxes) == found.xywh.shape[1] > 0
        np.testing.assert_allclose(found.xywh[0], expected.boxes, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.prob[0], expected.prob, rtol=1e-5, atol=1e-6)


FIELDS = {
    "pjreddie": {"classes": "classes", "num": "total", "max": "max_boxes"}
    | {name: name for name in ("jitter", "random", "ignore_thresh", "truth_thresh")},
    "alexeyab": {"classes": "classes", "num": "total", "max": "max_boxes"}
    | {name: name for name in ("jitter", "random", "ignore_thresh", "truth_thresh", "iou_thresh", "resize")}
    | {name: name for name in ("scale_x_y", "new_coords", "beta_nms")}
    | {f"{name}_normalizer": f"{name}_normalizer" for name in ("iou", "obj", "cls", "delta")},
}


@pytest.mark.parametrize("program", FIELDS)
def test_defaults_are_darknets(request, tmp_path, program):
    library = request.getfixturevalue("darknet" if program == "pjreddie" else "alexeyab_darknet")
    network, cfg, _ = network_of(net(8, 8, 3, "[conv]\nfilters=25", "[yolo]"), tmp_path, program=program)
    head, theirs = network.detector, library.load_network(cfg).layers[1]
    for option, field in FIELDS[program].items():
        assert getattr(head.o, option) == pytest.approx(theirs.number(field), rel=1e-6), option
    assert head.anchors.tolist() == [[0.5, 0.5]]
    if program == "alexeyab":
        assert theirs.nms_kind == NMS_KINDS.index(head.nms_kind)
        assert IOU_LOSSES[theirs.iou_loss] == head.o.iou_loss


def head(options, filters=18, program=None):
    text = net(8, 8, 3, f"[conv]\nfilters={filters}", f"[yolo]\nclasses=4\n{options}")
    return Network(parse_cfg(text, "net.cfg"), program=program).detector


def test_without_a_mask_all_anchors_are_its_own():
    found = head("num=2\nanchors=1,2,3,4")
    assert found.own_anchors.tolist() == [[1, 2], [3, 4]]
    assert (found.n, found.nms_kind, found.beta_nms) == (2, "default", 0.6)


@pytest.mark.parametrize(
    ("options", "program", "message"),
    [
        ("num=5\nmask=0,5", None, "net.cfg:11: mask=0,5: mask names anchor 5; expected 0 to 4"),
        ("num=5\nmask=-1,0", None, "mask names anchor -1; expected 0 to 4"),
        ("num=3", None, "gives 18 channels; expected filters=27 in the layer before: 3 anchors"),
        ("num=2000000000", None, "gives 18 channels; expected filters=18000000000 in"),
        ("num=0", None, "num is 0; expected 1 or more"),
        ("num=2\nanchors=1,2,3,4,5", "pjreddie", "5 anchor numbers; expected 2\\*num = 4"),
        ("num=2\nnms_kind=cornersnms", None, "nms_kind is 'cornersnms'; expected default, greedynms, diounms"),
    ],
)
def test_sections_that_do_not_fit(options, program, message):
    with pytest.raises(CfgError, match=message) as error:
        head(options, program=program)
    assert "\n" not in str(error.value)


def test_masks_beyond_num_take_the_anchors_that_are_given():
    """AlexeyAB's cspx-p7-mish.cfg: num=16, 20 anchors, and a mask up to 19, where his program reads other memory."""
    anchors = ",".join(map(str, range(40)))
    with pytest.warns(CfgWarning, match=r"40 anchor numbers; expected 2\*num = 32"):
        found = head(f"num=16\nmask=18,19\nanchors={anchors}", program="alexeyab")
    assert found.own_anchors.tolist() == [[36, 37], [38, 39]]
    with pytest.warns(CfgWarning), pytest.raises(CfgError, match="mask names anchor 20; expected 0 to 19"):
        head(f"num=16\nmask=19,20\nanchors={anchors}", program="alexeyab")


def test_too_few_anchors_are_a_half():
    with pytest.warns(CfgWarning, match="3 anchor numbers; expected 2\\*num = 4: the others are .5"):
        assert head("num=2\nanchors=1,2,3").anchors.tolist() == [[1, 2], [3, 0.5]]


def test_a_map_says_which_classes_a_truth_may_name(tmp_path):
    (tmp_path / "the.map").write_text("3\n0\n3\n1\n2\n0\n")
    assert head(f"num=2\nmap={tmp_path / 'the.map'}").truth_classes == 6
    assert head("num=2").truth_classes == 4
    (tmp_path / "the.map").write_text("3\n4\n")
    with pytest.raises(CfgError, match=r"line 2 of .* is beyond classes=4"):
        head(f"num=2\nmap={tmp_path / 'the.map'}")


def test_a_program_does_not_read_the_others_options():
    options = "num=2\nscale_x_y=2\nnew_coords=1\nnms_kind=greedynms"
    assert head(options).program == "alexeyab"
    with pytest.warns(CfgWarning, match="unknown option"):
        found = head(options, program="pjreddie")
    assert (found.o.scale_x_y, found.o.new_coords, found.nms_kind, found.o.max) == (1, 0, "default", 90)


@pytest.mark.posix
def test_training_says_that_a_loss_is_not_there(monkeypatch):
    from darknet_compat.train.step import Trainer

    monkeypatch.setattr(Yolo, "loss", Head.loss)
    network = Network(parse_cfg(two_heads().replace("batch=1", "batch=2\nmax_batches=10"), "net.cfg"))
    with pytest.raises(CfgError, match=r"net\.cfg:\d+: \[yolo\]: the loss of \[yolo\] is not built here yet"):
        Trainer(network)


def test_there_is_no_tree_to_ask_of():
    for head in Network(parse_cfg(two_heads())).heads:
        assert (head.chooses_classes, head.class_only, head.truth_classes) == (False, False, 4)
