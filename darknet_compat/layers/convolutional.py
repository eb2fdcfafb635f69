"""[convolutional]: convolution, then batch normalisation or biases, then an activation.

Source: ``src/convolutional_layer.c``, ``src/parser.c, parse_convolutional``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import Place, Shape, register
from .batchnorm import Normalised


@register("convolutional")
class Convolutional(Normalised):
    """Tensors: ``weights`` (filters, c/groups, size, size), ``biases`` (filters,); with ``batch_normalize=1`` also
    ``scales``, ``rolling_mean`` and ``rolling_variance`` (filters,), and the biases come after the normalisation.
    """

    options = {
        "filters": 1,
        "size": 1,
        "stride": 1,
        "pad": 0,
        "padding": 0,
        "groups": 1,
        "activation": "logistic",
        "batch_normalize": 0,
        "binary": 0,
        "xnor": 0,
        "flipped": 0,
        "dot": 0.0,
    }

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        o = self.o
        if o.binary or o.xnor:
            raise section.error("binary and xnor convolutions are not built here; expected binary=0 and xnor=0")
        self.activation = activation_name(section, o.activation, place.program)
        self.weights = nn.Parameter(self.tensor(o.filters, self.input.c // o.groups, o.size, o.size))
        self.make_biases(o.filters, place)

    @property
    def padding(self) -> int:
        padding: int = self.o.size // 2 if self.o.pad else self.o.padding
        return padding

    def shape(self) -> Shape:
        o = self.o
        for name in ("filters", "size", "stride", "groups"):
            self.at_least(name, 1)
        self.at_least("padding", 0)
        self.check_padding(2 * self.padding)
        if self.input.c % o.groups or o.filters % o.groups:
            raise self.section.error(
                f"{self.input.c} channels and {o.filters} filters do not both divide into {o.groups} groups", "groups"
            )
        return Shape(
            o.filters,
            (self.input.h + 2 * self.padding - o.size) // o.stride + 1,
            (self.input.w + 2 * self.padding - o.size) // o.stride + 1,
        )

    def forward(self, x: Tensor) -> Tensor:
        o = self.o
        bias = None if self.batch_normalize else self.biases
        x = F.conv2d(x, self.weights, bias, o.stride, self.padding, 1, o.groups)
        if self.batch_normalize:
            x = self.normalise(x)
        return ACTIVATIONS[self.activation](x)

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        names = ["biases"]
        if self.batch_normalize and not (loading and self.o.dontloadscales):
            names += ["scales", "rolling_mean", "rolling_variance"]
        names += ["weights"]
        tensors = [(name, getattr(self, name)) for name in names]
        if loading and self.o.numload:
            tensors = [(name, tensor[: self.o.numload]) for name, tensor in tensors]
        if self.o.flipped:
            name, weights = tensors[-1]
            tensors[-1] = name, weights.flatten(1).t()
        return tensors

    def start(self) -> None:
        fan_in = self.o.size * self.o.size * self.input.c // self.o.groups
        nn.init.normal_(self.weights, std=(2 / fan_in) ** 0.5)
        self.start_biases()

    def row(self) -> str:
        o, i, out = self.o, self.input, self.output
        return (
            f"conv  {o.filters:5d} {o.size:2d} x{o.size:2d} /{o.stride:2d}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}  {self.flops() / 1e9:5.3f} BFLOPs"
        )

    def flops(self) -> float:
        o = self.o
        flops: float = 2.0 * o.filters * o.size * o.size * self.input.c / o.groups * self.output.h * self.output.w
        return flops

    def window(self) -> tuple[int, int]:
        return self.o.size, self.o.stride
