"""The means over time by themselves; tests/train/test_alexeyab.py holds them against AlexeyAB's training."""

from __future__ import annotations

import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.train.ema import Ema

TEXT = """[net]
width=8
height=8
channels=3
[conv]
batch_normalize=1
filters=4
[connected]
output=3
[softmax]
"""


def test_the_means_of_convolutions_are_shown_and_put_away_again():
    """ema_update and ema_apply pass over all but [convolutional]."""
    network = load_network(parse_cfg(TEXT), program="alexeyab")
    ema = Ema(network, 0.75, 4000)
    ema.update(1999)
    assert ema.means == []
    ema.update(2000)
    names = [name for name, _ in network.layers[0].named_parameters()]
    assert len(ema.means) == len(names) == 3
    before = {name: number.clone() for name, number in network.named_parameters()}
    with torch.no_grad():
        for number in network.parameters():
            number += 1
    ema.update(2001)
    with ema.shown():
        for name, number in network.named_parameters():
            moved = 0.25 if name.startswith("layers.0.") else 1
            torch.testing.assert_close(number, before[name] + moved)
    for name, number in network.named_parameters():
        torch.testing.assert_close(number, before[name] + 1)
    for mean, name in zip(ema.means, names, strict=True):
        torch.testing.assert_close(mean, before[f"layers.0.{name}"] + 0.25)
