"""What the tests of recurrent sections share: networks of them, run step by step beside either library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.compare import TOLERANCE, check_weights, network_of, worst_layer

STREAMS = 2
# AlexeyAB's parser divides by the number of layers whose input is wider than a pixel, so each network has one. In
# pjreddie's program a [crnn] asks for no work space, so what comes before it must need as much.
CONV = "[conv]\nfilters=2\nsize=7\npad=1\nactivation=linear"
END = "[connected]\noutput=4\nactivation=linear\n[softmax]"


def text_of(*sections: str, steps: int = 1, width: int = 4, height: int = 4, net: str = "") -> str:
    """A cfg text with the sections between a convolution and a classifier's end."""
    head = f"[net]\nbatch={STREAMS}\ntime_steps={steps}\nwidth={width}\nheight={height}\nchannels=2\n{net}\n"
    return "\n".join([head, CONV, *sections, END]) + "\n"


def rows(seed: int, count: int, network) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *network.input)).astype(np.float32)


def check_steps(library, text: str, folder: Path, steps: int = 20) -> None:
    """Every layer through ``steps`` calls, each of one time step, and the file; then anew from the first state."""
    check_weights(library, text, folder)
    network, cfg, weights = network_of(text, folder, 0, library.numerics, library.program)
    reference = library.load_network(cfg, weights)
    inputs = [rows(seed, STREAMS, network) for seed in range(steps)]
    outputs = []
    for step, x in enumerate(inputs):
        difference, index = worst_layer(network, reference, x)
        assert difference <= TOLERANCE, f"step {step}: layer {index} is off by {difference:.2g}"
        outputs.append(reference.layer_output(-1))
    fresh = library.load_network(cfg, weights)
    network.reset_state()
    assert worst_layer(network, fresh, inputs[-1])[0] <= TOLERANCE
    # It is the state that makes the difference.
    assert np.abs(fresh.layer_output(-1) - outputs[-1]).max() > 1e-3


def check_steps_in_one_call(library, section: str, folder: Path) -> None:
    """What Darknet gives for calls of three time steps, time first, comes of three calls here."""
    network, cfg, weights = network_of(text_of(section, steps=3), folder, 0, library.numerics, library.program)
    reference = library.load_network(cfg, weights)
    for seed in range(4):
        x = rows(seed, 3 * STREAMS, network)
        with torch.inference_mode():
            steps = [network(torch.from_numpy(part)).flatten(1).numpy() for part in np.split(x, 3)]
        np.testing.assert_allclose(np.concatenate(steps), reference.predict(x), atol=1e-5)
