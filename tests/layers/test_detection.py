"""[detection] against the libraries of both programs, and how images of its network are fitted."""

from __future__ import annotations

import subprocess
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.detect import detect, detect_files
from darknet_compat.errors import CfgError
from darknet_compat.images import load_image, resize_image
from darknet_compat.network import Network
from tests.compare import check_layers, net, network_of
from tests.layers.head_cases import SIZES, Pair, Tally, between, one_of, row, truths, with_any
from tests.oracle import PROGRAM
from tests.train.nets import grid_of

HEAD = "[detection]\nclasses=3\ncoords=4\nnum=2\nside=4\n{}"
OPTIONS = ["", "sqrt=1", "softmax=1", "sqrt=1\nsoftmax=1\nrescore=1"]


def v1(options="sqrt=1", outputs=208):
    return net(
        32, 24, 3, "[conv]\nfilters=6\nsize=3\nstride=4\npad=1\nactivation=leaky",
        f"[connected]\noutput={outputs}\nactivation=linear", HEAD.format(options), batch=1,
    )  # fmt: skip


def random_image(seed=3):
    return np.random.default_rng(seed).random((1, 3, 24, 32), np.float32)


@pytest.mark.parametrize("options", OPTIONS)
def test_forward_is_darknets(library, tmp_path, options):
    check_layers(library, v1(options), tmp_path, batch=1)


@pytest.mark.parametrize("options", OPTIONS)
def test_boxes_are_darknets(library, tmp_path, options):
    """Of an image of 1 x 1 pixels, since get_detection_detections gives pixels where others give relative boxes."""
    network, *files = network_of(v1(options), tmp_path, 1, library.numerics, library.program)
    with torch.no_grad():
        network.layers[1].biases[48:80] += 0.5  # confidences, half of them over 0
    reference, x = library.load_network(files[0]), random_image()
    for index in (0, 1):
        for name, tensor in network.layers[index].numbers():
            reference.layer_tensor(index, name, tensor.detach().numpy())
    with torch.inference_mode():
        outputs = network.predict(torch.from_numpy(x))
    reference.predict(x)
    for thresh in (0.0, 0.1, 0.3):
        found, expected = network.listed_boxes(outputs, thresh), reference.boxes(1, 1, thresh)
        np.testing.assert_allclose(found.xywh[0], expected.boxes, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.objectness[0], expected.objectness, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.prob[0], expected.prob, rtol=1e-5, atol=1e-6)
        (kept,) = detect(network, torch.from_numpy(x), [(1, 1)], [""], thresh=thresh, nms=0.2)
        expected = reference.boxes(1, 1, thresh, nms=0.2)
        order = [number for number in expected.order if expected.prob[number].any()]
        assert 0 < len(order) < 32
        np.testing.assert_allclose(kept.boxes, expected.boxes[order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kept.prob, expected.prob[order], rtol=1e-5, atol=1e-6)
    assert (expected.objectness < 0).any()


def test_its_images_are_stretched(tmp_path):
    """As ``yolo test`` does it; pjreddie's ``detector test`` letterboxes, and draws the boxes off the image."""
    network, *_ = network_of(v1(), tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (20, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "it.png"), image)
    planes = np.empty((1, 3, 24, 32), np.float32)
    resize_image(load_image(str(tmp_path / "it.png")), planes[0])
    (found,) = detect_files(network, [str(tmp_path / "it.png")], thresh=0.01)
    with torch.inference_mode():
        boxes, _, prob = network.boxes(network.predict(torch.from_numpy(planes)), 0.01)
    for box, expected in zip(found.boxes, found.prob, strict=True):
        matches = (boxes[0].numpy() == box).all(1)
        assert matches.any()
        assert ((expected == 0) | (expected == prob[0, matches.argmax()].numpy())).all()
    assert len(found.boxes) > 3
    assert not network.letter_box


def test_valid2_makes_nothing_of_the_mirrored_image(darknet, tmp_path):
    network, *files = network_of(v1().replace("batch=1", "batch=2"), tmp_path, 1, "cpu")
    reference, x = darknet.load_network(*files), random_image()
    reference.predict(np.concatenate([x, x[..., ::-1]]))
    expected = reference.boxes(1, 1, 0.01)
    output = network.predict(torch.from_numpy(x))[0]
    averaged = network.detector.average_mirrored(output, network.predict(torch.from_numpy(x).flip(3))[0])
    np.testing.assert_allclose(network.boxes([averaged], 0.01).prob[0].detach(), expected.prob, rtol=1e-4, atol=1e-6)


def test_a_square_conv_map_is_read_as_it_lies_in_memory(darknet, tmp_path):
    text = net(8, 8, 3, "[conv]\nfilters=13\nsize=3\npad=1\nstride=2\nactivation=linear", HEAD.format(""), batch=1)
    network, *files = network_of(text, tmp_path, 1, "cpu")
    reference, x = darknet.load_network(*files), np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    reference.predict(x)
    expected = reference.boxes(1, 1, 0.01)
    with torch.inference_mode():
        found = network.boxes(network.predict(torch.from_numpy(x)), 0.01)
    np.testing.assert_allclose(found.xywh[0], expected.boxes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.prob[0], expected.prob, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("classes=3\ncoords=4\nnum=3\nside=4", r"gives 208 values; expected output=288 in the layer before: side"),
        ("classes=3\nnum=2\nside=4", "coords is 1; expected 4"),
        ("classes=3\ncoords=4\nnum=0\nside=4", "num is 0; expected 1 or more"),
        ("classes=3\ncoords=4\nnum=2\nside=-4", "side is -4; expected 1 or more"),
    ],
)
def test_sections_that_do_not_fit(options, message):
    text = net(8, 8, 3, "[connected]\noutput=208", f"[detection]\n{options}")
    with pytest.raises(CfgError, match=message) as error:
        Network(parse_cfg(text))
    assert "\n" not in str(error.value)


