"""tools/from_torchvision.py: torchvision's classifiers in Darknet's files, and back.

The networks are those of torchvision_nets.py, narrow; where torchvision can be imported, its own too:
``pytest tests/tools/test_from_torchvision.py -m "slow or not slow"``.
"""

from __future__ import annotations

import argparse
import functools
import pickle
import zipfile

import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import read_cfg
from darknet_compat.errors import DarknetError
from darknet_compat.train.step import Trainer
from darknet_compat.weights import save_weights
from tests.compare import TOLERANCE
from tests.tools.run import load_tool, one_line, run_tool
from tests.tools.torchvision_nets import NAMES, randomised, restated
from tests.train.classes import batches

tool = load_tool("from_torchvision")
try:
    import torchvision
except (ImportError, RuntimeError):  # it has no build for a CPU build of torch, and then raises the latter
    torchvision = None
SOURCES = ["restated", *(["torchvision"] if torchvision else [])]
WIDTHS = {name: 8 for name in NAMES} | {"vgg16": 4}  # torchvision's have 64
# vgg16 alone has a fixed size, by its dense layers.
SIZES = {name: 64 for name in NAMES} | {"vgg16": 224}


def arguments(network, source, out, numerics="cudnn", back=None):
    return argparse.Namespace(network=network, source=source, out=out, numerics=numerics, back=back)


@functools.cache
def narrow(name):
    """20 classes; made once, and not to be changed."""
    return randomised(restated(name, WIDTHS[name], 20), SIZES[name])


def converted(model, name, folder, numerics="cudnn"):
    """The cfg, at the size of the tests, and the .weights."""
    torch.save(model.state_dict(), folder / "model.pth")
    tool.convert(arguments(name, folder / "model.pth", folder, numerics))
    cfg, size = folder / f"{name}.cfg", SIZES[name]
    cfg.write_text(cfg.read_text().replace("width=224\nheight=224", f"width={size}\nheight={size}"))
    return cfg, folder / f"{name}.weights"


def taken_back(name, cfg, weights, numerics="cudnn"):
    out = weights.with_suffix(".safetensors")
    tool.back(arguments(name, weights, out, numerics, cfg))
    return tool.read_state(out)


def logits(model, name):
    """An image as Darknet takes it, and what the model says of it with torchvision's preparation."""
    x = torch.rand((1, 3, SIZES[name], SIZES[name]), generator=torch.Generator().manual_seed(1))
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in (tool.MEAN, tool.DEVIATION))
    with torch.inference_mode():
        return x, model((x - mean) / deviation)[0]


def here(cfg, weights, x, numerics="cudnn"):
    """The values before the [softmax]."""
    with torch.inference_mode():
        return load_network(cfg, weights, numerics=numerics).outputs(x)[-2].flatten()


def theirs(darknet, cfg, weights, x):
    network = darknet.load_network(cfg, weights)
    network.predict(x.numpy())
    return torch.from_numpy(network.layer_output(len(network.layers) - 2).reshape(-1).copy())


