from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.batchnorm import batch_norm, fold
from darknet_compat.network import Network
from tests.compare import check_layers, check_weights, net, network_of, randomise


def test_the_layer_normalises_each_channel():
    """libdarknet's CPU build crashes in a [batchnorm] (it never allocates l.x), so this is plain arithmetic."""
    network = randomise(Network(parse_cfg(net(6, 5, 3, "[batchnorm]")), "cpu"))
    layer, x = network.layers[0], torch.rand(2, 3, 5, 6)
    layer.biases.zero_()
    expected = torch.empty_like(x)
    for c in range(3):
        root = layer.rolling_variance[c].double().sqrt() + 1e-6
        expected[:, c] = (x[:, c].double() - layer.rolling_mean[c]) / root * layer.scales[c]
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("conv", ["", "[conv]\nfilters=4\nactivation=linear"])
def test_the_layer_is_alexeyabs(alexeyab_darknet, tmp_path, conv):
    """Its file has the biases first, and his program adds them."""
    text = net(6, 5, 3, *filter(None, [conv]), "[batchnorm]", "[conv]\nfilters=2")
    network = check_layers(alexeyab_darknet, text, tmp_path)
    check_weights(alexeyab_darknet, text, tmp_path)
    names = [name for name, _ in network.layers[-2].numbers()]
    assert names == ["biases", "scales", "rolling_mean", "rolling_variance"]


def test_pjreddies_file_has_no_biases(tmp_path):
    _, _, weights = network_of(net(6, 5, 3, "[batchnorm]"), tmp_path)
    assert weights.stat().st_size == 20 + 4 * 9


def plain(x, scales, biases, numerics):
    """Forward in training as the C files have it, channel by channel, in double precision."""
    out, means, variances = np.empty_like(x), [], []
    for channel in range(x.shape[1]):
        values = x[:, channel].astype(np.float64)
        mean, count = values.sum() / values.size, values.size
        unbiased = ((values - mean) ** 2).sum() / (count - 1)
        biased = ((values - mean) ** 2).sum() / count
        root = {
            "cudnn": np.sqrt(biased + 1e-5),
            "gpu": np.sqrt(unbiased + 1e-5),
            "cpu": np.sqrt(unbiased) + 1e-6,
        }[numerics]
        out[:, channel] = (values - mean) / root * scales[channel] + biases[channel]
        means.append(mean * 0.01)
        variances.append(unbiased * 0.01 + 0.99)
    return out, np.array(means), np.array(variances)


@pytest.mark.parametrize("numerics", ["cudnn", "gpu", "cpu"])
def test_each_numerics_in_training(numerics):
    rng = np.random.default_rng(3)
    x = rng.normal(1, 0.02, (2, 3, 4, 5)).astype(np.float32)  # a small variance makes eps visible
    scales, biases = rng.random(3, np.float32) + 0.5, rng.random(3, np.float32)
    mean, variance = torch.zeros(3), torch.ones(3)
    out = batch_norm(
        torch.from_numpy(x), torch.from_numpy(scales), torch.from_numpy(biases), mean, variance,
        numerics=numerics, training=True,
    )  # fmt: skip
    expected, expected_mean, expected_variance = plain(x, scales, biases, numerics)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-5)


def test_the_numerics_differ_where_the_variance_is_small():
    x = torch.full((1, 1, 1, 2), 1.0)
    arguments = (x, torch.ones(1), torch.zeros(1), torch.zeros(1), torch.full((1,), 1e-6))
    cpu = batch_norm(*arguments, numerics="cpu", training=False)
    cudnn = batch_norm(*arguments, numerics="cudnn", training=False)
    assert cpu[0, 0, 0, 0] > 3 * cudnn[0, 0, 0, 0]


