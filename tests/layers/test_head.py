"""A head of one file: made up here, it trains, logs, detects and exports in a network beside one of another kind."""

from __future__ import annotations

import csv
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from darknet_compat.cfg import SECTIONS, parse_cfg
from darknet_compat.detect import detect, detect_files
from darknet_compat.engines import ENGINES, start_engine
from darknet_compat.errors import CfgError
from darknet_compat.export import export, read_export
from darknet_compat.layers import TYPES, register
from darknet_compat.layers.head import ClassFigures, Head, HeadLoss
from darknet_compat.network import Network
from darknet_compat.train.log import Log
from darknet_compat.train.step import Trainer
from tests.compare import randomise
from tests.conftest import ROOT
from tests.train.nets import batches


class CrowdFigures(NamedTuple):
    cost: Tensor
    off: Tensor


@pytest.fixture(autouse=True)
def crowd(monkeypatch):
    """[crowd]: how many objects an image holds, from the mean of its one plane."""
    monkeypatch.setitem(SECTIONS, "crowd", "crowd")

    @register("crowd")
    class Crowd(Head):
        options = {"weight": 1.0}
        Figures = CrowdFigures
        columns = ("off",)

        def forward(self, raw):
            return raw.mean((2, 3), keepdim=True).exp()

        def loss(self, raw, truth, seen):
            count = (truth[:, :, 0] != 0).cumprod(1).sum(1)
            error = self(raw.float()).flatten() - count
            cost = self.o.weight * error.square().sum()
            return HeadLoss(cost, CrowdFigures(cost.detach(), error.detach().abs().mean()))

        def line(self, figures):
            return f"Crowd off by: {figures.off:f}"

        def totals(self, figures):
            return {"off": sum(one.off for one in figures) / len(figures)}

        def row(self):
            return "crowd"

    yield Crowd
    del TYPES["crowd"]


CFG = """
[net]
width=32
height=32
channels=3
batch=8
subdivisions=2
learning_rate=0.001
max_batches=100

[conv]
filters=8
size=3
stride=4
pad=1
batch_normalize=1
activation=leaky

[conv]
filters=1
activation=linear

[crowd]
weight=.5

[route]
layers=-3

[conv]
filters=16
activation=linear

[region]
anchors=1,1,2,2
num=2
classes=3
softmax=1
jitter=.1
"""


TWO_REGIONS = CFG.replace("filters=1\n", "filters=8\n").replace("[crowd]\nweight=.5", "[region]\nnum=1\nclasses=3")


def network_of(text=CFG):
    network = randomise(Network(parse_cfg(text))).eval()
    network.seen = 0
    return network


def images(count=3):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_network_knows_its_heads():
    network = network_of()
    crowd, region = network.heads
    assert (crowd.type, crowd.index) == ("crowd", 2)
    assert network.detector is region
    x = images()
    outputs = network.outputs(x)
    raw = network.raw_maps(x)
    assert torch.equal(raw[0], outputs[1])
    assert torch.equal(raw[1], outputs[4])
    assert network.detectors == [region]
    (found,) = network.predict(x)  # what finds boxes, and nothing else
    assert torch.equal(found, outputs[5])
    assert torch.equal(network(x), outputs[5])  # the last layer's, as ever


def test_layers_behind_the_last_head_that_finds_boxes_do_not_run_for_it(monkeypatch):
    network = network_of(f"{CFG}\n[softmax]\n[cost]\n")
    x = images()
    expected = network.outputs(x)[5]
    assert [head.type for head in network.heads] == ["crowd", "region", "softmax", "cost"]
    monkeypatch.setattr(network.layers[6], "forward", None)
    (found,) = network.predict(x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32, torch.float64])
def test_maps_are_activated_in_float32_at_least(given):
    network = network_of()
    (found,) = network.activated([network.raw_maps(images())[1].to(given)])
    assert found.dtype == max(given, torch.float32, key=lambda kind: kind.itemsize)


