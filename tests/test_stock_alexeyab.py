"""AlexeyAB's own cfg files: which of them build, and that those give his library's values layer by layer."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

from darknet_compat.cfg import SECTIONS, read_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers import TYPES
from darknet_compat.network import Network
from tests.compare import EXACT, calibrate, check_weights, network_of, worst_step

# Sections that a stock cfg asks for and that are not built yet.
WAITING = {"yolo", "Gaussian_yolo", "detection", "local", "crop", "rnn", "gru", "lstm", "crnn"} - TYPES.keys()
# Files that the archive of his program lacks.
MISSING = {"yolo9000.cfg": "data/9k.tree: no such file"}


def test_every_stock_cfg_builds_but_for_sections_that_are_not_built_yet(alexeyab):
    paths = sorted((alexeyab / "cfg").rglob("*.cfg"))
    assert len(paths) == 87 + 8
    built, waiting = [], []
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cfg = read_cfg(path)
            missing = {section.type for section in cfg.layers} & WAITING
            if missing:
                with pytest.raises(CfgError, match="is a section of Darknet that is not built here yet"):
                    Network(cfg, device="meta")
                waiting.append(path.name)
            elif path.name in MISSING:
                with pytest.raises(Exception, match=MISSING[path.name]):
                    Network(cfg, device="meta")
            else:
                network = Network(cfg, device="meta")
                assert len(network.table().splitlines()) == len(network.layers) + 2
                built.append(path.name)
    assert len(built) + len(waiting) + len(MISSING) == 95
    assert len(built) >= 35
    assert (len(waiting) == 0) == (not WAITING)


def test_his_sections_are_all_known(alexeyab):
    """Of the sections of his stock cfgs none is missing but those of the list above."""
    names = set()
    for path in (alexeyab / "cfg").rglob("*.cfg"):
        names |= set(re.findall(r"^\[(\w+)\]", path.read_text(errors="replace"), re.MULTILINE))
    assert {SECTIONS[name] for name in names} - TYPES.keys() - {"net"} == WAITING


def stock(alexeyab, name: str, size: int) -> str:
    """The text of a stock cfg, for one image of another size."""
    head, bracket, rest = (alexeyab / "cfg" / name).read_text(errors="replace").partition("\n[")
    for option, value in {"width": size, "height": size, "batch": 1, "subdivisions": 1}.items():
        head = re.sub(rf"(?m)^[ \t]*{option}[ \t]*=.*$", f"{option}={value}", head)
    return head + bracket + rest


# Without relu6 (efficientnet-lite3) and shortcuts by strides (resnet50 and its like), which his program cannot do.
CLASSIFIERS = ["efficientnet_b0", "csdarknet53-omega", "densenet201", "darknet53", "darknet19", "extraction"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::darknet_compat.errors.CfgWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_layer_of_stock_classifiers(alexeyab, alexeyab_darknet, tmp_path, name):
    """Each layer by itself, on what the layers before gave in his library; and his .weights file."""
    text = stock(alexeyab, f"{name}.cfg", 128)
    network, cfg, weights = network_of(text, tmp_path, numerics="gpu", program="alexeyab")
    x = np.random.default_rng(0).random((1, *network.input), np.float32)
    calibrate(network, torch.from_numpy(np.concatenate([x, 1 - x])), weights)
    difference, index = worst_step(network, alexeyab_darknet.load_network(cfg, weights), x)
    assert difference <= 3 * EXACT, f"layer {index} [{network.layers[index].type}]"
    check_weights(alexeyab_darknet, text, tmp_path)


DEEP = ("Gaussian_yolov3_BDD", "yolov4", "yolov4-csp", "yolov3-spp")
DETECTORS = ["yolov4-tiny", "yolov7-tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)]


@pytest.mark.filterwarnings("ignore::darknet_compat.errors.CfgWarning")
@pytest.mark.parametrize("name", DETECTORS)
def test_every_layer_of_stock_detectors(alexeyab, alexeyab_darknet, tmp_path, name):
    """Each layer by itself, heads too; and the boxes of his maps, in his order."""
    text = stock(alexeyab, f"{name}.cfg", 96)
    network, cfg, weights = network_of(text, tmp_path, numerics="gpu", program="alexeyab")
    x = np.random.default_rng(0).random((1, *network.input), np.float32)
    calibrate(network, torch.from_numpy(np.concatenate([x, 1 - x])), weights)
    reference = alexeyab_darknet.load_network(cfg, weights)
    difference, index = worst_step(network, reference, x)
    assert difference <= EXACT, f"layer {index} [{network.layers[index].type}]"
    maps = [torch.from_numpy(reference.layer_output(head.index)).reshape(1, *head.output) for head in network.heads]
    for thresh in (0.5, 0.05):
        found, expected = network.listed_boxes(maps, thresh), reference.boxes(96, 96, thresh)
        assert len(expected.boxes) == found.xywh.shape[1] > 0
        np.testing.assert_allclose(found.xywh[0], expected.boxes, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.prob[0], expected.prob, rtol=1e-5, atol=1e-6)
