"""Networks with [yolo] heads train as both programs train them: whole updates against their libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat import load_network, read_cfg
from darknet_compat.errors import CfgError
from darknet_compat.train.detector import Training
from darknet_compat.train.step import Trainer, network_cost
from darknet_compat.weights import save_weights
from tests.train.nets import batches, data_set, two_heads


@pytest.mark.parametrize(("option", "found"), [("resize=1.5", "resize=1.5"), ("random=1.4", "random=1.4")])
def test_what_alexeyabs_loader_does_is_refused_where_it_is_not_built(tmp_path, option, found):
    data_set(tmp_path)
    (tmp_path / "net.cfg").write_text(two_heads(options=f"iou_loss=ciou\n{option}\n"))
    with pytest.raises(CfgError, match=f"{found} of AlexeyAB's program is not built here yet; expected {found[:6]}="):
        Training(tmp_path / "set.data", tmp_path / "net.cfg", device="cpu")


class Pair:
    """The same network and batches here and in a library."""

    def __init__(self, library, folder, cfg, numerics, truth_size):
        (folder / "net.cfg").write_text(cfg)
        torch.manual_seed(5)
        self.ours = load_network(read_cfg(folder / "net.cfg"), numerics=numerics)
        save_weights(self.ours, folder / "start.weights")
        self.theirs = library.load_network(folder / "net.cfg", folder / "start.weights")
        self.trainer = Trainer(self.ours)
        self.truth_size = truth_size

    def train(self, updates):
        costs = []
        for update in batches(2, updates, size=64):
            theirs = []
            for batch in update:
                rows = np.zeros((*batch.truth.shape[:2], self.truth_size), np.float32)
                rows[..., :5] = batch.truth.numpy()
                theirs.append(self.theirs.train_step(batch.images.numpy(), rows).cost)
            ours = self.trainer.update(update)
            costs.append(([float(network_cost(heads)) for heads in ours.figures], theirs))
        return costs

    def worst(self, names):
        distances = {}
        for layer in self.ours.layers:
            for name, tensor in layer.numbers():
                if name in names:
                    theirs = self.theirs.layer_tensor(layer.index, name).reshape(tensor.shape)
                    distance = np.linalg.norm(tensor.detach().numpy() - theirs) / max(np.linalg.norm(theirs), 1e-12)
                    distances[f"{layer.index} {name}"] = float(np.nan_to_num(distance, nan=np.inf))
        assert len(distances) >= 6 * len(names) - 2 * 3
        return max((distance, name) for name, distance in distances.items())


def check(costs):
    for ours, theirs in costs:
        assert ours == pytest.approx(theirs, rel=2e-3)
    assert np.mean(costs[-1][1]) < 0.8 * np.mean(costs[0][1]), "the nets learnt nothing, so prove nothing"


def test_20_updates_are_pjreddies(darknet, tmp_path):
    pair = Pair(darknet, tmp_path, two_heads("batch_normalize=1\n", rate=0.0003), "cpu", 5)
    check(pair.train(20))
    assert pair.ours.seen == pair.theirs.seen == 160
    names = ("weights", "biases", "scales", "rolling_mean", "rolling_variance")
    assert pair.worst(names)[0] < 1e-3, pair.worst(names)
    print("worst tensor {:.2g} ({})".format(*pair.worst(names)))


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("yolo", "iou_loss=mse\nresize=1.0"),
        ("yolo", "iou_loss=ciou\niou_normalizer=.07\nscale_x_y=1.05\nmax_delta=5"),
        ("yolo", "iou_loss=giou\niou_thresh=.213\nobjectness_smooth=1"),
        ("Gaussian_yolo", "uc_normalizer=.5\nmax_delta=1"),
        ("Gaussian_yolo", "iou_loss=ciou\nuc_normalizer=.1\nmax_delta=.5\nobjectness_smooth=1\niou_thresh=.213"),
    ],
    ids=["mse", "ciou", "giou", "gaussian", "gaussian_ciou"],
)
def test_12_updates_are_alexeyabs(alexeyab_darknet, tmp_path, head, options):
    """Without batch normalisation: on a CPU his program does not train the biases after it.

    Slowly, too: as his Makefile builds it (-Ofast), its logistic of less than -88 is NaN.
    """
    pair = Pair(alexeyab_darknet, tmp_path, two_heads(options=options, rate=0.00006, head=head), "gpu", 6)
    assert pair.ours.program == "alexeyab"
    check(pair.train(12))
    assert pair.worst(("weights", "biases"))[0] < 1e-3, pair.worst(("weights", "biases"))
    print("worst tensor {:.2g} ({})".format(*pair.worst(("weights", "biases"))))
