"""The exported files in the programs that they are for, and the way back to .weights."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import venv
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from darknet_compat import load_network, save_weights
from darknet_compat.boxes import nms_sort
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.cli import main
from darknet_compat.defaults import MAP
from darknet_compat.engines.exported import openvino_core
from darknet_compat.errors import CfgError, DarknetError, ExportError
from darknet_compat.export import export, read_export
from darknet_compat.images import load_image
from darknet_compat.layers.activation import ACTIVATIONS
from darknet_compat.network import Network
from tests.compare import calibrate, net, network_of, randomise
from tests.conftest import ROOT, SHAPES
from tests.planes import letterbox, to_planes

ALIKE = 1e-4  # boxes, relative to the image, and probabilities
CONV = "[conv]\nfilters={}\nsize=3\npad=1\nactivation=leaky"
REGION = "[region]\nanchors=1,2, 3,1.5\nnum=2\nclasses=3\nsoftmax=1"
SMALL = net(
    32, 32, 3,
    CONV.format(4) + "\nbatch_normalize=1", "[maxpool]\nsize=2\nstride=2",
    CONV.format(8), "[maxpool]\nsize=2\nstride=2",
    CONV.format(8), "[route]\nlayers=-3", "[conv]\nfilters=4\nactivation=leaky", "[reorg]\nstride=2",
    "[route]\nlayers=-1,-4", "[conv]\nfilters=16\nactivation=linear", REGION,
)  # fmt: skip


def need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'darknet_compat[{package}]'")


def run_onnxruntime(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": images}), strict=True))


def run_openvino(path, images):
    model = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model({"images": images})
    return {name: found[name] for output in model.outputs for name in output.names}


def run_opencv(path, images):
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(images)
    names = network.getUnconnectedOutLayersNames()
    return dict(zip(names, network.forward(names), strict=True))


RUNTIMES = {"onnxruntime": run_onnxruntime, "openvino": run_openvino, "opencv": run_opencv}


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    need("onnx", {"opencv": "cv2"}.get(request.param, request.param))
    if request.param == "opencv":
        import cv2

        if int(cv2.__version__.split(".")[0]) < 5:
            pytest.skip("needs OpenCV 5; test_opencv_4 has the older one")
    return RUNTIMES[request.param]


@pytest.fixture(scope="module")
def shapes():
    return load_network(*SHAPES)


def photographs(share: Path, network: Network) -> np.ndarray:
    planes = [to_planes(load_image(share / f"data/{name}.jpg")) for name in ("dog", "person")]
    return np.stack([letterbox(image, network.width, network.height) for image in planes])


def expected_boxes(network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        boxes, _, probabilities = network.boxes(network.predict(torch.from_numpy(images)), 0.0)
    return boxes.numpy(), probabilities.numpy()


def check_boxes(found, network, images):
    boxes, probabilities = expected_boxes(network, images)
    assert found["boxes"].shape == boxes.shape
    assert np.max(np.abs(found["boxes"] - boxes) / np.maximum(np.abs(boxes), 1)) <= ALIKE
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=ALIKE)


def test_a_trained_detector_in_every_program(runtime, detector, darknet_share, tmp_path):
    network = load_network(*detector)
    images = photographs(darknet_share, network)[:1]
    export(network, tmp_path / "net.onnx")
    check_boxes(runtime(tmp_path / "net.onnx", images), network, images)


def test_any_batch_and_any_size(runtime, shapes, darknet_share, tmp_path):
    export(shapes, tmp_path / "net.onnx", dynamic=True)
    try:
        for size in ((224, 224), (320, 256)):
            shapes.resize(*size)
            images = photographs(darknet_share, shapes)
            check_boxes(runtime(tmp_path / "net.onnx", images), shapes, images)
    finally:
        shapes.resize(128, 128)


@pytest.mark.parametrize("dynamic", [False, True])
def test_suppression_inside_the_graph(runtime, shapes, darknet_share, tmp_path, dynamic):
    """The boxes that are left are those that do_nms_sort leaves."""
    images = photographs(darknet_share, shapes)[: 1 + dynamic]
    export(shapes, tmp_path / "net.onnx", dynamic=dynamic, nms=True)
    found = runtime(tmp_path / "net.onnx", images)
    check_boxes(found, shapes, images)
    with torch.inference_mode():
        boxes, objectness, prob = shapes.boxes(shapes.predict(torch.from_numpy(images)), MAP["pjreddie"].thresh)
        kept, _ = nms_sort(boxes, objectness, prob, MAP["pjreddie"].nms)
    expected = {(n, k, b) for n, b, k in kept.nonzero().tolist()}
    # OpenVINO fills up with rows of -1.
    selected = [tuple(row) for row in np.asarray(found["selected"]).astype(int).tolist() if row[0] >= 0]
    assert len(expected) > 50
    assert set(selected) == expected
    assert len(selected) == len(expected)


def stock_detector(name: str) -> Network:
    """Random weights; small, for speed."""
    network = randomise(Network(read_cfg(ROOT / f"cfg/{name}.cfg")))
    network.resize(160, 128)
    return network


def stock_classifier(name: str) -> Network:
    text = re.sub(r"(?m)^(width|height)=.*", r"\1=64", (ROOT / f"cfg/{name}.cfg").read_text())
    return randomise(Network(parse_cfg(text)))


@pytest.mark.parametrize("name", ["yolov2-voc", "yolov2-tiny-voc", "yolov3-tiny", "yolov4-tiny", "yolov7-tiny"])
def test_the_stock_networks(runtime, tmp_path, name):
    """With reorg, routes, of a part of the planes too, and a maxpool that pads; one to three heads."""
    network = stock_detector(name)
    images = np.random.default_rng(0).random((1, *network.input), np.float32)
    export(network, tmp_path / "net.onnx")
    check_boxes(runtime(tmp_path / "net.onnx", images), network, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov3", "yolov3-spp", "yolov4", "yolov4-csp"])
def test_deep_stock_networks_but_for_rounding(runtime, tmp_path, name):
    """Through a hundred random layers rounding alone comes to over ALIKE, with torch too: both against float64."""
    network = stock_detector(name)
    images = np.random.default_rng(0).random((1, *network.input), np.float32)
    calibrate(network, torch.from_numpy(np.concatenate([images, 1 - images])), tmp_path / "net.weights")
    export(network, tmp_path / "net.onnx")
    found = runtime(tmp_path / "net.onnx", images)
    ours = dict(zip(("boxes", "probabilities"), expected_boxes(network, images), strict=True))
    exact = dict(zip(("boxes", "probabilities"), expected_boxes(network.double(), images.astype(float)), strict=True))
    for output, right in exact.items():
        off, own = (np.abs(values[output] - right) / np.maximum(np.abs(right), 1) for values in (found, ours))
        print(f"{name}: {output} off by {off.max():.1g}, torch's by {own.max():.1g}")
        assert off.max() <= 5 * own.max()
        assert off.mean() <= 5 * own.mean()


def check_output(found, network, images):
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found["output"], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["darknet19", "resnet18", "extraction"])
def test_stock_classifiers(runtime, tmp_path, name):
    network = stock_classifier(name)
    images = np.random.default_rng(0).random((1, *network.input), np.float32)
    export(network, tmp_path / "net.onnx")
    check_output(runtime(tmp_path / "net.onnx", images), network, images)


YOLO = "mask={}\nanchors=3,5, 8,6, 14,20, 30,25\nclasses=3\nnum=4\n{}"
HEADS = {
    "v3": ("[yolo]", 8, "linear", ""),
    "scaled": ("[yolo]", 8, "linear", "scale_x_y=1.2"),
    "new coords": ("[yolo]", 8, "logistic", "new_coords=1\nscale_x_y=2.0"),
    "gaussian": ("[Gaussian_yolo]", 12, "linear", "scale_x_y=1.1\nnms_kind=cornersnms"),
    "gaussian corner": ("[Gaussian_yolo]", 12, "linear", "yolo_point=left_top"),
}


def two_heads(section, planes, activation, options):
    """Heads on maps of 8 and 16 pixels per cell, of two and of one box per cell."""
    last = f"[conv]\nfilters={{}}\nactivation={activation}"
    body = [CONV.format(8) + "\nbatch_normalize=1\nstride=1", "[maxpool]\nsize=4\nstride=4",
            CONV.format(8) + "\n", "[maxpool]\nsize=2\nstride=2"]  # fmt: skip
    return net(
        64, 32, 3, *body, last.format(2 * planes), f"{section}\n{YOLO.format('2,3', options)}",
        "[route]\nlayers=-3", "[maxpool]\nsize=2\nstride=2", last.format(planes),
        f"{section}\n{YOLO.format('1', options)}",
    )  # fmt: skip


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads_decode_in_every_program(runtime, head, tmp_path):
    network = randomise(Network(parse_cfg(two_heads(*head))))
    images = np.random.default_rng(0).random((1, *network.input), np.float32)
    export(network, tmp_path / "net.onnx")
    found = runtime(tmp_path / "net.onnx", images)
    assert found["boxes"].shape == (1, 4 * 8 * 2 + 2 * 4, 4)
    check_boxes(found, network, images)
    export(network, tmp_path / "any.onnx", dynamic=True, nms=True)
    network.resize(96, 64)
    images = np.random.default_rng(1).random((2, *network.input), np.float32)
    found = runtime(tmp_path / "any.onnx", images)
    check_boxes(found, network, images)
    with torch.inference_mode():
        boxes, objectness, prob = network.boxes(network.predict(torch.from_numpy(images)), 0.005)
        kept, _ = nms_sort(boxes, objectness, prob, 0.45)
    selected = [tuple(row) for row in np.asarray(found["selected"]).astype(int).tolist() if row[0] >= 0]
    assert sorted(selected) == sorted((n, k, b) for n, b, k in kept.nonzero().tolist())


def first_yolo(options):
    head = f"[detection]\nclasses=3\ncoords=4\nnum=2\nside=4\n{options}"
    body = [CONV.format(4), "[maxpool]\nsize=4\nstride=4", "[connected]\noutput=208\nactivation=linear"]
    return net(32, 32, 3, *body, head)


@pytest.mark.parametrize("options", ["sqrt=1", "softmax=1"])
def test_the_head_of_yolov1_decodes_in_every_program(runtime, options, tmp_path):
    network = randomise(Network(parse_cfg(first_yolo(options))))
    images = np.random.default_rng(0).random((1, *network.input), np.float32)
    export(network, tmp_path / "net.onnx")
    check_boxes(runtime(tmp_path / "net.onnx", images), network, images)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads_are_in_the_torch_program(head, tmp_path):
    network = randomise(Network(parse_cfg(two_heads(*head))))
    images = torch.rand(3, *network.input, generator=torch.Generator().manual_seed(0))
    export(network, tmp_path / "net.pt2", dynamic=True)
    boxes, probabilities = torch.export.load(tmp_path / "net.pt2").module()(images)
    expected = network.boxes(network.predict(images), 0.0)
    torch.testing.assert_close(boxes, expected.xywh)
    torch.testing.assert_close(probabilities, expected.prob)
    assert torch.equal(read_export(tmp_path / "net.pt2")(images), network(images))


@pytest.mark.parametrize("kind", ["greedynms", "diounms"])
def test_suppression_that_onnx_does_not_know_is_refused(kind, tmp_path):
    need("onnx")
    network = randomise(Network(parse_cfg(two_heads(*HEADS["v3"][:3], f"nms_kind={kind}"), "net.cfg")))
    with pytest.raises(ExportError, match=rf"net\.cfg:\d+: nms_kind={kind}: .*; expected no -nms: .*nms_sort") as error:
        export(network, tmp_path / "net.onnx", nms=True)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    export(network, tmp_path / "net.onnx")


SECTIONS = {
    "maxpool 3/2": ["[maxpool]\nsize=3\nstride=2"],
    "maxpool 2/1": ["[maxpool]\nsize=2\nstride=1"],
    "maxpool padding": ["[maxpool]\nsize=2\nstride=2\npadding=0"],
    "maxpool wide padding": ["[maxpool]\nsize=2\nstride=2\npadding=3"],
    "convolution": ["[conv]\nfilters=6\nsize=3\nstride=2\npadding=2\ngroups=2\nactivation=relu\nbatch_normalize=1"],
    "dilation": [CONV.format(4), CONV.format(4) + "\ndilation=2\nshare_index=-1", "[conv]\nfilters=2\nstride_x=2"],
    "antialiasing": [f"{CONV.format(4)}\nstride=2\nantialiasing={kind}" for kind in (1, 2)],
    "xnor": [f"{CONV.format(4)}\nxnor=1\nstream=0", CONV.format(3) + "\nbinary=1"],
    "batchnorm": ["[batchnorm]"],
    "connected": ["[connected]\noutput=7\nbatch_normalize=1\nactivation=tanh"],
    "classifier": ["[avgpool]", "[dropout]\nprobability=.5", "[softmax]\ngroups=2\ntemperature=2", "[cost]\ntype=sse"],
    "route of sizes": ["[maxpool]\nsize=2\nstride=2", "[route]\nlayers=-1,-2"],
    "reorg back": ["[reorg]\nstride=2\nreverse=1"],
    "upsample": ["[upsample]\nstride=3\nscale=.5"],
    "downsample": ["[upsample]\nstride=-2"],
    "shortcut": [CONV.format(4), "[shortcut]\nfrom=-2\nactivation=leaky\nalpha=.5\nbeta=2"],
    "maxpool of AlexeyAB's": [
        "[maxpool]\nsize=3\nstride_x=2\nstride_y=1",
        "[maxpool]\nsize=2\nstride=2\nantialiasing=1",
        "[maxpool]\nmaxpool_depth=1\nout_channels=3",
    ],
    "local_avgpool": ["[local_avgpool]\nsize=3\nstride=2", "[local_avgpool]\nsize=2\nstride=1\nstride_x=2"],
    "route of groups": [CONV.format(6), "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1"],
    "route of groups and sizes": ["[maxpool]\nsize=2\nstride=2", "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1"],
    "shortcut of several": [
        CONV.format(6),
        CONV.format(4),
        "[shortcut]\nfrom=-2,-3\nactivation=leaky\nweights_type=none",
        "[shortcut]\nfrom=-2,-3,-4\nactivation=linear\nweights_type=per_channel\nweights_normalization=softmax",
        "[shortcut]\nfrom=-5\nactivation=mish\nweights_type=per_feature\nweights_normalization=relu",
    ],
    "scale_channels": [
        "[avgpool]",
        "[scale_channels]\nfrom=-2\nactivation=relu",
        "[conv]\nfilters=1\nactivation=logistic",
        "[scale_channels]\nfrom=-2\nscale_wh=1",
    ],
    "sam": [CONV.format(4) + "\nactivation=logistic", "[sam]\nfrom=-2\nactivation=leaky"],
    "reorg3d": ["[reorg3d]\nstride=2", "[reorg3d]\nstride=2\nreverse=1", "[reorg3d]\nstride=3", "[empty]"],
    "implicit": ["[implicit]\nfilters=4", "[scale_channels]\nfrom=0", "[silence]", "[contrastive]"],
    "shortcut to fewer": ["[conv]\nfilters=2\nsize=3\nstride=2\npad=1", "[shortcut]\nfrom=-2\nbeta=2"],
    "shortcut to more": ["[conv]\nfilters=9\nsize=3\nstride=2\npad=1", "[shortcut]\nfrom=-2"],
    "deconvolution": ["[deconv]\nfilters=5\nsize=4\nstride=2\npadding=1\nactivation=leaky\nbatch_normalize=1"],
    "local": ["[local]\nfilters=5\nsize=3\npad=1\nstride=2\nactivation=leaky"],
    "normalization": ["[normalization]\nalpha=.5"],
    "normalization of even size": ["[lrn]\nalpha=.5\nsize=2\nkappa=2\nbeta=1.5"],
    "l2norm": ["[l2norm]"],
    "logistic": ["[logistic]"],
    "softmax of each place": ["[softmax]\nspatial=1"],
    "reorg flat": ["[reorg]\nflatten=1\nstride=2"],
    "reorg flat and back": ["[reorg]\nflatten=1\nreverse=1"],
    "reorg extra": ["[reorg]\nextra=3"],
    **{name: [f"[activation]\nactivation={name}"] for name in ACTIVATIONS},
}


@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
def test_each_section_type(sections, tmp_path):
    need("onnx", "onnxruntime")
    network, _, _ = network_of(net(12, 12, 3, CONV.format(4), *sections), tmp_path)
    x = 8 * torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)) - 4
    for dynamic in (False, True):
        export(network, tmp_path / "net.onnx", dynamic=dynamic)
        images = x if dynamic else x[:1]
        with torch.inference_mode():
            expected = network(images)
        found = run_onnxruntime(tmp_path / "net.onnx", images.numpy())["output"]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("numerics", ["cudnn", "cpu"])
@pytest.mark.parametrize("noadjust", [0, 1])
def test_a_crop(numerics, noadjust, tmp_path):
    need("onnx", "onnxruntime")
    crop = f"[crop]\ncrop_height=9\ncrop_width=10\nnoadjust={noadjust}"
    network, _, _ = network_of(net(13, 12, 3, crop, CONV.format(4)), tmp_path, numerics=numerics)
    x = torch.rand(1, 3, 12, 13, generator=torch.Generator().manual_seed(0))
    export(network, tmp_path / "net.onnx")
    with torch.inference_mode():
        expected = network(x)
    np.testing.assert_allclose(run_onnxruntime(tmp_path / "net.onnx", x.numpy())["output"], expected, atol=1e-5)
    with pytest.raises(ExportError, match=r"\[crop\] of an image of any size has no ONNX form here"):
        export(network, tmp_path / "net.onnx", dynamic=True)


def test_the_older_sections_in_every_program(runtime, tmp_path):
    sections = [
        "[crop]\ncrop_height=12\ncrop_width=11", CONV.format(6), "[lrn]\nalpha=.5", "[l2norm]",
        "[deconv]\nfilters=5\nsize=4\nstride=2\npadding=1\nactivation=leaky", "[reorg]\nflatten=1",
        "[local]\nfilters=4\nsize=3\npad=1\nstride=2\nactivation=leaky", "[softmax]\nspatial=1", "[reorg]\nextra=2",
        "[logistic]",
    ]  # fmt: skip
    network, _, _ = network_of(net(14, 14, 3, *sections, batch=1), tmp_path)
    x = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    export(network, tmp_path / "net.onnx")
    with torch.inference_mode():
        expected = network(x)
    np.testing.assert_allclose(runtime(tmp_path / "net.onnx", x.numpy())["output"], expected, atol=1e-5)


@pytest.mark.parametrize("option", ["tree", "background"])
def test_a_region_that_has_no_onnx_form_says_so(option, tmp_path):
    need("onnx")
    (tmp_path / "a.tree").write_text("a -1\nb -1\n")
    line = f"tree={tmp_path / 'a.tree'}" if option == "tree" else "background=1"
    network, _, _ = network_of(net(4, 4, 3, CONV.format(7), f"[region]\nclasses=2\n{line}"), tmp_path)
    with pytest.raises(ExportError, match=r"\[region\] with tree= or background=1 has no ONNX form here"):
        export(network, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


RECURRENT = ["rnn", "gru", "lstm", "crnn"]


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_have_no_onnx_form(name, tmp_path):
    need("onnx")
    network, _, _ = network_of(net(4, 4, 2, f"[{name}]\nbatch_normalize=1"), tmp_path)
    with pytest.raises(
        ExportError, match=rf"\[{name}\]: \[{name}\] has no ONNX form here; \.pt2 and \.safetensors hold"
    ):
        export(network, tmp_path / "net.onnx")


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_networks_come_back_byte_for_byte(name, suffix, tmp_path):
    """After a call, too: the state goes into no file."""
    network, _, weights = network_of(net(4, 4, 2, CONV.format(3), f"[{name}]\nbatch_normalize=1"), tmp_path)
    with torch.inference_mode():
        network(torch.rand(3, 2, 4, 4))
    export(network, tmp_path / f"net{suffix}")
    again = read_export(tmp_path / f"net{suffix}")
    save_weights(again, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_program_keeps_its_state(name, tmp_path):
    """It starts from a state of zeros, and each call is the next step."""
    text = net(4, 4, 2, CONV.format(3), f"[{name}]\nbatch_normalize=1", "[connected]\noutput=5\nactivation=linear")
    network, _, _ = network_of(text, tmp_path)
    with torch.inference_mode():
        before = network(torch.rand(1, 2, 4, 4))
    export(network, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    x = torch.rand(1, 2, 4, 4)
    with torch.inference_mode():
        assert not torch.equal(network(x), before)  # the export left its state alone
        network.reset_state()
        steps = [network(x) for _ in range(4)]
        assert not torch.allclose(steps[0], steps[1], atol=1e-4)
        for step in steps:
            torch.testing.assert_close(program(x), step)
    with pytest.raises(ExportError, match=rf"\[{name}\]: a program of any batch has no place for .* state"):
        export(network, tmp_path / "net.pt2", dynamic=True)


def test_what_has_no_onnx_form_is_named(tmp_path):
    need("onnx")
    network = randomise(Network(parse_cfg(SMALL + "background=1\n")))
    with pytest.raises(ExportError, match=r"<text>:\d+: \[region\].*background=1.*\.pt2 and \.safetensors"):
        export(network, tmp_path / "net.onnx")
    with pytest.raises(CfgError, match="detection needs"):
        export(randomise(Network(parse_cfg(net(8, 8, 3, CONV.format(4))))), tmp_path / "net.onnx", nms=True)
    with pytest.raises(ExportError, match=r"no format has the suffix '\.engine'"):
        export(network, tmp_path / "net.engine")
    with pytest.raises(ExportError, match=r"\.onnx files only"):
        export(network, tmp_path / "net.pt2", nms=True)
    with pytest.raises(ExportError, match="the file was not written"):
        export(network, tmp_path / "missing" / "net.pt2")
    assert list(tmp_path.iterdir()) == []


OPENCV4 = """
import sys, cv2, numpy
network = cv2.dnn.readNetFromONNX(sys.argv[1])
network.setInput(numpy.load(sys.argv[2]))
names = network.getUnconnectedOutLayersNames()
numpy.savez(sys.argv[3], version=cv2.__version__, **dict(zip(names, network.forward(names))))
"""


@pytest.mark.slow
def test_opencv_4(shapes, darknet_share, tmp_path):
    """In an environment of its own, for two versions of OpenCV do not live in one."""
    need("onnx")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "opencv-python-headless<5", "numpy"], check=True)
    stock = [stock_detector(name) for name in ("yolov2-voc", "yolov3-tiny", "yolov4-tiny", "yolov7-tiny")]
    texts = [*(two_heads(*head) for head in HEADS.values()), first_yolo("sqrt=1"), first_yolo("softmax=1")]
    heads = [randomise(Network(parse_cfg(text))) for text in texts]
    for network in (shapes, *stock, *heads, stock_classifier("darknet19"), stock_classifier("resnet18")):
        images = photographs(darknet_share, network)[:1]
        export(network, tmp_path / "net.onnx")
        np.save(tmp_path / "images.npy", images)
        files = [tmp_path / name for name in ("net.onnx", "images.npy", "outputs.npz")]
        subprocess.run([python, "-c", OPENCV4, *files], check=True)
        outputs = np.load(tmp_path / "outputs.npz")
        assert str(outputs["version"]).startswith("4.")
        (check_boxes if network.detectors else check_output)(outputs, network, images)


# .pt2 and .safetensors, and back.


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".safetensors"])
def test_trained_weights_come_back_byte_for_byte(trained, tmp_path, suffix):
    if suffix == ".safetensors":
        need("safetensors")
    (cfg, weights), out = trained, tmp_path / f"net{suffix}"
    export(load_network(cfg, weights), out)
    network = read_export(out)
    save_weights(network, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    assert network.cfg.meaning() == read_cfg(cfg).meaning()


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_the_shipped_weights_come_back_byte_for_byte(tmp_path, suffix):
    if suffix == ".safetensors":
        need("safetensors")
    cfg, weights = ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights"
    export(load_network(cfg, weights), tmp_path / f"net{suffix}")
    network = read_export(tmp_path / f"net{suffix}")
    save_weights(network, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    assert network.cfg.meaning() == read_cfg(cfg).meaning()


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (0, 2, 5), (1001, 0, 0)])
def test_every_header_comes_back(tmp_path, suffix, version):
    if suffix == ".safetensors":
        need("safetensors")
    text = net(8, 8, 3, "[conv]\nfilters=4\nflipped=1\nbatch_normalize=1", "[batchnorm]", "[connected]\noutput=5")
    network, _, weights = network_of(text, tmp_path, numerics="gpu")
    network.version, network.seen = version, 2**31 - 1
    save_weights(network, weights)
    export(network, tmp_path / f"net{suffix}")
    back = read_export(tmp_path / f"net{suffix}")
    save_weights(back, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    assert back.numerics == "gpu"


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_numbers_that_two_layers_share_come_back(tmp_path, suffix):
    if suffix == ".safetensors":
        need("safetensors")
    first = CONV.format(3) + "\nbatch_normalize=1"
    network, _, weights = network_of(net(8, 8, 3, first, first + "\nshare_index=0"), tmp_path)
    export(network, tmp_path / f"net{suffix}")
    back = read_export(tmp_path / f"net{suffix}")
    save_weights(back, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(back(x), network(x))
        if suffix == ".pt2":
            found = torch.export.load(tmp_path / "net.pt2").module()(x)
            torch.testing.assert_close(found, network(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_program_gives_boxes(shapes, darknet_share, tmp_path, dynamic):
    images = photographs(darknet_share, shapes)[: 1 + dynamic]
    export(shapes, tmp_path / "net.pt2", dynamic=dynamic)
    with open(tmp_path / "net.pt2", "rb") as file:
        program = torch.export.load(io.BytesIO(file.read()))
    with torch.inference_mode():
        boxes, probabilities = program.module()(torch.from_numpy(images))
    check_boxes({"boxes": boxes.numpy(), "probabilities": probabilities.numpy()}, shapes, images)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_program_of_alexeyabs_sections(tmp_path, dynamic):
    sections = [
        CONV.format(8), "[maxpool]\nsize=3\nstride_x=2\nstride_y=2\nantialiasing=1", "[conv]\nfilters=8\ndilation=2",
        "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1", "[local_avgpool]\nsize=3\nstride=1",
        "[shortcut]\nfrom=-2,-3\nactivation=mish\nweights_type=per_channel\nweights_normalization=relu",
        "[avgpool]", "[scale_channels]\nfrom=-2", "[implicit]\nfilters=8", "[scale_channels]\nfrom=-2",
        "[conv]\nfilters=8\nxnor=1\nactivation=swish", "[sam]\nfrom=-2", "[reorg3d]\nstride=2",
        "[maxpool]\nmaxpool_depth=1\nout_channels=5", "[empty]",
    ]  # fmt: skip
    network, _, _ = network_of(net(32, 32, 3, *sections), tmp_path, numerics="gpu")
    x = torch.rand(1 + dynamic, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    export(network, tmp_path / "net.pt2", dynamic=dynamic)
    with torch.inference_mode():
        found = torch.export.load(tmp_path / "net.pt2").module()(x)
        torch.testing.assert_close(found, network(x), atol=1e-4, rtol=1e-4)


def test_safetensors_names_and_metadata(shapes, tmp_path):
    need("safetensors")
    from safetensors import safe_open

    export(shapes, tmp_path / "net.safetensors")
    with safe_open(tmp_path / "net.safetensors", "np") as file:
        assert "\n[region]\n" in file.metadata()["cfg"]
        assert (file.metadata()["version"], file.metadata()["numerics"]) == ("0.2.0", "cudnn")
        assert int(file.metadata()["seen"]) == shapes.seen
        np.testing.assert_array_equal(file.get_tensor("layers.0.weights"), shapes.layers[0].weights.detach().numpy())
        assert set(file.keys()) == set(shapes.state_dict())


@pytest.mark.parametrize("suffix", ["pt2", "safetensors"])
def test_the_program_that_was_asked_for_comes_back(tmp_path, suffix):
    """Where no word of the cfg says it."""
    need("safetensors")
    network = randomise(Network(parse_cfg(net(8, 8, 3, CONV.format(4))), program="alexeyab"))
    export(network, tmp_path / f"net.{suffix}")
    back = read_export(tmp_path / f"net.{suffix}")
    assert (back.program, back.net.letter_box) == ("alexeyab", 0)


def test_damaged_and_foreign_files(tmp_path, capfd):
    need("safetensors")
    import safetensors.numpy

    network = randomise(Network(parse_cfg(net(8, 8, 3, CONV.format(4)))))
    for suffix in (".pt2", ".safetensors"):
        export(network, tmp_path / f"good{suffix}")
        good = (tmp_path / f"good{suffix}").read_bytes()
        for content in (b"", b"\x00" * 50, good[: len(good) // 2], b"PK" + good[2:100]):
            (tmp_path / f"bad{suffix}").write_bytes(content)
            with pytest.raises(ExportError, match=rf"bad\{suffix}: not a file that darknet_compat exported"):
                read_export(tmp_path / f"bad{suffix}")
        with pytest.raises(ExportError, match="No such file"):
            read_export(tmp_path / f"none{suffix}")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ExportError, match="not written by darknet_compat"):
        read_export(tmp_path / "foreign.safetensors")
    # Tensors of another shape than the cfg asks for.
    content = (tmp_path / "good.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["cfg"] = header["__metadata__"]["cfg"].replace("filters=4", "filters=5")
    text = json.dumps(header).encode()
    (tmp_path / "bad.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(ExportError, match=r"layers\.0") as caught:
        read_export(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


# Files from strangers, and damaged ones: nothing runs, nothing else is read, and each ends in one line.


SMALLEST = net(8, 8, 3, CONV.format(4) + "\nbatch_normalize=1", "[maxpool]\nsize=2\nstride=2", CONV.format(2))


def smallest() -> Network:
    return randomise(Network(parse_cfg(SMALLEST)))


def rewrite(source: Path, target: Path, changes: dict[str, bytes], **options) -> None:
    """Copy a zip archive with other bytes in some entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name, old.read(name)))


