"""Networks train from files as AlexeyAB's program trains them: ``detector train``, run as a process, and ours.

One PNG image of the network's own size, no jitter, no flip, neutral colours: whatever his threads draw, every image of
a batch is that one. They shuffle its truths: of two that share a slot here, either may be the first, and both add up.

His CPU build clears the deltas of [convolutional] and [maxpool] alone before a mini-batch
(``src/network.c, forward_network``: ``l.train``, which other layers do not set), and a convolution overwrites the
delta of what it reads (``col2im_cpu_ext``). So in these networks, but for one, every [route] and [upsample] is read by
one convolution, and what is read twice is a convolution or a [maxpool] that others read through a [route] of their own.

His CPU divides by sqrt(variance) + .00001 in one term of three behind a batch normalisation
(``src/batchnorm_layer.c, normalize_delta_cpu``), and by sqrt(variance + .00001) elsewhere. So weights before one start
large here, and with them the variance. Nor does his CPU train the biases behind one: here they are held still.
"""

from __future__ import annotations

import csv
import re
import subprocess

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_network, read_cfg
from darknet_compat.errors import TrainingError
from darknet_compat.train.batch import Batch
from darknet_compat.train.detector import DetectorTraining
from darknet_compat.train.step import Trainer
from darknet_compat.weights import save_weights
from tests.oracle import alexeyab as his
from tests.train.test_heads import press_ctrl_c

NET = """
[net]
width=64
height=64
channels=3
batch=8
subdivisions=2
flip=0
learning_rate={rate}
max_batches={updates}
"""
SCHEDULE = "momentum=.8\ndecay=.005\nburn_in=5\npolicy=steps\nsteps=25,40\nscales=.5,.2\n"
TRUTHS = [(0, 0.2, 0.25, 0.3, 0.35), (1, 0.7, 0.3, 0.5, 0.4), (2, 0.45, 0.75, 0.8, 0.45), (0, 0.8, 0.8, 0.16, 0.22),
          (2, 0.12, 0.68, 0.2, 0.5), (1, 0.45, 0.75, 0.7, 0.5)]  # fmt: skip
NORM = "batch_normalize=1\n"
MAXPOOL = "[maxpool]\nsize={}\nstride={}\n"
UPSAMPLE = "[upsample]\nstride=2\n"
V4 = "iou_loss=ciou\nscale_x_y=1.1\niou_thresh=.213\niou_normalizer=.07\nmax_delta=5\nnms_kind=greedynms\n"
V7 = "iou_loss=ciou\nscale_x_y=2\nnew_coords=1\nobjectness_smooth=1\niou_thresh=.2\niou_normalizer=.05\n"
V7 += "nms_kind=diounms\n"


def conv(filters, size=3, stride=1, activation="mish", norm=""):
    return f"[convolutional]\n{norm}filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={activation}\n"


def route(layers, more=""):
    return f"[route]\nlayers={layers}\n{more}"


def head(mask, options, activation="linear", kind="yolo"):
    anchors = "10,14, 13,27, 20,20, 28,41, 37,28, 50,45"
    return conv(24 if kind == "yolo" else 36, 1, 1, activation) + (
        f"[{kind}]\nmask={mask}\nclasses=3\nnum=6\nanchors={anchors}\njitter=0\nignore_thresh=.4\n{options}\n"
    )


def v4(norm="", options=V4, kind="yolo"):
    """Of YOLOv4-tiny's kinds of layers: mish, groups of a [route], two heads that share an anchor."""
    return "\n".join([
        conv(8, 3, 2, norm=norm), conv(16, 3, 2, norm=norm), MAXPOOL.format(2, 2),
        route(-1, "groups=2\ngroup_id=1\n"), conv(8, norm=norm), route(-1), conv(8, norm=norm),
        route("-1,4"), conv(16, 1, norm=norm), route("2,-1"), conv(24, norm=norm), MAXPOOL.format(2, 2),
        conv(16, norm=norm), route(-1), head("3,4,5", options, kind=kind),
        route(12), conv(8, 1, norm=norm), UPSAMPLE, conv(8, 1, norm=norm), route("-1,10"), conv(12, norm=norm),
        head("1,2,3", options, kind=kind),
    ])  # fmt: skip


def gaussian(norm=""):
    return v4(norm, "iou_loss=ciou\nuc_normalizer=.1\nmax_delta=.5\niou_thresh=.213\n", "Gaussian_yolo")


