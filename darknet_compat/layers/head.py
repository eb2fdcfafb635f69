"""What every head is: a layer that says what its values mean, and how far that is from the truth.

A head finds boxes in a map, or it classifies: its values are probabilities, which the next layer may read like any
others. A network has any number of heads, anywhere in it. Training and the log loop over ``network.heads``, detection,
engines and export over ``network.detectors``, and ask; none of them knows a head by name. A new head is one file in
this folder with one class in it, made known by :func:`darknet_compat.layers.register`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ..cfg import Section
from ..errors import CfgWarning, DataError
from ..tree import read_map
from .base import Layer, Place, Shape

if TYPE_CHECKING:
    from ..export.graph import Graph


class Boxes(NamedTuple):
    """What heads find in N images: B boxes each, in the order in which Darknet lists them."""

    xywh: Tensor
    """(N, B, 4): the centre, width and height, relative to the network's input."""
    objectness: Tensor
    """(N, B), 0 where it is not over the threshold."""
    prob: Tensor
    """(N, B, classes), 0 where it is not over the threshold."""


class HeadLoss(NamedTuple):
    """``loss`` is for autograd; ``figures`` is for the log."""

    loss: Tensor
    figures: Any
    """The head's own ``Figures``, tensors of one number each."""


class Head(Layer):
    """A layer whose input the truth is held against in training.

    ``forward`` activates the raw map that enters. A head that finds boxes sets ``finds_boxes``, has the options
    ``classes``, ``max``, ``jitter`` and ``random``, and defines :meth:`boxes`, :meth:`average_mirrored` and
    :meth:`graph`. Every head defines the rest; one without :meth:`loss` is for detection alone. One that classifies is
    a :class:`ClassHead`.
    """

    finds_boxes: ClassVar[bool] = False
    lists_all: ClassVar[bool] = True
    """Does Darknet list every box, or only those with an objectness?"""
    stretches: ClassVar[bool] = False
    """Was it made for images that are stretched over the network's input, whatever [net] says?"""
    nms_kind: str = "default"
    """The kind of suppression (``boxes.py``, nms_sort), and its exponent; the network's last head decides."""
    beta_nms: float = 0.6
    Figures: type
    """A NamedTuple of what is logged of a mini-batch; its first field is ``cost``, what Darknet prints as the loss."""
    columns: tuple[str, ...]
    """Names of the head's columns in the log's table."""
    chooses_classes: bool = False
    """Does ``class_map`` of :meth:`boxes` choose among the classes (of a tree)?"""
    gradient: Literal["darknet", "true"] = "darknet"
    """How to train by losses whose delta in Darknet is not their derivative: by that delta, or by the derivative."""
    class_only: bool = False
    """May a truth have a class and no place?"""
    alexeyabs_number: int | None = None
    """Of the layer's type in AlexeyAB's program, where ``detector test`` prints it (``darknet.h``, LAYER_TYPE)."""
    image: Shape
    """That of the network's input."""
    remark: str | None = None
    """What the log says of it as training starts, where its loss may surprise."""

    def set_shape(self, place: Place) -> None:
        super().set_shape(place)
        self.image = place.image

    @property
    def relative_anchors(self) -> Tensor | None:
        """Widths and heights of the cfg's anchors, relative to the network's input, (k, 2) on the processor; None where
        there are none."""
        return None

    @property
    def has_own_delta(self) -> bool:
        """Is the delta of this head's loss in Darknet another than the loss's derivative (see :attr:`gradient`)?"""
        return False

    @property
    def truth_classes(self) -> int:
        """How many classes a truth may name."""
        classes: int = self.o.classes
        return classes

    def boxes(self, output: Tensor, thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None) -> Boxes:
        """The boxes in an activated map (N, c, h, w).

        ``hier`` and ``class_map`` are for trees: how sure one must be to go deeper, and which classes to ask for.
        """
        raise NotImplementedError

    def listed(self, output: Tensor, thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None) -> Boxes:
        """Of :meth:`boxes` those that Darknet lists; a head that does not list all of them overrides this."""
        return self.boxes(output, thresh, hier, class_map)

    def average_mirrored(self, output: Tensor, mirrored: Tensor) -> Tensor:
        """The mean of an activated map and of the one of the mirrored image, as ``valid2`` has it."""
        raise NotImplementedError

    def loss(self, raw: Tensor, truth: Tensor, seen: int | Tensor) -> HeadLoss:
        """The loss of the raw map that enters, in float32, and the figures of the mini-batch. Waits for no device.

        ``truth`` (N, T, 5) holds rows x, y, w, h, class, relative to the image; an image's rows end at the first x of
        0. For a head that classifies it is (N, classes), 1 for the classes that an image shows. ``seen`` counts the
        images of the whole training so far, these included.
        """
        raise NotImplementedError

    def line(self, figures: Any) -> str:
        """What Darknet prints of a mini-batch; "" where that is nothing."""
        raise NotImplementedError

    def rewritten(self, figures: Any) -> tuple[float, float]:
        """How many boxes were trained toward more than one truth, and how many at all, where Darknet counts that."""
        return 0, 0

    def totals(self, figures: Sequence[Any]) -> dict[str, float]:
        """The columns of an update, from the figures of its mini-batches; NaN where there is none."""
        raise NotImplementedError

    def graph(self, graph: Graph, x: str) -> dict[str, str]:
        """A head that finds boxes as nodes of an ONNX graph, behind the raw map ``x``: the names of its outputs,
        ``boxes`` and ``probabilities``, as :meth:`boxes` with a threshold of 0.
        """
        raise NotImplementedError