def header_of(content: bytes) -> tuple[dict, bytes]:
    """The header of a .safetensors file, and what follows it."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: dict | str, rest: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + rest


def refusal(path: Path, content: bytes) -> str:
    """The one line that reading these bytes ends in, or "" for a network that equals :func:`smallest`."""
    path.write_bytes(content)
    try:
        found = read_export(path)
    except DarknetError as error:
        line = str(error)
        assert line.isprintable(), repr(line)
        assert len(line) < 600, line
        return line
    expected = smallest()
    assert found.cfg.meaning() == expected.cfg.meaning()
    assert (found.version, found.seen, found.numerics) == (expected.version, expected.seen, expected.numerics)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    return ""


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_no_entry_of_a_program_is_unpickled(tmp_path):
    export(smallest(), tmp_path / "good.pt2")
    proof, saved = tmp_path / "proof", io.BytesIO()
    torch.save(Malice(proof), saved)
    payloads = pickle.dumps(Malice(proof)), saved.getvalue()
    names = zipfile.ZipFile(tmp_path / "good.pt2").namelist()
    assert "archive/data/sample_inputs/model.pt" in names
    for name in names:
        for payload in payloads:
            rewrite(tmp_path / "good.pt2", tmp_path / "bad.pt2", {name: payload})
            with suppress(DarknetError):
                read_export(tmp_path / "bad.pt2")
            assert not proof.exists(), name
    pickle.loads(payloads[0])
    assert proof.is_dir()


def test_entries_take_no_more_memory_than_the_file(tmp_path):
    """Many compressed zeros, entries that claim more bytes than there are, and one entry for many tensors."""
    export(smallest(), tmp_path / "good.pt2")
    weights, config = "archive/data/weights/weight_0", "archive/data/weights/model_weights_config.json"
    about = json.loads(zipfile.ZipFile(tmp_path / "good.pt2").read(config))
    for meta in about["config"].values():
        meta["path_name"] = "weight_0"
    long = {"archive/extra/darknet.json": b" " * 2**24}
    wrong = []
    for changes, options in (
        ({weights: bytes(2**24)}, {"compression": zipfile.ZIP_DEFLATED}),
        ({config: json.dumps(about).encode()}, {}),
        (long, {}),
    ):
        rewrite(tmp_path / "good.pt2", tmp_path / "bad.pt2", changes, **options)
        wrong.append((tmp_path / "bad.pt2").read_bytes())
    # In the central directory the sizes of an entry stand 20 bytes behind its mark.
    entry = bytearray((tmp_path / "good.pt2").read_bytes())
    at = entry.rindex(b"PK\1\2") + 20
    entry[at : at + 8] = (2**31 - 1).to_bytes(4, "little") * 2
    wrong.append(bytes(entry))
    expected = ("an entry is compressed", "two tensors have the same bytes", "longer than", "longer than the file")
    for content, line in zip(wrong, expected, strict=True):
        (tmp_path / "bad.pt2").write_bytes(content)
        del content
        tracemalloc.start()
        try:
            with pytest.raises(ExportError, match=line):
                read_export(tmp_path / "bad.pt2")
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_a_cfg_longer_than_any_is_refused_unread(tmp_path, suffix, monkeypatch):
    export(Network(parse_cfg(f"# {'x' * 2**20}\n{SMALLEST}")), tmp_path / f"bad{suffix}")
    monkeypatch.setattr("darknet_compat.export.parse_cfg", None)
    with pytest.raises(ExportError, match=r"its cfg has .* characters; expected at most 1,048,576"):
        read_export(tmp_path / f"bad{suffix}")


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_what_no_weights_file_can_hold_is_refused(tmp_path, suffix):
    """The checksum is right in each."""
    for change, line in (
        ({"seen": -5}, "seen is '-5'; expected a count of images from 0 to"),
        ({"seen": 2**62}, "seen is '4611686018427387904'"),
        ({"version": (0, 1, 0), "seen": 2**31}, "seen is '2147483648'; .* to 2,147,483,647"),
        ({"version": (0, 2, 0, 1, 2)}, r"version is '0\.2\.0\.1\.2'; expected three numbers"),
        ({"version": (0, -2, 0)}, "version is '0.-2.0'"),
        ({"version": (0, 200_000, 0)}, "version is '0.200000.0'"),
        ({"numerics": "quantum"}, "numerics is 'quantum'; expected one of cudnn"),
        ({"biases": float("nan")}, r"tensor layers\.0\.biases has numbers that are not finite"),
        ({"biases": float("inf")}, r"tensor layers\.0\.biases has numbers that are not finite"),
    ):
        network = smallest()
        if "biases" in change:
            with torch.no_grad():
                network.layers[0].biases[1] = change.pop("biases")
        for name, value in change.items():
            setattr(network, name, value)
        export(network, tmp_path / f"bad{suffix}")
        with pytest.raises(ExportError, match=rf"bad\{suffix}: .*{line}"):
            read_export(tmp_path / f"bad{suffix}")


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_a_folder_or_a_fifo_is_refused(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"fifo{suffix}")
    handle = os.open(tmp_path / f"fifo{suffix}", os.O_RDWR)  # so that a reader would not wait for one who writes
    try:
        for name in ("folder", "fifo"):
            with pytest.raises(ExportError, match=rf"{name}\{suffix}: not a plain file"):
                read_export(tmp_path / f"{name}{suffix}")
    finally:
        os.close(handle)


def test_a_cfg_that_is_not_utf8_goes_into_a_program_alone(tmp_path):
    network = randomise(Network(parse_cfg(SMALLEST + "# caf\udce9\n")))
    with pytest.raises(ExportError, match=r"not UTF-8, which a \.safetensors file cannot hold; .* export a \.pt2"):
        export(network, tmp_path / "net.safetensors")
    export(network, tmp_path / "net.pt2")
    export(read_export(tmp_path / "net.pt2"), tmp_path / "net.cfg")
    assert (tmp_path / "net.cfg").read_bytes().endswith(b"# caf\xe9\n")


def damaged(good: bytes, random: Random) -> bytes:
    """One of the ways in which bytes go wrong."""
    content, at, count = bytearray(good), random.randrange(len(good)), random.randrange(1, 65)
    kind = random.randrange(7)
    if kind == 0:
        content[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        for _ in range(count):
            content[random.randrange(len(good))] = random.randrange(256)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        content += random.randbytes(count)
    elif kind == 4:
        content[at : at + count] = bytes(len(content[at : at + count]))
    elif kind == 5:
        content[at:at] = content[at : at + count]
    else:  # where the header of the one is, and the directory of the other
        content[random.choice((at % 1500, -1 - at % 1500))] = random.randrange(256)
    return bytes(content)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_a_damaged_file_ends_in_one_line_or_an_equal_network(tmp_path, suffix):
    export(smallest(), tmp_path / f"good{suffix}")
    good, random = (tmp_path / f"good{suffix}").read_bytes(), Random(0)
    lines = [refusal(tmp_path / f"bad{suffix}", damaged(good, random)) for _ in range(2000)]
    assert sum(map(bool, lines)) > 800


@pytest.mark.filterwarnings("ignore")
def test_damaged_safetensors(tmp_path):
    """What a fuzzer found, and what its random bytes would not."""
    export(smallest(), tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    header, rest = header_of(good)
    name = "layers.0.weights"
    begin, end = header[name]["data_offsets"]

    def changed(section: str, **values) -> bytes:
        return with_header({**header, section: {**header[section], **values}}, rest)

    def about(**values: str) -> bytes:
        return changed("__metadata__", **values)

    cfg = header["__metadata__"]["cfg"]
    first = json.dumps({name: {**header[name], "shape": [3, 4, 3, 3]}})[1:-1]
    nan = bytearray(rest)
    nan[begin : begin + 4] = b"\0\0\xc0\x7f"
    other = bytearray(rest)
    other[begin] ^= 1
    cases = {
        "a number changed": (with_header(header, bytes(other)), "damaged: its sha256"),
        "a NaN": (with_header(header, bytes(nan)), f"{name} has numbers that are not finite"),
        "two of one name": (with_header("{" + first + "," + json.dumps(header)[1:], rest), ""),
        "two cfgs": (with_header(json.dumps(header).replace('"cfg":', '"cfg": "[net]", "cfg":'), rest), ""),
        "metadata twice": (with_header('{"__metadata__":{},' + json.dumps(header)[1:], rest), "damaged"),
        "another shape": (changed(name, shape=[3, 4, 3, 3]), r"\(3, 4, 3, 3\); its cfg asks for .*\(4, 3, 3, 3\)"),
        "a shape too large": (changed(name, shape=[2**40, 2**40]), "damaged"),
        "more dimensions": (changed(name, shape=[1] * 9000 + [108]), r"\(1, 1, 1"),
        "a negative size": (changed(name, shape=[-4, 3, 3, 3]), "damaged"),
        "half as many": (changed(name, dtype="F64", shape=[2, 3, 3, 3]), r"is float64 \(2, 3, 3, 3\)"),
        "integers": (changed(name, dtype="I32"), r"is int32 \(4, 3, 3, 3\); its cfg asks for float32"),
        "offsets outside": (changed(name, data_offsets=[begin + 2**40, end + 2**40]), "damaged"),
        "offsets over others": (changed(name, data_offsets=[0, end - begin]), "damaged"),
        "one tensor too many": (
            with_header({**header, "x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, rest),
            r"tensor x is float32 \(0,\); its cfg asks for none",
        ),
        "a name with control characters": (
            with_header(json.dumps(header).replace(name, "a\\u001b\\n"), rest),
            "missing",
        ),
        "a header of 2**63 bytes": ((2**63).to_bytes(8, "little") + good[8:], "damaged"),
        "a header longer than the file": (len(good).to_bytes(8, "little") + good[8:], "damaged"),
        "braces in braces": (with_header("{" * 100_000, rest), "damaged"),
        "cut": (good[: len(good) // 2], "damaged"),
        "appended": (good + b"x", "damaged"),
        "empty": (b"", "damaged"),
        "no cfg": (changed("__metadata__", cfg=None), "damaged"),
        "an empty cfg": (about(cfg=""), r"cfg:1: no section"),
        "a broken cfg": (about(cfg=cfg.replace("]", "", 1)), r"cfg:1: .*no `\]`"),
        "a long cfg": (about(cfg=cfg + "#" * 2**20), "its cfg has .* characters; expected at most 1,048,576"),
        "a cfg of another network": (about(cfg=cfg.replace("filters=4", "filters=5")), "its cfg asks for"),
        "a cfg of one size too large": (
            about(cfg=cfg.replace("filters=2", "filters=40000000")),
            "GiB|its cfg asks for",
        ),
        "another stride": (about(cfg=cfg.replace("stride=2", "stride=3")), "damaged: its sha256"),
        "another count": (about(seen="1"), "damaged: its sha256"),
        "a count in other digits": (about(seen="٦٤٠٠٠"), "seen is '٦٤٠٠٠'"),
        "a count of 5000 digits": (about(seen="9" * 5000), "seen is '9"),
        "another version": (about(version="0.1.0"), "damaged: its sha256"),
        "a version of words": (about(version="0.2.x\n"), r"version is '0\.2\.x\\n'"),
        "other numerics": (about(numerics="cpu"), "damaged: its sha256"),
        "another format": (about(format="other"), "not written by darknet_compat"),
        "no checksum": (about(sha256=""), "damaged: its sha256"),
    }
    for case, (content, line) in cases.items():
        found = refusal(tmp_path / "bad.safetensors", content)
        assert re.search(line, found) if line else not found, (case, found)
    del header["__metadata__"]["sha256"]
    assert "no sha256 beside its tensors" in refusal(tmp_path / "bad.safetensors", with_header(header, rest))


@pytest.mark.filterwarnings("ignore")
def test_damaged_programs(tmp_path):
    """As of .safetensors: a zip archive adds its own ways to be wrong."""
    export(smallest(), tmp_path / "good.pt2")
    good = (tmp_path / "good.pt2").read_bytes()
    about_name, config_name = "archive/extra/darknet.json", "archive/data/weights/model_weights_config.json"
    with zipfile.ZipFile(tmp_path / "good.pt2") as archive:
        about, config = json.loads(archive.read(about_name)), json.loads(archive.read(config_name))
        weights = archive.read("archive/data/weights/weight_0")

    def entry(name: str, content: Any) -> bytes:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        rewrite(tmp_path / "good.pt2", tmp_path / "bad.pt2", {name: content})
        return (tmp_path / "bad.pt2").read_bytes()

    def tensor(**values: Any) -> bytes:
        changed = json.loads(json.dumps(config))
        meta = changed["config"]["network.layers.0.weights"]
        meta["tensor_meta"].update({key: value for key, value in values.items() if key in meta["tensor_meta"]})
        meta.update({key: value for key, value in values.items() if key in meta})
        return entry(config_name, changed)

    def sizes(*numbers: int) -> list[dict]:
        return [{"as_int": number} for number in numbers]

    other = bytearray(weights)
    other[0] ^= 1
    flipped = bytearray(good)
    flipped[good.index(weights) + 9] ^= 1
    with zipfile.ZipFile(tmp_path / "good.pt2", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(about_name, json.dumps(about))
    twice = (tmp_path / "good.pt2").read_bytes()
    (tmp_path / "good.pt2").write_bytes(good)
    cases = {
        "a number changed": (bytes(flipped), "Bad CRC-32"),
        "a number changed, with its CRC": (entry("archive/data/weights/weight_0", bytes(other)), "damaged: its sha256"),
        "the same anew": (entry(about_name, about), ""),
        "two of one name": (twice, "two entries have the same name"),
        "another shape": (tensor(sizes=sizes(3, 4, 3, 3), strides=sizes(36, 9, 3, 1)), "its cfg asks for"),
        "a shape too large": (tensor(sizes=sizes(2**62, 4)), "damaged"),
        "a negative size": (tensor(sizes=sizes(-4, 3, 3, 3)), "damaged"),
        "no sizes": (tensor(sizes=None), "damaged: TypeError"),
        "all numbers the same one": (tensor(strides=sizes(0, 0, 0, 0)), "damaged: its sha256"),
        "one number for many": (tensor(sizes=sizes(2**20, 2**20), strides=sizes(0, 0)), "expected 1,099,511,627,776"),
        "strides beyond the end": (tensor(strides=sizes(2**61, 9, 3, 1)), "damaged"),
        "another tensor's bytes": (tensor(path_name="weight_1"), "damaged"),
        "a path out of its folder": (tensor(path_name="../../../../etc/passwd"), "damaged: KeyError"),
        "no path": (tensor(path_name=None), "damaged: TypeError"),
        "no numbers": (entry("archive/data/weights/weight_0", b""), "damaged"),
        "not whole numbers": (entry("archive/data/weights/weight_0", weights[:-1]), "damaged"),
        "fewer numbers": (entry("archive/data/weights/weight_0", weights[:-4]), "damaged"),
        "a list": (entry(about_name, []), "not written by darknet_compat"),
        "a number for a text": (entry(about_name, {**about, "seen": 5}), "no seen beside its tensors"),
        "an infinity": (entry(about_name, b"Infinity"), "not written by darknet_compat"),
        "brackets in brackets": (entry(about_name, b"[" * 100_000), "damaged: RecursionError"),
        "a number of 5000 digits": (entry(about_name, b"9" * 5000), "damaged: ValueError"),
        "no JSON": (entry(config_name, b"\0"), "damaged"),
        "cut": (good[: len(good) // 2], "not a zip file"),
        "cut in the last line": (good[:-1], "not a zip file"),
        "appended": (good + b"x" * 60, ""),
        "empty": (b"", "not a zip file"),
    }
    for case, (content, line) in cases.items():
        found = refusal(tmp_path / "bad.pt2", content)
        assert re.search(line, found) if line else not found, (case, found)


def test_the_verb_both_ways(tmp_path, monkeypatch, capsys):
    need("onnx", "safetensors")
    cfg, weights = SHAPES
    monkeypatch.chdir(tmp_path)
    for arguments, out in (
        ((cfg, weights, "net.onnx", "-dynamic", "-nms"), "net.onnx"),
        ((cfg, weights, "net.safetensors"), "net.safetensors"),
        (("net.safetensors", "back.weights"), "back.weights"),
        (("net.safetensors", "back.cfg"), "back.cfg"),
    ):
        assert main(["export", *map(str, arguments)]) == 0
        assert capsys.readouterr().out.startswith(f"{out}: ")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    assert read_cfg(tmp_path / "back.cfg").meaning() == read_cfg(cfg).meaning()

    import onnx
    import safetensors

    def interface(*flags):
        assert main(["export", *map(str, (cfg, weights, "some.onnx", *flags))]) == 0
        graph = onnx.load("some.onnx").graph
        sizes = [size.dim_param or size.dim_value for size in graph.input[0].type.tensor_type.shape.dim]
        return sizes, [output.name for output in graph.output]

    two, some = ["boxes", "probabilities"], ["batch", 3, "height", "width"]
    assert [interface(), interface("-nms"), interface("-dynamic")] == [
        ([1, 3, 128, 128], two), ([1, 3, 128, 128], [*two, "selected"]), (some, two)
    ]  # fmt: skip
    for kind, flags in (("cudnn", []), ("cpu", ["-numerics", "cpu"])):
        assert main(["export", str(cfg), str(weights), "some.safetensors", *flags]) == 0
        with safetensors.safe_open("some.safetensors", "pt") as file:
            assert file.metadata()["numerics"] == kind
    capsys.readouterr()

    (tmp_path / "cut.weights").write_bytes(weights.read_bytes()[: 20 + 4 * (3 * 16 + 16 + 16 * 27)])
    for arguments, found in (
        ((weights, "net.onnx"), "expected CFG WEIGHTS OUT"),
        ((cfg, "net.safetensors", "net.onnx"), "since that file holds its cfg"),
        ((cfg, "cut.weights", "net.onnx"), "ends before layer 2"),
        ((cfg, weights, "net.pb"), "expected .onnx"),
    ):
        assert main(["export", *map(str, arguments)]) == 1
        assert found in capsys.readouterr().err.splitlines()[-1]


def test_without_the_packages_one_line_says_which(shapes, tmp_path, monkeypatch):
    for package, suffix in (("onnx", ".onnx"), ("safetensors", ".safetensors")):
        for name in list(sys.modules):
            if name.split(".")[0] == package or name == "darknet_compat.export.graph":
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.torch", None)
        with pytest.raises(ExportError, match=rf"pip install 'darknet_compat\[{package}\]'"):
            export(shapes, tmp_path / f"net{suffix}")
