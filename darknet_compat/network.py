"""From sections to a network: build, run, resize, and the table that Darknet prints.

Source: ``src/parser.c, parse_network_cfg``; ``src/network.c``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .cfg import Cfg, Section
from .defaults import YOLO, Verbs
from .errors import CfgError
from .layers import TYPES, Layer, Place, Shape, layer_type
from .layers.base import MOST_NUMBERS, Layers
from .layers.head import Boxes, Head, handed_on
from .layers.net import read_net
from .program import PROGRAMS, VERSIONS, read_program

if TYPE_CHECKING:
    from .weights import LoadReport

NUMERICS = ("cudnn", "gpu", "cpu")


class Network(nn.Module):
    """The network that a .cfg text describes, with tensors that are not filled yet.

    :func:`darknet_compat.load_network` fills them, from a .weights file or with start values.

    Images are float32 (N, channels, height, width), RGB, values 0..1. ``seen`` counts the images it was trained on.
    ``numerics`` says whose batch normalisation runs: "cudnn", "gpu" or "cpu" (``layers/batchnorm.py``). ``program`` is
    the Darknet that the network follows, "pjreddie" or "alexeyab"; None reads it off the cfg, and ``program_from`` is
    then the option or section that said so.

    Raises :class:`CfgError` where the sections do not fit together.
    """

    report: LoadReport | None
    """What :func:`darknet_compat.load_network` read, if it read a file; only that sets it."""

    def __init__(
        self,
        cfg: Cfg,
        numerics: str = "cudnn",
        device: torch.device | str | None = None,
        *,
        program: str | None = None,
    ) -> None:
        super().__init__()
        if program not in (None, *PROGRAMS):
            raise ValueError(f"program is {program!r}; expected one of {', '.join(PROGRAMS)}")
        if numerics not in NUMERICS:
            raise ValueError(f"numerics is {numerics!r}; expected one of {', '.join(NUMERICS)}")
        self.cfg = cfg
        self.numerics = numerics
        self.seen = 0
        self.program, self.program_from = read_program(cfg) if program is None else (program, None)
        self.version = VERSIONS[self.program]  # of the .weights file
        self.net, self.input = read_net(cfg.net, self.program)
        if self.input.outputs > MOST_NUMBERS:
            c, h, w = self.input
            raise cfg.net.error(f"an input of {w} x {h} x {c}; expected at most {MOST_NUMBERS:,} values")
        self.layers = Layers()
        shapes: list[Shape] = []
        for index, section in enumerate(cfg.layers):
            layer = layer_type(section)(section, self._place(index, shapes))
            self.layers.append(layer)
            shapes.append(layer.output)
        if not self.layers:
            raise cfg.net.error("the network has no layers; expected at least one section after [net]")
        # The tensors stand on the meta device so far: a cfg that asks for terabytes allocates nothing.
        self._check_memory()
        if device != "meta":
            self._allocate(*self.layers)
            self.to(device or "cpu")
        self._last_use = self._find_last_use()

    def _place(self, index: int, shapes: list[Shape]) -> Place:
        steps = self.net.time_steps
        return Place(index, shapes, self.input, self.numerics, self.program, steps, list(self.layers)[:index])

    def _check_memory(self) -> None:
        """Refuse what this machine cannot run even for one image: all numbers, and the largest map beside them."""
        numbers = sum(_bytes(layer) for layer in self.layers)
        maps = max(4 * shape.outputs for shape in (self.input, *(layer.output for layer in self.layers)))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if numbers + maps > memory:
            largest = max(self.layers, key=lambda layer: _bytes(layer) + 4 * layer.output.outputs)
            raise largest.section.error(
                f"the network's numbers take {numbers / 2**30:,.1f} GiB and its largest map {maps / 2**30:,.1f} GiB, "
                f"most of it in this layer; this machine has {memory / 2**30:,.1f} GiB"
            )

    def _allocate(self, *layers: Layer) -> None:
        """Give these layers memory, and the numbers that nothing else fills."""
        try:
            for layer in layers:
                layer._apply(_filled_later)  # type: ignore[no-untyped-call]  # torch's own
        except MemoryError:
            numbers = sum(_bytes(layer) for layer in self.layers)
            raise self.cfg.net.error(
                f"the network's numbers take {numbers / 2**30:,.1f} GiB, and this process gets no more memory"
            ) from None
        with torch.no_grad():
            for layer in layers:
                layer.constants()

    def _find_last_use(self) -> list[int]:
        """For each layer, the last layer that reads its output."""
        last = list(range(len(self.layers)))
        for layer in self.layers:
            for source in layer.sources:
                if source >= 0:
                    last[source] = max(last[source], layer.index)
        return last

    @property
    def follows(self) -> str:
        """ "program pjreddie", or "program alexeyab (yolov4.cfg:17: mosaic)": the place in the cfg that says so."""
        place = self.program_from
        if place is None:
            return f"program {self.program}"
        said = place.written if isinstance(place, Section) else place.name
        return f"program {self.program} ({place.file}:{place.line}: {said})"

    @property
    def device(self) -> torch.device:
        """Where its tensors stand; a network without any is at home on the CPU."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def width(self) -> int:
        return self.input.w

    @property
    def height(self) -> int:
        return self.input.h

    @property
    def channels(self) -> int:
        return self.input.c

    @property
    def heads(self) -> list[Head]:
        """The layers that the truth is held against, in order; none or any number."""
        return [layer for layer in self.layers if isinstance(layer, Head)]

    @property
    def detectors(self) -> list[Head]:
        """The heads that find boxes, in order; none or any number."""
        return [head for head in self.heads if head.finds_boxes]

    @property
    def detector(self) -> Head:
        """The last head that finds boxes: Darknet reads classes, max, jitter and random from it.

        Raises :class:`CfgError` where no head finds boxes, and where two have different classes.
        """
        detectors = self.detectors
        if not detectors:
            known = sorted(name for name, kind in TYPES.items() if issubclass(kind, Head) and kind.finds_boxes)
            last = self.layers[-1]
            raise last.section.error(f"the network ends in [{last.type}]; detection needs [{'] or ['.join(known)}]")
        odd = next((head for head in detectors if head.o.classes != detectors[-1].o.classes), None)
        if odd is not None:
            raise odd.section.error(
                f"classes={odd.o.classes}; expected {detectors[-1].o.classes}, as the network's last head has them",
                "classes",
            )
        return detectors[-1]

    @property
    def letter_box(self) -> bool:
        """Are images fitted into the input, or stretched over it? [net] says so, or a head that was made to stretch."""
        return bool(self.net.letter_box) and not any(head.stretches for head in self.detectors)

    def check_verbs(self, verbs: Verbs) -> None:
        """Refuse the verbs ``yolo`` where the head was not made for images as they fit them, stretched over the input.

        Of other heads the C program takes memory for what it is not (``examples/yolo.c``: l.side, l.n).
        """
        if verbs == YOLO and not self.detector.stretches:
            known = sorted(name for name, kind in TYPES.items() if issubclass(kind, Head) and kind.stretches)
            raise self.detector.section.error(
                f"the verbs `yolo` are for networks that end in [{'] or ['.join(known)}]; expected `detector`"
            )

    def check_images(self) -> None:
        """Refuse an input that image files cannot fill: they are read as RGB, three planes.

        pjreddie's detector reads three planes for every network (``examples/detector.c``, load_image_color): with
        ``channels=1`` it runs on the red one alone, with more it reads outside its memory.
        """
        if self.channels != 3:
            raise self.cfg.net.error(
                f"the network takes {self.channels} channels; expected channels=3, as images are read in RGB",
                "channels",
            )

    def start(self) -> Network:
        """Fill every tensor with Darknet's start values, by torch's random numbers."""
        with torch.no_grad():
            for layer in self.layers:
                layer.start()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) -> (N, c, h, w): the output of the last layer, as ``network_predict``."""
        for _, _, output in self._run(x):
            last = output
        return last

    def raw_maps(self, x: Tensor) -> list[Tensor]:
        """The raw map that enters each head, in order: what the losses take.

        Where a head's output is read by a further layer, its gradient goes through the head as it is
        (:func:`..layers.head.handed_on`).
        """
        return self._enter(x, self.heads, hand_on=True)

    def activated(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The activated map of each head that finds boxes, of the raw ones; in float32 at least."""
        raws = [raw.to(torch.promote_types(raw.dtype, torch.float32)) for raw in maps]
        return [head(raw) for head, raw in zip(self.detectors, raws, strict=True)]

    def predict(self, x: Tensor) -> list[Tensor]:
        """What the network says of images: the activated map of each head that finds boxes, or without such a head
        the last layer's output."""
        heads = self.detectors
        return self.activated(self._enter(x, heads)) if heads else [self(x)]

    def _enter(self, x: Tensor, heads: Sequence[Head], hand_on: bool = False) -> list[Tensor]:
        """What enters these heads."""
        maps: list[Tensor] = []
        for layer, inputs, _ in self._run(x, activate=False, hand_on=hand_on) if heads else ():
            if layer is heads[len(maps)]:
                maps.append(inputs[0])
                if len(maps) == len(heads):  # what follows leads to none of them
                    break
        return maps

    def boxes(
        self, outputs: Sequence[Tensor], thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None
    ) -> Boxes:
        """The boxes of all heads that find some, one head's behind the other's, in the maps of :meth:`predict`.

        ``thresh``, ``hier`` and ``class_map`` are those of :meth:`Head.boxes`.
        """
        heads = zip(self.detectors, outputs, strict=True)
        return _joined([head.boxes(output, thresh, hier, class_map) for head, output in heads])

    def listed_boxes(
        self, outputs: Sequence[Tensor], thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None
    ) -> Boxes:
        """Of :meth:`boxes` those that Darknet lists; after an image's last there are boxes of no objectness.

        [yolo] lists no box without objectness (``src/network.c, num_detections``), which decides where NMS puts the
        others, and of tens of thousands leaves some hundreds. Waits for the device.
        """
        heads = self.detectors
        found = [head.listed(output, thresh, hier, class_map) for head, output in zip(heads, outputs, strict=True)]
        joined = _joined(found)
        if len(heads) == 1 or all(head.lists_all for head in heads):
            return joined
        shown = [(part.objectness != 0) | head.lists_all for head, part in zip(heads, found, strict=True)]
        listed = torch.cat(shown, 1)
        number = (~listed).long().argsort(dim=1, stable=True)[:, : int(listed.sum(1).max())]
        image = torch.arange(len(number), device=number.device)[:, None]
        return Boxes(*(values[image, number] for values in joined))

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The output of every layer, in order."""
        return [output for _, _, output in self._run(x)]

    def _run(
        self, x: Tensor, activate: bool = True, hand_on: bool = False
    ) -> Iterator[tuple[Layer, tuple[Tensor, ...], Tensor]]:
        """Layer by layer: the layer, what enters it and what comes out.

        Without ``activate`` the input of a head passes as its output where no layer reads that. With ``hand_on`` the
        gradient of an output that is read goes through its head as it is.
        """
        kept: dict[int, Tensor] = {-1: x}
        for layer in self.layers:
            inputs = tuple(kept[source] for source in layer.sources)
            head = isinstance(layer, Head)
            passes = not activate and head and self._last_use[layer.index] == layer.index
            output = inputs[0] if passes else layer(*inputs)
            if head and hand_on and not passes:
                output = handed_on(inputs[0], output.detach())
            if layer.replaces_input:
                kept[layer.index - 1] = output
            kept[layer.index] = output
            yield layer, inputs, output
            # What no later layer reads can go: a forward pass holds no more maps than it needs.
            for source in set(layer.sources):
                if source < 0 or self._last_use[source] <= layer.index:
                    del kept[source]

    def reset_state(self, stream: int | None = None) -> None:
        """Start anew with all streams, or with one: recurrent layers carry a state from one call to the next.

        Source: ``src/network.c, reset_network_state``, which does so on a GPU alone.
        """
        for layer in self.layers:
            layer.reset_state(stream)

    def resize(self, width: int, height: int) -> None:
        """Take images of another size from now on (``src/network.c, resize_network``).

        Raises :class:`CfgError` where a layer's numbers depend on the size, or where the size does not fit.
        """
        if (width, height) == (self.width, self.height):
            return
        last = next((layer.index for layer in self.layers if layer.ends_resizing), len(self.layers))
        stuck = next((layer for layer in self.layers[:last] if not layer.resizable), None)
        if stuck is not None:
            raise stuck.section.error(f"a network with [{stuck.type}] cannot take another size than its cfg's")
        before = self.input
        try:
            self._set_shapes(Shape(self.channels, height, width))
        except CfgError:
            self._set_shapes(before)
            raise

    @torch.no_grad()
    def fuse(self) -> Network:
        """A network for inference that gives the same values without batch normalisation, which its weights hold.

        Each value is within 1e-5 of its layer's largest. The new network is one of its own, with a cfg that says
        ``batch_normalize=0``: Darknet runs that cfg with the .weights file written of it.
        """
        fused = self.plain()
        for index in range(len(self.layers)):
            self.fill_plain(fused, index)
        return fused

    def plain(self) -> Network:
        """The network that :meth:`fuse` gives, before :meth:`fill_plain` has given its layers memory and numbers: who
        needs one layer after the other needs the memory of one."""
        sections = [
            layer.plain_section() if _folds(layer) else section
            for section, layer in zip(self.cfg.layers, self.layers, strict=True)
        ]
        cfg = replace(self.cfg, sections=(self.cfg.net, *sections))
        plain = Network(cfg, self.numerics, "meta", program=self.program)
        plain.resize(self.width, self.height)
        plain.seen, plain.version = self.seen, self.version
        return plain.eval()

    def fill_plain(self, plain: Network, index: int) -> None:
        """Give one layer of :meth:`plain` its numbers, in memory of its own."""
        layer, filled = self.layers[index], plain.layers[index]
        if _folds(layer):
            # What is folded anew becomes the new network's, without a copy of it.
            filled.load_state_dict(layer.folded(), assign=True)
        else:
            plain._allocate(filled)
            filled.load_state_dict(layer.state_dict())
            filled.to(next((tensor.device for tensor in self.state_dict().values()), None))

    def _set_shapes(self, image: Shape) -> None:
        self.input = image
        shapes: list[Shape] = []
        for layer in self.layers:
            layer.set_shape(self._place(layer.index, shapes))
            shapes.append(layer.output)

    def table(self) -> str:
        """The table that Darknet prints, and per layer its parameters, memory per image and receptive field."""
        rows = [f"{'layer     filters    size              input                output':<83} {_TITLES}"]
        fields: list[tuple[int, int]] = []
        for layer in self.layers:
            # Of several sources the widest field counts; a layer's step is the product of all strides so far.
            sizes = [fields[source] if source >= 0 else (1, 1) for source in layer.sources]
            field, step = max(sizes)
            window, stride = layer.window()
            fields.append((field + (window - 1) * step, step * stride))
            parameters = sum(tensor.numel() for _, tensor in layer.numbers())
            memory = layer.output.outputs * 4 / 2**20
            row, *parts = layer.row().split("\n")  # those of a recurrent layer's sub-layers
            rows += [f"{layer.index:5d} {row:<77} {parameters:12,d} {memory:9.2f} {fields[-1][0]:7d}", *parts]
        parameters = sum(tensor.numel() for layer in self.layers for _, tensor in layer.numbers())
        memory = sum(layer.output.outputs for layer in self.layers) * 4 / 2**20
        flops = sum(layer.flops() for layer in self.layers) / 1e9
        rows.append(f"{f'total: {flops:.3f} BFLOPs':<83} {parameters:12,d} {memory:9.2f}")
        return "\n".join(rows)


def _joined(found: Sequence[Boxes]) -> Boxes:
    return found[0] if len(found) == 1 else Boxes(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))


def _folds(layer: Layer) -> bool:
    return bool(getattr(layer, "batch_normalize", False))


def _bytes(layer: Layer) -> int:
    return sum(tensor.nbytes for tensor in (*layer.parameters(), *layer.buffers()))


def _filled_later(tensor: Tensor) -> Tensor:
    # numpy asks the kernel for huge pages where torch does not: 200 MB are then filled several times as fast.
    return torch.from_numpy(np.empty(tensor.shape, np.float32)) if tensor.is_meta else tensor


_TITLES = f"{'parameters':>12} {'MiB/image':>9} {'field':>7}"
