"""The oracle itself: libdarknet answers, and answers what its source says."""

from __future__ import annotations

import numpy as np
import pytest

CFG = """
[net]
batch=4
subdivisions=2
width=24
height=24
channels=3
learning_rate=.01
momentum=.9
decay=.0005
policy=steps
steps=2,5
scales=.1,.1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[reorg]
stride=2

[convolutional]
filters=14
size=1
stride=1
activation=linear

[region]
anchors=1,1,2,2
classes=2
coords=4
num=2
softmax=1
"""


@pytest.fixture
def network(darknet, tmp_path):
    (tmp_path / "net.cfg").write_text(CFG)
    return darknet.load_network(tmp_path / "net.cfg")


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    truth = np.zeros((2, 30, 5), np.float32)
    truth[:, 0] = (0.4, 0.6, 0.3, 0.2, 1)
    return rng.random((2, 3, 24, 24), np.float32), truth


def test_layers_are_described(network):
    assert [layer.type for layer in network.layers] == ["convolutional", "maxpool", "reorg", "convolutional", "region"]
    first, head = network.layers[0], network.layers[-1]
    assert (first.w, first.h, first.c, first.n, first.out_w) == (24, 24, 3, 8, 24)
    assert first.activation == "leaky"
    assert (head.n, head.classes, head.outputs) == (2, 2, 14 * 36)
    assert network.layer_tensor(-1, "biases").tolist() == [1, 1, 2, 2]
    assert network.layer_tensor(0, "weights").shape == (8 * 3 * 9,)
    assert network.layer_tensor(3, "scales") is None
    with pytest.raises(AttributeError):
        network.layer_tensor(0, "nothing")


def test_prediction_and_boxes(network, batch):
    output = network.predict(batch[0])
    assert output.shape == (2, 14 * 36)
    network.set_batch(1)
    alone = network.predict(batch[0][:1])
    np.testing.assert_allclose(alone[0], output[0], atol=1e-6)
    found = network.boxes(100, 50, thresh=0.1, nms=0.45)
    assert found.boxes.shape == (72, 4)
    assert found.prob.shape == (72, 2)
    assert sorted(found.order) == list(range(72))
    assert (
        found.objectness == np.where(alone.reshape(2, 7, 36)[:, 4] > 0.1, alone.reshape(2, 7, 36)[:, 4], 0).ravel()
    ).all()
    with pytest.raises(ValueError):
        network.set_batch(3)


def test_training_moves_weights_and_prints_the_region_line(network, batch):
    before = network.layer_tensor(0, "weights")
    first = network.train_step(*batch)
    assert (network.layer_tensor(0, "weights") == before).all()  # subdivisions=2: not due yet
    assert np.abs(network.layer_tensor(0, "weight_updates")).max() > 0
    second = network.train_step(*batch)
    assert np.abs(network.layer_tensor(0, "weights") - before).max() > 0
    assert network.seen == 4
    assert first.figures["count"] == 2
    assert second.line.startswith("Region Avg IOU: ")
    costs = [network.train_step(*batch).cost for _ in range(40)]
    assert costs[-1] < first.cost


def test_weights_travel(network, darknet, tmp_path, batch):
    network.seen = 640
    network.save_weights(tmp_path / "a.weights")
    other = darknet.load_network(tmp_path / "net.cfg", tmp_path / "a.weights")
    assert other.seen == 640
    assert (other.predict(batch[0]) == network.predict(batch[0])).all()
    network.save_weights(tmp_path / "b.weights", cutoff=1)
    assert (tmp_path / "b.weights").stat().st_size == 20 + 4 * (3 * 8 + 8 + 216)


def test_resize(network):
    network.resize(48, 32)
    assert (network.width, network.height) == (48, 32)
    assert network.layers[-1].w == 12
    assert network.predict(np.zeros((2, 3, 32, 48))).shape == (2, 14 * 12 * 8)


def test_rates(network, darknet):
    assert network.current_rate() == pytest.approx(0.01)
    network.seen = 4 * 3
    assert network.current_rate() == pytest.approx(0.001)
    assert darknet.rate(3, "steps", 0.01, steps=[2, 5], scales=[0.1, 0.1]) == pytest.approx(0.001)
    assert darknet.rate(5, learning_rate=0.01, burn_in=10, power=2) == pytest.approx(0.0025)


def test_region_layer_alone(darknet, batch):
    region = darknet.region(2, 6, 6, 2, 2, [1, 1, 2, 2], softmax=1, object_scale=5)
    raw = np.random.default_rng(1).normal(size=region.shape).astype(np.float32)
    quiet = region.forward(raw)
    trained = region.forward(raw, batch[1], seen=20000)
    assert quiet.figures == {}
    assert trained.figures["count"] == 2
    assert (trained.output == quiet.output).all()
    assert trained.cost == pytest.approx(float((trained.delta.astype(float) ** 2).sum()), rel=1e-5)
    x = trained.output.reshape(2, 2, 7, 6, 6)[:, :, 0]
    deltas, gradients = (array.reshape(2, 2, 7, 6, 6) for array in (trained.delta, trained.gradient))
    np.testing.assert_allclose(gradients[:, :, 0], deltas[:, :, 0] * x * (1 - x), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gradients[:, :, 2:4], deltas[:, :, 2:4])
    assert region.boxes(60, 60, 192, 192).boxes.shape == (72, 4)