class ClassFigures(NamedTuple):
    """What is logged of a mini-batch of a head that classifies."""

    cost: Any
    right: Any
    """Images whose largest value is where their truth is largest."""
    images: Any


class ClassHead(Head):
    """A head that classifies. It defines :meth:`error`; ``forward`` gives its probabilities to the layers behind it.

    Where a layer behind it is a head too, that one's gradient goes through it as it is (:func:`handed_on`).
    """

    Figures = ClassFigures
    columns = ("cost", "accuracy")

    def error(self, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Of float32 values that enter, and their truth, both (N, values): Darknet's delta, and the cost."""
        raise NotImplementedError

    def loss(self, raw: Tensor, truth: Tensor, seen: int | Tensor) -> HeadLoss:
        x = raw.flatten(1).float()
        if truth.shape != x.shape:
            raise self.section.error(
                f"a truth of shape {tuple(truth.shape)}; expected {tuple(x.shape)}: one number per class for each image"
            )
        with torch.no_grad():
            delta, cost = self.error(x, truth)
            most = truth.amax(1)
            right = (truth.gather(1, x.argmax(1, keepdim=True))[:, 0] == most) & (most > 0)
            figures = ClassFigures(cost, right.sum().float(), cost.new_full((), len(x)))
        return HeadLoss(with_delta(x, delta, cost), figures)

    def line(self, figures: ClassFigures) -> str:
        return ""

    def totals(self, figures: Sequence[ClassFigures]) -> dict[str, float]:
        images = sum(one.images for one in figures)
        return {
            "cost": sum(one.cost for one in figures) / images,
            "accuracy": sum(one.right for one in figures) / images,
        }


class _Delta(torch.autograd.Function):
    """``value``, whose gradient in the raw map is minus ``delta``."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, delta: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        return -gradient * delta, None, None


def with_delta(raw: Tensor, delta: Tensor, value: Tensor) -> Tensor:
    """``value``, whose gradient in ``raw`` is minus ``delta``."""
    loss: Tensor = _Delta.apply(raw, delta, value)  # type: ignore[no-untyped-call]  # torch's own
    return loss


class _HandedOn(torch.autograd.Function):
    """``output``, whose gradient goes on to the raw map as it is."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, output: Tensor) -> Tensor:
        ctx.shape = raw.shape
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.reshape(ctx.shape), None


def handed_on(raw: Tensor, output: Tensor) -> Tensor:
    """What a head gives to the layers behind it in training: ``output``, whose gradient becomes that of ``raw``.

    Every head of Darknet adds its delta, and with it what came from behind, to the layer before as it is: no derivative
    of a softmax or a logistic enters (``src/softmax_layer.c, backward_softmax_layer``).
    """
    given: Tensor = _HandedOn.apply(raw, output)  # type: ignore[no-untyped-call]  # torch's own
    return given


def focal(p: Tensor) -> Tensor:
    """By how much AlexeyAB's ``focal_loss`` multiplies the deltas of classes, that of the truth being ``p``."""
    p = p + 1e-15
    factor: Tensor = -0.5 * (1 - p) * (2 * p * p.log() + p - 1)
    return factor


def average_mirrored(output: Tensor, mirrored: Tensor, num: int) -> Tensor:
    """The mean of an activated map of ``num`` boxes per cell and of the mirrored image's, as ``valid2`` has it.

    As get_region_detections and avg_flipped_yolo do it for a batch of 2, to the letter: each row of the second map is
    turned around, and what is taken for x is negated, which are the first ``num`` planes, except in the middle column
    of an odd width. These are planes of the first box, and a logistic x would need 1 - x: with Darknet's own
    arithmetic ``valid2`` scores worse than ``valid``.
    """
    back = mirrored.flip(3)
    width = back.shape[3]
    sign = back.new_ones(back.shape[1], 1, width)
    sign[:num] = -1
    if width % 2:
        sign[:num, :, width // 2] = 1
    return (output + sign * back) / 2


def fill_anchors(anchors: Tensor, given: Sequence[float]) -> None:
    """Fill (num, 2) widths and heights with the numbers of ``anchors=``; those missing are .5, as in Darknet."""
    anchors.fill_(0.5)
    anchors.view(-1)[: len(given)] = torch.tensor(given)


def check_anchors(section: Section, given: Sequence[float], num: int) -> None:
    """Refuse more numbers than ``num`` anchors have, and warn of fewer."""
    expected = 2 * num
    if len(given) > expected:
        raise section.error(f"{len(given)} anchor numbers; expected 2*num = {expected}", "anchors")
    if given and len(given) < expected:
        message = f"{len(given)} anchor numbers; expected 2*num = {expected}: the others are .5, as in Darknet"
        warnings.warn(str(section.error(message, "anchors")), CfgWarning, stacklevel=2)


def read_class_map(section: Section, path: str | None, classes: int) -> Tensor | None:
    """The numbers of a ``map=`` file, from a truth's class to the head's; the last entry is for all out of range."""
    if not path:
        return None
    try:
        numbers = read_map(path)
    except DataError as error:
        raise section.error(str(error), "map") from None
    if numbers and max(numbers) >= classes:
        line = numbers.index(max(numbers)) + 1
        raise section.error(f"line {line} of {path} is beyond classes={classes}", "map")
    return torch.tensor([*numbers, -1])
