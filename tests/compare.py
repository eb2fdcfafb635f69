"""The one comparator between a network here and the same network in either Darknet, with its tolerance in sight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from darknet_compat import load_network
from darknet_compat.cfg import read_cfg
from darknet_compat.layers import batchnorm
from darknet_compat.network import Network
from darknet_compat.weights import save_weights

CFGS = ["yolov2", "yolov2-voc", "yolov2-tiny", "yolov2-tiny-voc", "darknet19", "darknet19_448", "darknet", "tiny",
        "resnet18", "resnet34", "resnet50", "cifar-small", "cifar-resnet"]  # fmt: skip
# A layer between a convolution and a map that others read too: on a CPU, AlexeyAB's backward pass of a convolution
# writes over what they have handed back (col2im_cpu_ext), and pjreddie's one of size 1 does.
COPY = "[maxpool]\nsize=1\nstride=1"
TOLERANCE = 1e-4  # of the largest value of a layer
EXACT = 1e-5


def randomise(network: Network, seed: int = 0) -> Network:
    """Fill a network with numbers that keep values of ordinary size through many layers, and miss no code path."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for layer in network.layers:
            for path, tensor in layer.numbers():
                name = path.split(".")[-1]  # behind the name of a recurrent layer's sub-layer
                if name == "weights":
                    fan_in = tensor[0].numel()
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
                elif name == "rolling_variance":
                    uniform(tensor, 0.5, 1.5)
                elif name == "scales":
                    uniform(tensor, 0.8, 1.2)
                else:
                    uniform(tensor, -0.2, 0.2)
    network.seen = 64_000
    return network.eval()


def network_of(
    text: str, folder: Path, seed: int = 0, numerics: str = "cpu", program: str | None = None
) -> tuple[Network, Path, Path]:
    """A random network of a cfg text, and the cfg and .weights files of it."""
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    cfg.write_text(text)
    network = randomise(Network(read_cfg(cfg), numerics, program=program), seed)
    save_weights(network, weights)
    return network, cfg, weights


def worst_layer(network: Network, reference, x: np.ndarray) -> tuple[float, int]:
    """The largest max|a-b| / max|b| of all layers but [cost], and its layer's index."""
    reference.set_batch(len(x))
    reference.predict(x)
    with torch.inference_mode():
        outputs = network.outputs(torch.from_numpy(x))
    worst = (0.0, -1)
    for layer, output in zip(network.layers, outputs, strict=True):
        if layer.type == "cost":  # Darknet's cost layer holds errors, and none without a truth
            continue
        expected = reference.layer_output(layer.index).reshape(output.shape)
        difference = np.abs(output.numpy() - expected).max() / max(np.abs(expected).max(), 1e-30)
        # No comparison with NaN is true, so max() would pass over it.
        worst = max(worst, (float(np.nan_to_num(difference, nan=np.inf)), layer.index))
    return worst


def calibrate(network: Network, x: torch.Tensor, weights: Path) -> None:
    """Let every batch norm have the statistics of ``x``, so that values keep their size through hundreds of layers."""
    before = batchnorm.MOMENTUM
    batchnorm.MOMENTUM = 1.0
    try:
        with torch.no_grad():
            network.train()(x)
    finally:
        batchnorm.MOMENTUM = before
    save_weights(network.eval(), weights)


def worst_step(network: Network, reference, x: np.ndarray) -> tuple[float, int]:
    """As :func:`worst_layer`, but each layer gets what the reference's layers gave: its own rounding alone.

    In deep random networks rounding grows from layer to layer, to any size.
    """
    reference.set_batch(len(x))
    reference.predict(x)
    given = {-1: torch.from_numpy(x)}
    worst = (0.0, -1)
    with torch.inference_mode():
        for layer in network.layers:
            if layer.type == "cost":
                continue
            output = layer(*(given[source] for source in layer.sources))
            expected = reference.layer_output(layer.index).reshape(output.shape)
            given[layer.index] = torch.from_numpy(expected)
            difference = np.abs(output.numpy() - expected).max() / max(np.abs(expected).max(), 1e-30)
            worst = max(worst, (float(np.nan_to_num(difference, nan=np.inf)), layer.index))
    return worst


