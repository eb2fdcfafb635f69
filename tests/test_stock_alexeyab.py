"""AlexeyAB's own cfg files: all build, and those tried give his library's values layer by layer."""

from __future__ import annotations

import re
import signal
import subprocess
import warnings

import numpy as np
import pytest
import torch

from darknet_compat.cfg import read_cfg
from darknet_compat.errors import CfgError, CfgWarning
from darknet_compat.network import Network
from tests.compare import EXACT, calibrate, check_weights, network_of, worst_step

# The signal and the message that his own program ends with at cfgs of his folder.
ASSERTS = (
    "parse_shortcut: Assertion `params.w == net.layers[index].out_w && params.h == net.layers[index].out_h' failed"
)
STOPS = {
    **{f"{name}.cfg": (signal.SIGABRT, ASSERTS) for name in ("resnet50", "resnet101", "resnet152", "resnext152-32x4d")},
    # parse_network_cfg_custom divides by the number of layers that have a map of over 1x1.
    **{f"{name}.cfg": (signal.SIGFPE, "") for name in ("rnn", "rnn.train", "gru", "lstm.train", "crnn.train")},
    # Without data/9k.tree, which is not in his archive's folder data.
    "yolo9000.cfg": (signal.SIGSEGV, ""),
}


def test_every_stock_cfg_builds(alexeyab, darknet_share, monkeypatch):
    """As the network of the program that the cfg tells, and of his: there all but those at which his stops too."""
    monkeypatch.chdir(darknet_share)  # where data/9k.tree is, which the archive of his program lacks
    paths = sorted((alexeyab / "cfg").rglob("*.cfg"))
    assert len(paths) == 87 + 8
    refused = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CfgWarning)
        for path in paths:
            cfg = read_cfg(path)
            network = Network(cfg, device="meta")
            assert len(network.table().splitlines()) >= len(network.layers) + 2
            if network.program == "alexeyab":
                continue
            try:
                Network(cfg, device="meta", program="alexeyab")
            except CfgError as error:
                refused[path.name] = str(error)
    assert refused.keys() == {name for name, (_, message) in STOPS.items() if message == ASSERTS}
    for message in refused.values():
        assert "AlexeyAB's program stops here, by an assert in parse_shortcut; expected maps of one size" in message
        assert "\n" not in message
    print(f"AlexeyAB's: {len(paths)} of {len(paths)} build, {len(paths) - len(refused)} as networks of his program")


@pytest.mark.parametrize("name", STOPS)
def test_what_his_own_program_ends_with(alexeyab, name):
    done = subprocess.run([alexeyab / "darknet", "ops", f"cfg/{name}"], capture_output=True, text=True, cwd=alexeyab)
    number, message = STOPS[name]
    assert done.returncode == -number
    assert message in done.stderr


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
