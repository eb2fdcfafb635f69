"""[connected]: every input to every output, then batch normalisation or biases, then an activation.

Source: ``src/connected_layer.c``, ``src/parser.c, load_connected_weights``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import Place, Shape, register
from .batchnorm import Normalised


@register("connected")
class Connected(Normalised):
    """Tensors: ``weights`` (output, inputs), ``biases`` (output,); with ``batch_normalize=1`` also ``scales``,
    ``rolling_mean`` and ``rolling_variance`` (output,). Inputs run through channels, rows, columns.
    """

    options = {"output": 1, "activation": "logistic", "batch_normalize": 0}
    resizable = False

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)
        self.weights = nn.Parameter(self.tensor(self.o.output, self.input.outputs))
        self.make_biases(self.o.output, place)

    def shape(self) -> Shape:
        self.at_least("output", 1)
        return Shape(self.o.output, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.batch_normalize else self.biases
        x = F.linear(x.flatten(1), self.weights, bias)[:, :, None, None]
        if self.batch_normalize:
            x = self.normalise(x)
        return ACTIVATIONS[self.activation](x)

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        tensors = [("biases", self.biases), ("weights", self.weights.t() if transposed else self.weights)]
        if self.batch_normalize and not (loading and self.o.dontloadscales):
            tensors += [(name, getattr(self, name)) for name in ("scales", "rolling_mean", "rolling_variance")]
        return tensors

    def start(self) -> None:
        bound = (2 / self.input.outputs) ** 0.5
        nn.init.uniform_(self.weights, -bound, bound)
        self.start_biases()

    def row(self) -> str:
        return f"connected                            {self.input.outputs:4d}  ->  {self.output.outputs:4d}"