FIELDS = {"num": "n", "max": "max_boxes", "classes": "classes", "coords": "coords"} | {
    name: name
    for name in (
        *("rescore", "softmax", "sqrt", "coord_scale", "object_scale", "noobject_scale", "class_scale", "jitter"),
        *("random", "side", "forced", "reorg"),
    )
}


def test_defaults_are_darknets(darknet, tmp_path):
    """But for coords, which must be 4."""
    cfg = tmp_path / "net.cfg"
    cfg.write_text(net(8, 8, 3, "[connected]\noutput=294", "[detection]\ncoords=4"))
    ours, theirs = Network(read_cfg(cfg)).detector.o, darknet.load_network(cfg).layers[1]
    for option, field in FIELDS.items():
        assert getattr(ours, option) == pytest.approx(theirs.number(field), rel=1e-6), option


def test_the_row_is_darknets(darknet, darknet_share):
    cfg = darknet_share / "cfg/yolov1-tiny.cfg"
    printed = subprocess.run([PROGRAM, "ops", cfg], capture_output=True, text=True).stderr
    printed = [line for line in printed.splitlines() if line[:5].strip().isdigit()]
    ours = Network(read_cfg(cfg), device="meta").table().splitlines()[1:]
    assert " ".join(ours[len(printed) - 1].split()).startswith(" ".join(printed[-1].split()))
    assert "Detection Layer" in printed[-1]


def test_it_takes_no_other_size():
    with pytest.raises(CfgError, match="cannot take another size"):
        Network(parse_cfg(v1())).resize(64, 48)


class DetectionPair(Pair):
    """What enters the head is the network's input, as it lies in memory."""

    def __init__(self, library, folder, cfg, seen):
        super().__init__(library, folder, cfg)
        self.seen, self.side = seen, self.head.o.side

    def rows(self, truth):
        return grid_of(truth, self.side, self.head.o.classes)

    def kinds(self, delta):
        o, values = self.head.o, torch.as_tensor(delta).double().flatten(1)
        return values.split([self.side**2 * o.classes, self.side**2 * o.num, self.side**2 * o.num * 4], 1)

    def cells(self, truth):
        return np.trunc(truth[..., :2] * np.float32(self.side))

    def compare(self, raw, truth, tally):
        """With ``random=1`` and C's random numbers: one for each cell with an object, in their order."""
        self.reference.seen = self.seen
        has = torch.from_numpy(self.rows(truth).reshape(len(raw), self.side**2, -1)[..., 0] != 0)
        drawn = torch.zeros(has.shape, dtype=torch.long)
        self.library.srand(7)
        drawn[has] = torch.tensor([self.library.libc.rand() % self.head.o.num for _ in range(int(has.sum()))]).long()
        self.library.srand(7)
        with patch.object(torch, "randint", lambda *_, **__: drawn):
            super().compare(raw, truth, tally)


DETECTION = with_any(
    {
        "plain": {},
        "sqrt": {"sqrt": one_of(1)},
        "rescore": {"rescore": one_of(1)},
        "softmax": {"softmax": one_of(1)},
        "forced": {"forced": one_of(1)},
        "random": {"random": one_of(1)},
        "forced, random": {"forced": one_of(1), "random": one_of(1)},
        "coord_scale": {"coord_scale": between(0.2, 5)},
        "object_scale": {"object_scale": between(0.2, 5)},
        "noobject_scale": {"noobject_scale": between(0.2, 5)},
        "class_scale": {"class_scale": between(0.2, 5)},
    }
)


def detection_case(rng, o, batch):
    """A map, some of whose boxes are near truths, and truths (N, 12, 5), of which several fall into one cell."""
    truth = np.zeros((batch, 12, 5), np.float32)
    raw = rng.normal(0.2, rng.choice([0.2, 0.5, 2]), (batch, o.side**2 * (5 * o.num + o.classes))).astype(np.float32)
    for values, rows in zip(raw, truth, strict=True):
        count = int(rng.choice([0, 1, 4, 10], p=[0.1, 0.2, 0.4, 0.3]))
        rows[:count, :4] = truths(rng, count, o.side, o.side)
        rows[:count, 4] = rng.integers(0, o.classes, count)
        rows[count + 1 :] = 0.3, 0.6, 0.4, 0.5, 0  # behind the end: no truths
        boxes = values[-4 * o.num * o.side**2 :].reshape(o.side, o.side, o.num, 4)
        for x, y, *size in rows[:count, :4] * [o.side, o.side, 1, 1]:
            near = [x % 1, y % 1, *(np.sqrt(size) if o.sqrt else size)]
            boxes[int(y), int(x), rng.integers(o.num)] = near + rng.normal(0, 0.1, 4)
    return raw, truth


