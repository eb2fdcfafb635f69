#!/usr/bin/env python3
"""Turn the weights of a torchvision classifier into Darknet's .cfg and .weights, and back.

    python tools/from_torchvision.py resnet50 resnet50.pth out               # out/resnet50.cfg, out/resnet50.weights
    python tools/from_torchvision.py resnet50 out/resnet50.weights again.pth --back out/resnet50.cfg

For resnet18, resnet34, resnet50, resnet101, resnet152, vgg16 and densenet201. The file is a state dict, .pth or
.safetensors; nothing in it is run. Counts of filters and of classes are read off its tensors, so a network that was
trained on other classes, or a wide_resnet50_2 as resnet50, goes the same way.

The .cfg says torchvision's network, which is not that of Darknet's stock cfg of the same name. The numbers go over as
they are, and come back to the last bit. pjreddie's program without a GPU adds another eps than torchvision, its own
GPU code and AlexeyAB's program do; --numerics cpu makes a file for it. docs/use-torchvision.md tells more.
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from darknet_compat.cfg import parse_cfg
from darknet_compat.cfg.sections import Section, printable
from darknet_compat.errors import CfgError, DarknetError, DataError, first_line
from darknet_compat.files import regular_file, whole_file
from darknet_compat.layers import Layer
from darknet_compat.layers.base import COMMON, PJREDDIE
from darknet_compat.layers.batchnorm import EPS, root
from darknet_compat.network import NUMERICS, Network
from darknet_compat.weights import load_network, save_weights

State = dict[str, Tensor]

# torchvision's ImageClassification takes this mean from an image of 0..1 and divides by this deviation.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNETS = {
    "resnet18": (2, (2, 2, 2, 2)),
    "resnet34": (2, (3, 4, 6, 3)),
    "resnet50": (3, (3, 4, 6, 3)),
    "resnet101": (3, (3, 4, 23, 3)),
    "resnet152": (3, (3, 8, 36, 3)),
}
VGG16 = (2, 2, 3, 3, 3)  # convolutions before each [maxpool]
DENSENET201 = (6, 12, 48, 32)  # layers of each block
# torchvision's own published file has names as denselayer1.norm.1.weight, which its models no longer have.
OLD_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
STATISTICS = "running_mean", "running_var"

ABOUT = """\
# torchvision's {name}: {classes} classes. Written by tools/from_torchvision.py.
# {numerics}

[net]
# The side of a test image. Training resizes the shorter side to between min_crop and max_crop pixels, and crops a
# square of the test side.
width=224
height=224
channels=3
min_crop=224
max_crop=448

# One image at a time suits testing. To train on, set batch=128 and subdivisions=4: an update takes batch images,
# batch/subdivisions of them at once. The rate is one to go on with, and no longer one to begin with.
batch=1
subdivisions=1
momentum=0.9
decay=0.0001
learning_rate=0.001
burn_in=1000
policy=poly
power=4
max_batches=100000