def check_layers(
    darknet,
    text: str,
    folder: Path,
    seed: int = 0,
    batch: int = 2,
    tolerance: float = TOLERANCE,
    size: tuple[int, int] | None = None,
    fuse: bool = False,
) -> Network:
    """Every layer of the network of ``text`` gives Darknet's values on random images; the network.

    With ``size`` both networks take that width and height first. ``fuse``: Darknet's is fused first, as AlexeyAB's
    verbs do it.

    ``darknet`` is the driver of either library, and the network follows that program and its batch norm on the CPU.
    """
    network, cfg, weights = network_of(text, folder, seed, darknet.numerics, darknet.program)
    reference = darknet.load_network(cfg, weights)
    if size is not None:
        network.resize(*size)
        reference.resize(*size)
    if fuse:
        reference.fuse()
    x = np.random.default_rng(seed).random((batch, *network.input), np.float32)
    difference, index = worst_layer(network, reference, x)
    assert difference <= tolerance, f"layer {index} [{network.layers[index].type}] is off by {difference:.2g}"
    return network


def check_gradients(
    darknet, text: str, folder: Path, seed: int = 0, tolerance: float = TOLERANCE, but: tuple[str, ...] = ()
) -> None:
    """The gradients of weights, biases and scales are those that Darknet sums up for (truth - output)^2 / 2.

    Those of layers of a type in ``but`` are passed over. AlexeyAB's program on a CPU leaves out the biases that come
    after a batch norm.
    """
    network, cfg, weights = network_of(text + "[cost]\n", folder, seed, darknet.numerics, darknet.program)
    reference = darknet.load_network(cfg, weights)
    rng = np.random.default_rng(seed)
    x = rng.random((reference.batch, *network.input), np.float32)
    truth = rng.random((reference.batch, network.layers[-1].output.outputs), np.float32)
    reference.train_step(x, truth, update=False)
    output = network.train()(torch.from_numpy(x))
    ((torch.from_numpy(truth).reshape(output.shape) - output).square().sum() / 2).backward()
    updates = {"weights": "weight_updates", "biases": "bias_updates", "scales": "scale_updates"}
    for layer in network.layers:
        for name, parameter in layer.named_parameters() if layer.type not in but else ():
            expected = -reference.layer_tensor(layer.index, updates[name])
            if name == "biases" and darknet.program == "alexeyab" and getattr(layer, "batch_normalize", False):
                assert not expected.any()
                continue
            difference = np.abs(parameter.grad.numpy().reshape(-1) - expected).max() / np.abs(expected).max()
            assert difference <= tolerance, f"layer {layer.index} [{layer.type}] {name}: off by {difference:.2g}"


def check_weights(darknet, text: str, folder: Path, seed: int = 0) -> None:
    """Darknet reads the .weights file written here, and writes the same bytes; they come back in here unchanged."""
    network, cfg, weights = network_of(text, folder, seed, darknet.numerics, darknet.program)
    save_weights(network, weights)
    theirs, again = folder / "theirs.weights", folder / "again.weights"
    darknet.load_network(cfg, weights).save_weights(theirs)
    assert theirs.read_bytes() == weights.read_bytes()
    fresh = load_network(cfg, theirs, program=darknet.program)
    save_weights(fresh, again)
    assert again.read_bytes() == weights.read_bytes()


def net(width: int, height: int, channels: int, *sections: str, batch: int = 2) -> str:
    """A cfg text of [net] and the given sections."""
    head = f"[net]\nbatch={batch}\nwidth={width}\nheight={height}\nchannels={channels}\n"
    return head + "\n".join(sections) + "\n"
