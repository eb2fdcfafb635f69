"""A network as an ONNX graph: one function per section type, a few nodes each.

The graph uses operators that OpenCV's dnn, ONNX Runtime and OpenVINO all read. Its names follow the cfg:
``layers.0.weights``, ``layers.0.Conv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from .. import __version__
from ..errors import ExportError
from ..layers import Layer, Shape
from ..layers.activation import EPS, Activation
from ..layers.base import PJREDDIE
from ..layers.batchnorm import Batchnorm, root
from ..layers.blur import blur_kernel, blur_size
from ..layers.connected import Connected
from ..layers.convolutional import Convolutional
from ..layers.crop import Crop
from ..layers.deconvolutional import Deconvolutional
from ..layers.head import Head
from ..layers.implicit import Implicit
from ..layers.local import Local
from ..layers.local_avgpool import LocalAvgpool
from ..layers.maxpool import Maxpool, Windows
from ..layers.normalization import Normalization
from ..layers.route import Route
from ..layers.sam import Sam
from ..layers.scale_channels import ScaleChannels
from ..layers.shortcut import Shortcut
from ..network import Network

OPSET = 13  # the first whose Softmax takes one axis
IR_VERSION = 8  # of the same time, so that OpenCV 4 reads it
LARGEST = 2**31 - 1  # bytes of a protobuf message

Size = int | str  # a number, or the name of an int64 value of one element


class Graph:
    """The nodes and numbers of a graph that grows from its inputs to its outputs.

    Values are names. ``dynamic``: height and width are known only when the graph runs.
    """

    def __init__(self, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.prefix = ""
        self.nodes: list[onnx.NodeProto] = []
        self.numbers: list[TensorProto] = []
        self._names: Counter[str] = Counter()

    def name(self, name: str) -> str:
        """``name`` behind the prefix, with a number where it is taken."""
        name = f"{self.prefix}{name}"
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; returns that output, which has the node's name."""
        name = self.name(operator)
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, values: Any, name: str = "constant") -> str:
        """Add float32 numbers to the graph."""
        values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
        return self._number(np.asarray(values, np.float32), name)

    def integers(self, *values: int) -> str:
        """Add a vector of int64 numbers to the graph."""
        return self._number(np.array(values, np.int64), "integers")

    def _number(self, values: np.ndarray, name: str) -> str:
        name = self.name(name)
        self.numbers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def size(self, x: str, layer: Layer) -> tuple[Size, Size]:
        """Height and width of ``x``, the input of ``layer``."""
        if not self.dynamic:
            return layer.input.h, layer.input.w
        shape = self.node("Shape", x)
        return self.part(shape, 0, 2, 3), self.part(shape, 0, 3, 4)

    def image_size(self, image: Shape) -> str:
        """Width and height of the network's input."""
        if not self.dynamic:
            return self.constant([image.w, image.h], "image")
        shape = self.node("Shape", "images")
        width, height = self.part(shape, 0, 3, 4), self.part(shape, 0, 2, 3)
        return self.node("Cast", self.node("Concat", width, height, axis=0), to=TensorProto.FLOAT)

    def compute(self, operator: str, size: Size, by: int) -> Size:
        """A size times ("Mul") or by ("Div") a number."""
        if isinstance(size, int):
            return size * by if operator == "Mul" else size // by
        return self.node(operator, size, self.integers(by))

    def reshape(self, x: str, *sizes: Size) -> str:
        """A 0 keeps the size at its place, -1 stands for what is left."""
        numbers = [size for size in sizes if isinstance(size, int)]
        if len(numbers) == len(sizes):
            return self.node("Reshape", x, self.integers(*numbers))
        parts = [self.integers(size) if isinstance(size, int) else size for size in sizes]
        return self.node("Reshape", x, self.node("Concat", *parts, axis=0))

    def part(self, x: str, axis: int, first: int, behind: int, step: int = 1) -> str:
        """``x[first:behind:step]`` along an axis."""
        return self.node("Slice", x, *(self.integers(value) for value in (first, behind, axis, step)))

    def times(self, x: str, factor: float) -> str:
        return x if factor == 1 else self.node("Mul", x, self.constant(factor))

    def plus(self, x: str, term: float) -> str:
        return self.node("Add", x, self.constant(term))

    def cells(self, height: Size, width: Size) -> tuple[str, str]:
        """Column and row of every cell (1, 1, h, w, 2), and width and height."""
        if isinstance(height, int) or isinstance(width, int):
            row, column = np.mgrid[:height, :width]
            return self.constant(np.stack([column, row], -1)[None, None], "cells"), self.constant(
                [width, height], "grid"
            )
        zero, one = self.constant(0.0), self.constant(1.0)
        numbers = []
        for size in (width, height):
            count = self.node("Cast", self.node("Squeeze", size), to=TensorProto.FLOAT)
            numbers.append(self.node("Range", zero, count, one))
        column = self.reshape(numbers[0], 1, -1, 1)
        row = self.reshape(numbers[1], -1, 1, 1)
        shape = self.node("Concat", height, width, self.integers(1), axis=0)
        cells = self.node("Concat", self.node("Expand", column, shape), self.node("Expand", row, shape), axis=2)
        size = self.node("Cast", self.node("Concat", width, height, axis=0), to=TensorProto.FLOAT)
        return cells, size

    @staticmethod
    def refuse(layer: Layer, what: str) -> ExportError:
        return ExportError(f"{layer.section.error(what)}; .pt2 and .safetensors hold every network")


