"""[deconvolutional]: transposed convolution, then batch normalisation or biases, then an activation.

Source: ``src/deconvolutional_layer.c``, ``src/parser.c, parse_deconvolutional``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import PJREDDIE, Place, Shape, register
from .batchnorm import Normalised, fold


@register("deconvolutional")
class Deconvolutional(Normalised):
    """Tensors: ``weights`` (c, filters, size, size), ``biases`` (filters,); with ``batch_normalize=1`` also
    ``scales``, ``rolling_mean`` and ``rolling_variance`` (filters,). In a file they stand as a convolution's.
    """

    options = {
        "filters": 1,
        "size": 1,
        "stride": 1,
        "pad": 0,
        "padding": 0,
        "activation": "logistic",
        "batch_normalize": 0,
    }
    only = PJREDDIE
    resizable = False

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        o = self.o
        self.activation = activation_name(section, o.activation, place.program)
        self.weights = nn.Parameter(self.tensor(self.input.c, o.filters, o.size, o.size))
        self.make_biases(o.filters, place)

    @property
    def padding(self) -> int:
        padding: int = self.o.size // 2 if self.o.pad else self.o.padding
        return padding

    def shape(self) -> Shape:
        o, (_, h, w) = self.o, self.input
        for name in ("filters", "size", "stride"):
            self.at_least(name, 1)
        self.at_least("padding", 0)
        return Shape(o.filters, *((side - 1) * o.stride + o.size - 2 * self.padding for side in (h, w)))

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.batch_normalize else self.biases
        x = F.conv_transpose2d(x, self.weights, bias, self.o.stride, self.padding)
        if self.batch_normalize:
            x = self.normalise(x)
        return ACTIVATIONS[self.activation](x)

    def folded(self) -> dict[str, Tensor]:
        # The filters stand second.
        weights = self.weights.transpose(0, 1)
        folded = fold(weights, self.biases, self.scales, self.rolling_mean, self.rolling_variance, self.numerics)
        return {**folded, "weights": folded["weights"].transpose(0, 1).contiguous()}

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        names = ["biases"]
        if self.batch_normalize and not (loading and self.o.dontloadscales):
            names += ["scales", "rolling_mean", "rolling_variance"]
        return [(name, getattr(self, name)) for name in (*names, "weights")]

    def start(self) -> None:
        (_, h, w), (_, out_h, out_w) = self.input, self.output
        nn.init.normal_(self.weights, std=0.02 * out_w * out_h / (w * h))
        self.start_biases()

    def row(self) -> str:
        o, i, out = self.o, self.input, self.output
        return (
            f"deconv{o.filters:5d} {o.size:2d} x{o.size:2d} /{o.stride:2d}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )

    def flops(self) -> float:
        return 2.0 * self.weights.numel() * self.input.h * self.input.w

    def window(self) -> tuple[int, int]:
        return -(-self.o.size // self.o.stride), 1
