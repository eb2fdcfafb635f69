"""What runs on a GPU waits for it in the places that stand here, and nowhere else."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.detect import detect
from darknet_compat.layers.activation import ACTIVATIONS
from darknet_compat.network import Network
from darknet_compat.train import (
    alexeyab_augment,
    alexeyab_on_device,
    augment,
    crop_augment,
    crop_on_device,
    on_device,
)
from darknet_compat.train.batch import Batch
from darknet_compat.train.fast import compiled
from darknet_compat.train.step import Trainer
from tests.compare import net
from tests.conftest import ROOT
from tests.layers.head_cases import text as head_text
from tests.tools.run import load_tool
from tests.waits import ON, waits

CFGS = sorted(path.stem for path in (ROOT / "cfg").glob("*.cfg"))
GPU_CHECK = load_tool("gpu_check")  # which has a network with each section type


def on_meta(path, program=None):
    network = Network(read_cfg(path), device=ON, program=program)
    return network.to(ON)  # with what its layers hold besides their numbers


def rows(network):
    """Of a mini-batch: a recurrent network takes whole sequences."""
    return 2 * network.net.time_steps


def truth_of(head, count):
    return (
        torch.empty(count, 5, 5, device=ON) if head.finds_boxes else torch.empty(count, head.input.outputs, device=ON)
    )


@pytest.mark.parametrize(
    ("wait", "kind"),
    [
        (lambda x: x.sum().item(), "reads"), (lambda x: bool(x.any()), "reads"), (lambda x: x.tolist(), "reads"),
        (lambda x: x.cpu(), "reads"), (lambda x: torch.empty(4).copy_(x), "reads"), (lambda x: int(x[0]), "reads"),
        (lambda x: torch.equal(x, x), "reads"), (lambda x: x.nonzero(), "shape"), (lambda x: x[x > 0], "shape"),
        (lambda x: x.unique(dim=0), "shape"), (lambda x: x + torch.ones(4), "mixes devices"),
        (lambda x: x.new_tensor([1.0, 2.0]), "copies"), (lambda x: torch.tensor([1.0], device=x.device), "copies"),
        (lambda x: torch.as_tensor(3, device=x.device), "copies"), (lambda x: torch.ones(4).to(x), "copies"),
        (lambda x: x.copy_(torch.ones(4)), "copies"),
    ],
)  # fmt: skip
def test_each_kind_of_wait_is_seen(wait, kind):
    x = torch.empty(4, device=ON)
    with waits() as found, contextlib.suppress(RuntimeError, NotImplementedError):  # what the meta device cannot do
        wait(x)
    assert {what for what, _ in found} == {kind}


def test_what_does_not_wait_is_not_seen():
    x = torch.empty(4, device=ON)
    with waits() as found:
        x.new_full((), 3.0) + x * 2 + torch.tensor(2.0)  # a number of the host is handed over with the operation
        torch.ones(4).to(ON, non_blocking=True)
        torch.where(x > 0, x, 0).sum(0, keepdim=True).expand(4).argsort()
    assert not found


@pytest.mark.parametrize("name", CFGS)
def test_no_layer_and_no_loss_waits(name):
    """Forward, loss and backward, in training; and forward in inference."""
    network = on_meta(ROOT / f"cfg/{name}.cfg")
    x = torch.empty(rows(network), *network.input, device=ON)
    with waits() as found:
        for training in (True, False):
            network.train(training)
            maps = network.raw_maps(x)
        losses = [
            head.loss(raw, truth_of(head, len(x)), 100).loss for head, raw in zip(network.heads, maps, strict=True)
        ]
        sum(losses).backward()
        with torch.no_grad():
            network.predict(x)
    assert network.heads
    assert not found


@pytest.mark.parametrize("name", GPU_CHECK.LAYERS)
def test_no_section_type_waits(name):
    """Most of them stand in no cfg of ours."""
    program, text = GPU_CHECK.layer_text(name)
    network = Network(parse_cfg(text), device=ON, program=program).to(ON)
    x = torch.empty(2, *network.input, device=ON)
    with waits() as found:
        network.train()(x).sum().backward()
        network.eval()(x)
    assert not found


@pytest.mark.parametrize("numerics", ["cpu", "gpu", "cudnn"])
def test_no_batch_normalisation_waits(numerics):
    network = Network(parse_cfg(GPU_CHECK.layer_text("batchnorm")[1]), numerics, ON).to(ON)
    x = torch.empty(2, *network.input, device=ON)
    with waits() as found:
        network.train()(x).sum().backward()
        network.eval()(x)
    assert not found


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_waits(name):
    x = torch.empty(2, 3, 4, 4, device=ON, requires_grad=True)
    with waits() as found:
        ACTIVATIONS[name](x).sum().backward()
    assert not found


YOLO = ["", "ignore_thresh=.5\ntruth_thresh=.7"]
ALEXEYABS_YOLO = [
    "iou_loss=iou", "iou_loss=giou\niou_normalizer=.07", "iou_loss=diou\nmax_delta=5", "iou_loss=ciou\niou_thresh=.2",
    "counters_per_class=10,20,30", "focal_loss=1", "label_smooth_eps=.1", "objectness_smooth=1",
    "scale_x_y=2\nnew_coords=1", "nms_kind=diounms\nbeta_nms=.6",
]  # fmt: skip
REGION = ["", "rescore=1\nbias_match=1\nrandom=1", "softmax=1\nobject_scale=5"]
DETECTION_HEAD = ["", "random=1", "forced=1", "sqrt=1\nrescore=1", "softmax=1\njitter=.2"]
HEADS = [
    *(("pjreddie", head_text(options)) for options in YOLO),
    *(("alexeyab", head_text(options)) for options in YOLO + ALEXEYABS_YOLO),
    *(
        ("alexeyab", head_text(options, planes=9, section="Gaussian_yolo"))
        for options in ("", "yolo_point=left_top", "iou_loss=ciou", "label_smooth_eps=.1")
    ),
    *(
        (program, head_text(options, mask="", section="region"))
        for options in REGION
        for program in ("pjreddie", "alexeyab")
    ),
    *(
        (
            "pjreddie",
            net(8, 8, 3, f"[connected]\noutput=117\n[detection]\ncoords=4\nclasses=3\nside=3\nnum=2\n{options}"),
        )
        for options in DETECTION_HEAD
    ),
]


CLASS_HEADS = [
    *("softmax]", "softmax]\ngroups=2\ntemperature=2", "softmax]\nnoloss=1", "logistic]"),
    *(f"cost]\ntype={kind}" for kind in ("sse", "masked", "smooth", "L1")),
]


@pytest.mark.parametrize("text", CLASS_HEADS)
def test_no_head_that_classifies_waits(text):
    network = Network(parse_cfg(net(4, 4, 3, f"[connected]\noutput=6\n[{text}")), device=ON).to(ON)
    x = torch.empty(2, *network.input, device=ON)
    with waits() as found:
        (raw,) = network.train().raw_maps(x)
        network.heads[0].loss(raw, truth_of(network.heads[0], 2), 100).loss.backward()
        network.eval().predict(x)
    assert not found


@pytest.mark.parametrize(("program", "text"), HEADS)
@pytest.mark.parametrize("gradient", ["darknet", "true"])
def test_no_option_of_a_loss_waits(program, text, gradient):
    network = Network(parse_cfg(text), device=ON, program=program).to(ON).train()
    (head,) = network.heads
    head.gradient = gradient
    with waits() as found:
        (raw,) = network.raw_maps(torch.empty(2, *network.input, device=ON))
        head.loss(raw, truth_of(head, 2), 100).loss.backward()
    assert not found


@pytest.mark.parametrize("section", ["region", "softmax"])
def test_a_trees_loss_does_not_wait(tmp_path, section):
    (tmp_path / "a.tree").write_text("animal -1\nthing -1\ncat 0\ndog 0\n")
    tree = f"tree={tmp_path / 'a.tree'}"
    text = net(4, 4, 3, f"[connected]\noutput=4\n[softmax]\n{tree}")
    if section == "region":
        text = head_text(tree, mask="", classes=4, section="region")
    network = Network(parse_cfg(text), device=ON).to(ON).train()
    with waits() as found:
        (raw,) = network.raw_maps(torch.empty(2, *network.input, device=ON))
        network.heads[0].loss(raw, truth_of(network.heads[0], 2), 100).loss.backward()
        network.eval().predict(torch.empty(2, *network.input, device=ON))
    assert not found


TRAINED = {
    "yolov2-tiny-voc": {}, "yolov3-tiny": {}, "yolov4-tiny": {"adam": 1}, "yolov7-tiny": {}, "yolov1-tiny": {},
    "tiny": {"clip": 1.0}, "char-lstm": {}, "yolov4": {"ema_alpha": 0.99, "max_batches": 2002},
}  # fmt: skip


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", TRAINED)
def test_an_update_waits_once(name, fast, monkeypatch):
    """From batches in pinned memory to the weights: for the figures of all its mini-batches, before the optimiser.

    ``fast``: what runs around the program that torch.compile makes.
    """
    cfg = read_cfg(ROOT / f"cfg/{name}.cfg")
    net = cfg.net.with_option("batch", "4").with_option("subdivisions", "2")
    network = Network(replace(cfg, sections=(net, *cfg.layers)), device=ON).to(ON)
    assert TRAINED[name].keys() <= vars(network.net).keys()
    vars(network.net).update(TRAINED[name])
    trainer = Trainer(network, fast=fast)
    if fast:
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
        trainer.losses = compiled(network, trainer._losses)
    network.seen = 1000 * 4  # the means of ema_alpha begin with the first update, and are taken over by the second
    # The second finds what the first one made; the third has other images (dynamic_minibatch), by SGD and by Adam.
    for images in (2, 2, 3) if name in ("yolov3-tiny", "yolov4-tiny") else (2, 2):
        count = images * network.net.time_steps
        truth = torch.zeros(truth_of(network.heads[0], count).shape)
        batch = Batch(torch.zeros(count, *network.input), truth, ())
        with waits() as found:
            assert trainer.update([batch] * network.net.subdivisions)
        assert found == {("reads", "train/step.py:update"): 1}
    assert bool(trainer.ema) == bool(trainer.ema and trainer.ema.means) == (name == "yolov4")


def test_an_update_in_fp16_waits_once_more():
    """torch's scaler reads whether a gradient is too large."""
    network = on_meta(ROOT / "cfg/yolov2-tiny.cfg")
    vars(network.net).update(subdivisions=1, max_batches=9)
    batch = Batch(torch.zeros(2, *network.input), torch.zeros(2, 5, 5), ())
    trainer = Trainer(network, amp="fp16")
    with waits() as found:
        trainer.update([batch])
    assert found == {("reads", "train/step.py:update"): 2}


