"""The torch engine: batch normalisation folded, weights laid out for the processor, activations in the same pass.

On processors it calls oneDNN by the functions that torch's own compiler uses, and leaves out arithmetic by Winograd's
method where that pays. Where torch has no oneDNN, and on GPUs, it is the fused network in channels-last order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.activation import ACROSS_CHANNELS, ACTIVATIONS
from ..layers.blur import blur
from ..layers.convolutional import Convolutional, signs
from ..layers.maxpool import Maxpool
from ..layers.recurrent import Recurrent
from ..network import Network

Function = Callable[[Tensor], Tensor]
Predict = Callable[[Tensor], list[Tensor]]  # as Network.predict

# What oneDNN applies to a sum before it is stored: torch's name, its constants and its form. (mish is none of them.)
POINTWISE = {
    "linear": ("none", [], ""),
    "leaky": ("leaky_relu", [0.1], ""),
    "revleaky": ("leaky_relu", [0.1], ""),
    "relie": ("leaky_relu", [0.01], ""),
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "hardtan": ("hardtanh", [-1.0, 1.0], ""),
    "logistic": ("sigmoid", [], ""),
    "tanh": ("tanh", [], ""),
    "swish": ("swish", [], ""),
    "gelu": ("gelu", [], "tanh"),
}
PART = 2**18  # numbers that stay in the cores' caches


def mish_of_negative_(y: Tensor) -> Tensor:
    """mish(-y) in place of y: with r = 1/(1 + e^-y), tanh(log(1 + e^-y)) is 2/(1 + r^2) - 1.

    Three passes, where F.mish computes three functions for every number. A convolution with weights and biases
    negated gives y. bf16 is computed in float32 and rounded once.
    """
    one = torch.ones((), device=y.device)
    for part in (y if y.is_contiguous() else y.permute(0, 2, 3, 1)).view(-1).split(PART):
        exact = part.float()
        r = exact.sigmoid()
        exact.addcdiv_(exact, torch.addcmul(one, r, r, out=r), value=-2)
        if exact is not part:
            part.copy_(exact)
    return y


# On values that nothing else reads, these need no second map.
IN_PLACE: dict[str, Function] = {
    "leaky": functools.partial(F.leaky_relu_, negative_slope=0.1),
    "mish": mish_of_negative_,
    "swish": functools.partial(F.silu, inplace=True),
}
# Winograd's method for 3x3: outputs per tile and side -> the points of its polynomials, besides infinity. Those of 4
# lose the fewest digits (Barabasz et al., Error analysis and improving the accuracy of Winograd convolution, 2018).
POINTS = {2: (0, 1, -1), 4: (0, 1, -1, 0.5, -2)}
# Its costs in multiply-adds, measured within whole networks: one value through the transforms, one weight from memory.
VALUE_COST, WEIGHT_COST = {torch.float32: 180, torch.bfloat16: 160}, 18


def pack(network: Network, precision: str, batch: int) -> Predict:
    """A function with the values of ``network.predict``: within 1e-4 for "float32", rounded in between for "bf16".

    With "bf16" the first convolution and those that make a head's map stay in float32: rounding the first one's
    weights alone makes most of the map's error, and they are a small part of the work.

    Recurrent layers start from a state of zeros, and go on from call to call.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    fused = network.plain()
    into_heads = [fused.layers[head.sources[0]] for head in fused.detectors if head.sources[0] >= 0]
    ends = {fused.layers[0]: dtype, **dict.fromkeys(into_heads, torch.float32)}
    exact = {layer: after for layer, after in ends.items() if isinstance(layer, Convolutional)}
    inputs = torch.float32 if fused.layers[0] in exact else dtype
    onednn = device_of(network) == "cpu" and has_onednn()
    # From the end, where most are large: what they leave is memory enough for the others.
    for layer in reversed(fused.layers):
        network.fill_plain(fused, layer.index)
        if isinstance(layer, Convolutional) and layer.shared:
            network.fill_plain(fused, layer.owner.index)
            layer.separate()
        own = torch.float32 if layer in exact else dtype
        # A torch module runs a forward of its own; mypy wants the class's.
        if onednn and isinstance(layer, Maxpool):
            layer.forward = functools.partial(_maxpool, layer)  # type: ignore[method-assign]
        if onednn and isinstance(layer, Convolutional):
            layer.forward = _convolution(layer, batch, own)  # type: ignore[method-assign, assignment]
            del layer.weights  # its place is taken by those in oneDNN's order
        layer.to(own)
    if not onednn:
        fused = fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads lack it
    if precision == "bf16":
        for layer, after in exact.items():
            layer.forward = _in_float32(layer.forward, after)  # type: ignore[method-assign, assignment]

    # cuDNN would round float32 to 10 bits of fraction.
    cuda = device_of(network) != "cpu"
    full_fractions = (
        functools.partial(torch.backends.cudnn.flags, enabled=True, allow_tf32=False) if cuda else nullcontext
    )

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        images = images.to(inputs)
        with full_fractions():
            return [output.float() for output in fused.predict(images)]

    # A recurrent layer has a state for each row, so no call may be filled up or cut.
    recurrent = any(isinstance(layer, Recurrent) for layer in fused.layers)
    return in_batches(run, batch) if onednn and not recurrent else run


