"""tools/whiten.py: a first layer whose outputs are white, and later ones that hand on what they get."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.classify.prepare import SHORTER_SIDE
from darknet_compat.errors import CfgError
from darknet_compat.images import load_image, save_image
from darknet_compat.network import Network
from tests.tools.run import load_tool, one_line, run_tool

tool = load_tool("whiten")
NET = "[net]\nwidth=24\nheight=24\nchannels=3\n"
FIRST = "[convolutional]\nfilters=8\nsize=3\nstride=2\nactivation=linear\n"
LATER = "[convolutional]\nbatch_normalize=1\nfilters=12\nsize=3\npad=1\nactivation=leaky\n"
LAST = "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n[avgpool]\n[softmax]\n"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Thirty images of smooth colours, with a little noise; a .data file and a cfg beside them."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(30):
        coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, 5, 5)))
        smooth = torch.nn.functional.interpolate(coarse, (36, 30), mode="bilinear")[0].permute(1, 2, 0).numpy()
        noisy = smooth + random.normal(0, 10, smooth.shape)
        save_image(noisy.clip(0, 255).astype(np.uint8), tmp_path / f"{number}.png")
    (tmp_path / "train.list").write_text("".join(f"{tmp_path}/{number}.png\n" for number in range(30)))
    (tmp_path / "a.data").write_text("classes=4\ntrain=train.list\n")
    (tmp_path / "a.cfg").write_text(NET + FIRST + LATER + LAST)
    return tmp_path


def seen_by(network, folder):
    """The images as ``valid`` prepares them."""
    inputs = np.empty((30, 3, 24, 24), np.float32)
    for number in range(30):
        SHORTER_SIDE.fill(load_image(folder / f"{number}.png"), inputs[number : number + 1])
    return torch.from_numpy(inputs)


def test_the_first_layer_whitens_and_the_next_hands_on(images):
    result = run_tool("whiten", "a.data", "a.cfg", "a.start", cwd=images)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    network = load_network("a.cfg", "a.start")
    first, second, third = network.layers[:3]
    with torch.no_grad():
        outputs = first(seen_by(network, images)).permute(1, 0, 2, 3).flatten(1).double()
    # Up to what is added to each variance, and the float32 of the file.
    assert torch.allclose(outputs[:4].mean(1), torch.zeros(4, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(outputs[:4].cov(correction=0), torch.eye(4, dtype=torch.float64), atol=0.02)
    assert torch.equal(outputs[4:], -outputs[:4])
    # They are those directions in which the patches vary most.
    patches = torch.nn.functional.unfold(seen_by(network, images).double(), 3, stride=2).transpose(0, 1).flatten(1)
    covariance = patches.cov(correction=0)
    kept = first.weights[:4].detach().flatten(1).double()
    varying = (kept / kept.norm(dim=1, keepdim=True)) @ covariance
    assert torch.allclose(varying.norm(dim=1), torch.linalg.eigvalsh(covariance).flip(0)[:4], rtol=1e-3)
    one = torch.zeros(8, 8, 3, 3)
    one[range(8), range(8), 1, 1] = 1
    assert torch.equal(second.weights[:8], one)
    assert second.weights[8:].std() > 0.05  # random
    assert third.weights.all()  # of 1 x 1, so it is all random
    assert network.seen == 0


def test_images_are_taken_evenly_from_the_whole_list(images, monkeypatch):
    monkeypatch.setattr(tool, "IMAGES", 10)
    taken = []

    def moments(layer, paths, w, h):
        taken.extend(paths)
        return torch.zeros(27), torch.eye(27)

    monkeypatch.setattr(tool, "patch_moments", moments)
    tool.start("a.data", "a.cfg")
    assert taken == [f"{images}/{number}.png" for number in range(0, 30, 3)]


def test_a_seed_makes_the_same_numbers_again(images):
    first, again, other = (tool.start("a.data", "a.cfg", seed).layers[1].weights for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (NET + LATER + LAST, "without batch_normalize="),
        (NET + "[maxpool]\nsize=2\nstride=2\n" + LAST, "expected a [convolutional] layer"),
        (NET + FIRST.replace("filters=8", "filters=7") + LAST, "7 filters; expected an even number of at most 54"),
        (NET + FIRST.replace("filters=8", "filters=56") + LAST, "56 filters; expected an even number of at most 54"),
        (NET + FIRST.replace("filters=8", "filters=6\ngroups=3") + LAST, "and groups="),
        (NET.replace("channels=3", "channels=1") + FIRST + LAST, "expected channels=3"),
    ],
)
def test_a_first_layer_that_cannot_whiten(cfg, said):
    with pytest.raises(CfgError, match=re.escape(said)):
        tool.first_layer(Network(parse_cfg(cfg)))


def test_errors_are_one_line(images):
    (images / "3.png").write_text("no image")
    for words in (("a.data", "missing.cfg"), ("missing.data", "a.cfg"), ("a.data", "a.cfg")):
        result = run_tool("whiten", *words, "a.start", cwd=images)
        assert result.returncode == 1
        assert one_line(result).startswith("whiten: ")
        assert not (images / "a.start").exists()