Converter = Callable[..., str]
CONVERTERS: dict[str, Converter] = {}


def converts(type: str) -> Callable[[Converter], Converter]:
    """Make a function (graph, layer, *inputs) -> output the one for a section type."""

    def keep(function: Converter) -> Converter:
        if type in CONVERTERS:
            raise ValueError(f"[{type}] has two functions")
        CONVERTERS[type] = function
        return function

    return keep


def build(network: Network, *, batch: int | str = 1, dynamic: bool = False, nms: tuple[float, float] | None = None,
          raw: bool = False) -> onnx.ModelProto:  # fmt: skip
    """The graph of a fused network.

    Input ``images`` (batch, channels, height, width): float32 RGB, 0..1. ``batch`` is a number or a name, for any
    number. ``dynamic``: height and width are any that the network can take.

    Outputs of a network whose heads find boxes: ``boxes`` (batch, B, 4): x, y, w, h, relative to the input, x and y at
    the centre; ``probabilities`` (batch, B, classes): objectness times class. B counts the boxes of all heads, in
    Darknet's order. With ``nms`` = (least probability, most IOU) also ``selected`` (M, 3): image, class and box of
    what non-maximum suppression leaves, classes apart, the most probable first.

    A network without such heads has one output, ``output``: the last layer's values. With ``raw`` the heads are left
    away, and the maps that enter them are the outputs, in order.

    Raises :class:`ExportError` where a layer has no ONNX form.
    """
    graph = Graph(dynamic)
    kept = {-1: "images"}
    read = {source for layer in network.layers for source in layer.sources}
    raw_maps: dict[Head, str] = {}
    for layer in network.layers:
        if any(source not in kept for source in layer.sources):
            raise graph.refuse(layer, "a layer that reads what a head gives has no ONNX form here")
        inputs = [kept[source] for source in layer.sources]
        if isinstance(layer, Head) and layer.finds_boxes:
            raw_maps[layer] = inputs[0]
            continue
        if isinstance(layer, Head) and network.detectors and layer.index not in read:
            continue  # it is for training alone
        if layer.type not in CONVERTERS:
            raise graph.refuse(layer, f"[{layer.type}] has no ONNX form here")
        graph.prefix = f"layers.{layer.index}."
        kept[layer.index] = CONVERTERS[layer.type](graph, layer, *inputs)
    if raw or not raw_maps:
        ends = list(raw_maps.values()) or [kept[len(network.layers) - 1]]
        values = {"output" if len(ends) == 1 else f"output.{index}": end for index, end in enumerate(ends)}
    else:
        values = _heads(graph, raw_maps)
        if nms is not None:
            values["selected"] = suppression(graph, values, *nms)
    graph.prefix = ""
    for name, value in values.items():
        graph.nodes.append(helper.make_node("Identity", [value], [name], name))
    return _model(graph, network, batch, list(values))


def _heads(graph: Graph, raw_maps: dict[Head, str]) -> dict[str, str]:
    """The outputs of all heads; boxes and probabilities of one head stand behind those of the head before."""
    parts: dict[str, list[str]] = {}
    for head, raw in raw_maps.items():
        graph.prefix = f"layers.{head.index}."
        for name, value in head.graph(graph, raw).items():
            parts.setdefault(name, []).append(value)
    graph.prefix = "heads."
    return {
        name: values[0] if len(values) == 1 else graph.node("Concat", *values, axis=1) for name, values in parts.items()
    }


