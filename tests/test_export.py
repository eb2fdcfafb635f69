"""The exported files in the programs that they are for, and the way back to .weights."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_compat import load_network, save_weights
from darknet_compat.boxes import nms_sort
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.cli import main
from darknet_compat.errors import CfgError, ExportError
from darknet_compat.export import NMS, THRESH, export, read_export
from darknet_compat.images import letterbox, load_picture, to_planes
from darknet_compat.layers.activation import ACTIVATIONS
from darknet_compat.network import Network
from tests.compare import net, network_of, randomise
from tests.conftest import ROOT, SHAPES

ALIKE = 1e-4  # boxes, relative to the picture, and probabilities
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
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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
    planes = [to_planes(load_picture(share / f"data/{name}.jpg")) for name in ("dog", "person")]
    return np.stack([letterbox(picture, network.width, network.height) for picture in planes])


def expected_boxes(network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        boxes, _, probabilities = network.head.boxes(network(torch.from_numpy(images)), 0.0)
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
        boxes, objectness, prob = shapes.head.boxes(shapes(torch.from_numpy(images)), THRESH)
        kept, _ = nms_sort(boxes, objectness, prob, NMS)
    expected = {(n, k, b) for n, b, k in kept.nonzero().tolist()}
    # OpenVINO fills up with rows of -1.
    selected = [tuple(row) for row in np.asarray(found["selected"]).astype(int).tolist() if row[0] >= 0]
    assert len(expected) > 50
    assert set(selected) == expected
    assert len(selected) == len(expected)


@pytest.mark.parametrize("name", ["yolov2-voc", "yolov2-tiny-voc"])
def test_the_stock_networks(runtime, tmp_path, name):
    """With reorg and routes, and a maxpool that pads; random weights."""
    network = randomise(Network(read_cfg(ROOT / f"cfg/{name}.cfg")))
    network.resize(160, 128)
    images = np.random.default_rng(0).random((1, *network.input), np.float32)
    export(network, tmp_path / "net.onnx")
    check_boxes(runtime(tmp_path / "net.onnx", images), network, images)


SECTIONS = {
    "maxpool 3/2": ["[maxpool]\nsize=3\nstride=2"],
    "maxpool 2/1": ["[maxpool]\nsize=2\nstride=1"],
    "maxpool padding": ["[maxpool]\nsize=2\nstride=2\npadding=0"],
    "maxpool wide padding": ["[maxpool]\nsize=2\nstride=2\npadding=3"],
    "convolution": ["[conv]\nfilters=6\nsize=3\nstride=2\npadding=2\ngroups=2\nactivation=relu\nbatch_normalize=1"],
    "batchnorm": ["[batchnorm]"],
    "connected": ["[connected]\noutput=7\nbatch_normalize=1\nactivation=tanh"],
    "classifier": ["[avgpool]", "[dropout]\nprobability=.5", "[softmax]\ngroups=2\ntemperature=2", "[cost]\ntype=sse"],
    "route of sizes": ["[maxpool]\nsize=2\nstride=2", "[route]\nlayers=-1,-2"],
    "reorg back": ["[reorg]\nstride=2\nreverse=1"],
    "upsample": ["[upsample]\nstride=3\nscale=.5"],
    "downsample": ["[upsample]\nstride=-2"],
    "shortcut": [CONV.format(4), "[shortcut]\nfrom=-2\nactivation=leaky\nalpha=.5\nbeta=2"],
    "shortcut to fewer": ["[conv]\nfilters=2\nsize=3\nstride=2\npad=1", "[shortcut]\nfrom=-2\nbeta=2"],
    "shortcut to more": ["[conv]\nfilters=9\nsize=3\nstride=2\npad=1", "[shortcut]\nfrom=-2"],
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
    voc = randomise(Network(read_cfg(ROOT / "cfg/yolov2-voc.cfg")))
    voc.resize(160, 128)
    for network in (shapes, voc):
        images = photographs(darknet_share, network)[:1]
        export(network, tmp_path / "net.onnx")
        np.save(tmp_path / "images.npy", images)
        files = [tmp_path / name for name in ("net.onnx", "images.npy", "outputs.npz")]
        subprocess.run([python, "-c", OPENCV4, *files], check=True)
        outputs = np.load(tmp_path / "outputs.npz")
        assert str(outputs["version"]).startswith("4.")
        check_boxes(outputs, network, images)


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


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_program_gives_boxes(shapes, darknet_share, tmp_path, dynamic):
    images = photographs(darknet_share, shapes)[: 1 + dynamic]
    export(shapes, tmp_path / "net.pt2", dynamic=dynamic)
    with open(tmp_path / "net.pt2", "rb") as file:
        program = torch.export.load(io.BytesIO(file.read()))
    with torch.inference_mode():
        boxes, probabilities = program.module()(torch.from_numpy(images))
    check_boxes({"boxes": boxes.numpy(), "probabilities": probabilities.numpy()}, shapes, images)


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