def off(found, expected):
    """The largest difference, as a part of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


def numbers_of(model):
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def check_here(model, name, folder):
    cfg, weights = converted(model, name, folder)
    x, expected = logits(model, name)
    assert off(here(cfg, weights, x), expected) <= TOLERANCE
    state, found = numbers_of(model), taken_back(name, cfg, weights)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())
    model.load_state_dict(found)  # the counts of batches, which it does not hold, stay what they are


def check_on_a_cpu(model, name, folder, darknet):
    cfg, weights = converted(model, name, folder, numerics="cpu")
    x, expected = logits(model, name)
    difference = off(theirs(darknet, cfg, weights, x), expected)
    print(f"{name}: {difference:.1e}")
    assert difference <= TOLERANCE
    assert off(here(cfg, weights, x, numerics="cpu"), expected) <= TOLERANCE
    found = taken_back(name, cfg, weights, numerics="cpu")
    for key, tensor in numbers_of(model).items():
        if key.endswith(".weight") and tensor.dim() == 1:  # scales: to the last bit
            torch.testing.assert_close(found[key], tensor, rtol=2**-23, atol=0)
        else:
            assert torch.equal(found[key], tensor), key


# Of each kind of block one; test_whole_networks has all.
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "densenet201"])
def test_here_it_gives_the_same_logits_and_comes_back_bit_for_bit(name, tmp_path):
    check_here(narrow(name), name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_libdarknet_gives_the_same_logits(name, tmp_path, darknet):
    check_on_a_cpu(narrow(name), name, tmp_path, darknet)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "densenet201"])
def test_alexeyabs_program_gives_the_same_logits(name, tmp_path, alexeyab_darknet):
    model = narrow(name)
    cfg, weights = converted(model, name, tmp_path)
    x, expected = logits(model, name)
    assert off(theirs(alexeyab_darknet, cfg, weights, x), expected) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NAMES)
def test_whole_networks(name, source, tmp_path, darknet):
    ours = restated(name)
    model = ours if source == "restated" else getattr(torchvision.models, name)(weights=None)
    randomised(model, SIZES[name])
    if source == "torchvision":
        ours.load_state_dict(model.state_dict())
        _, expected = logits(model, name)
        assert off(logits(ours.eval(), name)[1], expected) <= TOLERANCE
    check_here(model, name, tmp_path)
    check_on_a_cpu(model, name, tmp_path, darknet)


def test_libdarknet_without_a_gpu_needs_its_own_scales(tmp_path, darknet):
    """What --numerics cpu is for."""
    model = narrow("resnet50")
    cfg, weights = converted(model, "resnet50", tmp_path)
    x, expected = logits(model, "resnet50")
    assert off(theirs(darknet, cfg, weights, x), expected) > 10 * TOLERANCE


def test_libdarknet_reads_and_writes_the_file(tmp_path, darknet):
    """Grouped convolutions, and no bias where there is none."""
    cfg, weights = converted(narrow("densenet201"), "densenet201", tmp_path)
    again = tmp_path / "again.weights"
    darknet.load_network(cfg, weights).save_weights(again)
    assert again.read_bytes() == weights.read_bytes()


def test_as_a_person_runs_it(tmp_path):
    model = narrow("resnet18")
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    out = tmp_path / "new" / "folder"
    done = run_tool("from_torchvision", "resnet18", tmp_path / "mine.pth", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}/resnet18.cfg, {out}/resnet18.weights: 39 layers, for -numerics cudnn\n"
    done = run_tool(
        "from_torchvision", "resnet18", out / "resnet18.weights", tmp_path / "again.pth", "--back", out / "resnet18.cfg"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/again.pth: 122 tensors of torchvision's resnet18\n"
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_the_names_of_the_published_densenet(tmp_path):
    model = narrow("densenet201")
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): tensor
        for name, tensor in numbers_of(model).items()
    }
    assert "features.denseblock1.denselayer1.norm.1.running_var" in old
    torch.save(old, tmp_path / "old.pth")
    assert tool.read_state(tmp_path / "old.pth").keys() == numbers_of(model).keys()


def test_other_numbers_in_training_sections_do_not_matter_on_the_way_back(tmp_path):
    model = narrow("resnet18")
    cfg, weights = converted(model, "resnet18", tmp_path)
    text = cfg.read_text().replace("[avgpool]\n", "[avgpool]\nstopbackward=1\n")
    cfg.write_text(text.replace("batch=1\n", "batch=8\n").replace("width=64", "width=96"))
    assert torch.equal(taken_back("resnet18", cfg, weights)["fc.weight"], model.fc.weight)


def test_a_resnet_that_was_trained_on_goes_back(tmp_path):
    """With all tensors moved but those of the first layer, which torchvision does not have."""
    model = randomised(restated("resnet18", 8, classes=3))
    cfg, weights = converted(model, "resnet18", tmp_path)
    cfg.write_text(cfg.read_text().replace("batch=1\n", "batch=8\n").replace("burn_in=1000\n", ""))
    network = load_network(cfg, weights)
    trainer = Trainer(network)
    for update in batches(0, 3, subdivisions=1, count=8, size=64):
        trainer.update(update)
    save_weights(network, weights)
    before, found = numbers_of(model), taken_back("resnet18", cfg, weights)
    assert not [name for name, tensor in found.items() if torch.equal(tensor, before[name])]
    trained = restated("resnet18", 8, classes=3).eval()
    trained.load_state_dict(found)
    x, expected = logits(trained, "resnet18")
    assert off(here(cfg, weights, x), expected) <= TOLERANCE


def refused(source, network="resnet18"):
    with pytest.raises(DarknetError) as error:
        tool.convert(arguments(network, source, source.parent / "out"))
    assert "\n" not in str(error.value)
    assert not (source.parent / "out").exists()
    return str(error.value)


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file was run')",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("bn1.bias"), "no tensor bn1.bias in it"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra is none of the tensors of torchvision's resnet18"),
        (lambda state: state.update({"fc.bias": torch.zeros(9)}), "fc.bias gives (9,); [convolutional] takes (20,)"),
        (lambda state: state.update({"fc.bias": torch.zeros(20).half()}), "fc.bias is float16 (20,); expected float32"),
        (lambda state: state.update({"fc.bias": torch.tensor(1.0)}), "fc.bias is float32 (); expected float32 numbers"),
        (lambda state: state.update({"fc.bias": torch.full((20,), torch.nan)}), "numbers that are not finite"),
        (
            lambda state: state.update({"bn1.weight": torch.ones(1)}),
            "bn1.weight gives (1,); [convolutional] takes (8,)",
        ),
        (lambda state: state["bn1.running_var"].neg_(), "bn1.running_var has numbers below 0"),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(1).expand(2**31, 3, 7, 7)}),
            "its tensors are larger than the file",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(change, said, tmp_path):
    state = {key: tensor.clone() for key, tensor in narrow("resnet18").state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "net.pth")
    assert said in refused(tmp_path / "net.pth")


@pytest.mark.parametrize("kind", ["sparse", "without numbers"])
def test_tensors_that_are_not_plain_are_one_line(kind, tmp_path):
    numbers = narrow("resnet18").fc.weight.detach()
    odd = numbers.to_sparse() if kind == "sparse" else numbers.to("meta")
    torch.save({**narrow("resnet18").state_dict(), "fc.weight": odd}, tmp_path / "net.pth")
    assert "fc.weight is no plain tensor; expected one number in each place" in refused(tmp_path / "net.pth")


def test_channels_that_do_not_fit(tmp_path):
    state = {key: tensor.clone() for key, tensor in narrow("densenet201").state_dict().items()}
    convolution = state["features.transition1.conv.weight"]
    state["features.transition1.conv.weight"] = convolution.repeat(1, 1, 3, 3)
    torch.save(state, tmp_path / "net.pth")
    assert "transition1.conv.weight gives" in refused(tmp_path / "net.pth", "densenet201")
    state["features.transition1.conv.weight"] = convolution[:-1]
    torch.save(state, tmp_path / "net.pth")
    assert "its tensors do not fit together as those of densenet201" in refused(tmp_path / "net.pth", "densenet201")


def test_another_network_is_one_line(tmp_path):
    torch.save(narrow("resnet18").state_dict(), tmp_path / "net.pth")
    assert "layer1.0.conv3.weight" in refused(tmp_path / "net.pth", "resnet50")


def test_files_that_are_no_state_dict(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"model": Code()}, path)
    assert "only tensors are read" in refused(path)
    path.write_bytes(pickle.dumps(Code(), 2))
    assert "only tensors are read" in refused(path)
    torch.save([1, 2], path)
    assert "no state dict" in refused(path)
    path.write_bytes(b"nothing of the kind")
    refused(path)
    torch.save(narrow("resnet18").state_dict(), path)
    small = tmp_path / "small.pth"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    assert "an entry is compressed" in refused(small)
    path.with_suffix(".safetensors").write_bytes(b"\xff" * 100)
    assert "cannot be read as a state dict" in refused(path.with_suffix(".safetensors"))
    assert "No such file" in one_line(run_tool("from_torchvision", "vgg16", tmp_path / "none.pth", tmp_path / "out"))


def test_what_torchvision_has_no_place_for_does_not_go_back(tmp_path):
    cfg, weights = converted(narrow("densenet201"), "densenet201", tmp_path)
    network = load_network(cfg, weights)
    for layer, tensor, said in (
        (0, "biases", "has other numbers than torchvision's mean and deviation"),
        (3, "weights", "has weights other than 1"),
        (5, "biases", "has biases other than 0"),
        (28, "weights", "has four weights that differ"),
    ):
        numbers = getattr(network.layers[layer], tensor).detach().view(-1)
        before = numbers[1].clone()
        numbers[1] += 1
        save_weights(network, weights)
        with pytest.raises(DarknetError, match=f"layer {layer} .*{said}"):
            taken_back("densenet201", cfg, weights)
        numbers[1] = before


def test_the_way_back_writes_the_two_kinds_of_state_dict_alone_and_whole_or_not_at_all(tmp_path, monkeypatch):
    cfg, weights = converted(narrow("resnet18"), "resnet18", tmp_path)
    with pytest.raises(DarknetError, match=r"again\.pt: expected a file \.pth or \.safetensors to write"):
        tool.back(arguments("resnet18", weights, tmp_path / "again.pt", back=cfg))
    before = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for name in ("again.pth", "again.safetensors", "model.pth"):
        old = (tmp_path / "model.pth").read_bytes()
        with pytest.raises(OSError, match="No space left on device"):
            tool.back(arguments("resnet18", weights, tmp_path / name, back=cfg))
        assert sorted(tmp_path.iterdir()) == before
        assert (tmp_path / "model.pth").read_bytes() == old
    with pytest.raises((OSError, DarknetError), match="No space left on device"):
        tool.convert(arguments("resnet18", tmp_path / "model.pth", tmp_path))
    assert sorted(tmp_path.iterdir()) == before


def test_another_cfg_does_not_go_back(tmp_path):
    cfg, weights = converted(narrow("resnet18"), "resnet18", tmp_path)
    text = cfg.read_text()

    def said(changed, network="resnet18"):
        cfg.write_text(changed)
        with pytest.raises(DarknetError) as error:
            taken_back(network, cfg, weights)
        return str(error.value)

    assert "expected [convolutional] batch_normalize=1 filters=8 size=7" in said(
        text.replace("size=7\n", "size=7\ndot=.1\n")
    )
    assert "expected [shortcut] from=-3 activation=relu" in said(text.replace("from=-3\nactivation=relu", "from=-3"))
    assert "38 layers; expected the 39" in said(text.replace("[softmax]\ngroups=1\n", ""))
    assert "as this script writes torchvision's resnet34" in said(text, "resnet34")
    cfg.write_text(text)
    network = load_network(cfg, weights)
    save_weights(network, weights, cutoff=30)
    assert "expected all of them" in said(text)


def test_the_cfg_says_what_each_section_is(tmp_path):
    cfg, _ = converted(narrow("resnet50"), "resnet50", tmp_path)
    sections = read_cfg(cfg).layers
    assert "# layer1.0.conv2, layer1.0.bn2" in sections[4].above
    assert not [line for line in cfg.read_text().splitlines() if len(line) > 120]


def test_the_cfg_says_whose_batch_normalisation_the_weights_are_for(tmp_path):
    for numerics, said in (
        ("cudnn", "is torchvision's here"),
        ("gpu", "is torchvision's here"),
        ("cpu", "another eps"),
    ):
        cfg, _ = converted(narrow("resnet18"), "resnet18", tmp_path, numerics)
        assert said in cfg.read_text()


def test_images_are_prepared_as_torchvision_does():
    """Red, green, blue (torchvision/transforms/_presets.py, ImageClassification)."""
    weights, biases = tool.normaliser()
    white, black = torch.tensor([2.2489, 2.4286, 2.6400]), torch.tensor([-2.1179, -2.0357, -1.8044])
    torch.testing.assert_close(biases, black, rtol=0, atol=1e-4)
    torch.testing.assert_close(weights.flatten() + biases, white, rtol=0, atol=1e-4)


def test_vgg_drops_half_of_the_dense_layers_out_as_torchvision_does():
    dropped = [piece for piece in tool.NETWORKS["vgg16"]() if piece.type == "dropout"]
    modules = [module for module in restated("vgg16", 4, 20).modules() if isinstance(module, torch.nn.Dropout)]
    assert [piece.options["probability"] for piece in dropped] == [module.p for module in modules] == [0.5, 0.5]
