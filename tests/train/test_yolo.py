"""Networks with [yolo] heads train as both programs train them: whole updates against their libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat import load_network, read_cfg
from darknet_compat.errors import TrainingError
from darknet_compat.train.detector import DetectorTraining
from darknet_compat.train.step import Trainer, network_cost
from darknet_compat.weights import save_weights
from tests.train.nets import batches, data_set, two_heads
from tests.train.test_heads import press_ctrl_c


@pytest.mark.parametrize(
    ("most", "said", "numbered", "every"),
    [
        (9999, "", 1000, 100),
        (10000, "", 10000, 100),
        (500, "saveweights=30\nsavelast=20\n", 30, 20),
        (500, "saveweights=0\nsavelast=-1\n", 1, 1),
        (500, "saveweights=50\n", 50, 100),  # where his program writes no NAME_last.weights
    ],
)
def test_alexeyabs_snapshots_are_his(tmp_path, most, said, numbered, every):
    """NAME_last.weights, and numbered ones, more often in a short training."""
    data_set(tmp_path)
    (tmp_path / "set.data").write_text((tmp_path / "set.data").read_text() + said)
    text = two_heads(options="iou_loss=ciou").replace("[net]", f"[net]\nmax_batches={most}", 1)
    (tmp_path / "net.cfg").write_text(text)
    made = DetectorTraining(tmp_path / "set.data", tmp_path / "net.cfg", device="cpu").snapshots
    asked = DetectorTraining(tmp_path / "set.data", tmp_path / "net.cfg", device="cpu", snapshot=7).snapshots
    assert (made.every, asked.every) == (every, 7)
    names = {batch: [path.name for path in made.due(batch - 1, batch, 1)] for batch in range(1, 10001)}
    assert [batch for batch in names if "net_last.weights" in names[batch]] == list(range(every, 10001, every))
    with_numbers = {batch for batch in names if f"net_{batch}.weights" in names[batch]}
    assert with_numbers == set(range(numbered, 10001, numbered))
    assert [path.name for path in (made.backup, made.state, made.final)] == [
        "net_last.weights", "net_last.weights.state", "net_final.weights",
    ]  # fmt: skip


def test_means_over_time_go_on_to_the_last_bit(tmp_path, monkeypatch):
    """From batch 502 of 1004 on; here the training is stopped at 504 and goes on."""
    data_set(tmp_path)
    text = two_heads(options="iou_loss=ciou").replace("[net]", "[net]\nmax_batches=1004\nema_alpha=.7", 1)
    start = tmp_path / "start.weights"

    def train(name, *, stop, **options):
        folder = tmp_path / name
        (tmp_path / f"{name}.data").write_text(
            (tmp_path / "set.data").read_text().replace(f"{tmp_path}/backup", str(folder))
        )
        (tmp_path / "net.cfg").write_text(text)
        made = DetectorTraining(
            tmp_path / f"{name}.data", tmp_path / "net.cfg", **options, device="cpu", seed=2, workers=0
        )
        with monkeypatch.context() as patch:
            press_ctrl_c(patch, stop)
            made.run()
        return made.trainer

    (tmp_path / "net.cfg").write_text(text)
    network = load_network(read_cfg(tmp_path / "net.cfg"))
    network.seen = 500 * 8
    save_weights(network, start)
    whole = train("whole", stop=7, weights=start)
    assert whole.batch == 507
    train("parts", stop=4, weights=start)
    resumed = train("parts", stop=7, resume=True)
    assert len(whole.ema.means) == len(resumed.ema.means) > 10
    for ours, theirs, number in zip(whole.ema.means, resumed.ema.means, whole.ema.numbers, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, number)
    read = load_network(tmp_path / "net.cfg", tmp_path / "parts/net_ema.weights")
    means = [parameter for layer in read.layers if layer.type == "convolutional" for parameter in layer.parameters()]
    assert all(map(torch.equal, means, resumed.ema.means))


def test_a_dynamic_minibatch_goes_on_to_the_last_bit(tmp_path, monkeypatch):
    """Sizes of 32 and 64: one update in two or so has four times the images."""
    data_set(tmp_path)
    text = two_heads(options="iou_loss=ciou").replace(
        "[net]", "[net]\nmax_batches=300\nlearning_rate=.00001\ndynamic_minibatch=1", 1
    )
    text = text.replace("[yolo]", "[yolo]\nrandom=1.5")
    (tmp_path / "net.cfg").write_text(text)

    def train(name, *, stop, **options):
        data = (tmp_path / "set.data").read_text().replace(f"{tmp_path}/backup", str(tmp_path / name))
        (tmp_path / f"{name}.data").write_text(data)
        made = DetectorTraining(
            tmp_path / f"{name}.data", tmp_path / "net.cfg", **options, device="cpu", seed=4, workers=2
        )
        shapes, update = [], made.trainer.update

        def watched(batches):
            taken = [batch._replace(images=batch.images.clone(), truth=batch.truth.clone()) for batch in batches]
            shapes.extend(tuple(batch.images.shape) for batch in taken)
            return update(taken)

        made.trainer.update = watched
        with monkeypatch.context() as patch:
            press_ctrl_c(patch, stop)
            made.run()
        return made.trainer, shapes

    whole, shapes = train("whole", stop=47)
    most = max(count * h * w for count, _, h, w in shapes)
    counts = {(h, w): count for count, _, h, w in shapes}
    assert len(counts) > 1
    assert most == whole.net.mini_batch * np.prod(max(counts))
    assert counts == {size: whole.net.mini_batch * np.prod(max(counts)) // np.prod(size) * 8 // 10
                      if size != max(counts) else whole.net.mini_batch for size in counts}  # fmt: skip
    assert whole.images == sum(shape[0] for shape in shapes)
    _, before = train("parts", stop=33)
    resumed, after = train("parts", stop=47, resume=True)
    assert before + after == shapes
    assert resumed.images == whole.images
    for (name, ours), theirs in zip(
        whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    log = (tmp_path / "whole/net.log").read_text()
    for (h, w), count in counts.items():
        assert f"Resizing, random_coef = 1.50 \n\n {w} x {h}  (batch = {count}) \n" in log


def test_a_head_whose_sums_are_not_finite_is_named(tmp_path):
    """Boxes of infinite size have no GIOU, though the maps are numbers."""
    (tmp_path / "net.cfg").write_text(two_heads(options="iou_loss=giou"))
    trainer = Trainer(load_network(read_cfg(tmp_path / "net.cfg")))
    with torch.no_grad():
        trainer.network.layers[5].biases[2::8] = 100
    with pytest.raises(
        TrainingError, match=r"^update 1: the loss of layer 6 \[yolo\] is not finite; .*the head.s own sums"
    ):
        trainer.update(batches(2, 1, size=64)[0])


class Pair:
    """The same network and batches here and in a library."""

    def __init__(self, library, folder, cfg, numerics, truth_size):
        (folder / "net.cfg").write_text(cfg)
        torch.manual_seed(5)
        self.ours = load_network(read_cfg(folder / "net.cfg"), numerics=numerics)
        save_weights(self.ours, folder / "start.weights")
        self.theirs = library.load_network(folder / "net.cfg", folder / "start.weights")
        self.start = [tensor.detach().clone() for layer in self.ours.layers for _, tensor in layer.numbers()]
        self.trainer = Trainer(self.ours)
        self.truth_size = truth_size

    def train(self, updates):
        """The costs of each mini-batch, ours and theirs, of each update."""
        for update in batches(2, updates, size=64):
            theirs = []
            for batch in update:
                rows = np.zeros((*batch.truth.shape[:2], self.truth_size), np.float32)
                rows[..., :5] = batch.truth.numpy()
                theirs.append(self.theirs.train_step(batch.images.numpy(), rows).cost)
            ours = self.trainer.update(update)
            yield [float(network_cost(heads)) for heads in ours.figures], theirs

    def worst(self, names):
        """The largest distance of a tensor, as a part of its movement so far, and whose it is."""
        distances = []
        tensors = ((layer, *one) for layer in self.ours.layers for one in layer.numbers())
        for (layer, name, tensor), was in zip(tensors, self.start, strict=True):
            if name in names:
                there = self.theirs.layer_tensor(layer.index, name).reshape(tensor.shape)
                distance = np.linalg.norm(tensor.detach().numpy() - there) / np.linalg.norm(there - was.numpy())
                distances.append((float(np.nan_to_num(distance, nan=np.inf)), f"layer {layer.index} {name}"))
        assert len(distances) >= 6 * len(names) - 2 * 3
        return max(distances)


def check(pair, updates, names):
    """The same costs to 1e-4; after 10 updates and after all the same numbers to 1e-4 of their movement."""
    learnt = []
    for number, (ours, theirs) in enumerate(pair.train(updates), 1):
        assert ours == pytest.approx(theirs, rel=1e-4), number
        learnt.append(np.mean(theirs))
        if number in (10, updates):
            worst = pair.worst(names)
            print("after update {}: {:.2g} of a tensor's movement ({})".format(number, *worst))
            assert worst[0] < 1e-4, worst
    assert learnt[-1] < 0.8 * learnt[0], "the nets learnt nothing, so prove nothing"


def test_50_updates_are_pjreddies(darknet, tmp_path):
    pair = Pair(darknet, tmp_path, two_heads("batch_normalize=1\n", rate=0.0003), "cpu", 5)
    check(pair, 50, ("weights", "biases", "scales", "rolling_mean", "rolling_variance"))
    assert pair.ours.seen == pair.theirs.seen == 400


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
    check(pair, 12, ("weights", "biases"))
