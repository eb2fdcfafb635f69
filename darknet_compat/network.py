"""From sections to a network: build, run, resize, and the table that Darknet prints.

Source: ``src/parser.c, parse_network_cfg``; ``src/network.c``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from .cfg import Cfg
from .errors import CfgError
from .layers import Layer, Place, Shape, layer_type
from .layers.base import MOST_NUMBERS
from .layers.net import read_net

NUMERICS = ("cudnn", "gpu", "cpu")
HEADS = ("region",)  # the section types that hold boxes and a loss


class Network(nn.Module):
    """The network that a .cfg text describes, with tensors that are not filled yet.

    :func:`darknet_compat.load_network` fills them, from a .weights file or with start values.

    Pictures are float32 (N, channels, height, width), RGB, values 0..1. ``seen`` counts the images it was trained on.
    ``numerics`` says whose batch normalisation runs: "cudnn", "gpu" or "cpu" (``layers/batchnorm.py``).

    Raises :class:`CfgError` where the sections do not fit together.
    """

    def __init__(self, cfg: Cfg, numerics: str = "cudnn", device: torch.device | str | None = None) -> None:
        super().__init__()
        if numerics not in NUMERICS:
            raise ValueError(f"numerics is {numerics!r}; expected one of {', '.join(NUMERICS)}")
        self.cfg = cfg
        self.numerics = numerics
        self.seen = 0
        self.version = (0, 2, 0)  # of the .weights file: what Darknet itself writes
        self.net, self.input = read_net(cfg.net)
        if self.input.outputs > MOST_NUMBERS:
            c, h, w = self.input
            raise cfg.net.error(f"an input of {w} x {h} x {c}; expected at most {MOST_NUMBERS:,} values")
        self.layers = nn.ModuleList()
        shapes: list[Shape] = []
        for index, section in enumerate(cfg.layers):
            layer = layer_type(section)(section, Place(index, shapes, self.input, numerics))
            self.layers.append(layer)
            shapes.append(layer.output)
        if not self.layers:
            raise cfg.net.error("the network has no layers; expected at least one section after [net]")
        # The tensors stand on the meta device so far: a cfg that asks for terabytes allocates nothing.
        self._check_memory()
        if device != "meta":
            self._allocate()
            self.to(device or "cpu")
        self._last_use = self._find_last_use()

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

    def _allocate(self) -> None:
        try:
            self._apply(_filled_later)
        except MemoryError:
            numbers = sum(_bytes(layer) for layer in self.layers)
            raise self.cfg.net.error(
                f"the network's numbers take {numbers / 2**30:,.1f} GiB, and this process gets no more memory"
            ) from None
        with torch.no_grad():
            for layer in self.layers:
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
    def width(self) -> int:
        return self.input.w

    @property
    def height(self) -> int:
        return self.input.h

    @property
    def channels(self) -> int:
        return self.input.c

    @property
    def head(self) -> Layer:
        """The last layer, where boxes and loss are; an error for networks without one."""
        head = self.layers[-1]
        if head.type not in HEADS:
            raise head.section.error(
                f"the network ends in [{head.type}]; detection needs [{'] or ['.join(HEADS)}] as last"
            )
        return head

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
        for output in self._run(x, self.layers):
            last = output
        return last

    def head_map(self, x: Tensor) -> Tensor:
        """The raw map that enters the head: what the loss takes."""
        for output in self._run(x, self.layers[:-1]):
            last = output
        return last

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The output of every layer, in order."""
        return list(self._run(x, self.layers))

    def _run(self, x: Tensor, layers: nn.ModuleList) -> Iterator[Tensor]:
        kept: dict[int, Tensor] = {-1: x}
        for layer in layers:
            output = layer(*(kept[source] for source in layer.sources))
            if layer.replaces_input:
                kept[layer.index - 1] = output
            kept[layer.index] = output
            yield output
            # What no later layer reads can go: a forward pass holds no more maps than it needs.
            for source in set(layer.sources):
                if source < 0 or self._last_use[source] <= layer.index:
                    del kept[source]

    def resize(self, width: int, height: int) -> None:
        """Take pictures of another size from now on (``src/network.c, resize_network``).

        Raises :class:`CfgError` where a layer's numbers depend on the size, or where the size does not fit.
        """
        stuck = next((layer for layer in self.layers if not layer.resizable), None)
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
        sections = [
            section.with_option("batch_normalize", "0") if getattr(layer, "batch_normalize", False) else section
            for section, layer in zip(self.cfg.layers, self.layers, strict=True)
        ]
        fused = Network(replace(self.cfg, sections=(self.cfg.net, *sections)), self.numerics)
        for layer, plain in zip(self.layers, fused.layers, strict=True):
            plain.load_state_dict(layer.folded() if getattr(layer, "batch_normalize", False) else layer.state_dict())
        if fused.input != self.input:
            fused.resize(self.width, self.height)
        fused.seen, fused.version = self.seen, self.version
        return fused.eval().to(next((tensor.device for tensor in self.state_dict().values()), None))

    def _set_shapes(self, picture: Shape) -> None:
        self.input = picture
        shapes: list[Shape] = []
        for layer in self.layers:
            layer.set_shape(Place(layer.index, shapes, picture, self.numerics))
            shapes.append(layer.output)

    def table(self) -> str:
        """The table that Darknet prints, and per layer its parameters, memory per picture and receptive field."""
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
            rows.append(f"{layer.index:5d} {layer.row():<77} {parameters:12,d} {memory:9.2f} {fields[-1][0]:7d}")
        parameters = sum(tensor.numel() for layer in self.layers for _, tensor in layer.numbers())
        memory = sum(layer.output.outputs for layer in self.layers) * 4 / 2**20
        flops = sum(layer.flops() for layer in self.layers) / 1e9
        rows.append(f"{f'total: {flops:.3f} BFLOPs':<83} {parameters:12,d} {memory:9.2f}")
        return "\n".join(rows)


def _bytes(layer: Layer) -> int:
    return sum(tensor.nbytes for tensor in (*layer.parameters(), *layer.buffers()))


def _filled_later(tensor: Tensor) -> Tensor:
    # numpy asks the kernel for huge pages where torch does not: 200 MB are then filled several times as fast.
    return torch.from_numpy(np.empty(tensor.shape, np.float32)) if tensor.is_meta else tensor


_TITLES = f"{'parameters':>12} {'MiB/image':>9} {'field':>7}"
