"""What the tests of texts share: small networks, and the C programs' random numbers where they draw them."""

from __future__ import annotations

import ctypes

import numpy as np

from tests.conftest import ROOT

SONNETS = ROOT / "data/sonnets.txt"
SYMBOLS = 128
# AlexeyAB's parser divides by the number of layers with a map over 1 x 1, so each network here has one; pjreddie's
# [crnn] needs the work space of a convolution.
MAP = "[maxpool]\nsize=1\nstride=1"
CONV = "[conv]\nfilters=2\nsize=7\npad=1\nactivation=linear"
SECTIONS = {
    "rnn": f"{MAP}\n[rnn]\noutput=24\nhidden=24\nactivation=tanh",
    "gru": f"{MAP}\n[gru]\noutput=24",
    "lstm": f"{MAP}\n[lstm]\noutput=24",
    "crnn": f"{CONV}\n[crnn]\noutput_filters=2\nhidden_filters=3\nactivation=tanh",
}
ALEXEYAB = {**SECTIONS, "crnn": f"{CONV}\n[crnn]\noutput=2\nhidden=3\npad=1\nactivation=tanh"}


def text_cfg(section: str, batch: int = 1, steps: int = 1, net: str = "") -> str:
    """A network over 128 letters, which stand in two maps of 8 x 8."""
    head = f"[net]\nbatch={batch}\ntime_steps={steps}\nwidth=8\nheight=8\nchannels=2\n{net}\n"
    return f"{head}{section}\n[connected]\noutput={SYMBOLS}\nactivation=linear\n[softmax]\n"


def sharpen(network) -> None:
    """Let a random network be as sure of what follows as a trained one."""
    network.layers[-2].weights.data *= 6


def seed_c(library, seed: int, cfg, weights) -> None:
    """Let C's random numbers stand where they stand in a program behind srand(seed) and load_network."""
    library.srand(1)
    first = library.rand()
    library.srand(1)
    library.lib.rand_normal()  # makes two numbers at a time, and may have kept one from an earlier test
    if library.rand() != first:
        library.lib.rand_normal()
    library.srand(seed)
    library.load_network(cfg, weights)


def starts_of(library, size: int, streams: int, restart: int):
    """Where train_char_rnn starts its streams, by C's random numbers in its order; call it after :func:`seed_c`."""
    library.lib.rand_size_t.restype = ctypes.c_size_t
    made = []

    def draw(number):
        while len(made) <= number:
            first = not made
            pairs = [
                (True, library.lib.rand_size_t() % size) if first or library.rand() % restart == 0 else (False, 0)
                for _ in range(streams)
            ]
            made.append(tuple(map(np.array, zip(*pairs, strict=True))))
        return made[number]

    return draw
