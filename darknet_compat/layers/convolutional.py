"""[convolutional]: convolution, then batch normalisation or biases, then an activation.

Source: ``src/convolutional_layer.c``, ``src/parser.c, parse_convolutional`` of both programs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import ALEXEYAB, Place, Shape, register
from .batchnorm import Normalised
from .blur import blur, blurred_shape


def signs(x: Tensor) -> Tensor:
    """1 above 0, -1 elsewhere; in training the gradient goes through where -1 < x < 1 (binarize_gpu, HARDTAN)."""
    clipped = F.hardtanh(x)
    return clipped + (torch.where(x > 0, 1.0, -1.0).to(x) - clipped).detach()


def binary_weights(weights: Tensor) -> Tensor:
    """Each filter's mean magnitude, with each weight's sign; in training the gradient goes through as it is."""
    mean = weights.abs().mean((1, 2, 3), keepdim=True)
    return weights + (torch.where(weights > 0, mean, -mean) - weights).detach()


@register("convolutional")
class Convolutional(Normalised):
    """Tensors: ``weights`` (filters, c/groups, size, size), ``biases`` (filters,); with ``batch_normalize=1`` also
    ``scales``, ``rolling_mean`` and ``rolling_variance`` (filters,), and the biases come after the normalisation.

    With ``share_index`` it has none and uses those of an earlier layer. ``binary=1`` takes the weights as
    :func:`binary_weights`, ``xnor=1`` the input as :func:`signs` too; what lies outside of the image is then 0, but for
    AlexeyAB's program in inference, which counts bits: there it is -1.
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
    alexeyab = {
        "stride_x": int,
        "stride_y": int,
        "dilation": 1,
        "antialiasing": 0,
        "share_index": int,
        "cbn": 0,
        # In training alone.
        **dict.fromkeys(("sway", "rotate", "stretch", "stretch_sway", "grad_centr", "coordconv"), 0),
        **{"angle": 15.0, "reverse": 0.0, "assisted_excitation": 0.0},
        # How it runs: what follows takes the signs alone, so that the activation can be left out; streams of a GPU.
        **{"bin_output": 0, "stream": -1, "wait_stream": -1},
    }
    untrained = (
        *("cbn", "sway", "rotate", "stretch", "stretch_sway", "grad_centr", "coordconv", "reverse"),
        "assisted_excitation",
    )

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        o = self.o
        if o.batch_normalize == 2:
            o.cbn = 1
        elif o.cbn:
            o.batch_normalize = 2
        if sum(map(bool, (o.sway, o.rotate, o.stretch, o.stretch_sway))) > 1:
            raise section.error("expected one of sway, rotate, stretch and stretch_sway, or none")
        self.activation = activation_name(section, o.activation, place.program)
        # Not a module of this one: its tensors are another layer's.
        self.shared: tuple[Convolutional, ...] = ()
        if o.share_index is None:
            self.weights = nn.Parameter(self.tensor(o.filters, self.input.c // self.groups, o.size, o.size))
            self.make_biases(o.filters, place)
        else:
            self.shared = (self._find_shared(place),)
            self.batch_normalize = bool(o.batch_normalize)

    def _find_shared(self, place: Place) -> Convolutional:
        index = self.earlier(self.o.share_index, place, "share_index")
        other = place.layers[index]
        if not isinstance(other, Convolutional):
            raise self.section.error(f"layer {index} is [{other.type}]; expected a [convolutional]", "share_index")
        found, expected = (
            (layer.o.filters, layer.o.size, layer.input.c // layer.groups, int(bool(layer.o.batch_normalize)))
            for layer in (other, self)
        )
        if found != expected:
            raise self.section.error(
                f"layer {index} has filters, size, channels per group and batch_normalize {found}; "
                f"expected this layer's, {expected}",
                "share_index",
            )
        return other.owner

    @property
    def owner(self) -> Convolutional:
        """The layer that has the tensors: this one, but for ``share_index``."""
        return self.shared[0] if self.shared else self

    def separate(self) -> None:
        """Take a copy of the tensors that ``share_index`` points to, for programs that hold each layer for itself."""
        if self.shared:
            for name, tensor in self.owner.named_parameters():
                setattr(self, name, nn.Parameter(tensor.detach().clone()))
            self.shared = ()

    @property
    def padding(self) -> int:
        """At each side, in places of the input."""
        return (self.o.size // 2 if self.o.pad else self.o.padding) * self.dilation

    @property
    def dilation(self) -> int:
        return self.o.dilation if self.o.size > 1 else 1

    @property
    def strides(self) -> tuple[int, int]:
        """Down and across, of the convolution and its blur together."""
        down, across = ((own if own and own > 0 else self.o.stride) for own in (self.o.stride_y, self.o.stride_x))
        return down, across

    @property
    def own_strides(self) -> tuple[int, int]:
        """Down and across, of the convolution alone."""
        return (1, 1) if self.o.antialiasing else self.strides

    @property
    def groups(self) -> int:
        return 1 if self.o.xnor and self.program == ALEXEYAB else self.o.groups

    @property
    def outside(self) -> float:
        """What the input is taken to be outside of the image."""
        return -1.0 if self.o.xnor and self.program == ALEXEYAB and not self.training else 0.0

    def used_weights(self) -> Tensor:
        """The weights as the convolution takes them."""
        weights = self.owner.weights
        return binary_weights(weights) if self.o.binary or self.o.xnor else weights

    def shape(self) -> Shape:
        o, groups = self.o, self.groups
        for name in ("filters", "size", "stride", "groups", "dilation"):
            self.at_least(name, 1)
        self.at_least("padding", 0)
        self.check_padding(2 * self.padding)
        if self.input.c % groups or o.filters % groups:
            raise self.section.error(
                f"{self.input.c} channels and {o.filters} filters do not both divide into {groups} groups", "groups"
            )
        padding = self.padding // self.dilation
        if self.dilation > 1 and 2 * padding != o.size - 1:
            # convolutional_out_height passes over the dilation, im2col_cpu_ext does not: right where they agree.
            raise self.section.error(
                f"padding {padding} with dilation={o.dilation}; expected pad=1 and an odd size, for which Darknet "
                "computes the right size",
                "dilation",
            )
        sides = zip(self.input[1:], self.own_strides, strict=True)
        out = Shape(o.filters, *((side + 2 * padding - o.size) // stride + 1 for side, stride in sides))
        return blurred_shape(out, o.antialiasing, self.strides) if o.antialiasing else out

    def forward(self, x: Tensor) -> Tensor:
        owner, padding = self.owner, self.padding
        if self.o.xnor:
            x = signs(x)
            if self.outside:
                x, padding = F.pad(x, [padding] * 4, value=self.outside), 0
        bias = None if self.batch_normalize else owner.biases
        x = F.conv2d(x, self.used_weights(), bias, self.own_strides, padding, self.dilation, self.groups)
        if self.batch_normalize:
            x = owner.normalise(x)
        x = ACTIVATIONS[self.activation](x)
        return blur(x, self.o.antialiasing, self.strides) if self.o.antialiasing else x

    def folded(self) -> dict[str, Tensor]:
        return {} if self.shared else super().folded()

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        if self.shared:
            return []
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
        if self.shared:
            return
        fan_in = self.o.size * self.o.size * self.input.c // self.groups
        bound = (2 / fan_in) ** 0.5
        if self.program == ALEXEYAB:
            nn.init.uniform_(self.weights, -bound, bound)
        else:
            nn.init.normal_(self.weights, std=bound)
        self.start_biases()

    def row(self) -> str:
        o, i, out, (down, across) = self.o, self.input, self.output, self.strides
        # The kinds and the sizes that only AlexeyAB's program prints.
        kind = "convXB" if o.xnor and o.bin_output else "convX " if o.xnor else "convS " if self.shared else "conv  "
        if down != across:
            size = f"{o.size:2d}x{o.size:2d}/{across:2d}x{down:2d} "
        elif self.dilation > 1:
            size = f"{o.size:2d} x{o.size:2d}/{across:2d}({self.dilation:1d})"
        else:
            size = f"{o.size:2d} x{o.size:2d} /{across:2d}  "
        return (
            f"{kind if self.program == ALEXEYAB else 'conv  '}{o.filters:5d} {size}{i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}  {self.flops() / 1e9:5.3f} BFLOPs"
        )

    def flops(self) -> float:
        o, (_, h, w) = self.o, self.output
        return 2.0 * o.filters * o.size * o.size * self.input.c / self.groups * h * w

    def window(self) -> tuple[int, int]:
        return self.dilation * (self.o.size - 1) + 1, max(self.strides)