def _in_float32(forward: Function, after: torch.dtype) -> Function:
    return lambda x: forward(x.float()).to(after)


def in_batches(run: Predict, batch: int) -> Predict:
    """``run``, which takes ``batch`` images, for any number of them."""

    def run_any(images: Tensor) -> list[Tensor]:
        if len(images) == batch:
            return run(images)
        missing = -len(images) % batch
        filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        parts = [run(part) for part in filled.split(batch)]
        return [torch.cat(outputs)[: len(images)] for outputs in zip(*parts, strict=True)]

    return run_any


def device_of(network: Network) -> str:
    """Where the network's tensors are: "cpu" or "cuda"."""
    return next((tensor.device.type for tensor in network.state_dict().values()), "cpu")


@functools.cache
def has_onednn() -> bool:
    """Has this torch the functions of oneDNN that are used here, for this processor?"""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    try:
        weights = torch.ones(1, 1, 1, 1)
        weights = torch.ops.mkldnn._reorder_convolution_weight(weights, [0, 0], [1, 1], [1, 1], 1, [1, 1, 1, 1])
        return _onednn(torch.ones(1, 1, 1, 1), weights, None, 0, (1, 1), 1, 1, "linear").item() == 1
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def _onednn(
    x: Tensor,
    weights: Tensor,
    biases: Tensor | None,
    padding: int,
    strides: tuple[int, int],
    dilation: int,
    groups: int,
    activation: str,
) -> Tensor:
    done: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weights, biases, [padding] * 2, strides, [dilation] * 2, groups, *POINTWISE[activation]
    )
    return done


def _reordered(
    weights: Tensor, padding: int, strides: tuple[int, int], dilation: int, groups: int, shape: list[int]
) -> Tensor:
    reordered: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weights.detach(), [padding] * 2, strides, [dilation] * 2, groups, shape
    )
    return reordered


def _convolution(layer: Convolutional, batch: int, dtype: torch.dtype) -> Function:
    """The forward of a fused convolution in float32, for values of ``dtype``."""
    tile = winograd_tile(layer, batch, dtype)
    if tile:
        return winograd(layer, tile, batch, dtype)
    o, around = layer.o, layer.padding if layer.outside else 0
    biases = _signed(layer, layer.biases.detach())  # in float32: they are added before the sum is rounded
    how = layer.padding - around, layer.own_strides, layer.dilation, layer.groups
    c, h, w = layer.input
    weights = _signed(layer, layer.used_weights()).to(dtype)
    weights = _reordered(weights, *how, [batch, c, h + 2 * around, w + 2 * around])
    inside = layer.activation if layer.activation in POINTWISE else "linear"
    activate = activation_in_place(layer)

    def forward(x: Tensor) -> Tensor:
        if o.xnor:
            x = F.pad(signs(x), [around] * 4, value=layer.outside)
        x = _onednn(x, weights, biases, *how, inside)
        if inside != layer.activation:
            x = activate(x)
        return blur(x, o.antialiasing, layer.strides) if o.antialiasing else x

    return forward


def _signed(layer: Convolutional, numbers: Tensor) -> Tensor:
    """A layer's weights or biases as :func:`activation_in_place` wants them."""
    return -numbers if layer.activation == "mish" else numbers


def activation_in_place(layer: Convolutional) -> Function:
    """The layer's activation, for values that nothing else reads, by weights of :func:`_signed`."""
    return IN_PLACE.get(layer.activation, ACTIVATIONS[layer.activation])