# A training image is stretched by up to aspect, and changed in colour.
aspect=.75
hue=.1
saturation=.75
exposure=.75
"""
SUITS = {
    False: "Its batch normalisation is torchvision's here, with -numerics cudnn, in AlexeyAB's program, and in "
    "pjreddie's on\n# a GPU.",
    True: "Its scales are for pjreddie's program without a GPU (here: -numerics cpu), which normalises with another "
    "eps.",
}


@dataclass(frozen=True)
class Piece:
    """A section of the .cfg, and the names of the tensors that its numbers are."""

    type: str
    options: dict[str, object]
    """Those that are None are the count of filters or of outputs."""
    weight: str = ""
    bias: str = ""
    norm: str = ""
    """The module of the batch normalisation."""
    about: str = ""
    """A comment."""

    @property
    def pooled(self) -> bool:
        """Are the weights of 1 x 1, and the mean of 2 x 2 places behind them part of the convolution?"""
        return self.options.get("size") == 2 and bool(self.weight)

    def text(self, state: State) -> str:
        """The section, with the counts of ``state``."""
        count = len(state[self.weight or f"{self.norm}.weight"]) if self.weight or self.norm else 0
        lines = [f"# {line}" for line in (self.about or self._names()).splitlines()]
        return "\n".join(["", *lines, f"[{self.type}]", *(f"{k}={v}" for k, v in self.wanted(count).items()), ""])

    def wanted(self, count: int) -> dict[str, str]:
        return {name: str(count if value is None else value) for name, value in self.options.items()}

    def _names(self) -> str:
        return ", ".join(filter(None, (self.weight.removesuffix(".weight"), self.norm)))


def convolution(
    module: str, size: int, stride: int = 1, *, norm: str = "", relu: bool = True, bias: bool = False, about: str = ""
) -> Piece:
    options = {
        **({"batch_normalize": 1} if norm else {}),
        **{"filters": None, "size": size, "stride": stride, "pad": size % 2},
        "activation": "relu" if relu else "linear",
    }
    return Piece("convolutional", options, f"{module}.weight", f"{module}.bias" if bias else "", norm, about)


def lone_norm(module: str) -> Piece:
    """A batch normalisation and relu with no convolution before them."""
    options = {"batch_normalize": 1, "filters": None, "size": 1, "stride": 1, "pad": 1, "groups": None}
    return Piece("convolutional", {**options, "activation": "relu"}, norm=module)


# The first layer of all. A bias of the first convolution could not do it: torchvision pads with zeros behind this.
NORMALISE = Piece(
    "convolutional",
    {"filters": 3, "size": 1, "stride": 1, "pad": 1, "groups": 3, "activation": "linear", "learning_rate": 0},
    about="(x - mean) / deviation of each colour, as torchvision's images come. A layer of its own, so that what is\n"
    "padded behind it is 0, as there; it does not train.",
)


def pool(size: int, padding: int) -> Piece:
    about = "Darknet's padding is that of both sides together."
    return Piece("maxpool", {"size": size, "stride": 2, "padding": padding}, about=about if padding else "")


def classes(module: str) -> Iterator[Piece]:
    yield Piece("avgpool", {})
    yield convolution(module, 1, relu=False, bias=True)
    yield Piece("softmax", {"groups": 1})


def resnet(depth: int, stages: tuple[int, ...]) -> Iterator[Piece]:
    """``depth``: how many convolutions a block has; ``stages``: how many blocks each size has."""
    yield NORMALISE
    yield convolution("conv1", 7, 2, norm="bn1")
    yield pool(3, 2)
    sizes = (3, 3) if depth == 2 else (1, 3, 1)
    for stage, blocks in enumerate(stages, 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            for number, size in enumerate(sizes, 1):
                # The first convolution of 3 x 3 has the stride, in the bottleneck too (version 1.5).
                own = stride if number == sizes.index(3) + 1 else 1
                last = number == depth
                yield convolution(f"{name}.conv{number}", size, own, norm=f"{name}.bn{number}", relu=not last)
            back = -depth - 1
            if block == 0 and (stage > 1 or depth == 3):
                # A [shortcut] cannot change channels and size as torchvision's does.
                yield Piece("route", {"layers": back}, about=f"{name}: the way around, with weights of its own")
                if stride == 2:
                    about = "Every second place. pjreddie's program passes over the stride of a convolution of 1 x 1."
                    yield Piece("maxpool", {"size": 1, "stride": 2, "padding": 0}, about=about)
                yield convolution(f"{name}.downsample.0", 1, norm=f"{name}.downsample.1", relu=False)
                back = -2 - stride
            yield Piece("shortcut", {"from": back, "activation": "relu"})
    yield from classes("fc")


def vgg() -> Iterator[Piece]:
    yield NORMALISE
    number = 0
    for convolutions in VGG16:
        for _ in range(convolutions):
            yield convolution(f"features.{number}", 3, bias=True)
            number += 2
        yield pool(2, 0)
        number += 1
    for number in (0, 3, 6):
        options = {"output": None, "activation": "linear" if number == 6 else "relu"}
        yield Piece("connected", options, f"classifier.{number}.weight", f"classifier.{number}.bias")
        if number != 6:
            yield Piece("dropout", {"probability": 0.5})
    yield Piece("softmax", {"groups": 1})


def densenet(blocks: tuple[int, ...]) -> Iterator[Piece]:
    yield NORMALISE
    yield convolution("features.conv0", 7, 2, norm="features.norm0")
    yield pool(3, 2)
    for number, layers in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{number}.denselayer{layer}"
            yield lone_norm(f"{name}.norm1")
            yield convolution(f"{name}.conv1", 1, norm=f"{name}.norm2")
            yield convolution(f"{name}.conv2", 3, relu=False)
            yield Piece("route", {"layers": "-4,-1"})
        if number < len(blocks):
            name = f"features.transition{number}"
            yield lone_norm(f"{name}.norm")
            about = f"{name}.conv, and the mean of 2 x 2 places behind it: a quarter of its weight for each"
            yield convolution(f"{name}.conv", 2, 2, relu=False, about=about)
    yield lone_norm(f"features.norm{len(blocks) + 1}")
    yield from classes("classifier")


NETWORKS: dict[str, Callable[[], Iterator[Piece]]] = {
    **{name: partial(resnet, *shape) for name, shape in RESNETS.items()},
    "vgg16": vgg,
    "densenet201": partial(densenet, DENSENET201),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS, metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("source", type=Path, help="a state dict (.pth, .safetensors); with --back a .weights file")
    parser.add_argument("out", type=Path, help="a folder; with --back the .pth or .safetensors file to write")
    parser.add_argument("--back", type=Path, metavar="CFG", help="the .cfg that this made: from its .weights to torch")
    parser.add_argument(
        "--numerics",
        choices=NUMERICS,
        default="cudnn",
        help="whose batch normalisation the .weights file is for: cpu is pjreddie's program without a GPU, and the "
        "others torchvision's own (default: cudnn)",
    )
    args = parser.parse_args()
    try:
        print(back(args) if args.back else convert(args))
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def convert(args: argparse.Namespace) -> str:
    """Write NETWORK.cfg and NETWORK.weights into the folder; the line to print comes back."""
    name = printable(str(args.source))
    pieces, state = list(NETWORKS[args.network]()), read_state(args.source)
    check_names(pieces, state, f"{name}: ", args.network, args.source.stat().st_size)
    text = cfg_text(args.network, pieces, state, args.numerics)
    cfg, weights = (args.out / f"{args.network}{suffix}" for suffix in (".cfg", ".weights"))
    try:
        network = Network(parse_cfg(text, str(cfg)))
    except CfgError as error:
        raise DataError(f"{name}: its tensors do not fit together as those of {args.network} do: {error}") from None
    for piece, layer in zip(pieces, network.layers, strict=True):
        fill(layer, piece, state, args.numerics, name)
    args.out.mkdir(parents=True, exist_ok=True)
    save_weights(network, weights)
    with whole_file(cfg, "w") as file:
        file.write(text)
    return f"{cfg}, {weights}: {len(network.layers)} layers, for -numerics {args.numerics}"


def back(args: argparse.Namespace) -> str:
    """Write the state dict; the line to print comes back."""
    if args.out.suffix not in (".pth", ".safetensors"):
        raise DataError(f"{printable(str(args.out))}: expected a file .pth or .safetensors to write")
    name = printable(str(args.source))
    network = load_network(args.back, args.source)
    if network.report.kept:
        raise DataError(f"{name}: holds the first {len(network.report.loaded)} layers alone; expected all of them")
    pieces = list(NETWORKS[args.network]())
    check_sections(pieces, network, args.network)
    state: State = {}
    for piece, layer in zip(pieces, network.layers, strict=True):
        state.update(tensors_of(layer, piece, args.numerics, f"{name}: layer {layer.index} [{layer.type}]"))
    write_state(state, args.out)
    return f"{args.out}: {len(state)} tensors of torchvision's {args.network}"


def cfg_text(network: str, pieces: list[Piece], state: State, numerics: str) -> str:
    last = next(piece for piece in reversed(pieces) if piece.weight)
    about = ABOUT.format(name=network, classes=len(state[last.weight]), numerics=SUITS[numerics == "cpu"])
    return about + "".join(piece.text(state) for piece in pieces)


def names_of(piece: Piece) -> list[str]:
    norms = [f"{piece.norm}.{name}" for name in ("weight", "bias", *STATISTICS)] if piece.norm else []
    return [name for name in (piece.weight, piece.bias) if name] + norms


def check_names(pieces: list[Piece], state: State, source: str, network: str, size: int) -> None:
    """Are these the tensors of that network, of ``size`` bytes together at most, all float32 and finite?"""
    wanted = [name for piece in pieces for name in names_of(piece)]
    for name in wanted:
        if name not in state:
            raise DataError(f"{source}no tensor {name} in it; expected a state dict of torchvision's {network}")
    if left := sorted(state.keys() - set(wanted)):
        raise DataError(f"{source}{printable(left[0])[:100]} is none of the tensors of torchvision's {network}")
    if sum(tensor.nbytes for tensor in state.values()) > size:
        raise DataError(f"{source}its tensors are larger than the file; expected one number in it for each of theirs")
    for name in wanted:
        if state[name].dtype != torch.float32 or not state[name].dim():
            found = f"{str(state[name].dtype).removeprefix('torch.')} {tuple(state[name].shape)}"
            raise DataError(f"{source}{name} is {found}; expected float32 numbers, as model.float() makes them")
        if not state[name].isfinite().all():
            raise DataError(f"{source}{name} has numbers that are not finite; expected none")


@torch.no_grad()
def fill(layer: Layer, piece: Piece, state: State, numerics: str, source: str) -> None:
    """Copy the tensors of a section into its layer."""
    targets = dict(layer.numbers())

    def put(target: str, numbers: Tensor, name: str) -> None:
        wanted = targets[target]
        if numbers.shape != wanted.shape:
            found, expected = tuple(numbers.shape), tuple(wanted.shape)
            raise DataError(f"{source}: {name} gives {found}; {layer.section.written} takes {expected}")
        wanted.copy_(numbers)

    if piece is NORMALISE:
        weights, biases = normaliser()
        put("weights", weights, "")
        put("biases", biases, "")
        return
    if piece.weight:
        weights = state[piece.weight]
        if layer.type == "convolutional":
            weights = weights.reshape(*weights.shape, *[1] * (4 - weights.dim()))
        if piece.pooled:
            weights = (weights / 4).repeat(1, 1, 2, 2)
        put("weights", weights, piece.weight)
    elif piece.norm:
        targets["weights"].fill_(1)
    if piece.norm:
        scales = state[f"{piece.norm}.weight"]
        variance = state[f"{piece.norm}.running_var"]
        if (variance < 0).any():
            raise DataError(f"{source}: {piece.norm}.running_var has numbers below 0; expected none")
        put("rolling_variance", variance, f"{piece.norm}.running_var")
        put("rolling_mean", state[f"{piece.norm}.running_mean"], f"{piece.norm}.running_mean")
        put("scales", scales, f"{piece.norm}.weight")
        targets["scales"].copy_(scales.double() * eps_factor(variance, numerics))
        put("biases", state[f"{piece.norm}.bias"], f"{piece.norm}.bias")
    elif piece.bias:
        put("biases", state[piece.bias], piece.bias)
    elif piece.weight:
        targets["biases"].zero_()


def normaliser() -> tuple[Tensor, Tensor]:
    """Weights (3, 1, 1, 1) and biases (3,) of the layer that makes torchvision's images out of Darknet's."""
    mean, deviation = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(DEVIATION, dtype=torch.float64)
    return (1 / deviation).float().reshape(3, 1, 1, 1), (-mean / deviation).float()


def eps_factor(variance: Tensor, numerics: str) -> Tensor:
    """What scales are multiplied by so that another eps gives torchvision's values; float64, 1 where it is its own."""
    return root(variance.double(), numerics) / (variance.double() + EPS).sqrt()