def test_region_tree_is_done_per_group(darknet, tmp_path):
    (tmp_path / "t.tree").write_text("a -1\nb -1\nc 0\nd 0\ne 0\n")
    tree = darknet.read_tree(tmp_path / "t.tree")
    assert tree["group_size"].tolist() == [2, 3]
    assert tree["parent"].tolist() == [-1, -1, 0, 0, 0]
    region = darknet.region(2, 3, 2, 2, 5, [1, 1, 2, 2], tree=tmp_path / "t.tree", softmax=1)
    raw = np.random.default_rng(1).normal(size=region.shape).astype(np.float32)
    classes = region.forward(raw).output.reshape(2, 2, 10, 2, 3)[:, :, 5:]
    np.testing.assert_allclose(classes[:, :, :2].sum(2), 1, atol=1e-6)
    np.testing.assert_allclose(classes[:, :, 2:].sum(2), 1, atol=1e-6)


def test_arithmetic(darknet):
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    np.testing.assert_allclose(darknet.activate(x, "leaky"), np.where(x > 0, x, x * 0.1), rtol=1e-6)
    np.testing.assert_allclose(darknet.gradient(x, "leaky", x), np.where(x > 0, x, x * 0.1), rtol=1e-6)
    assert darknet.iou([0.5, 0.5, 1, 1], [[0.5, 0.5, 1, 1], [1, 0.5, 1, 1]]).tolist() == pytest.approx([1, 1 / 3])
    y = np.arange(2 * 8 * 4 * 6, dtype=np.float32).reshape(2, 8, 4, 6)
    expected = y.reshape(2, 2, 4, 2, 6, 2).transpose(0, 3, 5, 1, 2, 4)
    assert darknet.reorg(y, 2).shape == (2, 32, 2, 3)
    np.testing.assert_array_equal(darknet.reorg(y, 2).reshape(2, 2, 2, 2, 4, 6), expected)
    soft = darknet.softmax(x, 7, 1, 7, 1, 7, 1)
    assert soft.sum() == pytest.approx(1)


def test_nms_keeps_the_given_order(darknet):
    boxes = [[0.5, 0.5, 0.2, 0.2], [0.51, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]
    kept = darknet.nms_sort(boxes, [0.9, 0.8, 0], [[0.5, 0.1], [0.6, 0], [0.9, 0.9]], 0.45)
    np.testing.assert_allclose(kept.prob, [[0, 0.1], [0.6, 0], [0.9, 0.9]])
    np.testing.assert_allclose(kept.boxes, boxes)


def test_images(darknet, darknet_share):
    dog = darknet.load_image_color(darknet_share / "data" / "dog.jpg")
    assert dog.shape == (3, 576, 768)
    assert darknet.letterbox_image(dog, 416, 416)[0, 0, 0] == 0.5
    assert darknet.resize_image(dog, 100, 50).shape == (3, 50, 100)
    assert (darknet.flip_image(dog) == dog[:, :, ::-1]).all()
    placed = darknet.place_image(dog, 20, 10, 5, 6, np.full((3, 32, 32), 0.5))
    assert (placed[:, :6] == 0.5).all()
    np.testing.assert_allclose(placed[:, 6, 5], dog[:, 0, 0])
    same = darknet.distort_image(dog, 0, 1, 1)
    np.testing.assert_allclose(same, dog, atol=1e-5)
    np.testing.assert_allclose(darknet.hsv_to_rgb(darknet.rgb_to_hsv(dog)), dog, atol=1e-5)
    darknet.srand(3)
    first = darknet.rand(), darknet.rand_uniform(-1, 1), darknet.rand_scale(1.5)
    darknet.srand(3)
    assert first == (darknet.rand(), darknet.rand_uniform(-1, 1), darknet.rand_scale(1.5))


def test_load_data_detection(darknet, darknet_share, tmp_path):
    import shutil

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    shutil.copy(darknet_share / "data" / "dog.jpg", tmp_path / "images" / "dog.jpg")
    (tmp_path / "labels" / "dog.txt").write_text("1 .5 .5 .4 .4\n0 .2 .2 .1 .1\n")
    paths = [tmp_path / "images" / "dog.jpg"]
    x, truth = darknet.load_data_detection(paths, 2, 64, 48, 30, 2, 0.2, 0.1, 1.5, 1.5, seed=7)
    assert x.shape == (2, 3, 48, 64)
    assert sorted(truth[0, :2, 4]) == [0, 1]
    again, _ = darknet.load_data_detection(paths, 2, 64, 48, 30, 2, 0.2, 0.1, 1.5, 1.5, seed=7)
    assert (again == x).all()


def test_output_is_captured(darknet):
    region = darknet.region(1, 1, 1, 1, 1, [1, 1])
    with darknet.capture() as outer:
        result = region.forward(np.zeros(region.shape), np.zeros((1, 30, 5)))
    assert result.line.startswith("Region Avg IOU")
    assert outer.lines == [result.line]
