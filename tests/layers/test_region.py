from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darknet_compat.boxes import iou, unletterbox
from darknet_compat.cfg import parse_cfg
from darknet_compat.detect import detect
from darknet_compat.errors import CfgError, CfgWarning
from darknet_compat.layers.base import Place, Shape
from darknet_compat.layers.region import RegionFigures
from darknet_compat.network import Network
from darknet_compat.tree import read_tree
from tests.compare import net, network_of
from tests.layers.head_cases import Pair, Tally, row
from tests.layers.region_oracle import Options, plain_loss
from tests.test_tree import random_tree, write_tree

CASES = 1000
FIGURES = ("avg_iou", "avg_class", "obj", "no_obj", "avg_recall", "count")


def build(h, w, anchors, classes, channels=None, **options):
    """A Region of a [region] section with these options."""
    num = options.pop("num", len(anchors) // 2)
    options = {"num": num, "classes": classes, **options}
    if anchors:
        options["anchors"] = ",".join(map(str, anchors))
    lines = "".join(f"{name}={value}\n" for name, value in options.items())
    c = channels or num * (classes + options.get("coords", 4) + 1)
    text = f"[net]\nwidth={w}\nheight={h}\nchannels={c}\n[region]\n{lines}"
    return Network(parse_cfg(text, "net.cfg")).layers[0]


def random_truth(rng, batch, rows, classes, h, w, marks=False):
    """Truths as a loader gives them, of 0 to ``rows`` in each image, some in one cell, some with equal boxes."""
    truth = np.zeros((batch, max(rows, 1), 5), np.float32)
    for image in truth:
        for t in range(int(rng.integers(0, rows + 1))):
            size = rng.uniform(0.01, 1, 2) ** 2 + 0.002
            image[t] = [*rng.uniform(0.001, 0.999, 2), *np.minimum(size, 1), rng.integers(0, classes)]
            if t and rng.random() < 0.4:
                other = image[rng.integers(0, t)]
                # The same cell, and mostly the same size.
                image[t, :2] = (np.floor(other[:2] * [w, h]) + rng.uniform(0.05, 0.95, 2)) / [w, h]
                if rng.random() < 0.7:
                    image[t, 2:4] = other[2:4] * rng.uniform(0.95, 1.05, 2)
            if marks and rng.random() < 0.1:
                image[t, :4] = [200000, 300000, 0.5, 0.5]
    return truth


def random_case(rng, folder, largest=19, rows=40):
    """Options, raw map, truth, seen."""
    large = rng.random() < 0.1
    h, w = (int(n) for n in rng.integers(1, largest + 1 if large else 8, 2))
    batch, num = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    options = {
        "softmax": int(rng.integers(0, 2)),
        "rescore": int(rng.integers(0, 2)),
        "bias_match": int(rng.integers(0, 2)),
        "thresh": round(float(rng.choice([0.3, 0.5, 0.6, 0.9])), 3),
        "coord_scale": float(rng.choice([1, 0.5, 2])),
        "object_scale": float(rng.choice([1, 5])),
        "noobject_scale": float(rng.choice([1, 0.5])),
        "class_scale": float(rng.choice([1, 1, 2, 0])),
    }
    classes = int(rng.choice([1, 2, 3, 20]))
    asked = classes
    if rng.random() < 0.3:
        tree = write_tree(folder / "a.tree", random_tree(rng, int(rng.integers(1, 30))))
        classes = asked = read_tree(tree).n
        options["tree"] = tree
    if rng.random() < 0.2:
        asked = int(rng.integers(1, 10))
        (folder / "a.map").write_text("".join(f"{n}\n" for n in rng.integers(0, classes, asked)))
        options["map"] = folder / "a.map"
    anchors = [round(float(a), 3) for a in rng.uniform(0.05, 1.2, 2 * num) * np.tile([w, h], num)]
    raw = rng.normal(size=(batch, num * (5 + classes), h, w)).astype(np.float32)
    if rng.random() < 0.1:
        # Values so far gone that the logistic is exactly 0 or 1, on either side.
        values = raw.reshape(batch, num, 5 + classes, h, w)[:, :, 4:]
        values[np.abs(values) > 0.3] *= 1000
    marks = "tree" in options and rng.random() < 0.5
    # A mark names a class of the tree, which must be one of the map's too.
    truth = random_truth(rng, batch, int(rng.integers(0, rows + 1)), min(asked, classes), h, w, marks)
    seen = int(rng.choice([0, 64, 12799, 12800, 500000]))
    return h, w, anchors, classes, options, raw, truth, seen


def clear_of_ties(region, raw, truth):
    """Move ``thresh`` away from every IOU that is nearly equal to it, since rounding decides there."""
    xywh, _, _ = region.boxes(region.forward(torch.from_numpy(raw)), 0)
    overlaps = iou(xywh[:, None], torch.from_numpy(truth)[:, :, None, :4]).nan_to_num().flatten()
    while bool(((overlaps - region.o.thresh).abs() < 1e-6).any()):
        region.o.thresh += 1e-5


def gradient_of(region, raw, truth, seen):
    map = torch.from_numpy(raw).requires_grad_()
    loss, figures = region.loss(map, torch.from_numpy(truth), seen)
    return torch.autograd.grad(loss, map)[0].numpy(), figures


def check_figures(figures, expected, cost):
    assert float(figures.cost) == pytest.approx(cost, rel=1e-4, abs=1e-6)
    for name in FIGURES:
        assert float(getattr(figures, name)) == pytest.approx(expected[name], abs=1e-4, nan_ok=True), name


@pytest.mark.parametrize("part", range(4))
def test_loss_is_darknets(darknet, tmp_path, part):
    rng = np.random.default_rng(part)
    seen_truths, worst = 0, 0.0
    with darknet.capture():
        for _ in range(CASES // 4):
            h, w, anchors, classes, options, raw, truth, seen = random_case(rng, tmp_path)
            region = build(h, w, anchors, classes, **options)
            clear_of_ties(region, raw, truth)
            files = {name: options.pop(name, None) for name in ("tree", "map")}
            options["thresh"] = region.o.thresh
            reference = darknet.region(len(raw), w, h, len(anchors) // 2, classes, anchors, **files, **options)
            expected = reference.forward(raw, truth, seen)
            gradient, figures = gradient_of(region, raw, truth, seen)
            difference, largest = np.abs(gradient + expected.gradient).max(), np.abs(expected.gradient).max()
            assert difference <= 1e-5 * largest
            worst = max(worst, difference / max(largest, 1e-30))
            check_figures(figures, expected.figures, expected.cost)
            seen_truths += expected.figures["count"]
    assert seen_truths > 1000
    print(f"{CASES // 4} cases: worst gradient {worst:.2g}")


class RegionPair(Pair):
    def __init__(self, library, folder, cfg, seen):
        super().__init__(library, folder, cfg)
        self.seen = seen

    def kinds(self, delta):
        return self.head._planes(torch.as_tensor(delta)).double().split([4, 1, self.head.o.classes], 2)

    def cells(self, truth):
        return np.trunc(truth[..., :2] * np.float32([self.head.input.w, self.head.input.h]))

    def theirs(self, raw, truth):
        self.reference.seen = self.seen - len(raw)  # which it adds
        return super().theirs(raw, truth)


@pytest.mark.parametrize("cases", [40, pytest.param(CASES, marks=pytest.mark.slow)])
def test_loss_is_alexeyabs(alexeyab_darknet, tmp_path, cases):
    rng, tally = np.random.default_rng(0), Tally()
    while tally.cases < cases:
        h, w, anchors, classes, options, raw, truth, seen = random_case(rng, tmp_path)
        if min(h, w) == 1:  # his program divides by 0
            continue
        if "map" in options:  # one number for each class that he lets pass
            options["map"].write_text("".join(f"{number}\n" for number in rng.integers(0, classes, classes)))
        odd = (rng.random(truth.shape[:2]) < 0.03) & (truth[..., 0] > 0) & (truth[..., 0] < 1)
        truth[odd, 4] = classes  # he passes over it
        options["focal_loss"] = int(options["softmax"] and rng.random() < 0.5)
        planes = raw.shape[1]
        lines = "\n".join(f"{name}={value}" for name, value in options.items())
        text = net(
            w, h, planes, f"[conv]\nfilters={planes}\ngroups={planes}\nsize=1\nactivation=linear",
            f"[region]\nanchors={','.join(map(str, anchors))}\nnum={len(anchors) // 2}\nclasses={classes}\n{lines}",
            batch=len(raw),
        )  # fmt: skip
        # As his Makefile builds it, the logistic of less than -88 is NaN.
        RegionPair(alexeyab_darknet, tmp_path, text, max(seen, len(raw))).compare(raw.clip(-40, 15), truth, tally)
    assert tally.truths > cases
    assert tally.rounded <= 2 + 0.02 * cases
    print(row("[region]", {"": tally}))


@pytest.mark.parametrize("part", range(2))
def test_loss_is_that_of_the_plain_loops(tmp_path, part):
    """With ``max`` over Darknet's 30, truths outside of the image, and classes that are none."""
    rng = np.random.default_rng(100 + part)
    for _ in range(40):
        h, w, anchors, classes, options, raw, truth, seen = random_case(rng, tmp_path, largest=6, rows=60)
        if rng.random() < 0.5:
            options["max"] = int(rng.choice([1, 5, 50]))
        if rng.random() < 0.5:
            odd = rng.random(truth.shape[:2]) < 0.2
            truth[..., 4][odd & (truth[..., 0] < 100000)] = rng.choice([-1, classes, 1000])
            odd = (rng.random(truth.shape[:2]) < 0.2) & (truth[..., 0] != 0)
            truth[..., :2][odd] = rng.uniform(-1, 2, (int(odd.sum()), 2))
        region = build(h, w, anchors, classes, **options)
        clear_of_ties(region, raw, truth)
        options["thresh"] = region.o.thresh
        options["tree"] = read_tree(options["tree"]) if "tree" in options else None
        if "map" in options:
            options["map"] = [int(n) for n in options["map"].read_text().split()]
        expected = plain_loss(Options(anchors, classes, **options), raw, truth, seen)
        gradient, figures = gradient_of(region, raw, truth, seen)
        difference = np.abs(gradient.reshape(expected.gradient.shape) - expected.gradient).max()
        assert difference <= 1e-5 * np.abs(expected.gradient).max()
        check_figures(figures, expected.figures, expected.figures["cost"])


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("softmax", [0, 1])
def test_boxes_are_alexeyabs(alexeyab_darknet, tmp_path, softmax, tree):
    """The order in which he lists boxes and leaves them, and what he makes of a tree."""
    rng = np.random.default_rng(2 * softmax + tree)
    options = f"num=2\nclasses=7\nanchors=1,2,3,1.5\nsoftmax={softmax}\n"
    if tree:
        options += f"tree={write_tree(tmp_path / 'a.tree', ['a -1', 'b -1', 'c 0', 'd 0', 'e 2', 'f 2', 'g 1'])}\n"
    text = net(96, 64, 3, "[conv]\nfilters=24\nsize=3\nstride=16\npad=1\nactivation=linear", f"[region]\n{options}",
               batch=1)  # fmt: skip
    network, *files = network_of(text, tmp_path, 3, "gpu", "alexeyab")
    reference, x = alexeyab_darknet.load_network(*files), 4 * rng.random((1, 3, 64, 96), np.float32)
    with torch.inference_mode():
        outputs = network.predict(torch.from_numpy(x))
    for thresh in (0.01, 0.3):
        for nms in (0.0, 0.3):
            reference.predict(x)  # each time, as he multiplies the tree in place
            expected = reference.boxes(50, 80, thresh, nms=nms)
            boxes, objectness, prob = network.listed_boxes(outputs, thresh)
            boxes = unletterbox(boxes, [(50, 80)], (96, 64), letter_box=False)
            np.testing.assert_array_equal(objectness[0], expected.objectness)
            np.testing.assert_allclose(boxes[0], expected.boxes, rtol=1e-4, atol=1e-5)
            if nms:
                (found,) = detect(network, torch.from_numpy(x), [(50, 80)], [""], thresh=thresh, nms=nms)
                kept = [number for number in expected.order if expected.prob[number].any()]
                assert 0 < len(kept) < 48
                np.testing.assert_allclose(found.boxes, expected.boxes[kept], rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(found.prob, expected.prob[kept], rtol=1e-4, atol=1e-6)
            else:
                np.testing.assert_allclose(prob[0], expected.prob, rtol=1e-4, atol=1e-6)


def test_defaults_of_alexeyabs(alexeyab_darknet, tmp_path):
    network, cfg, _ = network_of(net(8, 8, 3, "[conv]\nfilters=25", "[region]"), tmp_path, program="alexeyab")
    ours, theirs = network.detector.o, alexeyab_darknet.load_network(cfg).layers[1]
    fields = {"max": "max_boxes", "random": "random", "resize": "resize", "jitter": "jitter", "thresh": "thresh"}
    for option, field in fields.items():
        assert getattr(ours, option) == pytest.approx(theirs.number(field), rel=1e-6), option


@pytest.mark.parametrize(("x", "y"), [(1.05, 0.5), (0.5, 1.05)])
def test_a_truth_off_the_grid_takes_no_slot_and_still_spares_the_box_over_it(x, y):
    """Darknet writes outside its memory for it; the box, of the whole image, overlaps it with an IOU of .29."""
    region = build(1, 1, [1, 1], 2, thresh=0.2, noobject_scale=3)
    truth = np.array([[[x, y, 1, 1, 0]]], np.float32)
    gradient, figures = gradient_of(region, np.zeros((1, 7, 1, 1), np.float32), truth, 10**6)
    assert not gradient.any()
    assert (float(figures.count), float(figures.cost)) == (0, 0)
    region.o.thresh = 0.3
    gradient, _ = gradient_of(region, np.zeros((1, 7, 1, 1), np.float32), truth, 10**6)
    assert gradient.ravel().nonzero()[0].tolist() == [4]


def test_plain_loops_are_darknets(darknet, tmp_path):
    rng = np.random.default_rng(7)
    for _ in range(20):
        h, w, anchors, classes, options, raw, truth, seen = random_case(rng, tmp_path, largest=5)
        files = {name: options.pop(name, None) for name in ("tree", "map")}
        reference = darknet.region(len(raw), w, h, len(anchors) // 2, classes, anchors, **files, **options)
        expected = reference.forward(raw, truth, seen)
        options["tree"] = read_tree(files["tree"]) if files["tree"] else None
        options["map"] = [int(n) for n in files["map"].read_text().split()] if files["map"] else None
        found = plain_loss(Options(anchors, classes, **options), raw, truth, seen)
        np.testing.assert_allclose(found.delta.reshape(raw.shape), expected.delta, atol=1e-5)
        assert found.figures == pytest.approx(
            {**expected.figures, "cost": expected.cost}, rel=1e-4, abs=1e-4, nan_ok=True
        )


@pytest.mark.parametrize("coords", [4, 5, 6])
@pytest.mark.parametrize("softmax", [0, 1])
@pytest.mark.parametrize("background", [0, 1])
def test_forward_is_darknets(darknet, coords, softmax, background):
    rng = np.random.default_rng(0)
    region = build(3, 4, [1, 2, 3, 4], 5, coords=coords, softmax=softmax, background=background)
    reference = darknet.region(2, 4, 3, 2, 5, [1, 2, 3, 4], coords=coords, softmax=softmax, background=background)
    raw = rng.normal(size=reference.shape).astype(np.float32)
    expected = reference.forward(raw).output.reshape(2, 2, -1, 3, 4)
    output = region(torch.from_numpy(raw)).numpy().reshape(expected.shape)
    # The CPU build leaves the mask's planes raw, the GPU build, which counts, does not.
    expected[:, :, 4:coords] = 1 / (1 + np.exp(-expected[:, :, 4:coords]))
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_forward_of_a_tree_is_darknets(darknet, tmp_path):
    rng = np.random.default_rng(0)
    tree = write_tree(tmp_path / "a.tree", random_tree(rng, 25))
    region = build(3, 4, [1, 2, 3, 4], 25, tree=tree)
    reference = darknet.region(2, 4, 3, 2, 25, [1, 2, 3, 4], tree=tree)
    raw = rng.normal(size=reference.shape).astype(np.float32)
    np.testing.assert_allclose(region(torch.from_numpy(raw)).numpy(), reference.forward(raw).output, atol=1e-6)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("background", [0, 1])
def test_boxes_are_darknets(darknet, relative, background):
    rng = np.random.default_rng(1)
    anchors = [1.3, 1.7, 3.2, 4, 5, 8]
    for softmax, thresh, (w, h) in ((1, 0.3, (500, 375)), (1, 0.005, (333, 500)), (0, 0.5, (40, 40))):
        region = build(5, 7, anchors, 4, softmax=softmax, background=background)
        reference = darknet.region(1, 7, 5, 3, 4, anchors, softmax=softmax, background=background)
        raw = rng.normal(size=reference.shape).astype(np.float32) * 2
        reference.forward(raw)
        expected = reference.boxes(w, h, 7 * 32, 5 * 32, thresh=thresh, relative=relative)
        xywh, objectness, prob = region.boxes(region(torch.from_numpy(raw)), thresh)
        xywh = unletterbox(xywh, [(w, h)], (7 * 32, 5 * 32), relative=relative)
        np.testing.assert_allclose(xywh[0].numpy(), expected.boxes, rtol=2e-6, atol=1e-6 * (1 if relative else 500))
        np.testing.assert_allclose(objectness[0].numpy(), expected.objectness, atol=1e-6)
        np.testing.assert_allclose(prob[0].numpy(), expected.prob, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_a_tree_are_darknets(darknet, tmp_path, seed):
    # Darknet's map has 200 entries, and so many classes at least.
    rng = np.random.default_rng(seed)
    tree = write_tree(tmp_path / "a.tree", random_tree(rng, 230))
    region = build(3, 4, [1, 2, 3, 4], 230, tree=tree)
    reference = darknet.region(1, 4, 3, 2, 230, [1, 2, 3, 4], tree=tree)
    raw = rng.normal(size=reference.shape).astype(np.float32) * 3
    output = region(torch.from_numpy(raw))
    chosen = rng.integers(0, 230, 200)
    for thresh, hier, map in ((0.2, 0.5, None), (0.1, 0.05, None), (0.01, 0.5, chosen)):
        reference.forward(raw)
        expected = reference.boxes(4, 3, 4, 3, thresh=thresh, hier=hier, map=map)
        _, objectness, prob = region.boxes(output, thresh, hier, None if map is None else map.tolist())
        np.testing.assert_allclose(objectness[0].numpy(), expected.objectness, atol=1e-6)
        np.testing.assert_allclose(prob[0].numpy(), expected.prob[:, : prob.shape[2]], atol=1e-6)
        assert (expected.prob > 0).sum() > 5
    # Without a word the walk ends where `detector test` ends it.
    for default, half in zip(region.boxes(output, 0.2), region.boxes(output, 0.2, 0.5), strict=True):
        assert torch.equal(default, half)


@pytest.mark.parametrize("width", [1, 4, 7])
def test_the_mean_with_the_mirrored_image_is_darknets(darknet, width):
    """get_region_detections of a batch of 2 averages the two maps, with its own signs and its middle column."""
    rng = np.random.default_rng(width)
    anchors = [1.3, 1.7, 3.2, 4, 5, 8]
    region = build(5, width, anchors, 4, softmax=1)
    reference = darknet.region(2, width, 5, 3, 4, anchors, softmax=1)
    raw = rng.normal(size=reference.shape).astype(np.float32)
    reference.forward(raw)
    expected = reference.boxes(width, 5, width, 5, thresh=0.05)
    output = region(torch.from_numpy(raw))
    xywh, objectness, prob = region.boxes(region.average_mirrored(output[:1], output[1:]), 0.05)
    np.testing.assert_allclose(xywh[0].numpy(), expected.boxes, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(objectness[0].numpy(), expected.objectness, atol=1e-6)
    np.testing.assert_allclose(prob[0].numpy(), expected.prob, atol=1e-6)


def test_boxes_of_a_batch_are_those_of_its_images():
    region = build(5, 7, [1, 2, 3, 4], 4, softmax=1)
    output = region(torch.randn(3, 18, 5, 7))
    together = region.boxes(output, 0.3)
    for i in range(3):
        for whole, part in zip(together, region.boxes(output[i : i + 1], 0.3), strict=True):
            torch.testing.assert_close(whole[i : i + 1], part, rtol=0, atol=0)


def tree_region(tmp_path, **options):
    (tmp_path / "a.tree").write_text("a -1\nb -1\nc 0\nd 0\n")
    return build(3, 4, [1, 2, 3, 4], 4, tree=tmp_path / "a.tree", **options)


@pytest.mark.parametrize("kind", ["softmax", "logistic", "tree"])
def test_gradient_is_that_of_the_loss(tmp_path, kind):
    """What autograd returns is the slope of the scalar, so the loss can be minimised as it stands."""
    rng = np.random.default_rng(3)
    region = tree_region(tmp_path) if kind == "tree" else build(3, 4, [1, 2, 3, 4], 4, softmax=int(kind == "softmax"))
    truth = torch.from_numpy(random_truth(rng, 2, 6, 4, 3, 4))
    map = torch.from_numpy(rng.normal(size=(2, 18, 3, 4)).astype(np.float32)).requires_grad_()
    gradient = torch.autograd.grad(region.loss(map, truth, 0).loss, map)[0]
    direction = torch.randn_like(map)
    step = 1e-2
    ahead, behind = (float(region.loss(map.detach() + s * step * direction, truth, 0).loss) for s in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=2e-2, abs=1e-2)


def test_seen_may_be_a_tensor_and_the_map_of_lower_precision():
    region = build(3, 4, [1, 2, 3, 4], 4, softmax=1)
    truth = torch.from_numpy(random_truth(np.random.default_rng(0), 2, 6, 4, 3, 4))
    map = torch.randn(2, 18, 3, 4).bfloat16()
    for seen in (12799, 12800):
        expected = region.loss(map.float(), truth, seen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = region.loss(map, truth, torch.tensor(seen))
        assert found.loss.dtype == torch.float32
        assert found.loss == expected.loss
        assert found.figures == expected.figures


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: values read back, shapes that depend on values, constants sent."""

    refused = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "lift_fresh", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not any(name in str(function) for name in self.refused), function
        if str(function).startswith(("aten.index.", "aten.index_put.")):
            assert all(index is None or index.dtype == torch.int64 for index in args[1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["softmax", "logistic", "tree"])
def test_loss_waits_for_no_device(tmp_path, kind):
    region = tree_region(tmp_path) if kind == "tree" else build(3, 4, [1, 2, 3, 4], 4, softmax=int(kind == "softmax"))
    map, truth, seen = torch.randn(2, 18, 3, 4, requires_grad=True), torch.rand(2, 30, 5), torch.tensor(64)
    with NoWaiting():
        region.loss(map, truth, seen).loss.backward()


def test_loss_is_the_same_in_every_run():
    rng = np.random.default_rng(5)
    region = build(13, 13, [1, 2, 3, 4], 20, softmax=1)
    raw = rng.normal(size=(4, 50, 13, 13)).astype(np.float32)
    truth = random_truth(rng, 4, 30, 20, 13, 13)
    first, _ = gradient_of(region, raw, truth, 0)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            np.testing.assert_array_equal(gradient_of(region, raw, truth, 0)[0], first)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_box_that_is_no_number_is_no_match():
    region = build(1, 1, [1, 1, 2, 2, 3, 3], 1)
    map = torch.zeros(1, 3, 6, 1, 1)
    map[:, 0, 2:4, 0, 0] = torch.tensor([200.0, -200.0])  # inf * 0
    figures = region.loss(map.flatten(1, 2), torch.tensor([[[0.5, 0.5, 0.9, 0.9, 0]]]), 20000).figures
    assert float(figures.avg_iou) == pytest.approx(0.81 / 4)


def test_printed_line_is_darknets(darknet):
    region = build(3, 4, [1, 2, 3, 4], 4, softmax=1)
    reference = darknet.region(2, 4, 3, 2, 4, [1, 2, 3, 4], softmax=1)
    raw = np.zeros(reference.shape, np.float32)
    truth = np.zeros((2, 30, 5), np.float32)
    for rows in (0, 2):
        truth[:, :rows] = [0.5, 0.5, 0.25, 0.75, 1]
        figures = region.loss(torch.from_numpy(raw), torch.from_numpy(truth), 0).figures
        assert region.line(figures) == reference.forward(raw, truth).line
    assert region.line(RegionFigures(*map(torch.tensor, (9.0, 0.5, 0.25, 1.0, 0.0, 0.125, 3)))) == (
        "Region Avg IOU: 0.500000, Class: 0.250000, Obj: 1.000000, No Obj: 0.000000, Avg Recall: 0.125000,  count: 3"
    )


def test_forward_and_boxes_export():
    region = build(3, 4, [1, 2, 3, 4], 4, softmax=1)

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.region = region

        def forward(self, map):
            return self.region.boxes(self.region(map), 0.1)

    map = torch.randn(2, 18, 3, 4)
    program = torch.export.export(Head(), (map,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    other = torch.randn(5, 18, 3, 4)
    for found, expected in zip(program.module()(other), Head()(other), strict=True):
        torch.testing.assert_close(found, expected)


def test_shape_row_and_resize():
    region = build(13, 13, [1, 2], 20)
    assert region.output == Shape(25, 13, 13)
    assert region.row() == "detection"
    assert region.resizable
    region.set_shape(Place(0, [], Shape(25, 10, 19), SimpleNamespace()))
    assert region.output == Shape(25, 10, 19)
    assert list(region.state_dict()) == []


def test_what_a_tree_and_a_map_say_of_classes(tmp_path):
    """Only with a tree may boxes ask for classes, and truths have no place; the map says how many truths may name."""
    (tmp_path / "a.map").write_text("1\n0\n1\n3\n2\n0\n")
    for options, truths in (({}, 4), ({"map": tmp_path / "a.map"}, 6)):
        plain = build(3, 4, [1, 2, 3, 4], 4, **options)
        assert (plain.chooses_classes, plain.class_only, plain.truth_classes) == (False, False, truths)
        region = tree_region(tmp_path, **options)
        assert (region.chooses_classes, region.class_only, region.truth_classes) == (True, True, truths)
        assert list(plain.state_dict()) == []


def test_anchors_as_many_as_expected_are_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build(1, 1, [1, 2, 3, 4], 20).anchors.tolist() == [[1, 2], [3, 4]]


# The defaults, which libdarknet reads from a cfg alone.
SCALES = {"thresh": 0.5, "coord_scale": 1, "object_scale": 1, "noobject_scale": 1, "class_scale": 1}


def figures_of(region, *rows):
    """Of a map of zeros, so that every logistic is .5, behind the first 12800 images."""
    map = torch.zeros(1, *region.output)
    return region.loss(map, torch.tensor([rows], dtype=torch.float32), 20000).figures


@pytest.mark.parametrize(
    ("x", "y", "marked"),
    [(100000, 100000, False), (100000.5, 100000.5, True), (200000, 0.5, False), (0.5, 200000, False),
     (200000, 100000, False), (100000, 200000, False)],
)  # fmt: skip
def test_where_a_truth_without_a_place_begins(tmp_path, x, y, marked):
    """forward_region_layer: truth.x > 100000 && truth.y > 100000; another one off the image trains nothing."""
    figures = figures_of(tree_region(tmp_path), [x, y, 0.5, 0.5, 1])
    assert int(figures.count) == 0
    assert bool(figures.avg_class.isfinite()) == marked


def test_truths_end_at_the_first_x_of_0():
    """As Darknet's loop over them does; what stands behind it counts for nothing."""
    region = build(2, 2, [1, 1], 2)
    rows = [[0.3, 0.3, 0.5, 0.5, 0], [0, 0.5, 0.5, 0.5, 1], [0.7, 0.7, 0.5, 0.5, 1]]
    for given, expected in ((rows, 1), (rows[2:] + rows[:1], 2), (rows[1:], 0)):
        assert int(figures_of(region, *given).count) == expected
    assert int(figures_of(region, [-1, 0.5, 0.5, 0.5, 0], *rows[2:]).count) == 1
    assert int(figures_of(region, [1, 0.5, 0.5, 0.5, 0], *rows[2:]).count) == 1


@pytest.mark.parametrize("number", [2, 3, 1000])
def test_a_class_behind_the_map_is_none(tmp_path, number):
    (tmp_path / "a.map").write_text("1\n0\n")
    figures = figures_of(build(1, 1, [1, 1], 2, map=tmp_path / "a.map"), [0.5, 0.5, 0.5, 0.5, number])
    assert (int(figures.count), float(figures.avg_class)) == (1, 0)


def test_an_image_without_places_trains_the_likeliest_box(darknet, tmp_path):
    """Not one whose objectness is 0, be it the first."""
    region = tree_region(tmp_path)
    reference = darknet.region(1, 4, 3, 2, 4, [1, 2, 3, 4], tree=tmp_path / "a.tree", **SCALES)
    raw = np.random.default_rng(2).normal(size=reference.shape).astype(np.float32)
    raw.reshape(2, 9, 12)[0, 4] = -1000
    truth = np.zeros((1, 30, 5), np.float32)
    truth[0, 0] = [200000, 200000, 0.5, 0.5, 2]
    expected = reference.forward(raw, truth, 20000)
    gradient, _ = gradient_of(region, raw, truth, 20000)
    np.testing.assert_allclose(gradient, -expected.gradient, atol=1e-6)
    assert expected.gradient.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_truths_of_one_slot_where_class_0_is_far_gone(darknet, sign):
    """Darknet takes a delta of exactly 0 of class 0 for a slot that no truth has set yet."""
    region = build(1, 1, [1, 1], 3)
    reference = darknet.region(1, 1, 1, 1, 3, [1, 1], **SCALES)
    raw = np.random.default_rng(0).normal(size=reference.shape).astype(np.float32)
    raw.reshape(-1)[5] = sign * 1000
    truth = np.zeros((1, 30, 5), np.float32)
    truth[0, :4, :4] = [0.5, 0.5, 0.8, 0.9]
    for classes in itertools.product(range(3), repeat=4):
        truth[0, :4, 4] = classes
        expected = reference.forward(raw, truth, 20000)
        gradient, figures = gradient_of(region, raw, truth, 20000)
        np.testing.assert_allclose(gradient, -expected.gradient, atol=1e-5, err_msg=str(classes))
        check_figures(figures, expected.figures, expected.cost)


def test_what_only_meets_a_threshold_is_not_over_it(tmp_path):
    """get_region_detections: scale > thresh, prob > thresh; with all of the map 0 the values are exact."""
    region = build(1, 1, [1, 1], 2)
    output = region(torch.zeros(1, *region.output))
    for thresh, objectness, prob in ((0.5, 0, 0), (0.25, 0.5, 0), (0.24, 0.5, 0.25)):
        found = region.boxes(output, thresh)
        assert (found.objectness.unique().tolist(), found.prob.unique().tolist()) == ([objectness], [prob])
    region = tree_region(tmp_path)
    output = region(torch.zeros(1, *region.output))
    for thresh, prob in ((0.25, 0), (0.24, 0.25)):
        assert region.boxes(output, thresh, class_map=[0, 1]).prob.unique().tolist() == [prob]


def test_an_overlap_that_only_meets_a_threshold_is_not_over_it():
    """best_iou > l.thresh; if(iou > .5) recall += 1. The box of a map of 0 is the image."""
    region = build(1, 1, [1, 1, 1, 1], 1, thresh=1)
    gradient, figures = gradient_of(
        region, np.zeros((1, 12, 1, 1), np.float32), np.array([[[0.5, 0.5, 1, 1, 0]]], np.float32), 20000
    )
    assert gradient.reshape(2, 6)[1, 4] != 0, "the second box has no truth, and is not spared"
    assert (float(figures.avg_iou), float(figures.avg_recall)) == (1, 1)
    assert float(figures_of(region, [0.5, 0.5, 0.5, 1, 0]).avg_iou) == 0.5
    assert float(figures_of(region, [0.5, 0.5, 0.5, 1, 0]).avg_recall) == 0


def test_figures_of_mini_batches_weigh_by_their_truths():
    region = build(1, 1, [1, 1], 1)
    none = float("nan")
    rows = [(9, 0.5, 0.25, 0.1, 0.2, 1, 1), (9, none, none, none, 0.4, none, 0), (9, 0.9, 0.75, 0.5, 0.6, 0, 3)]
    totals = region.totals([RegionFigures(*map(torch.tensor, map(float, row))) for row in rows])
    expected = {"avg_iou": 0.8, "class": 0.625, "obj": 0.4, "no_obj": 0.4, "avg_recall": 0.25, "count": 4}
    assert totals == pytest.approx(expected)


def test_defaults_and_anchors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        region = build(1, 1, [], 20, num=3)
    assert region.anchors.tolist() == [[0.5, 0.5]] * 3
    assert (region.o.thresh, region.o.jitter, region.o.max, region.o.softmax) == (0.5, 0.2, 30, 0)
    with pytest.warns(CfgWarning, match=r"net\.cfg:8: anchors=1,2: 2 anchor numbers; expected 2\*num = 4"):
        region = build(1, 1, [1, 2], 20, num=2)
    assert region.anchors.tolist() == [[1, 2], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 30}, r"gives 30 channels; expected filters=50 in the layer before: num\*\(classes\+coords\+1\)"),
        ({"anchors": [1, 2, 3, 4, 5, 6]}, r"anchors=1,2,3,4,5,6: 6 anchor numbers; expected 2\*num = 4"),
        ({"coords": 3}, r"coords=3: coords is 3; expected 4 or more"),
        ({"num": 0}, r"num=0: num is 0; expected 1 or more"),
    ],
)
def test_sections_that_do_not_fit(options, message):
    options = {"anchors": [1, 2, 3, 4], "num": 2, "classes": 20, "channels": 50, **options}
    with pytest.raises(CfgError, match=message) as error:
        build(3, 4, **options)
    assert "\n" not in str(error.value)


def test_trees_and_maps_that_do_not_fit(tmp_path):
    (tmp_path / "a.tree").write_text("a -1\nb -1\n")
    (tmp_path / "a.map").write_text("0\n3\n")
    with pytest.raises(CfgError, match=r"a\.tree has 2 classes; expected 3"):
        build(1, 1, [1, 2], 3, tree=tmp_path / "a.tree")
    with pytest.raises(CfgError, match=r"line 2 of .*a\.map is beyond classes=3"):
        build(1, 1, [1, 2], 3, map=tmp_path / "a.map")
    for name in "tree", "map":
        with pytest.raises(CfgError, match=rf"^[^:]+:\d+: {name}=.*/none: .*/none: no such file"):
            build(1, 1, [1, 2], 3, **{name: tmp_path / "none"})


@pytest.mark.parametrize(("name", "value"), [("background", 1), ("coords", 6), ("classfix", -1)])
def test_losses_that_are_not_built(name, value):
    region = build(1, 1, [1, 2], 3, **{name: value})
    map = torch.randn(1, *region.output)
    assert region(map).shape == map.shape
    with pytest.raises(CfgError, match=f"{name}={value}: the loss with {name}={value} is not built here"):
        region.loss(map, torch.zeros(1, 30, 5), 0)
