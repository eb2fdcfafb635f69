"""``-fast``: what is quicker and changes the last digits.

On a GPU ``torch.compile`` makes one program of the layers and the losses. Where the images keep their size it is a CUDA
graph too: the host starts it in one call, in the place of one for each operation. With ``random=1`` it is one program
for all sizes, whose shapes are variables. One for each size would take a minute or more of compiling each, of which
there are ten, or in AlexeyAB's program any number; and torch.compile gives up after eight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import TrainingError, first_line
from ..layers.base import Shape
from ..layers.recurrent import Recurrent
from ..network import Network
from .schedule import drawn_sizes

Losses = Callable[[Tensor, Tensor, "int | Tensor"], tuple[Tensor, Tensor]]
"""Images, their truth and the images seen -> the loss, and what is logged."""


def speed_up(network: Network, losses: Losses) -> Losses:
    """Lay out weights and images channels last; on a GPU allow TF32, let cuDNN try its algorithms, and compile.

    On a CPU compiling takes a minute and gains 5 %, so it is left.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads lack it
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True
    if network.device.type == "cuda":
        losses = compiled(network, losses)
    return lambda images, truth, seen: losses(images.contiguous(memory_format=torch.channels_last), truth, seen)


def compiled(network: Network, losses: Losses) -> Losses:
    """``losses`` as one program, made when it is first called. Raises :class:`TrainingError`, now or then, where there
    cannot be one.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # a second to import
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    if any(head.gradient == "true" and head.has_own_delta for head in network.heads):
        raise TrainingError(
            "on a GPU -fast and -gradient true exclude each other: torch.compile differentiates a loss, and this one "
            "differentiates too; expected one of them"
        )

    sizes = bool(drawn_sizes(network))
    # A recurrent layer's state stays from call to call, and a CUDA graph's memory is its own.
    fixed = not sizes and not any(isinstance(layer, Recurrent) for layer in network.layers)

    def sized(images: Tensor, truth: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        for head in network.heads:
            head.image = Shape(*images.shape[1:])  # as variables: its numbers would be parts of the program
        return losses(images, truth, seen)

    # Of a code torch.compile makes eight programs, and then none: each training has a code of its own.
    sized.__code__ = sized.__code__.replace()
    # Unless torch lays out the maps of convolutions itself, channels last as here, their strides in a backward pass are
    # parts of the program (torch/_inductor/kernel/conv.py, convolution_backward_lowering): one for each size.
    run = torch.compile(sized, fullgraph=True, options={"triton.cudagraphs": fixed, "force_layout_optimization": sizes})

    def call(images: Tensor, truth: Tensor, seen: int | Tensor) -> tuple[Tensor, Tensor]:
        if sizes:
            # These and no others: with dynamic=True torch.compile takes two sizes that are equal at first for one, and
            # a side for the number of filters of a layer.
            torch._dynamo.maybe_mark_dynamic(images, [0, 2, 3])
            torch._dynamo.maybe_mark_dynamic(truth, 0)
        torch.compiler.cudagraph_mark_step_begin()
        # As a number it would be a part of the program, and there would be a new one for each.
        count = torch.full((), int(seen), device=images.device)
        try:
            loss, figures = run(images, truth, count)
        except (TorchDynamoException, FailOnRecompileLimitHit, GuardOnDataDependentSymNode) as error:
            losses(images, truth, seen)  # what is wrong with the network or the truth says so here
            raise TrainingError(
                f"-fast: torch.compile cannot compile the network: {first_line(error)}; train without -fast"
            ) from None
        # The next call of a CUDA graph writes over its outputs.
        return loss, figures.clone()

    return call