# Boxes are for the host, and how many there are decides what is computed next.
DETECTION = {
    "layers/yolo.py:listed",
    "network.py:listed_boxes",
    "boxes.py:unletterbox",
    "boxes.py:nms_sort",
    "boxes.py:_pairs",
    "boxes.py:_keep",
    "detect/detections.py:detect",
}


def detection_waits(network, images, number):
    network.eval()
    with waits(number) as found:
        x = torch.empty(images, *network.input, device=ON)
        detect(network, x, [(640, 480)] * images, [""] * images, thresh=0.1, nms=0.4)
    return found


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ["yolov2-tiny-voc", "yolov3-tiny", "yolov4", "yolov1-tiny"])
def test_detection_waits_where_its_boxes_are_counted(name, number):
    """For a batch as often as for one image, with boxes to suppress and without."""
    network = on_meta(ROOT / f"cfg/{name}.cfg")
    found = detection_waits(network, 2, number)
    assert {where for _, where in found} <= DETECTION
    assert not any(what == "mixes devices" for what, _ in found)
    of_nms = {key for key in found if key[1] in ("boxes.py:_pairs", "boxes.py:_keep")}
    assert bool(of_nms) == bool(number)
    more = detection_waits(network, 5, number)
    assert {key: count for key, count in more.items() if key not in of_nms} == {
        key: count for key, count in found.items() if key not in of_nms
    }