def _model(graph: Graph, network: Network, batch: int | str, outputs: list[str]) -> onnx.ModelProto:
    c, h, w = network.input
    size = ("height", "width") if graph.dynamic else (h, w)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "darknet",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, (batch, c, *size))],
            [
                helper.make_tensor_value_info(
                    name, TensorProto.INT64 if name == "selected" else TensorProto.FLOAT, _rank(name)
                )
                for name in outputs
            ],
            graph.numbers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="darknet_compat",
        producer_version=__version__,
    )
    if model.ByteSize() > LARGEST:
        raise ExportError(
            f"{network.cfg.file}: the graph takes {model.ByteSize():,} bytes; an .onnx file holds at most {LARGEST:,}; "
            ".pt2 and .safetensors hold every network"
        )
    return model


def _rank(name: str) -> list[None] | None:
    """An output's sizes: only how many there are, as every reader works them out by itself; of some not even that."""
    kind = name.split(".")[0]
    known = {"boxes": 3, "probabilities": 3, "selected": 2, "output": 4}
    return [None] * known[kind] if kind in known else None


# One function per section type.


@converts("convolutional")
def _convolutional(graph: Graph, layer: Convolutional, x: str) -> str:
    o, padding = layer.o, layer.padding
    if o.xnor:
        above = graph.node("Greater", x, graph.constant(0))
        x = graph.node("Where", above, graph.constant(1), graph.constant(-1))
        if layer.outside:
            sides = (0, 0, padding, padding) * 2
            x, padding = graph.node("Pad", x, graph.integers(*sides), graph.constant(layer.outside)), 0
    x = graph.node(
        "Conv", x, graph.constant(layer.used_weights(), "weights"), graph.constant(layer.owner.biases, "biases"),
        kernel_shape=[o.size] * 2, strides=layer.own_strides, pads=[padding] * 4, dilations=[layer.dilation] * 2,
        group=layer.groups,
    )  # fmt: skip
    return _blur(graph, layer, _activate(graph, layer.activation, x))


def _blur(graph: Graph, layer: Convolutional | Maxpool, x: str) -> str:
    if not layer.o.antialiasing:
        return x
    (size, padding), channels = blur_size(layer.o.antialiasing), layer.output.c
    kernel = graph.constant(blur_kernel(layer.o.antialiasing, channels, torch.empty(())), "blur")
    return graph.node(
        "Conv", x, kernel, kernel_shape=[size] * 2,
        strides=layer.strides, pads=[padding] * 4, group=channels,
    )  # fmt: skip


@converts("connected")
def _connected(graph: Graph, layer: Connected, x: str) -> str:
    x = graph.node(
        "Gemm", graph.node("Flatten", x), graph.constant(layer.weights, "weights"),
        graph.constant(layer.biases, "biases"), transB=1,
    )  # fmt: skip
    return _activate(graph, layer.activation, graph.reshape(x, 0, layer.output.c, 1, 1))


@converts("deconvolutional")
def _deconvolutional(graph: Graph, layer: Deconvolutional, x: str) -> str:
    o = layer.o
    x = graph.node(
        "ConvTranspose", x, graph.constant(layer.weights, "weights"), graph.constant(layer.biases, "biases"),
        kernel_shape=[o.size] * 2, strides=[o.stride] * 2, pads=[layer.padding] * 4,
    )  # fmt: skip
    return _activate(graph, layer.activation, x)


@converts("local")
def _local(graph: Graph, layer: Local, x: str) -> str:
    o, c, (filters, h, w) = layer.o, layer.input.c, layer.output
    # Each filter picks one value of the window: (N, c*size*size, h, w), the columns of im2col.
    picks = np.tile(np.eye(o.size**2), (c, 1)).reshape(-1, 1, o.size, o.size)
    x = graph.node(
        "Conv", x, graph.constant(picks, "picks"), kernel_shape=[o.size] * 2, strides=[o.stride] * 2,
        pads=[o.pad] * 4, group=c,
    )  # fmt: skip
    x = graph.node("Transpose", graph.reshape(x, 0, -1, h * w), perm=[2, 0, 1])
    x = graph.node("MatMul", x, graph.constant(layer.weights.transpose(1, 2), "weights"))
    x = graph.reshape(graph.node("Transpose", x, perm=[1, 2, 0]), 0, filters, h, w)
    x = graph.node("Add", x, graph.constant(layer.biases.view(1, filters, h, w), "biases"))
    return _activate(graph, layer.activation, x)