@pytest.mark.parametrize("numerics", ["gpu", "cpu"])
def test_gradients_are_those_of_darknets_own_kernels(numerics):
    """backward_batchnorm_layer's loops, in double precision: mean_delta, variance_delta and normalize_delta."""
    rng = np.random.default_rng(5)
    x = rng.normal(1, 0.05, (2, 3, 4, 5)).astype(np.float32)
    delta = rng.normal(size=x.shape).astype(np.float32)
    scales, biases = rng.random(3, np.float32) + 0.5, rng.random(3, np.float32)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, scales, biases)]
    batch_norm(*tensors, torch.zeros(3), torch.ones(3), numerics=numerics, training=True).backward(
        torch.from_numpy(delta)
    )
    for c in range(3):
        values, d = x[:, c].astype(np.float64), delta[:, c].astype(np.float64)
        count, mean = values.size, values.mean()
        variance = ((values - mean) ** 2).sum() / (count - 1)
        root = np.sqrt(variance + 1e-5) if numerics == "gpu" else np.sqrt(variance) + 1e-6
        scale_update, bias_update = (d * (values - mean) / root).sum(), d.sum()
        d = d * scales[c]
        mean_delta = -d.sum() / np.sqrt(variance + 1e-5)
        variance_delta = (d * (values - mean)).sum() * -0.5 * (variance + 1e-5) ** -1.5
        expected = d / np.sqrt(variance + 1e-5) + variance_delta * 2 * (values - mean) / count + mean_delta / count
        np.testing.assert_allclose(tensors[0].grad[:, c], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(float(tensors[1].grad[c]), scale_update, rtol=1e-4)
        np.testing.assert_allclose(float(tensors[2].grad[c]), bias_update, rtol=1e-4)


@pytest.mark.parametrize("numerics", ["cudnn", "gpu", "cpu"])
def test_folded_weights_give_the_same_values(numerics):
    """In plain arithmetic, where the running variance is so small that eps counts."""
    rng = np.random.default_rng(6)
    weights, x = rng.normal(size=(4, 2, 3, 1)), rng.normal(size=(2, 3, 1))
    scales, biases, mean, variance = rng.random((4, 4)) + 0.5
    variance *= 1e-4
    root = np.sqrt(variance) + 1e-6 if numerics == "cpu" else np.sqrt(variance + 1e-5)
    expected = ((weights * x).sum((1, 2, 3)) - mean) / root * scales + biases
    folded = fold(*(torch.from_numpy(a).float() for a in (weights, biases, scales, mean, variance)), numerics)
    assert folded["weights"].shape == (4, 2, 3, 1)
    found = (folded["weights"].numpy() * x).sum((1, 2, 3)) + folded["biases"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "layer", ["[batchnorm]", "[conv]\nfilters=2\nbatch_normalize=1", "[connected]\noutput=2\nbatch_normalize=1"]
)
@pytest.mark.parametrize("numerics", ["cudnn", "gpu", "cpu"])
def test_a_single_value_has_no_variance(layer, numerics):
    """As of a mini-batch of one image whose map is one cell: an error in training alone."""
    network = Network(parse_cfg(net(1, 1, 3, layer)), numerics=numerics).start()
    image = torch.ones(1, 3, 1, 1)
    assert network.eval()(image).isfinite().all()
    assert network.train()(torch.cat([image, 2 * image])).isfinite().all()
    with pytest.raises(CfgError, match=r":\d+: .*one value per channel in training, which has no variance"):
        network(image)


def test_start_values_are_darknets():
    network = Network(parse_cfg(net(6, 5, 3, "[batchnorm]"))).start()
    held = {name: tensor.tolist() for name, tensor in network.layers[0].numbers()}
    assert held == {"scales": [1, 1, 1], "rolling_mean": [0, 0, 0], "rolling_variance": [0, 0, 0]}
    assert network.layers[0].biases.tolist() == [0, 0, 0]


def test_a_section_of_its_own_keeps_no_biases():
    """No .weights file holds them, and so no state does."""
    names = list(Network(parse_cfg(net(4, 4, 3, "[batchnorm]"))).state_dict())
    assert names == [f"layers.0.{name}" for name in ("scales", "rolling_mean", "rolling_variance")]
