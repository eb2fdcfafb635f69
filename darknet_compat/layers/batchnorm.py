"""[batchnorm], and the batch normalisation that [convolutional] and [connected] share.

Source: ``src/batchnorm_layer.c``, ``src/blas.c, normalize_cpu``, ``src/blas_kernels.cu``.

Darknet normalises in three ways, told apart by ``numerics``:

========  ======================================  ==================================
numerics  a batch is normalised by                the running variance takes
========  ======================================  ==================================
cudnn     its biased variance, eps 1e-5 in root   its unbiased variance
gpu       its unbiased variance, eps 1e-5 in root its unbiased variance
cpu       its unbiased variance, root + 1e-6      its unbiased variance
========  ======================================  ==================================
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cfg import Section
from .base import ALEXEYAB, PJREDDIE, Layer, Place, register

EPS = 1e-5  # .00001 in src/blas_kernels.cu, and what src/batchnorm_layer.c passes to cuDNN
CPU_EPS = 1e-6  # .000001f in src/blas.c, normalize_cpu
MOMENTUM = 0.01  # .01 and .99 in forward_batchnorm_layer


def root(variance: Tensor, numerics: str) -> Tensor:
    """What a value less its mean is divided by, per channel."""
    if numerics == "cpu":
        return variance.sqrt() + CPU_EPS
    return (variance + EPS).sqrt()


def fold(
    weights: Tensor, biases: Tensor, scales: Tensor, rolling_mean: Tensor, rolling_variance: Tensor, numerics: str
) -> dict[str, Tensor]:
    """``weights`` (filters, ...) and ``biases`` (filters,) that need no normalisation in inference."""
    factor = scales.double() / root(rolling_variance.double(), numerics)
    folded = weights * factor.float().reshape(-1, *[1] * (weights.dim() - 1))
    return {"weights": folded, "biases": (biases.double() - rolling_mean.double() * factor).float()}


class _UnbiasedBatchNorm(torch.autograd.Function):
    """Training-mode normalisation as Darknet's own kernels do it, with Darknet's own backward.

    Its backward is that of the biased variance and of eps inside the root, whichever forward ran: it is
    written out because autograd would give the true derivative, which is another.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, scales: Tensor, biases: Tensor, numerics: str
    ) -> Tensor:
        centred = x - mean.view(1, -1, 1, 1)
        x_norm = centred / root(variance, numerics).view(1, -1, 1, 1)
        ctx.save_for_backward(centred, x_norm, variance, scales)
        return x_norm * scales.view(1, -1, 1, 1) + biases.view(1, -1, 1, 1)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        centred, x_norm, variance, scales = ctx.saved_tensors
        count = delta.numel() // delta.shape[1]
        bias_updates = delta.sum((0, 2, 3))
        scale_updates = (delta * x_norm).sum((0, 2, 3))
        delta = delta * scales.view(1, -1, 1, 1)
        inverse = (variance + EPS).rsqrt()
        mean_delta = -inverse * delta.sum((0, 2, 3))
        variance_delta = -0.5 * inverse**3 * (delta * centred).sum((0, 2, 3))
        x_delta = (
            delta * inverse.view(1, -1, 1, 1)
            + centred * (2 / count * variance_delta).view(1, -1, 1, 1)
            + (mean_delta / count).view(1, -1, 1, 1)
        )
        return x_delta, None, None, scale_updates, bias_updates, None


def batch_norm(
    x: Tensor,
    scales: Tensor,
    biases: Tensor,
    rolling_mean: Tensor,
    rolling_variance: Tensor,
    *,
    numerics: str,
    training: bool,
) -> Tensor:
    """Normalise ``x`` (N, c, h, w) per channel, then ``* scales + biases``.

    In training the batch's own mean and variance are used, and ``rolling_mean`` and ``rolling_variance`` (c,)
    move toward them in place by .01.
    """
    if numerics == "cudnn":
        return F.batch_norm(x, rolling_mean, rolling_variance, scales, biases, training, MOMENTUM, EPS)
    if not training:
        factor = scales / root(rolling_variance, numerics)
        return (x - rolling_mean.view(1, -1, 1, 1)) * factor.view(1, -1, 1, 1) + biases.view(1, -1, 1, 1)
    with torch.no_grad():
        variance, mean = torch.var_mean(x, (0, 2, 3), unbiased=True)
        rolling_mean.lerp_(mean, MOMENTUM)
        rolling_variance.lerp_(variance, MOMENTUM)
    normalised: Tensor = _UnbiasedBatchNorm.apply(  # type: ignore[no-untyped-call]  # torch's own
        x, mean, variance, scales, biases, numerics
    )
    return normalised


