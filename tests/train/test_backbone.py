"""The cfgs with torchvision's resnet18 before the head: they start from its weights, cut off, and train."""

from __future__ import annotations

import argparse

import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.train.step import Trainer
from darknet_compat.weights import partial
from tests.compare import check_layers
from tests.conftest import ROOT
from tests.tools.run import load_tool
from tests.tools.torchvision_nets import randomised, restated
from tests.train.nets import batches

LAYERS = 36  # of resnet18.cfg before its [avgpool]
SIZE = 64


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """The tensors of a random resnet18, and resnet18.conv.36."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(1)
    model = randomised(restated("resnet18", classes=10))
    torch.save(model.state_dict(), folder / "model.pth")
    load_tool("from_torchvision").convert(
        argparse.Namespace(network="resnet18", source=folder / "model.pth", out=folder, numerics="cudnn")
    )
    cut = folder / f"resnet18.conv.{LAYERS}"
    partial(folder / "resnet18.cfg", folder / "resnet18.weights", cut, LAYERS)
    return model, cut


def small(name):
    """The text of the cfg for images of 64 x 64, two in two mini-batches, at a rate at which few updates show."""
    text = (ROOT / "cfg" / f"{name}.cfg").read_text()
    side = text.split("width=")[1].split("\n")[0]
    for before, after in (
        (f"width={side}\nheight={side}", f"width={SIZE}\nheight={SIZE}"), ("batch=1\nsub", "batch=4\nsub"),
        ("subdivisions=1", "subdivisions=2"), ("burn_in=1000\n", ""),
    ):  # fmt: skip
        text = text.replace(before, after)
    return text


NAMES = ["resnet18-yolov2-voc", "resnet18-yolov1"]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_libdarknets(name, tmp_path, darknet):
    check_layers(darknet, small(name), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_from_the_backbone_and_trains(name, backbone):
    model, cut = backbone
    torch.manual_seed(1)  # of the head
    network = load_network(parse_cfg(small(name)), cut)
    assert network.report.loaded[-1] == LAYERS - 2  # a convolution, and its [shortcut] has no numbers
    assert torch.equal(network.layers[1].weights, model.conv1.weight)
    mean, deviation = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    (images,) = (batch.images for batch in batches(0, 1, 1, 2, SIZE, 3)[0])
    with torch.inference_mode():
        found = network.outputs(images)[LAYERS - 1]
        x = (images - mean) / deviation
        x = torch.nn.functional.max_pool2d(model.bn1(model.conv1(x)).relu(), 3, 2, 1)
        expected = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    trainer = Trainer(network)
    (mini_batches,) = batches(1, 1, 2, 2, SIZE, 3)
    costs = [float(trainer.update(mini_batches).loss) for _ in range(14)]
    assert costs[-1] < 0.7 * costs[0], costs
    moved = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert before.keys() - moved == {"layers.0.weights", "layers.0.biases"}