def test_no_place_stands_here_that_does_not_wait():
    network = on_meta(ROOT / "cfg/yolov3-tiny.cfg")
    assert {where for _, where in detection_waits(network, 1, 1)} == DETECTION


@pytest.mark.parametrize(("program", "text"), HEADS)
def test_no_option_of_a_head_adds_a_wait_to_detection(program, text):
    found = detection_waits(Network(parse_cfg(text), device=ON, program=program).to(ON), 2, 1)
    assert {where for _, where in found} <= DETECTION
    assert not any(what == "mixes devices" for what, _ in found)


@pytest.mark.parametrize("name", ["tiny", "darknet19"])
def test_classes_are_read_once(name):
    network = on_meta(ROOT / f"cfg/{name}.cfg").eval()
    with waits() as found, torch.no_grad():
        network.predict(torch.empty(2, *network.input, device=ON))[0].cpu()
    assert found == {("reads", "outside"): 1}


def test_augmentation_on_the_device_does_not_wait():
    """What the loader decodes is copied from pinned memory."""
    random, image = Random(0), np.zeros((20, 30, 3), np.uint8)
    decoded = on_device.Decoded.within(np.zeros(on_device.room(2, 16, 16, 600), np.uint8), 2, 16, 16)
    for number in range(2):
        decoded.put(number, image, augment.draw(random, (30, 20), (16, 16), 0, augment.Augmentation()))
    crops = crop_on_device.DecodedCrops.within(np.zeros(crop_on_device.room(3, 16, 1800), np.uint8), 3, 16)
    for sample in (0, 1, 1):
        options = crop_augment.CropAugmentation(1, 1.2)
        assert crops.put(sample, image, crop_augment.draw_crop(random, (30, 20), 16, options), crop_augment.whole(16))
    with waits() as found:
        assert on_device.augment(decoded, ON).shape == (2, 3, 16, 16)
        assert crop_on_device.augment(crops, 2, ON).shape == (2, 3, 16, 16)
    assert not found