class Normalised(Layer):
    """What [convolutional] and [connected] share: biases, and with ``batch_normalize=1`` what comes before them."""

    weights: Tensor
    biases: Tensor
    scales: Tensor
    rolling_mean: Tensor
    rolling_variance: Tensor

    def make_biases(self, count: int, place: Place) -> None:
        """The tensors of ``count`` outputs: ``biases``; ``scales``, ``rolling_mean`` and ``rolling_variance``."""
        self.numerics = place.numerics
        self.batch_normalize = bool(self.o.batch_normalize)
        self.biases = nn.Parameter(self.tensor(count))
        if self.batch_normalize:
            self.scales = nn.Parameter(self.tensor(count))
            self.register_buffer("rolling_mean", self.tensor(count))
            self.register_buffer("rolling_variance", self.tensor(count))

    def start_biases(self) -> None:
        nn.init.zeros_(self.biases)
        if self.batch_normalize:
            nn.init.ones_(self.scales)
            self.rolling_mean.zero_()
            self.rolling_variance.zero_()

    def normalise(self, x: Tensor) -> Tensor:
        """``x`` (N, c, h, w) normalised, scaled and with its biases."""
        if self.training and x.numel() == x.shape[1]:
            raise self.section.error(
                "one value per channel in training, which has no variance; expected more images in a mini-batch "
                "(batch / subdivisions), or a larger input"
            )
        return batch_norm(
            x,
            self.scales,
            self.biases,
            self.rolling_mean,
            self.rolling_variance,
            numerics=self.numerics,
            training=self.training,
        )

    def plain_section(self) -> Section:
        """The section of a layer like this one, without batch normalisation."""
        return self.section.with_option("batch_normalize", "0").with_option("cbn", "0")

    def folded(self) -> dict[str, Tensor]:
        """Weights and biases of a layer with ``batch_normalize=0`` that gives this one's values in inference."""
        return fold(self.weights, self.biases, self.scales, self.rolling_mean, self.rolling_variance, self.numerics)


@register("batchnorm")
class Batchnorm(Normalised):
    """Batch normalisation as a layer of its own.

    pjreddie's program neither saves nor trains its biases and never updates its scales (``parser.c,
    save_batchnorm_weights``; the layer has no update function), so here both are no parameters. AlexeyAB's has the
    biases in its file, before the rest.
    """

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.resizable = self.program == ALEXEYAB  # pjreddie's resize_network passes over it
        self.numerics = place.numerics
        c = self.input.c
        # Where no file holds them they stay 0.
        self.register_buffer("biases", self.tensor(c), persistent=self.program == ALEXEYAB)
        self.register_buffer("scales", self.tensor(c))
        self.register_buffer("rolling_mean", self.tensor(c))
        self.register_buffer("rolling_variance", self.tensor(c))

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x)

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        names: tuple[str, ...] = ("scales", "rolling_mean", "rolling_variance")
        if self.program == ALEXEYAB:
            names = ("biases", *names)
        return [(name, getattr(self, name)) for name in names]

    def constants(self) -> None:
        if self.program == PJREDDIE:
            self.biases.zero_()

    def start(self) -> None:
        self.biases.zero_()
        self.scales.fill_(1)
        self.rolling_mean.zero_()
        self.rolling_variance.zero_()

    def row(self) -> str:
        return f"Batch Normalization Layer: {self.input.w} x {self.input.h} x {self.input.c} image"
