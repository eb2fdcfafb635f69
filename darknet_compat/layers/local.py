"""[local]: a convolution whose weights are others at every place.

Source: ``src/local_layer.c``; ``src/parser.c, load_weights_upto``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import Layer, Place, Shape, register


@register("local")
class Local(Layer):
    """Tensors: ``biases`` (filters * h * w of the output), in the output's order; ``weights`` (h * w, filters,
    c * size * size), places row by row.
    """

    options = {"filters": 1, "size": 1, "stride": 1, "pad": 0, "activation": "logistic"}
    resizable = False

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)
        filters, h, w = self.output
        self.biases = nn.Parameter(self.tensor(self.output.outputs))
        self.weights = nn.Parameter(self.tensor(h * w, filters, self.input.c * self.o.size**2))

    def shape(self) -> Shape:
        o, (_, h, w) = self.o, self.input
        for name in ("filters", "size", "stride"):
            self.at_least(name, 1)
        self.at_least("pad", 0)
        self.check_padding(2 * o.pad)
        # local_out_height takes pad for a yes or no, im2col_cpu for a number of pixels.
        outputs = [(side - (1 if o.pad else o.size)) // o.stride + 1 for side in (h, w)]
        columns = [(side + 2 * o.pad - o.size) // o.stride + 1 for side in (h, w)]
        if outputs != columns:
            raise self.section.error(
                f"pad={o.pad} pads by that many pixels, which with size={o.size} makes {columns[1]} x {columns[0]} "
                f"windows for an output of {outputs[1]} x {outputs[0]}; expected pad=0, or pad=1 with size=3",
                "pad",
            )
        return Shape(o.filters, *outputs)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.o.size, padding=self.o.pad, stride=self.o.stride)
        # One product per place: (places, filters, c*size*size) by (places, c*size*size, images).
        sums = self.weights @ columns.permute(2, 1, 0)
        sums = sums.permute(2, 1, 0).reshape(-1, *self.output) + self.biases.view(1, *self.output)
        return ACTIVATIONS[self.activation](sums)

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        return [("biases", self.biases), ("weights", self.weights)]

    def start(self) -> None:
        """make_local_layer draws the weights of the first place alone; all others start at 0."""
        bound = (2 / self.weights.shape[2]) ** 0.5
        nn.init.zeros_(self.biases)
        nn.init.zeros_(self.weights)
        nn.init.uniform_(self.weights[0], -bound, bound)

    def row(self) -> str:
        (c, h, w), (filters, out_h, out_w) = self.input, self.output
        return f"Local Layer: {h} x {w} x {c} image, {filters} filters -> {out_h} x {out_w} x {filters} image"

    def flops(self) -> float:
        return 2.0 * self.weights.numel()

    def window(self) -> tuple[int, int]:
        return self.o.size, self.o.stride