def v7(norm=""):
    """Of YOLOv7-tiny's: swish, several convolutions joined, a pyramid of pools, logistic before the heads."""
    one = {"activation": "swish", "norm": norm}
    return "\n".join([
        conv(8, 3, 2, **one), conv(16, 3, 2, **one), MAXPOOL.format(2, 2),
        route(2), conv(8, 1, **one), route(2), conv(8, 1, **one), route(-1), conv(8, **one), route("-1,6,4"),
        conv(16, 1, **one), MAXPOOL.format(2, 2), conv(16, **one), MAXPOOL.format(5, 1), route("-1,12"),
        conv(16, 1, **one), route(-1), head("3,4,5", V7, "logistic"),
        route(15), conv(8, 1, **one), UPSAMPLE, conv(8, 1, **one), route("-1,10"), conv(12, **one),
        head("0,1,2", V7, "logistic"),
    ])  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """An image, its truths and its list."""
    (tmp_path / "JPEGImages").mkdir()  # both programs find the labels of what lies here in `labels`
    (tmp_path / "labels").mkdir()
    image = np.random.default_rng(0).integers(0, 90, (64, 64, 3)).astype(np.uint8)
    for number, x, y, w, h in TRUTHS:
        rows, columns = (slice(int(64 * (c - s / 2)), int(64 * (c + s / 2)) + 1) for c, s in ((y, h), (x, w)))
        image[rows, columns, 2 - number] += 120
    cv2.imwrite(str(tmp_path / "JPEGImages/one.png"), image)
    (tmp_path / "labels/one.txt").write_text("".join("{} {} {} {} {}\n".format(*truth) for truth in TRUTHS))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/JPEGImages/one.png\n")
    (tmp_path / "the.names").write_text("a\nb\nc\n")
    return tmp_path


def data_of(folder, backup):
    (folder / backup).mkdir()
    data = folder / f"{backup}.data"
    data.write_text(
        f"classes=3\ntrain={folder}/list.txt\nvalid={folder}/list.txt\nnames={folder}/the.names\n"
        f"backup={folder}/{backup}\nsaveweights=10\n"
    )
    return data


def write_cfg(folder, body, updates=50, rate=0.001, schedule=""):
    (folder / "net.cfg").write_text(NET.format(rate=rate, updates=updates) + schedule + body)
    return folder / "net.cfg"


def start(folder, cfg):
    """Weights to start from, which are the same for both."""
    torch.manual_seed(5)
    network = load_network(read_cfg(cfg), numerics="gpu")
    assert network.program == "alexeyab"
    with torch.no_grad():
        for layer in network.layers:
            if getattr(layer.o, "batch_normalize", 0):
                layer.weights *= 5
    save_weights(network, folder / "start.weights")
    return load_network(cfg, folder / "start.weights", numerics="gpu")


def train(folder, cfg, backup):
    """Our training; as on his CPU the biases behind a batch normalisation stay as they are."""
    data, weights = data_of(folder, backup), folder / "start.weights"
    made = DetectorTraining(data, cfg, weights, clear=True, device="cpu", numerics="gpu", workers=0)
    for layer in made.trainer.network.layers:
        if getattr(layer.o, "batch_normalize", 0):
            layer.biases.requires_grad_(False)
    return made.run().network


def movement(ours, theirs, started):
    """The largest distance of a tensor, as a part of how far his has moved, and whose it is."""
    worst = []
    for layer, there, was in zip(ours.layers, theirs.layers, started.layers, strict=True):
        for (name, *tensors), other, before in zip(layer.numbers(), there.numbers(), was.numbers(), strict=True):
            a, b, c = (tensor.detach().double() for tensor in (*tensors, other[1], before[1]))
            still = name.startswith("rolling") or (name == "biases" and layer.o.batch_normalize)
            if not still:
                distance = float((a - b).norm() / (b - c).norm())
                worst.append((np.nan_to_num(distance, nan=np.inf), f"{name} of layer {layer.index}"))
    assert len(worst) >= 2 * 12
    return max(worst)


def table(path):
    """Number, loss, running average and rate of each update."""
    with open(path) as file:
        return [
            (int(row["batch"]), float(row["loss"]), float(row["avg_loss"]), float(row["rate"]))
            for row in csv.DictReader(file)
        ]


def numbers(line):
    return [float(word) for word in re.findall(r"-?\d+\.?\d*", line)]