@converts("crop")
def _crop(graph: Graph, layer: Crop, x: str) -> str:
    if graph.dynamic:
        raise graph.refuse(layer, "[crop] of an image of any size has no ONNX form here; expected no -dynamic")
    odd = []
    for axis in (1, 2):
        left, size = layer.input[axis] - layer.output[axis], layer.output[axis]
        odd.append(left % 2 if layer.numerics != "cpu" else 0)
        x = graph.part(x, axis + 1, left // 2, left // 2 + size + odd[-1])
    if any(odd):
        x = graph.node("AveragePool", x, kernel_shape=[1 + odd[0], 1 + odd[1]])
    return x if layer.o.noadjust else graph.plus(graph.times(x, 2), -1)


@converts("normalization")
def _normalization(graph: Graph, layer: Normalization, x: str) -> str:
    # LRN takes odd sizes only, in some programs; the mean over a window of rows, a row per channel, takes any.
    o, c, (before, behind) = layer.o, layer.input.c, layer.around
    height, width = graph.size(x, layer)
    window = before + 1 + behind
    means = graph.node(
        "AveragePool", graph.reshape(graph.node("Mul", x, x), 0, 1, c, -1), kernel_shape=[window, 1],
        pads=[before, 0, behind, 0], count_include_pad=1,
    )  # fmt: skip
    sums = graph.reshape(graph.plus(graph.times(means, o.alpha * window), o.kappa), 0, c, height, width)
    return graph.node("Mul", x, graph.node("Pow", sums, graph.constant(-o.beta)))


@converts("l2norm")
def _l2norm(graph: Graph, layer: Layer, x: str) -> str:
    return graph.node("Div", x, graph.node("ReduceL2", x, axes=[1], keepdims=1))


@converts("logistic")
def _logistic(graph: Graph, layer: Layer, x: str) -> str:
    return graph.node("Sigmoid", x)


@converts("batchnorm")
def _batchnorm(graph: Graph, layer: Batchnorm, x: str) -> str:
    factor = layer.scales.double() / root(layer.rolling_variance.double(), layer.numerics)
    term = layer.biases.double() - layer.rolling_mean.double() * factor
    x = graph.node("Mul", x, graph.constant(factor.reshape(-1, 1, 1)))
    return graph.node("Add", x, graph.constant(term.reshape(-1, 1, 1)))


@converts("activation")
def _activation(graph: Graph, layer: Activation, x: str) -> str:
    return _activate(graph, layer.activation, x)


def _activate(graph: Graph, activation: str, x: str) -> str:
    """src/activations.h in ONNX's operators, and AlexeyAB's src/activations.c."""
    if activation == "linear":
        return x
    plain = {"logistic": "Sigmoid", "relu": "Relu", "tanh": "Tanh", "elu": "Elu"}
    if activation in plain:
        return graph.node(plain[activation], x)
    if activation in ("leaky", "revleaky", "relie"):
        return graph.node("LeakyRelu", x, alpha=0.01 if activation == "relie" else 0.1)
    if activation == "swish":
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    if activation == "mish":
        return graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))
    if activation == "hard_mish":
        half = graph.plus(graph.times(x, 0.5), 1)
        return graph.node("Mul", x, graph.node("Clip", half, graph.constant(0), graph.constant(1)))
    if activation == "gelu":
        cube = graph.node("Mul", x, graph.plus(graph.times(graph.node("Mul", x, x), 0.044715), 1))
        return graph.node("Mul", x, graph.node("Sigmoid", graph.times(cube, 2 * (2 / np.pi) ** 0.5)))
    if activation.startswith("normalize_channels"):
        if activation.endswith("maxval"):
            x = graph.node("Sub", x, graph.node("ReduceMax", x, axes=[1]))
        x = graph.node("Exp" if "softmax" in activation else "Relu", x)
        total = graph.node("ReduceSum", x, graph.integers(1))
        return graph.node("Div", x, graph.plus(total, EPS))
    if activation == "selu":
        return graph.node("Selu", x, alpha=1.6732, gamma=1.0507)
    if activation == "loggy":
        return graph.plus(graph.times(graph.node("Sigmoid", x), 2), -1)
    if activation == "ramp":
        return graph.node("Add", graph.node("Relu", x), graph.times(x, 0.1))
    if activation == "stair":
        # floor(x/2), and in every second step what is left of x
        half, step = graph.node("Floor", graph.times(x, 0.5)), graph.node("Floor", x)
        odd = graph.node("Sub", step, graph.times(half, 2))
        return graph.node("Add", half, graph.node("Mul", odd, graph.node("Sub", x, step)))
    # The others are straight between two bounds, and flatter beyond them.
    low, high, flat = {"hardtan": (-1, 1, 0), "relu6": (0, 6, 0), "lhtan": (0, 1, 0.001), "plse": (-4, 4, 0.01)}[
        activation
    ]
    middle = graph.node("Clip", x, graph.constant(low), graph.constant(high))
    inside = graph.plus(graph.times(middle, 0.125), 0.5) if activation == "plse" else middle
    if not flat:
        return inside
    return graph.node("Add", inside, graph.times(graph.node("Sub", x, middle), flat))


