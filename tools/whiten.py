#!/usr/bin/env python3
"""The numbers to start a classifier from whose first layer whitens its images.

    python tools/whiten.py cfg/cifar.data cfg/cifar-white.cfg cifar-white.start

The first layer's filters become the directions in which the patches of training images vary most, each divided by its
deviation, and then the same with the other sign. So the outputs of the first half of them are uncorrelated, with a mean
of 0 and a variance of 1. In the other layers of 3 x 3 and more, the first filters hand on one channel each. All else
is random, as in any training.

A training starts from this file with -clear, and leaves the first layer as it is where that has stopbackward=1 and
learning_rate=0. docs/RESULTS.md says what is gained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from darknet_compat import load_network, save_weights
from darknet_compat.cfg import read_data, read_list
from darknet_compat.classify.prepare import SHORTER_SIDE
from darknet_compat.errors import DarknetError
from darknet_compat.images import load_image
from darknet_compat.layers.convolutional import Convolutional
from darknet_compat.network import Network
from darknet_compat.stock import find_stock

IMAGES = 5000  # at most, taken evenly from the list
LEAST = 3e-5  # added to each variance, so that a direction in which next to nothing varies does not become all noise


def first_layer(network: Network) -> Convolutional:
    """That of ``network``; CfgError where it is none that can whiten."""
    layer = network.layers[0]
    if not isinstance(layer, Convolutional) or layer.o.batch_normalize or layer.o.groups > 1:
        raise layer.section.error("expected a [convolutional] layer without batch_normalize= and groups= to start with")
    if network.input.c != 3:
        raise network.cfg.net.error(f"images of {network.input.c} channels; expected channels=3", "channels")
    filters, most = layer.o.filters, 2 * layer.weights[0].numel()
    if filters % 2 or filters > most:
        raise layer.section.error(f"{filters} filters; expected an even number of at most {most} of them", "filters")
    return layer


def patch_moments(layer: Convolutional, paths: Sequence[str], w: int, h: int) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance (n, n) of the patches that the filters see, of images prepared as for ``valid``."""
    size, stride, n = layer.o.size, layer.o.stride, layer.weights[0].numel()
    count, total, products = 0, torch.zeros(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    slot = np.empty((1, 3, h, w), np.float32)
    for path in tqdm(paths, "patches", unit=" images", disable=None):
        SHORTER_SIDE.fill(load_image(path), slot)
        windows = torch.from_numpy(slot[0]).double().unfold(1, size, stride).unfold(2, size, stride)
        patches = windows.permute(1, 2, 0, 3, 4).reshape(-1, n)
        count, total, products = count + len(patches), total + patches.sum(0), products + patches.T @ patches
    mean = total / count
    return mean, products / count - mean.outer(mean)


@torch.no_grad()
def whiten(layer: Convolutional, mean: Tensor, covariance: Tensor) -> None:
    """Make filters and biases of ``layer`` so that its first half of outputs has the covariance 1."""
    variances, directions = torch.linalg.eigh(covariance)  # the least first
    filters = (directions / (variances + LEAST).sqrt()).T.flip(0)[: layer.o.filters // 2]
    filters = torch.cat([filters, -filters])
    layer.weights.copy_(filters.view_as(layer.weights))
    layer.biases.copy_(-filters @ mean)


@torch.no_grad()
def hand_on(network: Network) -> None:
    """The first filters of each later layer of 3 x 3 or more give one channel each, unchanged."""
    for layer in network.layers[1:]:
        if isinstance(layer, Convolutional) and layer.o.size > 1 and layer.o.groups == 1:
            nn.init.dirac_(layer.weights[: layer.weights.shape[1]])


def start(data: str, cfg: str, seed: int = 0) -> Network:
    """A network of random numbers, but for the first layer's filters and those that hand on a channel."""
    torch.manual_seed(seed)
    network = load_network(cfg)
    layer = first_layer(network)
    _, h, w = network.input
    paths = read_list(read_data(find_stock(data)).require("train"))
    paths = paths[:: -(-len(paths) // IMAGES)]
    whiten(layer, *patch_moments(layer, paths, w, h))
    hand_on(network)
    return network


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help=".data file, with the list train=")
    parser.add_argument("cfg", help="a classifier that starts with a [convolutional] layer")
    parser.add_argument("dest", help="weights file to write")
    options = parser.parse_args()
    try:
        save_weights(start(options.data, options.cfg), options.dest)
    except DarknetError as error:
        print(f"whiten: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