def check_lines(log, theirs):
    """The lines of the heads, in words and numbers, and those of the boxes, of which his threads lose some."""
    ours = [line for line in log.read_text().splitlines() if line.startswith(his.LINES)]
    assert len(ours) == len(theirs) >= 2 * 100
    for line, other in zip(ours, theirs, strict=True):
        assert re.sub(r"\d+\.?\d*", "#", line) == re.sub(r"\d+\.?\d*", "#", other)
        if not line.startswith(" total_bbox"):
            # His iou_loss is what is left of two sums, in float32, of which total_loss is the larger. [Gaussian_yolo]
            # prints two digits of it.
            near = 2e-6 * (1 + numbers(line)[-1]) + (0.01 if "uc_loss" in line else 0)
            assert numbers(line) == pytest.approx(numbers(other), rel=2e-4, abs=near)
        else:
            assert 0.9 * numbers(line)[0] <= numbers(other)[0] <= numbers(line)[0]
            assert numbers(line)[1] == pytest.approx(numbers(other)[1], rel=0.1)


@pytest.mark.parametrize(
    ("body", "norm", "schedule"),
    [
        pytest.param(v4, "", SCHEDULE, id="v4", marks=pytest.mark.slow),
        pytest.param(v4, NORM, SCHEDULE, id="v4_normalised"),
        pytest.param(v7, "", "", id="v7"),
        pytest.param(v7, NORM, "", id="v7_normalised", marks=pytest.mark.slow),
        pytest.param(gaussian, "", SCHEDULE, id="gaussian", marks=pytest.mark.slow),
    ],
)
def test_50_updates_are_his(alexeyab, folder, body, norm, schedule):
    """Two subdivisions, momentum, decay, warm-up and steps as given, and as they are where nothing is said of them."""
    if body is v7 and not norm:
        # Bands, twice as wide as the network's input: alike however they are stretched. (Behind a batch normalisation
        # the ties that they leave in a [maxpool] would fall this way or that.)
        path = str(folder / "JPEGImages/one.png")
        cv2.imwrite(path, np.repeat(cv2.imread(path)[:, 20:21], 128, 1))
    cfg = write_cfg(folder, body(norm), schedule=schedule)
    started = start(folder, cfg)
    printed = his.train(alexeyab, data_of(folder, "his"), cfg, folder / "start.weights")
    assert [update[0] for update in printed.updates] == list(range(1, 51))
    for updates in (10, 50):
        ours = train(folder, write_cfg(folder, body(norm), updates, schedule=schedule), f"ours{updates}")
        theirs = load_network(cfg, folder / f"his/net_{updates}.weights", numerics="gpu")
        worst = movement(ours, theirs, started)
        print("after update {}: {:.2g} of a tensor's movement ({})".format(updates, *worst))
        assert worst[0] < 3e-4, worst
        assert ours.seen == theirs.seen == 8 * updates
    rows = table(folder / "ours50/net.csv")
    for row, update in zip(rows, printed.updates, strict=True):
        assert row == pytest.approx(update, rel=1e-4, abs=6e-7), row  # he prints six digits of a rate
    print(f"costs: {max(abs(a[1] / b[1] - 1) for a, b in zip(rows, printed.updates, strict=True)):.2g}")
    assert rows[-1][1] < 0.6 * rows[0][1], "the network learnt nothing, so it proves nothing"
    check_lines(folder / "ours50/net.log", printed.lines)


def test_layers_before_stopbackward_stay_as_they_are_and_its_own_weights_decay(alexeyab_darknet, folder):
    """Of layers without a batch normalisation: with one his CPU crashes."""
    cfg = write_cfg(folder, v4(), schedule="momentum=.9\ndecay=.05\n")
    sections = cfg.read_text().split("\n[")
    stop = [i for i, section in enumerate(sections) if section.startswith("convolutional")][4]
    sections[stop] += "stopbackward=1\n"
    cfg.write_text("\n[".join(sections))
    started = start(folder, cfg)
    trainer = Trainer(load_network(cfg, folder / "start.weights", numerics="gpu"))
    library = alexeyab_darknet.load_network(cfg, folder / "start.weights")
    image = cv2.imread(str(folder / "JPEGImages/one.png"))[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    images = np.ascontiguousarray(np.broadcast_to(image, (4, *image.shape)))
    truth = np.zeros((4, len(TRUTHS), 6), np.float32)
    truth[..., :5] = [[*box, number] for number, *box in TRUTHS]
    batch = Batch(torch.from_numpy(images), torch.from_numpy(truth[..., :5].copy()), ())
    for _ in range(5):
        for last in (False, True):
            library.train_step(images, truth, update=last)
        trainer.update([batch, batch])
    library.save_weights(folder / "theirs.weights")
    theirs = load_network(cfg, folder / "theirs.weights", numerics="gpu")
    stopped = next(layer.index for layer in theirs.layers if layer.o.stopbackward)
    moved = 0
    for ours, his_own, was in zip(trainer.network.layers, theirs.layers, started.layers, strict=True):
        for (name, a), (_, b), (_, c) in zip(ours.numbers(), his_own.numbers(), was.numbers(), strict=True):
            still = ours.index < stopped or (ours.index == stopped and name == "biases")
            assert torch.equal(b, c) == still, (ours.index, name)
            if still:
                assert torch.equal(a, c), (ours.index, name)
            else:
                moved += 1
                assert (a - b).norm() <= 3e-4 * (b - c).norm(), (ours.index, name)
    assert moved > 10
    before, after = started.layers[stopped].weights, trainer.network.layers[stopped].weights
    assert torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), 0) > 0.99999, "it decayed"
    assert after.norm() < before.norm()