@pytest.mark.parametrize("switch", DETECTION)
@pytest.mark.parametrize(("networks", "cases"), SIZES)
def test_loss_is_darknets(library, tmp_path, switch, networks, cases):
    rng, tally = np.random.default_rng(0), Tally()
    for _ in range(networks):
        switches = DETECTION[switch](rng) if switch == "any" else DETECTION[switch]
        options = "\n".join(f"{name}={value(rng, 0, None)}" for name, value in switches.items())
        side, batch, classes = int(rng.integers(2, 7)), int(rng.integers(1, 4)), int(rng.choice([1, 3, 20]))
        num = int(rng.integers(1 + ("forced" in switches), 5))
        planes = 5 * num + classes
        text = net(
            side, side, planes, f"[conv]\nfilters={planes}\ngroups={planes}\nsize=1\nactivation=linear",
            f"[detection]\ncoords=4\nclasses={classes}\nnum={num}\nside={side}\n{options}", batch=batch,
        )  # fmt: skip
        pair = DetectionPair(library, tmp_path, text, int(rng.choice([0, 70_000])))
        for _ in range(cases):
            raw, truth = detection_case(rng, pair.head.o, batch)
            pair.compare(raw.reshape(batch, planes, side, side), truth, tally)
    assert tally.truths > networks * cases
    assert tally.rounded <= 2 + 0.05 * tally.cases
    print(row(f"{library.program}: {switch}", {"": tally}))


def test_a_box_is_drawn_until_64000_images_were_seen(tmp_path):
    network = Network(parse_cfg(v1("random=1\nsqrt=1")))
    raw, truth = torch.full((1, 208, 1, 1), 0.5), torch.tensor([[[0.4, 0.4, 0.3, 0.3, 1]]])

    def responsible(seen):
        values = raw.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network.heads[0].loss(values, truth, seen).loss, values)
        confidence = gradient.flatten()[48:80].reshape(16, 2)[5]
        return int(confidence.argmin())  # the only one that is to grow

    torch.manual_seed(0)
    assert {responsible(63_999) for _ in range(20)} == {0, 1}
    assert {responsible(64_000) for _ in range(20)} == {0}


def test_truths_that_take_no_cell(tmp_path):
    network = Network(parse_cfg(v1("sqrt=1")))
    raw = torch.rand(1, 208, 1, 1, generator=torch.Generator().manual_seed(0))
    for truth, count in (([0.4, 0.4, 0.3, 0.3, 1], 1), ([1.0, 0.4, 0.3, 0.3, 1], 0), ([0.4, 0.4, 0.3, 0.3, 3], 0)):
        figures = network.heads[0].loss(raw, torch.tensor([[truth]]), 0).figures
        assert int(figures.count) == count
        assert float(figures.any_obj) == pytest.approx(float(raw.flatten()[48:80].mean()))
    first = [0.4, 0.4, 0.3, 0.3, 1]
    both = network.heads[0].loss(raw, torch.tensor([[first, [0.41, 0.41, 0.5, 0.5, 2]]]), 0).figures
    alone = network.heads[0].loss(raw, torch.tensor([[first]]), 0).figures
    assert [float(one) for one in both] == [float(one) for one in alone], "the first of a cell counts"


def test_forced_needs_a_second_box():
    network = Network(parse_cfg(v1("forced=1", outputs=128).replace("num=2", "num=1")))
    with pytest.raises(CfgError, match="forced=1 takes the second box of a cell; expected num=2 or more"):
        network.heads[0].loss(torch.zeros(1, 128, 1, 1), torch.zeros(1, 1, 5), 0)


def test_a_diverged_network_writes_nowhere_else():
    """Boxes further than 20 from their truth: Darknet finds none, and its index stays -1."""
    network = Network(parse_cfg(v1()))
    raw = torch.full((1, 208, 1, 1), 50.0).requires_grad_()
    found = network.heads[0].loss(raw, torch.tensor([[[0.4, 0.4, 0.3, 0.3, 1]]]), 0)
    (gradient,) = torch.autograd.grad(found.loss, raw)
    assert int(found.figures.count) == 1
    boxes = gradient.flatten()[80:].reshape(16, 2, 4)
    assert boxes[5, 0].all()
    assert not boxes[5, 1].any()


def test_a_head_without_a_tree_takes_truths_of_its_classes():
    head = Network(parse_cfg(v1())).detector
    assert (head.truth_classes, head.chooses_classes, head.class_only) == (3, False, False)