def test_what_classifies_is_counted_by_image():
    [head] = network_of("[net]\nwidth=2\nheight=2\nchannels=1\n[softmax]\n").heads
    figures = [ClassFigures(2.0, 3.0, 4.0), ClassFigures(6.0, 3.0, 4.0)]
    assert head.totals(figures) == {"cost": 1.0, "accuracy": 0.75}
    assert head.line(figures[0]) == ""


def test_what_reads_a_head_gets_its_activated_map():
    network = network_of(CFG.replace("layers=-3", "layers=-1").replace("filters=16", "filters=16\nsize=1"))
    x = images()
    assert torch.equal(network.raw_maps(x)[1], network.outputs(x)[4])


def test_two_heads_that_find_boxes_are_listed_one_behind_the_other():
    network = two_regions()
    outputs = network.predict(images())
    whole = network.boxes(outputs, 0.1)
    parts = [head.boxes(output, 0.1) for head, output in zip(network.heads, outputs, strict=True)]
    for number, one in enumerate(whole):
        assert torch.equal(one, torch.cat([part[number] for part in parts], 1))
    assert whole.xywh.shape == (3, 64 + 128, 4)
    odd = network_of(TWO_REGIONS.replace("filters=8\nactivation=linear", "filters=7\nactivation=linear", 1)
                     .replace("num=1\nclasses=3", "num=1\nclasses=2"))  # fmt: skip
    with pytest.raises(CfgError, match="classes=2; expected 3"):
        _ = odd.detector


def two_regions():
    """Two heads that find boxes, 64 and 128 of them."""
    return network_of(TWO_REGIONS)


def test_boxes_that_a_head_does_not_list_are_left_out():
    """Of the first head those over the threshold alone, as of [yolo]; of the second all; images filled up alike."""
    network = two_regions()
    outputs, thresh = network.predict(images()), 0.5
    whole, first = network.boxes(outputs, thresh), 64
    assert all(map(torch.equal, network.listed_boxes(outputs, thresh), whole))
    network.heads[0].lists_all = False
    found = network.listed_boxes(outputs, thresh)
    counts = []
    for image in range(3):
        keep = (whole.objectness[image] != 0) | (torch.arange(first + 128) >= first)
        counts.append(int(keep.sum()))
        for values, expected in zip(found, whole, strict=True):
            assert torch.equal(values[image, : counts[-1]], expected[image][keep])
        assert not found.objectness[image, counts[-1] :].any()
        assert not found.prob[image, counts[-1] :].any()
    assert found.objectness.shape[1] == max(counts) < first + 128
    assert len(set(counts)) > 1
    network.heads[1].lists_all = False
    assert network.listed_boxes(outputs, 0.999).xywh.shape == (3, 0, 4)
    (nothing,) = detect(network, images(1), [(32, 32)], [""], thresh=0.999)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.prob.shape == (0, 3)


def test_the_last_head_decides_how_boxes_are_suppressed():
    """But not where objectness alone counts, which is do_nms_obj."""
    network, given = two_regions(), (images(1), [(32, 32)], [""])

    def found(**options):
        (one,) = detect(network, *given, thresh=0.01, nms=0.1, **options)
        return len(one.boxes)

    plain, alone = found(), found(by_objectness=True)
    network.heads[0].nms_kind = "greedynms"
    assert found() == plain
    network.heads[1].nms_kind = "greedynms"
    assert (greedy := found()) > plain
    network.heads[1].nms_kind, network.heads[1].beta_nms = "diounms", 0.6
    assert found() == greedy
    network.heads[1].beta_nms = 0.1
    assert found() > greedy
    assert found(by_objectness=True) == alone


def test_a_head_made_for_stretched_images_has_its_network_stretch_them():
    network = two_regions()
    assert network.letter_box
    network.heads[0].stretches = True
    assert not network.letter_box


def test_without_a_loss_it_is_for_detection_alone(crowd, monkeypatch):
    monkeypatch.setattr(crowd, "loss", Head.loss)
    with pytest.raises(CfgError, match=r":23: \[crowd\]: the loss of \[crowd\] is not built here yet"):
        Trainer(network_of())