def test_batch_normalisation_before_stopbackward_works_as_in_detection(folder):
    """As on his GPU: src/convolutional_kernels.cu, forward_convolutional_layer_gpu, where l.train is 0."""
    cfg = write_cfg(folder, v4(NORM))
    sections = cfg.read_text().split("\n[")
    stop = [i for i, section in enumerate(sections) if section.startswith("convolutional")][4]
    sections[stop] += "stopbackward=1\n"
    cfg.write_text("\n[".join(sections))
    start(folder, cfg)
    network = load_network(cfg, folder / "start.weights", numerics="gpu")
    seen = load_network(cfg, folder / "start.weights", numerics="gpu")
    trainer = Trainer(network)
    stopped = next(layer.index for layer in network.layers if layer.o.stopbackward)
    images, truth = torch.rand(4, 3, 64, 64), torch.zeros(4, 3, 5)
    truth[:, 0] = torch.tensor([0.5, 0.5, 0.4, 0.4, 1])
    for mode in (True, False, True):  # as a score in the midst of it does
        network.train(mode)
    trainer.update([Batch(images, truth, ())] * 2)
    seen.eval()
    with torch.no_grad():
        for layer, ours, theirs in zip(
            network.layers, network.outputs(images), seen.eval().outputs(images), strict=True
        ):
            assert torch.equal(ours, theirs) == (layer.index < stopped), layer.index
    for layer, was in zip(network.layers, seen.layers, strict=True):
        if getattr(layer.o, "batch_normalize", 0):
            assert torch.equal(layer.rolling_mean, was.rolling_mean) == (layer.index < stopped), layer.index


def test_updates_of_a_dynamic_minibatch_are_his(alexeyab_darknet, folder):
    """More images where they are smaller: the sums that momentum keeps are divided by those of the update at hand."""
    cfg = write_cfg(folder, v4(), schedule="dynamic_minibatch=1\nmomentum=.9\ndecay=.005\n")
    started = start(folder, cfg)
    trainer = Trainer(load_network(cfg, folder / "start.weights", numerics="gpu"))
    library = alexeyab_darknet.load_network(cfg, folder / "start.weights")
    image = cv2.imread(str(folder / "JPEGImages/one.png"))[..., ::-1]
    for side, count in ((64, 4), (96, 4), (64, 7), (32, 28), (96, 4), (32, 28)):
        library.resize_dynamic(side, side, count)
        trainer.network.resize(side, side)
        planes = cv2.resize(image, (side, side)).transpose(2, 0, 1).astype(np.float32) / 255
        images = np.stack([planes * (1 - index / 50) for index in range(count)])
        truth = np.zeros((count, len(TRUTHS), 6), np.float32)
        truth[..., :5] = [[*box, number] for number, *box in TRUTHS]
        batch = Batch(torch.from_numpy(images), torch.from_numpy(truth[..., :5].copy()), ())
        costs = [library.train_step(images, truth, update=last).cost for last in (False, True)]
        update = trainer.update([batch, batch])
        assert update.loss == pytest.approx(sum(costs) / (2 * count), rel=1e-4)
    library.save_weights(folder / "theirs.weights")
    theirs = load_network(cfg, folder / "theirs.weights", numerics="gpu")
    worst = movement(trainer.network, theirs, started)
    print("{:.2g} of a tensor's movement ({})".format(*worst))
    assert worst[0] < 3e-4, worst
    assert trainer.images == sum(2 * count for count in (4, 4, 7, 28, 4, 28))
    assert trainer.network.seen == started.seen + 6 * 8, "an update counts as the cfg says"


