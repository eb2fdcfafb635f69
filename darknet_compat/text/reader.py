"""A network that reads a text symbol by symbol, and says of each what may follow it.

Source: ``examples/rnn.c``; every verb of it feeds one-hot vectors to ``network_predict``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch

from ..cfg import read_cfg
from ..device import find_device
from ..errors import DataError
from ..layers.softmax import Softmax
from ..network import Network
from ..stock import find_stock
from ..weights import load_network


def check_reader(network: Network) -> int:
    """How many symbols a network reads and gives probabilities of. Raises :class:`CfgError` where these differ."""
    symbols, outputs = network.input.outputs, network.layers[-1].output.outputs
    if symbols != outputs:
        raise network.layers[-1].section.error(
            f"the network takes {symbols} values and gives {outputs}; expected the same number, one for each symbol"
        )
    return symbols


class Reader:
    """A network at one place of one text: :meth:`feed` goes on by a symbol, :meth:`reset` starts anew."""

    def __init__(self, network: Network) -> None:
        self.symbols = check_reader(network)
        self.network = network.eval()
        self.x = torch.zeros(1, *network.input, device=network.device)
        self.reset()

    def feed(self, symbol: int) -> np.ndarray:
        """The probability of each symbol to come next, float32 (symbols,), after this one."""
        return self._feed(symbol, -1)

    def feed_all(self, symbols: Iterable[int]) -> None:
        for symbol in symbols:
            self.feed(symbol)

    def first_layer(self, symbol: int) -> np.ndarray:
        """Instead of probabilities, what the first layer gives."""
        return self._feed(symbol, 0)

    def _feed(self, symbol: int, layer: int) -> np.ndarray:
        if not 0 <= symbol < self.symbols:
            raise DataError(f"the symbol {symbol}; expected 0 to {self.symbols - 1}, which is what the network takes")
        values = self.x.view(-1)
        values[symbol] = 1
        with torch.inference_mode():
            output: np.ndarray = self.network.outputs(self.x)[layer].flatten().cpu().numpy()
        values[symbol] = 0
        return output

    def reset(self) -> None:
        """Forget what was read."""
        self.network.reset_state()


def load_reader(
    cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    temperature: float | None = None,
    device: str | None = None,
    numerics: str = "cudnn",
    program: str | None = None,
) -> Reader:
    """A network with its numbers, ready to read. ``temperature`` takes the place of that of each [softmax]: under 1
    the likely becomes likelier.

    Without ``weights`` the numbers are start values. The other options and errors are those of
    :func:`darknet_compat.load_network`. Raises :class:`CfgError` where the network takes other values than it gives.
    """
    if temperature is not None and not temperature > 0:
        raise ValueError(f"a temperature of {temperature:g}; expected more than 0")
    read = read_cfg(find_stock(os.fspath(cfg)))
    network = load_network(read, weights, numerics=numerics, program=program)
    for layer in network.layers:
        if isinstance(layer, Softmax) and temperature is not None:
            layer.o.temperature = temperature
    return Reader(network.to(find_device(device)))
