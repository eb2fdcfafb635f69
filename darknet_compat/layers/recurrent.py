"""What every recurrent section is: sub-layers, and a state that they take from one time step to the next.

In training the rows of a batch are ``time_steps`` runs of as many streams, time first: row ``t * streams + b`` is step
t of stream b. In inference each row is the next step of its stream. The state stays when a call is over, and the next
one goes on from it, in inference as in training; only its gradient ends there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..cfg import Section
from ..cfg.sections import Option
from .base import ALEXEYAB, PJREDDIE, Layer, Place, Shape
from .batchnorm import Normalised

Part = TypeVar("Part", bound=Normalised)


class Recurrent(Layer):
    """A section made of sub-layers, each with the numbers of a [connected] or a [convolutional].

    A subclass makes its sub-layers by :meth:`part`, in the order in which Darknet makes and prints them, and defines
    :meth:`state_shape` and :meth:`step`.
    """

    resizable = False
    order: ClassVar[dict[str, tuple[str, ...]]]
    """The program -> the names of the sub-layers as a .weights file has them."""
    keeps_state_in_training: bool = True
    state: Tensor | None
    """(streams, *state_shape), once there was a call."""

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.place = replace(place, index=0, shapes=(), layers=())
        self.time_steps = place.time_steps
        self.batch_normalize = bool(self.o.batch_normalize)
        # As many streams as the last call had; no .weights file holds it.
        self.register_buffer("state", None, persistent=False)

    def part(self, kind: type[Part], inputs: Shape, **options: object) -> Part:
        """A sub-layer of a section type, with these options and the section's ``batch_normalize``."""
        section = self.section
        options["batch_normalize"] = int(self.batch_normalize)
        given = tuple(
            Option(name, str(value), section.file, section.line, section.text) for name, value in options.items()
        )
        return kind(replace(section, type=kind.type, options=given), self.part_place(inputs))

    def part_place(self, inputs: Shape) -> Place:
        """As if the sub-layer were the first of a network."""
        return replace(self.place, image=inputs)

    def parts(self) -> list[tuple[str, Normalised]]:
        return [(name, getattr(self, name)) for name in self.order[self.program]]

    def state_shape(self) -> Shape:
        """The shape of one stream's state."""
        raise NotImplementedError

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The output of one time step (streams, ...), and the state after it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        # As AlexeyAB's test, map and demo set it, and pjreddie's cfgs for anything but training.
        steps = self.time_steps if self.training else 1
        if len(x) % steps:
            raise ValueError(f"a batch of {len(x)} rows; expected a multiple of time_steps={steps}")
        streams = len(x) // steps
        shape = (streams, *self.state_shape())
        if self.state is None or self.state.shape != shape or self.state.device != x.device:
            # An ordinary tensor even in inference mode, since training may go on from it.
            with torch.inference_mode(False):
                self.state = torch.zeros(shape, device=x.device)
        state, outputs = self.state.to(x.dtype, copy=True), []
        if self.training and not self.keeps_state_in_training:
            state.zero_()
        for rows in x.split(streams):
            output, state = self.step(rows, state)
            outputs.append(output)
        if self.keeps_state_in_training or not self.training:
            self.state.copy_(state.detach())
        return torch.cat(outputs)

    def reset_state(self, stream: int | None = None) -> None:
        if self.state is not None:
            (self.state if stream is None else self.state[stream]).zero_()

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        return [
            (f"{name}.{key}", tensor)
            for name, part in self.parts()
            for key, tensor in part.numbers(transposed=transposed, loading=loading)
        ]

    def folded(self) -> dict[str, Tensor]:
        """As :meth:`Normalised.folded`, of all sub-layers."""
        return {f"{name}.{key}": tensor for name, part in self.parts() for key, tensor in part.folded().items()}

    def plain_section(self) -> Section:
        """As :meth:`Normalised.plain_section`."""
        return self.section.with_option("batch_normalize", "0")

    def start(self) -> None:
        for _, part in self.parts():
            part.start()

    def title(self) -> str:
        """The first line of :meth:`row`."""
        return f"{self.type.upper()} Layer: {self.input.outputs} inputs, {self.output.outputs} outputs"

    def row(self) -> str:
        """The layer's line, and behind two tabs each one of its sub-layers'."""
        parts = [part.row() for part in self.children() if isinstance(part, Layer)]
        return "\n\t\t".join([self.title(), *parts])


def both(*names: str) -> dict[str, tuple[str, ...]]:
    """The order of a section whose sub-layers both programs write in the same one."""
    return {PJREDDIE: names, ALEXEYAB: names}