def test_means_over_time_are_his(alexeyab, folder, monkeypatch):
    """From half of max_batches on, and 1000 batches before the end the network is them: 1030 and 1060 here.

    Both start at batch 1025, and are stopped soon after 1060.
    """
    cfg = write_cfg(folder, v4(), updates=2060, rate=0.002)
    cfg.write_text(cfg.read_text().replace("flip=0", "flip=0\nema_alpha=.97"))
    started = start(folder, cfg)
    started.seen = 1025 * 8
    save_weights(started, folder / "start.weights")
    # Each file is written once: he keeps NAME_last.weights where savelast is under saveweights.
    rhythm = ("saveweights=10", "saveweights=1060\nsavelast=530")
    data = data_of(folder, "his")
    data.write_text(data.read_text().replace(*rhythm))
    command = [alexeyab / "darknet", "detector", "train", data, cfg, folder / "start.weights", "-dont_show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder) as process:
        for line in process.stdout:
            if line.startswith(" 1062: "):
                break
        process.kill()

    data = data_of(folder, "ours")
    data.write_text(data.read_text().replace(*rhythm))
    made = DetectorTraining(data, cfg, folder / "start.weights", device="cpu", numerics="gpu", workers=0)
    press_ctrl_c(monkeypatch, 1062 - 1025)
    made.run()
    for name in ("net_1060.weights", "net_ema.weights"):
        ours, theirs = (load_network(cfg, folder / who / name, numerics="gpu") for who in ("ours", "his"))
        worst = movement(ours, theirs, started)
        print("{}: {:.2g} of a tensor's movement ({})".format(name, *worst))
        assert worst[0] < 3e-4, worst
    # What goes on from the means is no longer they.
    assert movement(load_network(cfg, folder / "ours/net_last.weights", numerics="gpu"), ours, started)[0] > 0.003


def joined():
    """As one writes a network: a [maxpool] reads a [route], and a [route] an [upsample] and a [route]."""
    return "\n".join([
        conv(8, 3, 2), conv(16, 3, 2), MAXPOOL.format(2, 2), route(-1, "groups=2\ngroup_id=1\n"), conv(8), route(-1),
        conv(8), route("-1,4"), conv(16, 1), route("2,-1"), MAXPOOL.format(2, 2), conv(16), route(-1),
        head("3,4,5", V4), route(11), conv(8, 1), UPSAMPLE, route("-1,9"), conv(12), head("1,2,3", V4),
    ])  # fmt: skip


def test_where_his_program_reaches_nan_ours_goes_on_as_his_library_does(alexeyab, alexeyab_darknet, folder):
    """The deltas of layers that he does not clear add up, until a value passes his logistic that it cannot take.

    His library, in which ``tests.oracle`` has all deltas cleared, trains as ours does.
    """
    cfg = write_cfg(folder, joined(), rate=0.0005)
    started = start(folder, cfg)
    printed = his.train(alexeyab, data_of(folder, "his"), cfg, folder / "start.weights")
    print("his losses:", *(loss for _, loss, *_ in printed.updates))
    lost = next(number for number, loss, *_ in printed.updates if not np.isfinite(loss))
    assert 5 < lost <= 40
    assert not np.isfinite([loss for _, loss, *_ in printed.updates[lost - 1 :]]).any()

    train(folder, cfg, "ours")
    rows = table(folder / "ours/net.csv")
    print("our losses:", *(loss for _, loss, *_ in rows))
    assert len(rows) == 50
    assert np.isfinite(rows).all()
    assert rows[-1][1] < 0.6 * rows[0][1]

    image = cv2.imread(str(folder / "JPEGImages/one.png"))[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    truth = np.zeros((4, len(TRUTHS), 6), np.float32)
    truth[..., :5] = [[*box, number] for number, *box in TRUTHS]
    library = alexeyab_darknet.load_network(cfg, folder / "start.weights")
    for row in rows[:lost]:
        costs = [library.train_step(np.broadcast_to(image, (4, 3, 64, 64)), truth).cost for _ in range(2)]
        assert row[1] == pytest.approx(sum(costs) / 8, rel=1e-4), row
    assert library.seen == started.seen + 8 * lost


def test_a_training_that_diverges_ends_with_the_layers_name(folder):
    """Where the arithmetic itself leaves float32; his goes on with NaN to the last update."""
    cfg = write_cfg(folder, joined(), rate=1)
    start(folder, cfg)
    message = r"^update \d+: the loss of layer \d+ \[yolo\].* is not finite; layer \d+ \[\w+\] is the first whose"
    with pytest.raises(TrainingError, match=message) as caught:
        train(folder, cfg, "ours")
    assert "JPEGImages/one.png" in str(caught.value)
    assert str(caught.value).endswith("no snapshot was written yet")
    assert list((folder / "ours").glob("*.weights")) == []
