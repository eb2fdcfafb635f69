"""[activation]: one function on every value; and the table of all of both Darknets' activations.

Source: ``src/activations.h``, ``src/activation_layer.c``; ``src/activations.c`` of AlexeyAB's program.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cfg import Section
from .base import ALEXEYAB, Layer, Place, register


def _stair(x: Tensor) -> Tensor:
    step = torch.floor(x)
    return torch.where((step % 2 == 0) | (x == step), torch.floor(x / 2), x - step + torch.floor(x / 2))


def _plse(x: Tensor) -> Tensor:
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x <= 0, 0.001 * x, torch.where(x >= 1, 0.001 * (x - 1) + 1, x))


def _selu(x: Tensor) -> Tensor:
    # Not F.elu, whose gradient at 0 is that below it. The clamp keeps an infinity out of the branch not taken.
    return 1.0507 * torch.where(x >= 0, x, 1.6732 * torch.expm1(x.clamp(max=0)))


def _hard_mish(x: Tensor) -> Tensor:
    return x * ((x + 2) / 2).clamp(0, 1)


EPS = 1e-4  # activate_array_normalize_channels


def _normalize_channels(x: Tensor) -> Tensor:
    x = F.relu(x)
    return x / (EPS + x.sum(1, keepdim=True))


def _normalize_channels_softmax(x: Tensor) -> Tensor:
    x = x.exp()
    return x / (EPS + x.sum(1, keepdim=True))


def _normalize_channels_softmax_maxval(x: Tensor) -> Tensor:
    return _normalize_channels_softmax(x - x.amax(1, keepdim=True))


# The constants are those of src/activations.h. Of pjreddie's, its gradients are the true derivatives, and where two
# pieces meet its choice of the two, so autograd gives them. Of AlexeyAB's some are not, and autograd gives the true
# ones (docs/DIFFERENCES.md).
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": torch.sigmoid,
    "loggy": lambda x: 2 * torch.sigmoid(x) - 1,
    "relu": F.relu,
    "elu": F.elu,
    "selu": _selu,
    "relie": lambda x: F.leaky_relu(x, 0.01),
    "ramp": lambda x: F.relu(x) + 0.1 * x,
    "linear": lambda x: x,
    "tanh": torch.tanh,
    "plse": _plse,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "stair": _stair,
    "hardtan": F.hardtanh,
    "lhtan": _lhtan,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "hard_mish": _hard_mish,
    "mish": F.mish,
    "normalize_channels": _normalize_channels,
    "normalize_channels_softmax": _normalize_channels_softmax,
    "normalize_channels_softmax_maxval": _normalize_channels_softmax_maxval,
    "relu6": F.relu6,
    "revleaky": lambda x: F.leaky_relu(x, 0.1),
    "swish": F.silu,
}


# Those that look at all channels of a place; every other one maps a value to a value.
ACROSS_CHANNELS = ("normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval")
# Those that AlexeyAB's program alone knows.
ALEXEYAB_ACTIVATIONS = ("gelu", "hard_mish", "mish", *ACROSS_CHANNELS, "relu6", "revleaky", "swish")


def activation_name(section: Section, name: str, program: str) -> str:
    """``name`` if the program has such an activation; the program itself would take relu in silence."""
    known = sorted(name for name in ACTIVATIONS if program == ALEXEYAB or name not in ALEXEYAB_ACTIVATIONS)
    if name not in known:
        raise section.error(f"no activation is called {name!r}; expected one of {', '.join(known)}", "activation")
    return name


@register("activation")
class Activation(Layer):
    """One activation on every value of the layer before."""

    options = {"activation": "linear"}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](x)

    def row(self) -> str:
        return f"Activation Layer: {self.input.outputs} inputs"
