"""What every section type has in common: its place, its shapes, its numbers.

A section type is one file in this folder with one class in it, made known by
:func:`register`. The class reads its options, computes its output shape, runs,
and lists its tensors in the order of a .weights file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar, overload

import torch
from torch import Tensor, nn

from ..cfg import Section
from ..errors import CfgError

# The two Darknets; a network follows one of them (darknet_compat/program.py).
PJREDDIE, ALEXEYAB = PROGRAMS = ("pjreddie", "alexeyab")


class Shape(NamedTuple):
    """Channels, height and width of one image's values; a flat vector is (n, 1, 1)."""

    c: int
    h: int
    w: int

    @property
    def outputs(self) -> int:
        """The count of values, as Darknet's ``l.outputs``."""
        return self.c * self.h * self.w


@dataclass(frozen=True)
class Place:
    """Where a layer stands while a network is built."""

    index: int
    shapes: Sequence[Shape]
    """Output shapes of all layers before this one, in order."""
    image: Shape
    """The shape of the network's input."""
    numerics: str = "cudnn"
    """Whose batch normalisation: "cudnn", "gpu" or "cpu" (see batchnorm.py)."""
    program: str = PJREDDIE
    """Which of the two Darknets the network follows."""
    time_steps: int = 1
    """How many steps of each stream stand in a batch, for recurrent layers."""
    layers: Sequence[Layer] = ()
    """All layers before this one, in order."""

    def shape(self, index: int) -> Shape:
        """Output shape of layer ``index``; -1 is the image."""
        return self.image if index < 0 else self.shapes[index]


# Darknet counts in a C int, so no layer of a working network holds or gives more.
MOST_NUMBERS = 2**31 - 1

# Options that src/parser.c, parse_network_cfg reads in every layer section: both programs', and each one's own.
_BOTH = {"onlyforward": 0, "stopbackward": 0, "dontload": 0, "dontloadscales": 0, "learning_rate": 1.0}
COMMON: dict[str, dict[str, object]] = {
    PJREDDIE: {**_BOTH, "truth": 0, "dontsave": 0, "numload": 0, "smooth": 0.0},
    ALEXEYAB: {**_BOTH, "clip": 0.0, "dont_update": 0, "burnin_update": 0, "train_only_bn": 0},
}