def _windows(graph: Graph, layer: Windows, operator: str, x: str, **attributes: Any) -> str:
    """MaxPool or AveragePool over a layer's windows."""
    before = layer.padding // 2
    after = layer.padding - before
    pads = [before, before, after, after]
    if after >= layer.size:  # which neither takes; the windows of an AveragePool are never so
        least = graph.constant(np.finfo(np.float32).min)
        x = graph.node("Pad", x, graph.integers(0, 0, *pads[:2], 0, 0, *pads[2:]), least)
        pads = [0] * 4
    return graph.node(operator, x, kernel_shape=[layer.size] * 2, strides=layer.own_strides, pads=pads, **attributes)


@converts("maxpool")
def _maxpool(graph: Graph, layer: Maxpool, x: str) -> str:
    if not layer.o.maxpool_depth:
        return _blur(graph, layer, _windows(graph, layer, "MaxPool", x))
    (c, _, _), out, (height, width) = layer.input, layer.o.out_channels, graph.size(x, layer)
    if c % out:
        least = graph.constant(np.finfo(np.float32).min)
        x = graph.node("Pad", x, graph.integers(0, 0, 0, 0, 0, -c % out, 0, 0), least)
    x = graph.reshape(x, 0, -(-c // out), out, height, width)
    return graph.node("ReduceMax", x, axes=[1], keepdims=0)


@converts("local_avgpool")
def _local_avgpool(graph: Graph, layer: LocalAvgpool, x: str) -> str:
    return _windows(graph, layer, "AveragePool", x, count_include_pad=0)


@converts("avgpool")
def _avgpool(graph: Graph, layer: Layer, x: str) -> str:
    return graph.node("GlobalAveragePool", x)


@converts("route")
def _route(graph: Graph, layer: Route, *sources: str) -> str:
    if layer.o.groups > 1:
        sources = tuple(
            graph.part(source, 1, *layer.part(shape.c)) for source, shape in zip(sources, layer.inputs, strict=True)
        )
    if len(sources) == 1:
        return sources[0]
    if layer.output[1:] != layer.input[1:]:
        sources = tuple(graph.reshape(source, 0, -1, 1, 1) for source in sources)
    return graph.node("Concat", *sources, axis=1)


@converts("reorg")
def _reorg(graph: Graph, layer: Layer, x: str) -> str:
    o, s, c = layer.o, layer.o.stride, layer.input.c
    if o.extra:
        return graph.reshape(graph.node("Pad", graph.node("Flatten", x), graph.integers(0, 0, 0, o.extra)), 0, -1, 1, 1)
    height, width = graph.size(x, layer)
    if o.flatten:
        sizes = (-1, c) if o.reverse else (c, -1)
        x = graph.node("Transpose", graph.reshape(x, 0, *sizes), perm=[0, 2, 1])
    elif o.reverse:
        x = graph.node("Transpose", graph.reshape(x, 0, s, s, c // (s * s), height, width), perm=[0, 3, 4, 1, 5, 2])
    else:
        x = graph.node("Transpose", graph.reshape(x, 0, c // (s * s), height, s, width, s), perm=[0, 3, 5, 1, 2, 4])
    way = "Mul" if o.reverse else "Div"
    return graph.reshape(x, 0, layer.output.c, graph.compute(way, height, s), graph.compute(way, width, s))


@converts("reorg3d")
def _reorg3d(graph: Graph, layer: Layer, x: str) -> str:
    s, (c, _, _), (height, width) = layer.o.stride, layer.input, graph.size(x, layer)
    if layer.o.reverse:
        x = graph.node("Transpose", graph.reshape(x, 0, s, s, c // (s * s), height, width), perm=[0, 3, 4, 1, 5, 2])
        return graph.reshape(x, 0, layer.output.c, graph.compute("Mul", height, s), graph.compute("Mul", width, s))
    height, width = graph.compute("Div", height, s), graph.compute("Div", width, s)
    x = graph.node("Transpose", graph.reshape(x, 0, c, height, s, width, s), perm=[0, 3, 5, 1, 2, 4])
    return graph.reshape(x, 0, layer.output.c, height, width)


@converts("implicit")
def _implicit(graph: Graph, layer: Implicit, x: str) -> str:
    images = graph.part(graph.node("Shape", x), 0, 0, 1)
    shape = graph.node("Concat", images, graph.integers(*layer.output), axis=0)
    return graph.node("Expand", graph.constant(layer.weights.unsqueeze(0), "weights"), shape)


@converts("scale_channels")
@converts("sam")
def _product(graph: Graph, layer: ScaleChannels | Sam, before: str, earlier: str) -> str:
    return _activate(graph, layer.activation, graph.node("Mul", earlier, before))


def _fit_channels(graph: Graph, x: str, found: int, wanted: int) -> str:
    """The first channels of ``x``, or ``x`` with channels of zeros behind."""
    if found > wanted:
        return graph.part(x, 1, 0, wanted)
    if found < wanted:
        return graph.node("Pad", x, graph.integers(0, 0, 0, 0, 0, wanted - found, 0, 0))
    return x


@converts("shortcut")
def _shortcut(graph: Graph, layer: Shortcut, before: str, *earlier: str) -> str:
    if layer.program == PJREDDIE:
        out = _strided_shortcut(graph, layer, before, *earlier)
    else:
        maps = [
            _fit_channels(graph, x, shape.c, layer.output.c)
            for x, shape in zip((before, *earlier), layer.inputs, strict=True)
        ]
        if layer.weighted:
            factors = zip(maps, layer.factors(), strict=True)
            maps = [graph.node("Mul", x, graph.constant(factor, "weights")) for x, factor in factors]
        out = maps[0]
        for x in maps[1:]:
            out = graph.node("Add", out, x)
    return _activate(graph, layer.activation, out)


def _strided_shortcut(graph: Graph, layer: Shortcut, before: str, earlier: str) -> str:
    o, ((c2, h2, w2), (c1, h1, w1)) = layer.o, layer.inputs
    stride = max(w1 // w2, 1)
    if (h2, w2) != (-(-h1 // stride), -(-w1 // stride)) or (o.alpha != 1 and c1 < c2):
        raise graph.refuse(layer, "a [shortcut] between maps of these sizes has no ONNX form here")
    if stride > 1:
        earlier = graph.part(graph.part(earlier, 2, 0, LARGEST, stride), 3, 0, LARGEST, stride)
    earlier = _fit_channels(graph, earlier, c1, c2)
    return graph.node("Add", graph.times(before, o.alpha), graph.times(earlier, o.beta))


@converts("upsample")
def _upsample(graph: Graph, layer: Layer, x: str) -> str:
    s = layer.o.stride
    if s < 0:
        x = graph.times(graph.node("AveragePool", x, kernel_shape=[-s] * 2, strides=[-s] * 2), s * s)
    else:
        scales = graph.constant([1, 1, s, s])
        x = graph.node(
            "Resize", x, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
        )
    return graph.times(x, layer.o.scale)


@converts("dropout")
@converts("empty")
@converts("contrastive")
@converts("cost")
def _same(graph: Graph, layer: Layer, x: str) -> str:
    return x


@converts("softmax")
def _softmax(graph: Graph, layer: Layer, x: str) -> str:
    if layer.o.tree:
        raise graph.refuse(layer, "[softmax] with tree= has no ONNX form here")
    if layer.o.spatial:
        return graph.node("Softmax", x, axis=1)
    groups = layer.o.groups
    x = graph.times(graph.reshape(x, 0, groups, layer.input.outputs // groups), 1 / layer.o.temperature)
    return graph.reshape(graph.node("Softmax", x, axis=2), 0, *layer.output)


def suppression(graph: Graph, values: dict[str, str], thresh: float, nms: float) -> str:
    """Non-maximum suppression: (M, 3) int64 rows of image, class and box."""
    scores = graph.node("Transpose", values["probabilities"], perm=[0, 2, 1])
    return graph.node(
        "NonMaxSuppression", values["boxes"], scores, graph.integers(LARGEST), graph.constant([nms]),
        graph.constant([thresh]), center_point_box=1,
    )  # fmt: skip