@pytest.mark.parametrize("mixing", ["", "mixup", "mosaic"])
def test_alexeyabs_augmentation_on_the_device_does_not_wait(mixing):
    """Of images that are recoloured, blurred and noisy in every way, and as they are."""
    random, image, size = Random(0), np.zeros((20, 30, 3), np.uint8), (32, 32)
    options = alexeyab_augment.AlexeyabAugmentation(hue=0.1, mixing=mixing, blur=3, gaussian_noise=9)
    boxes, count = np.array([[0, 0.5, 0.5, 0.9, 0.9]], np.float32), alexeyab_augment.MIXED[mixing]
    layout = alexeyab_on_device.Layout(8, 8 * count, *size, 5, True)
    memory = np.zeros(alexeyab_on_device.room(layout, 8 * count * alexeyab_on_device.padded(30, 20)), np.uint8)
    decoded = alexeyab_on_device.Decoded.within(memory, layout)
    for sample in range(8):
        for place in range(count):
            draws = alexeyab_augment.draw(random, (30, 20), size, 1, options)
            truth = alexeyab_augment.augment_truth(boxes, draws, (30, 20), size, 5)
            tile = alexeyab_augment.tile(place, (12, 14), draws, (30, 20), size) if mixing == "mosaic" else None
            assert decoded.put(sample, place, alexeyab_augment.Stretched(image, draws, truth, tile))
    kernels, sharp = decoded.blurs[: decoded.used[0]].T
    assert {0, 3, 17} <= set(kernels.tolist())
    assert sharp.any()
    for _ in range(2):  # the second finds what the first one made
        with waits() as found:
            assert alexeyab_on_device.augment(decoded, ON).shape == (8, 3, 32, 32)
        assert not found