def check_sections(pieces: list[Piece], network: Network, name: str) -> None:
    """Is each section what this script writes, but for how it trains?"""
    sections = network.cfg.layers
    for piece, layer in zip(pieces, network.layers, strict=False):
        count = layer.output.c
        found = {option.name: option.value for option in layer.section.options}
        wanted = piece.wanted(count)
        for option in sorted(found.keys() | wanted.keys()):
            if option in COMMON[PJREDDIE] and option not in wanted:
                continue
            if layer.type != piece.type or found.get(option) != wanted.get(option):
                raise not_ours(layer.section, piece, count, name)
    if len(sections) != len(pieces):
        raise network.cfg.net.error(
            f"{len(sections)} layers; expected the {len(pieces)} that this script writes for torchvision's {name}"
        )


def not_ours(section: Section, piece: Piece, count: int, name: str) -> CfgError:
    options = " ".join(f"{option}={value}" for option, value in piece.wanted(count).items())
    return section.error(
        f"expected [{piece.type}] {options}".rstrip() + f", as this script writes torchvision's {name}"
    )


@torch.no_grad()
def tensors_of(layer: Layer, piece: Piece, numerics: str, source: str) -> State:
    """The tensors that :func:`fill` put into a layer, by torchvision's names."""
    numbers = {name: tensor.clone() for name, tensor in layer.numbers()}
    if not numbers:
        return {}

    def hold(right: bool, what: str) -> None:
        if not right:
            raise DataError(f"{source} {what}; it was trained on, and torchvision's network has no place for that")

    if piece is NORMALISE:
        weights, biases = normaliser()
        hold(
            torch.equal(numbers["weights"], weights) and torch.equal(numbers["biases"], biases),
            "has other numbers than torchvision's mean and deviation",
        )
        return {}
    state: State = {}
    weights = numbers["weights"]
    if piece.pooled:
        hold(bool((weights == weights[..., :1, :1]).all()), "has four weights that differ where a mean has one")
        weights = weights[..., :1, :1] * 4
    if piece.weight:
        flat = piece.weight.startswith(("fc.", "classifier."))
        state[piece.weight] = weights.flatten(1) if flat else weights.contiguous()
    else:
        hold(bool((weights == 1).all()), "has weights other than 1")
    if piece.norm:
        factor = eps_factor(numbers["rolling_variance"], numerics)
        state[f"{piece.norm}.weight"] = (numbers["scales"].double() / factor).float()
        state[f"{piece.norm}.bias"] = numbers["biases"]
        state[f"{piece.norm}.running_mean"] = numbers["rolling_mean"]
        state[f"{piece.norm}.running_var"] = numbers["rolling_variance"]
        state[f"{piece.norm}.num_batches_tracked"] = torch.tensor(0)
    elif piece.bias:
        state[piece.bias] = numbers["biases"]
    else:
        hold(not numbers["biases"].any(), "has biases other than 0")
    return state