def test_it_trains_and_both_losses_reach_the_shared_layer():
    """The objective is the sum of the heads' losses; the cost that is printed is their mean (calc_network_cost)."""
    network = network_of()
    trainer = Trainer(network)
    [update] = batches(1, 1)
    truths = [(batch.images, batch.truth) for batch in update]
    network.train()
    objective, cost = 0, 0
    reference = network_of().train()
    seen = 0
    for x, truth in truths:
        seen += len(x)
        losses = [head.loss(raw, truth, seen) for head, raw in zip(reference.heads, reference.raw_maps(x), strict=True)]
        objective = objective + sum(one.loss for one in losses) / 8
        cost += sum(float(one.figures.cost) for one in losses) / 2
    expected = torch.autograd.grad(objective, list(reference.parameters()))
    done = trainer.update(update)
    assert done.loss == pytest.approx(cost / 8, rel=1e-5)
    assert [[type(one).__name__ for one in heads] for heads in done.figures] == [["CrowdFigures", "RegionFigures"]] * 2
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    for _ in range(60):
        last = trainer.update(update)
    for head in (0, 1):
        assert last.figures[1][head].cost < 0.8 * done.figures[1][head].cost


def test_the_log_has_its_line_and_its_column(tmp_path, capsys):
    network = network_of()
    trainer = Trainer(network)
    log = Log(tmp_path / "net", network.heads)
    [update] = batches(1, 1)
    done = trainer.update(update)
    log.update(done, 1.0, 0.0, 8, 1)
    log.row(done, 1.0, 0.0, (32, 32), None)
    log.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Loaded", *["Crowd off by", "Region Avg IOU"] * 2, "1"]
    with open(tmp_path / "net.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert float(row["off_2"]) == pytest.approx(np.mean([heads[0].off for heads in done.figures]))
    assert int(row["count_5"]) == sum(heads[1].count for heads in done.figures)


def test_it_detects():
    network = network_of()
    path = str(ROOT / "data/shapes-sample.jpg")
    (found,) = detect_files(network, [path], thresh=0.01)
    (mirrored,) = detect_files(network, [path], thresh=0.01, mirrored=True)
    assert len(found.boxes)
    assert not np.array_equal(found.prob, mirrored.prob)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_gives_what_finds_boxes(name):
    if name != "torch":
        pytest.importorskip(name, reason=f"needs {name}: pip install 'darknet_compat[{name}]'")
    network, x = network_of(), images()
    for expected, found in zip(network.predict(x), start_engine(network, name, batch=2)(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_onnx_has_what_finds_boxes(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'darknet_compat[onnxruntime]'")
    network, x = network_of(), images(1)
    export(network, tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    values = dict(
        zip([one.name for one in session.get_outputs()], session.run(None, {"images": x.numpy()}), strict=True)
    )
    boxes, _, prob = network.boxes(network.predict(x), 0.0)
    assert set(values) == {"boxes", "probabilities"}
    np.testing.assert_allclose(values["boxes"], boxes, atol=1e-4)
    np.testing.assert_allclose(values["probabilities"], prob, atol=1e-4)


def test_a_torch_program_has_it_and_comes_back(tmp_path):
    network, x = network_of(), images(1)
    export(network, tmp_path / "net.pt2")
    boxes, probabilities = torch.export.load(tmp_path / "net.pt2").module()(x)
    expected = network.boxes(network.predict(x), 0.0)
    torch.testing.assert_close(boxes, expected.xywh)
    torch.testing.assert_close(probabilities, expected.prob)
    again = read_export(tmp_path / "net.pt2")
    assert torch.equal(again(x), network(x))


def test_without_a_head_that_finds_boxes_detection_says_so():
    network = network_of(CFG[: CFG.index("[route]")])
    with pytest.raises(CfgError, match=r"the network ends in \[crowd\]; detection needs .*\[region\]"):
        _ = network.detector
    (values,) = network.predict(images())
    assert torch.equal(values, network(images()))
