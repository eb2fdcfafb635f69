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


def plain_steps(
    kind: str, weights: dict[str, torch.Tensor], steps: list, state: list, *,
    tanh: bool = False, shortcut: bool = False, normalize: bool = False,
) -> tuple[list, list]:  # fmt: skip
    """The formulas of rnn_layer.c, gru_layer.c, lstm_layer.c and crnn_layer.c, one number at a time.

    ``weights``: of the sub-layers, by their names ("uz.weights"). ``steps``: of each step, of each stream, its numbers,
    scalars of torch, so that autograd goes through; a map's numbers are plane by plane. ``state``: of each stream; an
    [lstm] has h, then c. Returns the outputs, formed as ``steps``, and the state of each stream.
    """

    def part(name: str, inputs: list) -> list:
        """A sub-layer's outputs, of each stream, from its inputs."""
        w, b = weights[f"{name}.weights"], weights[f"{name}.biases"]
        apply = _convolve if w.dim() == 4 else _multiply
        sums = [apply(w, row) for row in inputs]
        size = len(sums[0]) // len(b)
        if normalize:
            sums = _normalise(sums, size, weights[f"{name}.scales"])
        return [[number + b[at // size] for at, number in enumerate(row)] for row in sums]

    def each(function, *rows):
        """The function of the numbers at each place, of each stream."""
        return [[function(*numbers) for numbers in zip(*streams, strict=True)] for streams in zip(*rows, strict=True)]

    def two(function, left: str, right: str, x: list, s: list) -> list:
        return each(lambda a, b: function(a + b), part(left, x), part(right, s))

    outputs = []
    for x in steps:
        if kind in ("rnn", "crnn"):
            fresh = each(lambda a, b: a.tanh() + b.tanh(), part("input_layer", x), part("self_layer", state))
            state = each(lambda a, b: a + b, fresh, state) if shortcut else fresh
            outputs.append(each(torch.tanh, part("output_layer", state)))
        elif kind == "gru":
            z = two(torch.sigmoid, "uz", "wz", x, state)
            r = two(torch.sigmoid, "ur", "wr", x, state)
            forgot = each(lambda a, b: a * b, r, state)
            h = two(torch.tanh if tanh else torch.sigmoid, "uh", "wh", x, forgot)
            state = each(lambda s, new, keep: keep * s + (1 - keep) * new, state, h, z)
            outputs.append(state)
        else:
            half = len(state[0]) // 2
            hidden, cell = [row[:half] for row in state], [row[half:] for row in state]
            f, i, o = (two(torch.sigmoid, "u" + gate, "w" + gate, x, hidden) for gate in "fio")
            g = two(torch.tanh, "ug", "wg", x, hidden)
            cell = each(lambda f, c, i, g: f * c + i * g, f, cell, i, g)
            hidden = each(lambda o, c: o * c.tanh(), o, cell)
            state = [h + c for h, c in zip(hidden, cell, strict=True)]
            outputs.append(hidden)
    return outputs, state


def _multiply(w: torch.Tensor, row: list) -> list:
    return [sum(w[k, j] * number for j, number in enumerate(row)) for k in range(len(w))]


def _convolve(w: torch.Tensor, row: list) -> list:
    """3x3 with padding 1, over a square map."""
    side = round((len(row) / w.shape[1]) ** 0.5)

    def at(k: int, y: int, x: int):
        total = torch.zeros((), dtype=w.dtype)
        for c in range(w.shape[1]):
            for dy in range(3):
                for dx in range(3):
                    v, u = y + dy - 1, x + dx - 1
                    if 0 <= v < side and 0 <= u < side:
                        total = total + w[k, c, dy, dx] * row[(c * side + v) * side + u]
        return total

    return [at(k, y, x) for k in range(len(w)) for y in range(side) for x in range(side)]


def _normalise(rows: list, size: int, scales: torch.Tensor) -> list:
    """By mean and variance over the streams, and over the ``size`` places of each plane."""
    normal = [list(row) for row in rows]
    for plane in range(len(rows[0]) // size):
        places = range(plane * size, (plane + 1) * size)
        numbers = [row[at] for row in rows for at in places]
        mean = sum(numbers) / len(numbers)
        variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
        for row in normal:
            for at in places:
                row[at] = (row[at] - mean) / (variance + 1e-5).sqrt() * scales[plane]
    return normal