class Layer(nn.Module):
    """One section of a network.

    Subclasses set ``options``, and define ``shape`` and ``forward``; those with
    numbers in a .weights file define ``numbers`` and ``start`` too.
    """

    type: ClassVar[str]  # type: ignore[assignment]  # Darknet's word; Module.type(), which casts, is not used
    options: ClassVar[dict[str, object]] = {}
    """Name of each option -> Darknet's default (its Python type is the option's
    type), or a bare type where there is no default, or ``[int]`` / ``[float]``
    for a list."""
    pjreddie: ClassVar[dict[str, object]] = {}
    alexeyab: ClassVar[dict[str, object]] = {}
    """Beside ``options``: those that only this program reads, or reads with another default."""
    only: ClassVar[str | None] = None
    """The program that alone has this section, where one does."""
    replaces_input: ClassVar[bool] = False
    """True where Darknet writes into the layer before (dropout)."""
    resizable: bool = True
    """False where Darknet's resize_network refuses the type."""
    ends_resizing: ClassVar[bool] = False
    """Does pjreddie's resize_network stop here, as no size behind it depends on the network's?"""
    trained: ClassVar[bool] = True
    """False where training a network with such a section is not built."""
    untrained: ClassVar[tuple[str, ...]] = ()
    """Options with which training is not built, beside those that every section has."""
    frozen: bool = False
    """Does training leave it as it is? Then it runs as in detection, by its rolling statistics."""

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__()
        self.section = section
        self.index = place.index
        self.program = place.program
        if self.only not in (None, self.program):
            raise section.error(
                f"only the program {self.only} has [{self.type}], and this network follows {self.program}"
            )
        others = ALEXEYAB if self.program == PJREDDIE else PJREDDIE
        self.o = section.read(self.options_of(self.program), unread=self.options_of(others))
        if self.o.onlyforward:
            section.warn("onlyforward has no effect on detection, and training with it is refused", "onlyforward")
        self.sources = self.find_sources(place)
        self.set_shape(place)

    def train(self: Own, mode: bool = True) -> Own:
        return super().train(mode and not self.frozen)

    @classmethod
    def options_of(cls, program: str) -> dict[str, object]:
        """Every option that the program reads in such a section, with its default."""
        return {**COMMON[program], **cls.options, **(cls.pjreddie if program == PJREDDIE else cls.alexeyab)}

    def find_sources(self, place: Place) -> tuple[int, ...]:
        """Indexes of the layers whose outputs ``forward`` takes, -1 for the image."""
        return (place.index - 1,)

    def set_shape(self, place: Place) -> None:
        """Take over the shapes of the sources and compute ``self.output``."""
        self.inputs = [place.shape(source) for source in self.sources]
        self.input = self.inputs[0]
        self.output = self.shape()
        c, h, w = self.output
        if min(self.output) < 1 or self.output.outputs > MOST_NUMBERS:
            raise self.section.error(
                f"the output would be {w} x {h} x {c} from an input of {self.input.w} x {self.input.h} x "
                f"{self.input.c}; expected at least 1 x 1 x 1 and at most {MOST_NUMBERS:,} values"
            )

    def shape(self) -> Shape:
        """The output's shape, from ``self.inputs`` and the options."""
        return self.input

    def tensor(self, *sizes: int) -> Tensor:
        """A float32 tensor for this layer's numbers, on the meta device until the network allocates all."""
        if math.prod(sizes) > MOST_NUMBERS:
            raise self.section.error(
                f"the layer would hold {math.prod(sizes):,} numbers in one tensor; expected at most {MOST_NUMBERS:,}"
            )
        return torch.empty(sizes, device="meta")

    def check_padding(self, padding: int) -> None:
        """Refuse an input that ``padding`` more rows and columns would make too large."""
        c, h, w = self.input
        padded = Shape(c, h + padding, w + padding)
        if padded.outputs > MOST_NUMBERS:
            raise self.section.error(
                f"the padded input would be {padded.w} x {padded.h} x {c}; expected at most {MOST_NUMBERS:,} values"
            )

    def at_least(self, name: str, least: int) -> None:
        """Refuse an option under ``least``."""
        value = getattr(self.o, name)
        if value is not None and value < least:
            raise self.section.error(f"{name} is {value}; expected {least} or more", name)

    def earlier(self, index: int, place: Place, option: str) -> int:
        """The index of an earlier layer from an option's value; negative values count back from this layer."""
        found = index if index >= 0 else place.index + index
        if not 0 <= found < place.index:
            last = (
                f"0 to {place.index - 1}, or -{place.index} to -1"
                if place.index
                else "a layer before, but this is the first"
            )
            raise self.section.error(f"{option} names layer {index}; expected {last}", option)
        return found

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        """Names and tensors in the order in which a .weights file holds them.

        ``transposed``: the file holds connected weights as (inputs, outputs). ``loading``: leave out what the
        options numload and dontloadscales keep from being loaded.
        """
        return []

    def plain_section(self) -> Section:
        """Of a layer with ``batch_normalize=1``: the section of one like it without batch normalisation."""
        raise NotImplementedError

    def folded(self) -> dict[str, Tensor]:
        """And the tensors with which that one gives the same values in inference."""
        raise NotImplementedError

    def constants(self) -> None:
        """Fill the tensors that neither a .weights file nor training changes, once the network has its memory."""

    def start(self) -> None:
        """Fill the tensors with the values that Darknet starts training from, by torch's random numbers."""

    def reset_state(self, stream: int | None = None) -> None:
        """Forget what goes from one call to the next, of one stream or of all; only recurrent layers have such."""

    def row(self) -> str:
        """The line that Darknet prints of this layer while it builds the network."""
        raise NotImplementedError

    def flops(self) -> float:
        """Floating point operations per image as Darknet counts them: 2 per multiply-add."""
        return 0.0

    def window(self) -> tuple[int, int]:
        """Size and stride of the receptive field on the layer's first source, in its pixels."""
        return 1, 1


if TYPE_CHECKING:

    class Layers(nn.ModuleList):
        """torch's ModuleList, which cannot say that its modules are layers."""

        def __iter__(self) -> Iterator[Layer]: ...

        @overload
        def __getitem__(self, idx: slice) -> Layers: ...

        @overload
        def __getitem__(self, idx: int) -> Layer: ...

        def __getitem__(self, idx: int | slice) -> Layer | Layers: ...

else:
    Layers = nn.ModuleList


Own = TypeVar("Own", bound="Layer")
LayerClass = TypeVar("LayerClass", bound=type[Layer])
TYPES: dict[str, type[Layer]] = {}


def register(name: str) -> Callable[[LayerClass], LayerClass]:
    """Make a class the one that builds sections of the full name ``name``."""

    def keep(cls: LayerClass) -> LayerClass:
        if name in TYPES:
            raise ValueError(f"[{name}] is registered twice: {TYPES[name].__module__} and {cls.__module__}")
        cls.type = name
        TYPES[name] = cls
        return cls

    return keep


def layer_type(section: Section) -> type[Layer]:
    """The class for a section; a section that Darknet knows and this project does not build is an error."""
    try:
        return TYPES[section.type]
    except KeyError:
        raise not_built(section) from None


def not_built(section: Section) -> CfgError:
    return section.error(
        f"[{section.type}] is a section of Darknet that is not built here yet; "
        f"expected one of {', '.join(sorted(TYPES))}"
    )
