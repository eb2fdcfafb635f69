"""[shortcut]: the layer before plus earlier ones, then an activation.

Source: ``src/shortcut_layer.c``; ``src/blas.c, shortcut_cpu``, and ``shortcut_multilayer_cpu`` of AlexeyAB's program.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import ALEXEYAB, Layer, Place, Shape, register

EPS = 1e-4  # beside the sum of normalised weights
LEAST = 1e-3  # network.c, lrelu: of a weight with weights_normalization=relu in inference


@register("shortcut")
class Shortcut(Layer):
    """pjreddie's program: ``alpha * before + beta * earlier`` where both have values, ``before`` elsewhere.

    Where the earlier map is larger it is read at every stride-th place, where it is smaller it is added to every
    sample-th place; of the channels, the first ones that both have.

    AlexeyAB's: the sum of ``before`` and any number of earlier maps, which have its width and height. With
    ``weights_type`` each is multiplied by a number of its own, or by one per channel: ``weights`` (maps,) or (maps, c),
    ``before`` first. They are normalised so that they sum up to about 1.
    """

    options = {"activation": "linear"}
    pjreddie = {"from": int, "alpha": 1.0, "beta": 1.0}
    alexeyab = {"from": [int], "weights_type": "none", "weights_normalization": "none"}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        o = self.o
        self.activation = activation_name(section, o.activation, place.program)
        self.weighted = o.weights_type != "none"
        ways = ("relu", "avg_relu", "softmax")
        for name, words in (
            ("weights_type", ("none", "per_feature", "per_layer", "per_channel")),
            ("weights_normalization", ways if self.weighted else ("none", *ways)),
        ):
            if getattr(o, name) not in words:
                raise section.error(f"{name} is {getattr(o, name)}; expected one of {', '.join(words)}", name)
        if self.weighted:
            channels = (self.input.c,) if o.weights_type == "per_channel" else ()
            self.weights = nn.Parameter(self.tensor(len(self.sources), *channels))

    def find_sources(self, place: Place) -> tuple[int, ...]:
        found = getattr(self.o, "from")
        indexes = found if isinstance(found, list) else [] if found is None else [found]
        if not indexes:
            raise self.section.error("a [shortcut] needs from=; expected a layer index, such as from=-3")
        return place.index - 1, *(self.earlier(index, place, "from") for index in indexes)

    def shape(self) -> Shape:
        _, h2, w2 = self.input
        for _, h1, w1 in self.inputs[1:]:
            if self.program == ALEXEYAB and (h1, w1) != (h2, w2):
                raise self.section.error(
                    f"maps of {w1} x {h1} and {w2} x {h2}: AlexeyAB's program stops here, by an assert in "
                    "parse_shortcut; expected maps of one size, or -program pjreddie",
                    "from",
                )
            if w1 // w2 != h1 // h2 or w2 // w1 != h2 // h1:
                raise self.section.error(f"maps of {w1} x {h1} and {w2} x {h2} do not fit by one stride", "from")
        return self.input

    def factors(self) -> Tensor:
        """The normalised weights (maps, 1 or c, 1, 1). In inference they are those that fuse_conv_batchnorm makes."""
        weights: Tensor = self.weights
        if self.o.weights_normalization == "softmax":
            weights = (weights - weights.amax(0)).exp()
        else:
            weights = F.relu(weights) if self.training else weights.clamp(min=LEAST)
        weights = weights / (EPS + weights.sum(0))
        return weights.reshape(len(weights), -1, 1, 1)

    def forward(self, before: Tensor, *earlier: Tensor) -> Tensor:
        if self.program == ALEXEYAB:
            maps = (before, *earlier)
            if self.weighted:
                # A map of other channels than the sum's counts as far as both go, and so do its weights.
                parts = zip(maps, self.factors(), strict=True)
                maps = tuple(_with_channels(x, before.shape[1]) * factor for x, factor in parts)
            out = maps[0]
            for x in maps[1:]:
                out = out + _with_channels(x, before.shape[1])
        else:
            out = self._strided(before, *earlier)
        return ACTIVATIONS[self.activation](out)

    def _strided(self, before: Tensor, earlier: Tensor) -> Tensor:
        (c2, h2, w2), (c1, h1, w1) = before.shape[1:], earlier.shape[1:]
        if (c1, h1, w1) == (c2, h2, w2):
            both: Tensor = self.o.alpha * before + self.o.beta * earlier
            return both
        stride, sample = max(w1 // w2, 1), max(w2 // w1, 1)
        c, h, w = min(c1, c2), min(h1, h2), min(w1, w2)
        out = before.clone()
        out[:, :c, : h * sample : sample, : w * sample : sample] = (
            self.o.alpha * before[:, :c, : h * sample : sample, : w * sample : sample]
            + self.o.beta * earlier[:, :c, : h * stride : stride, : w * stride : stride]
        )
        return out

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        return [("weights", self.weights)] if self.weighted else []

    def start(self) -> None:
        if self.weighted:
            nn.init.ones_(self.weights)

    def row(self) -> str:
        out, i = self.inputs[:2]
        earlier = ",".join(map(str, self.sources[1:]))
        return (
            f"res  {earlier:>3s}                {i.w:4d} x{i.h:4d} x{i.c:4d}   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )


def _with_channels(x: Tensor, channels: int) -> Tensor:
    """The first channels of ``x``, or ``x`` with channels of zeros behind."""
    return x if x.shape[1] == channels else F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))