def _maxpool(layer: Maxpool, x: Tensor) -> Tensor:
    """The largest of each window's rows, and of these the largest: fewer comparisons, and no places kept."""
    o, size, (down, across) = layer.o, layer.size, layer.own_strides
    around = layer.around(*x.shape[2:])
    if o.maxpool_depth:
        return Maxpool.forward(layer, x)
    inside = size // 2 if set(around) == {size // 2} else 0  # F.max_pool2d pads by itself what is equal on all sides
    if any(around) and not inside:
        x = F.pad(x, around, value=float("-inf"))
    if size == down == across == 2:
        h, w = (side // 2 * 2 for side in x.shape[2:])
        x = torch.maximum(x[:, :, 0:h:2], x[:, :, 1:h:2])
        x = torch.maximum(x[..., 0:w:2], x[..., 1:w:2])
    else:
        x = F.max_pool2d(x, (size, 1), (down, 1), (inside, 0))
        x = F.max_pool2d(x, (1, size), (1, across), (0, inside))
    return blur(x, o.antialiasing, layer.strides) if o.antialiasing else x


def winograd_tile(layer: Convolutional, batch: int, dtype: torch.dtype) -> int:
    """The side of Winograd's tiles that needs the least time for a layer; 0 where plain convolution does.

    In bf16 tiles of 4 would lose five times as many digits as plain convolution; those of 2 lose 1.6 times as many.
    """
    o, (c, _, _), (filters, h, w) = layer.o, layer.input, layer.output
    if (o.size, layer.strides, layer.padding, layer.groups) != (3, (1, 1), 1, 1):
        return 0
    if layer.dilation > 1 or o.binary or o.xnor or o.antialiasing:
        return 0
    if layer.activation in ACROSS_CHANNELS:  # what comes out of the tiles has its channels elsewhere
        return 0
    costs = {0: 9 * batch * h * w * c * filters}
    for tile in POINTS if dtype == torch.float32 else (2,):
        tiles = batch * -(-h // tile) * -(-w // tile)
        multiplied = c * filters * (tiles + WEIGHT_COST)
        costs[tile] = (tile + 2) ** 2 * (multiplied + VALUE_COST[dtype] * tiles * (c + filters))
    return min(costs, key=costs.__getitem__)


def winograd_matrices(tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float64 matrices A (tile, n), G (n, 3) and B (n, n), n = tile+2, of Winograd's method along one side.

    The correlation of d (n,) with g (3,) is ``A @ ((G @ g) * (B @ d))``. Derived as by Toom and Cook: polynomials are
    multiplied by way of their values at n-1 points and at infinity.
    """
    points = np.array(POINTS[tile], float)
    n = len(points) + 1
    others = [np.delete(points, i) for i in range(n - 1)]
    scale = np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)])
    a = np.concatenate([np.vander(points, tile, increasing=True).T, np.eye(tile)[:, -1:]], 1)
    g = np.concatenate([np.vander(points, 3, increasing=True) / scale[:, None], np.eye(3)[-1:]])
    b = np.zeros((n, n))
    for i, roots in enumerate([*others, points]):
        b[i, : len(roots) + 1] = np.poly(roots)[::-1]
    return a, g, b


def winograd(layer: Convolutional, tile: int, batch: int, dtype: torch.dtype) -> Function:
    """A 3x3 convolution of stride 1 and padding 1 with (tile+2)^2 / (9*tile^2) of the multiplications."""
    n = tile + 2
    # Along both sides at once: the Kronecker product of each matrix with itself.
    a, g, b = (torch.from_numpy(np.kron(matrix, matrix)).float() for matrix in winograd_matrices(tile))
    (c, _, _), (filters, h, w) = layer.input, layer.output
    tiles = -(-h // tile) * -(-w // tile)
    # So many images at a time that the weights are not read for too few of them, while the tiles stay in the cache.
    wanted = c * filters / (2 * tiles * (c + filters))
    together = max(count for count in range(1, batch + 1) if batch % count == 0 and (count == 1 or count <= wanted))
    # One 1x1 convolution of n*n groups multiplies all of them, over the tiles as its image.
    weights = (g @ _signed(layer, layer.weights.detach()).reshape(-1, 9).T).reshape(n * n * filters, c, 1, 1)
    weights = _reordered(weights.to(dtype), 0, (1, 1), 1, n * n, [1, n * n * c, together * tiles, 1])
    # The values of point 1 go into every output with factor 1, so the biases can be added there.
    biases = torch.zeros(n * n, filters)
    biases[n + 1] = _signed(layer, layer.biases.detach())
    biases, a, b = biases.flatten(), a.to(dtype), b.to(dtype)
    activate = activation_in_place(layer)

    def forward(x: Tensor) -> Tensor:
        images, _, h, w = x.shape
        if images > together:
            return torch.cat([forward(part) for part in x.split(together)])
        down, across = -(-h // tile), -(-w // tile)
        x = F.pad(x, (1, across * tile + 1 - w, 1, down * tile + 1 - h)).permute(0, 2, 3, 1)
        x = x.unfold(1, n, tile).unfold(2, n, tile).permute(0, 1, 2, 4, 5, 3)
        x = (b @ x.reshape(-1, n * n, c)).reshape(1, -1, 1, n * n * c).permute(0, 3, 1, 2)
        x = _onednn(x, weights, biases, 0, (1, 1), 1, n * n, "linear")
        x = activate(a @ x.permute(0, 2, 3, 1).reshape(-1, n * n, filters))
        x = x.reshape(images, down, across, tile, tile, filters).transpose(2, 3)
        x = x.reshape(images, down * tile, across * tile, filters)
        return x[:, :h, :w].permute(0, 3, 1, 2)

    return forward