def read_state(path: Path) -> State:
    """The tensors of a state dict by their names, less the counts of batches, of which no inference makes use."""
    name = printable(str(path))
    try:
        with regular_file(path) as file:
            if path.suffix == ".safetensors":
                found = safetensors_torch().load(file.read())
            else:
                check_archive(file)
                found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{name}: holds more than tensors, and only tensors are read; expected what torch.save(model.state_dict(), "
            "...) writes"
        ) from None
    except (OSError, DarknetError):
        raise
    except Exception as error:  # what a damaged file makes the readers raise is of many kinds
        raise DataError(f"{name}: cannot be read as a state dict: {printable(first_line(error))[:200]}") from None
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise DataError(
            f"{name}: no state dict; expected tensors by name, as torch.save(model.state_dict(), ...) writes"
        )
    for key, tensor in found.items():
        # On "meta" a tensor has no numbers, and a sparse one has only some.
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise DataError(
                f"{name}: {printable(str(key))[:100]} is no plain tensor; expected one number in each place"
            )
    return {
        OLD_NAME.sub(r"\1\2", str(key)): tensor
        for key, tensor in found.items()
        if not str(key).endswith(".num_batches_tracked")
    }


def check_archive(file: BinaryIO) -> None:
    """Refuse an archive of more bytes than the file has: torch would unpack them all."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("an entry is compressed; expected raw bytes, as torch.save writes them")
    file.seek(0)


def write_state(state: State, path: Path) -> None:
    content = safetensors_torch().save(state) if path.suffix == ".safetensors" else None
    with whole_file(path) as file:
        if content is None:
            torch.save(state, file)
        else:
            file.write(content)


def safetensors_torch() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise DataError("a .safetensors file needs the package safetensors: pip install safetensors") from None
    return safetensors.torch


if __name__ == "__main__":
    sys.exit(main())
