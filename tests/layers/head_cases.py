"""[yolo] and [Gaussian_yolo] here and in a library: random sections, maps and truths, and how far the two are apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.weights import save_weights

# A cell is a pixel of the network's input, and so are the anchors.
ANCHORS = "1.25,1.75, 2.875,3.375, 4.7,7.25, 10,10, 4.4,15"
W, H = 12, 8

DELTA, FIGURE = 1e-5, 1e-4  # what is allowed: of the largest delta of its kind, and of a figure
# How many networks, and cases of each.
SIZES = [pytest.param(10, 3, id="quick"), pytest.param(50, 20, id="1000", marks=pytest.mark.slow)]
# What float32 leaves open: in parts of a number a few bits; and the edges of a box, in parts of the image.
ROUNDING, EDGE = 2e-6, 1.2e-7


def text(options="", mask="1,2,4", classes=3, batch=2, planes=5, section="yolo", size=(W, H), anchors=ANCHORS, cell=1):
    """A cfg whose head gets the network's input as it is: the convolution before is the identity.

    ``planes`` of a box, without its classes; ``cell``: pixels from one cell to the next.
    """
    num = len(anchors.split(",")) // 2
    planes = (len(mask.split(",")) if mask else num) * (planes + classes)
    return (
        f"[net]\nbatch={batch}\nwidth={size[0] * cell}\nheight={size[1] * cell}\nchannels={planes}\n"
        f"[conv]\nfilters={planes}\ngroups={planes}\nsize=1\nactivation=linear\n"
        + (f"[maxpool]\nsize=1\nstride={cell}\n" if cell > 1 else "")
        + f"[{section}]\n{f'mask={mask}' if mask else ''}\nanchors={anchors}\nnum={num}\nclasses={classes}\n{options}\n"
    )


def made(cfg, folder, program):
    network = Network(parse_cfg(cfg), "cpu", program=program).eval()
    with torch.no_grad():
        network.layers[0].weights.fill_(1)
        network.layers[0].biases.zero_()
    (folder / "net.cfg").write_text(cfg)
    save_weights(network, folder / "net.weights")
    return network


def deltas(network, raw, truth, seen=0):
    raw = torch.from_numpy(raw).requires_grad_()
    (loss, figures) = network.heads[0].loss(raw, torch.from_numpy(truth), seen)
    (gradient,) = torch.autograd.grad(loss, raw)
    return -gradient.numpy(), figures


def numbers(line):
    return np.array([float(word) for word in re.findall(r"(?<![\w.])-?(?:\d+\.\d+|nan|\d+(?![\w.]))", line)])


def words(line):
    return re.sub(r"-?[\d.]+|-nan", "#", line)


def figures_of(line, cost, printed, expected):
    """A line's numbers and the cost, each in parts of what its error is held against: the number ``printed``, or a
    hundredth of the largest, since losses are differences of sums; and what the last digit of each leaves open."""
    found, digits = [cost / max(expected, 1e-6)], [0.0]
    for part, there in zip(line.split("count"), printed.split("count"), strict=True):
        size = np.abs(numbers(there))
        size = np.fmax(size, 0.01 * np.nanmax(size, initial=1))
        found.extend(numbers(part) / size)
        digits.extend((0.0101 if "uc_loss" in there else 1.1e-6) / size)
    return np.array(found), np.array(digits)


def apart(ours, theirs):
    """How far the two are apart at most: infinitely where one alone is NaN."""
    difference = np.abs(ours - theirs)
    difference[np.isnan(ours) & np.isnan(theirs)] = 0
    return np.nan_to_num(difference, nan=np.inf)


@dataclass
class Tally:
    cases: int = 0
    truths: int = 0
    delta: float = 0
    """The largest difference of boxes, objectness or classes, in parts of the largest delta of these."""
    figure: float = 0
    """And of what is printed, beyond its last digit."""
    rounded: int = 0
    """Cases that rounding decides."""


class Pair:
    """The same head here and in a library."""

    seen = 0

    def __init__(self, library, folder, cfg):
        self.library, self.network = library, made(cfg, folder, library.program)
        self.reference = library.load_network(folder / "net.cfg", folder / "net.weights")
        self.head = self.network.heads[0]

    def theirs(self, raw, truth):
        """Delta, cost and line of the library."""
        cell = self.network.input.w // raw.shape[3]
        x = np.zeros((len(raw), *self.network.input), np.float32)
        x[:, :, ::cell, ::cell] = raw
        rows = self.rows(truth).reshape(len(raw), -1)[:, : self.reference.truths]
        with self.library.capture() as printed:
            cost = self.reference.train_step(x, rows, update=False).cost
        (line,) = re.findall(r"^(?:Region|v3 \(|Detection).*$", printed.text + printed.errors, re.MULTILINE)
        return self.reference.layer_tensor(self.head.index, "delta").reshape(raw.shape), cost, line

    def rows(self, truth):
        """Truths (N, T, 5) as the library has them."""
        ids = int(self.library.program == "alexeyab")  # track_id
        return np.pad(truth, ((0, 0), (0, 0), (0, ids)))

    def kinds(self, delta):
        """Boxes, objectness and classes."""
        head = self.head
        return head.planes(torch.as_tensor(delta)).double().split([head.coords, 1, head.o.classes], 2)

    def parts(self, delta, expected):
        """A delta, each kind in parts of the largest one ``expected``, or of .1: the last bit of a probability near 1
        is 6e-8."""
        pairs = zip(self.kinds(delta), self.kinds(expected), strict=True)
        return torch.cat([(one / most.abs().max().clamp_min(0.1)).flatten() for one, most in pairs]).numpy()

    def cells(self, truth):
        return self.head.cells(torch.from_numpy(truth)).numpy()

    def moved(self, rng, raw, truth):
        """Both, moved by no more than rounding does; no truth to another cell, which is the same number everywhere."""
        # Before a logistic all that is near 0 is alike; behind it, with new_coords, nothing may come under 0.
        size = np.maximum(np.abs(raw), 0 if getattr(self.head.o, "new_coords", 0) else 1)
        raw = raw + (rng.uniform(-ROUNDING, ROUNDING, raw.shape) * size).astype(np.float32)
        other = truth.copy()
        other[..., :4] *= rng.uniform(1 - ROUNDING, 1 + ROUNDING, other[..., :4].shape)
        other[..., :2] = np.where(self.cells(truth) == self.cells(other), other[..., :2], truth[..., :2])
        return raw, other

    def lost(self, raw):
        """What rounding may cost each delta of a box: it is the difference of terms as large as 1 / the box's side, and
        the side that of two edges."""
        o, head = self.head.o, self.head
        if getattr(o, "iou_loss", "mse") == "mse":
            return np.zeros_like(raw)
        box = head.planes(head(torch.from_numpy(raw)))[:, :, : head.coords]
        terms = head.xywh(box.permute(0, 3, 4, 1, 2))[..., 2:].amin(-1).reciprocal()
        lost = torch.zeros_like(head.planes(torch.from_numpy(raw)))
        lost[:, :, : head.coords] = (terms * (ROUNDING + EDGE * terms)).permute(0, 3, 1, 2)[:, :, None]
        if not o.new_coords:
            lost[:, :, head.coords // 2 : head.coords] *= box[:, :, head.coords // 2 :].exp()
        return (o.iou_normalizer * float(head.multipliers.max()) * lost).flatten(1, 2).numpy()

    def compare(self, raw, truth, tally):
        """Delta and figures of a map (N, planes, h, w) and truths (N, T, 5) are the library's."""
        delta, cost, line = self.theirs(raw, truth)
        expected = self.parts(delta, delta), figures_of(line, cost, line, cost)[0]

        def ours(raw, truth):
            own, figures = deltas(self.network, raw, truth, self.seen)
            own_line = self.head.line(figures)
            assert words(own_line) == words(line), (own_line, line)
            shown, digits = figures_of(own_line, float(figures.cost), line, cost)
            return self.parts(own, delta), shown, digits, int(figures.count)

        found, shown, digits, count = ours(raw, truth)
        tally.cases, tally.truths = tally.cases + 1, tally.truths + count
        of_delta = float(apart(found, expected[0]).max())
        of_figure = float((apart(shown, expected[1]) - digits).max())
        if of_delta <= DELTA and of_figure <= FIGURE:
            tally.delta, tally.figure = max(tally.delta, of_delta), max(tally.figure, of_figure)
            return
        # Rounding decides what the least change of map and truths changes: any of these outcomes will do; and it is all
        # that the deltas of the thinnest boxes are.
        tally.rounded += 1
        rng = np.random.default_rng(0)
        outcomes = [(found, shown), *(ours(*self.moved(rng, raw, truth))[:2] for _ in range(32))]
        bounds = DELTA + self.parts(self.lost(raw), delta), FIGURE + digits
        for theirs, allowed, some in zip(expected, bounds, zip(*outcomes, strict=True), strict=True):
            some = np.stack(some)
            between = (theirs >= some.min(0) - allowed) & (theirs <= some.max(0) + allowed)
            assert np.all(between | np.isnan(theirs) & np.isnan(some[0])), (of_delta, of_figure)


# --- random sections: what a switch is set to, given the number of classes


def one_of(*values):
    return lambda rng, classes, folder: str(rng.choice(values))


def between(low, high):
    return lambda rng, classes, folder: f"{rng.uniform(low, high):.3g}"


def counters(rng, classes, folder):
    return ",".join(map(str, rng.integers(0, 60, classes)))


def class_map(rng, classes, folder):
    """A file of the classes that truths of as many become."""
    file = folder / "classes.map"
    file.write_text("".join(f"{number}\n" for number in rng.integers(0, classes, classes)))
    return file


IGNORE = {"ignore_thresh": between(0.05, 0.8)}
TRUTH = {"truth_thresh": between(0.2, 0.9)}
COUNTERS = {"counters_per_class": counters}
THRESH = {"iou_thresh": between(0.02, 0.7)}
KINDS = ("mse", "iou", "giou", "diou", "ciou")
# What [yolo] of both programs reads, and what AlexeyAB's two heads read alike.
BOTH = {
    "plain": {},
    "ignore_thresh": IGNORE,
    "truth_thresh": TRUTH,
    "map": {"map": class_map},
    "max": {"max": one_of(1, 3, 8)},
}
HIS = {
    **BOTH,
    "iou_normalizer": {"iou_normalizer": between(0.05, 3)},
    "obj_normalizer": {"obj_normalizer": between(0.2, 3)},
    "counters_per_class": COUNTERS,
    "cls_normalizer": {"cls_normalizer": between(0.2, 2), **COUNTERS},
    "max_delta": {"max_delta": between(0.01, 5)},
    "max_delta, counters_per_class": {"max_delta": between(0.5, 5), **COUNTERS},
    "scale_x_y": {"scale_x_y": between(1, 2.2)},
    "label_smooth_eps": {"label_smooth_eps": between(0.01, 0.3)},
    "objectness_smooth": {"objectness_smooth": one_of(1)},
    "objectness_smooth, truth_thresh": {"objectness_smooth": one_of(1), **IGNORE, **TRUTH},
    "iou_thresh": THRESH,
    **{f"iou_thresh, {kind}": {**THRESH, "iou_thresh_kind": one_of(kind)} for kind in ("giou", "mse", "diou", "ciou")},
}


def with_any(switches):
    """And of the options of all each with a chance of .4."""
    every = {name: value for options in switches.values() for name, value in options.items()}
    if "iou_thresh" in every:
        every["iou_thresh_kind"] = one_of(*KINDS)
    return {**switches, "any": lambda rng: {name: value for name, value in every.items() if rng.random() < 0.4}}


def random_section(rng, section, folder, switches, options):
    """A cfg whose head, of a random size, has these switches (name -> function as above, or :func:`with_any`) and
    options (a text)."""
    classes = int(rng.choice([1, 2, 3, 7, 20], p=[0.15, 0.25, 0.25, 0.25, 0.1]))
    size, cell = rng.integers(2, 11, 2), int(rng.integers(1, 4))
    num = int(rng.integers(1, 7))
    anchors = ",".join(f"{side:.4g}" for side in (rng.uniform(0.05, 1.1, (num, 2)) * size * cell).ravel())
    own = sorted(rng.choice(num, int(rng.integers(1, min(num, 3) + 1)), replace=False))
    mask = "" if num < 4 and rng.random() < 0.3 else ",".join(map(str, own))
    chosen = switches(rng) if callable(switches) else switches
    lines = [f"{name}={value(rng, classes, folder)}" for name, value in chosen.items()]
    return text(
        "\n".join([options, *lines]), mask, classes, int(rng.integers(1, 4)), 9 if section == "Gaussian_yolo" else 5,
        section, tuple(map(int, size)), anchors, cell,
    )  # fmt: skip


def random_case(rng, network, most=30):
    """A map (N, planes, h, w), some of whose boxes are near truths, and truths (N, ``most`` + 3, 5)."""
    head = network.heads[0]
    (w, h), batch = (head.input.w, head.input.h), network.net.mini_batch
    truth = np.zeros((batch, most + 3, 5), np.float32)
    for rows in truth:
        count = int(rng.choice([0, 1, 3, 8, most], p=[0.1, 0.2, 0.3, 0.3, 0.1]))
        rows[:count, :4] = truths(rng, count, w, h)
        rows[:count, 4] = rng.integers(0, head.o.classes, count)
        rows[count + 1 :] = 0.3, 0.6, 0.4, 0.5, 0  # behind the end: no truths
    raw = rng.normal(0, rng.choice([0.5, 1.5, 3]), (batch, head.n, head.coords + 1 + head.o.classes, h, w))
    planes = np.moveaxis(raw, 2, -1)
    step = head.coords // 4
    gone = rng.random(planes.shape) < rng.choice([0, 0.03, 0.3])
    gone[..., 2 * step : 4 * step : step] &= rng.random(gone[..., 2 * step : 4 * step : step].shape) < 0.1
    far = rng.choice(FAR[network.program], planes.shape).astype(float)
    if step == 2:  # uncertainties no further: what is squared is divided by them
        far[..., 1:8:2] = rng.choice([-5, 5], far[..., 1:8:2].shape)
    far[..., 2 * step : 4 * step : step] = rng.choice([-16, -6, 6], far[..., 2 * step : 4 * step : step].shape)
    planes[gone] = far[gone]
    plant(rng, head, planes, truth)
    if head.program == "alexeyab" and head.o.new_coords:  # the convolution before has the logistic
        raw = 1 / (1 + np.exp(-raw))
        # An objectness that is just right has no delta, which he takes for none given; a side of 0 counts as 1.
        raw[:, :, 2:5] = np.where(rng.random(raw[:, :, 2:5].shape) < 0.1, raw[:, :, 2:5].round(), raw[:, :, 2:5])
    return raw.reshape(batch, -1, h, w).astype(np.float32), truth


# Values so far gone that the logistic is all but 0 or 1, or is. As AlexeyAB's Makefile builds it (-Ofast), his of less
# than -88 is NaN, and what should be 1 is .99999994: a class that has a delta still. One that has none of his [yolo]
# counts as none given (docs/DIFFERENCES.md), and with focal_loss the product of two small numbers is soon flushed to 0.
FAR = {"pjreddie": (-200, -30, 30, 200), "alexeyab": (-40, -30, 12, 15)}


def truths(rng, count, w, h):
    """x, y, w, h of ``count`` truths: large and small ones, at the borders of cells and of the image, crowded."""
    large = rng.uniform(0.05, 1.6, (count, 2)).clip(0, 1) * rng.uniform(0.9, 1, (count, 2))
    size = np.where(rng.random((count, 1)) < 0.3, rng.uniform(0.002, 0.1, (count, 2)), large)
    centre = rng.uniform(0, 1, (count, 2))
    border = rng.choice(["cell", "low", "high", ""], (count, 2), p=[0.05, 0.05, 0.05, 0.85])
    centre = np.select(
        [border == "cell", border == "low", border == "high"], [(centre * [w, h]).round() / [w, h], 0, 1], centre
    )
    rows = np.concatenate([centre, size], 1)
    if count > 1 and rng.random() < 0.5:
        rows[1::2] = rows[0] * rng.uniform(0.98, 1.02, rows[1::2].shape)
    return rows.clip(1e-4, 0.9999)


def plant(rng, head, planes, truth):
    """Put boxes near half of the truths, into ``planes`` (N, n, h, w, planes)."""
    anchors = head.own_anchors.numpy() / [head.image.w, head.image.h]
    scale, step = (head.o.scale_x_y if head.program == "alexeyab" else 1), head.coords // 4
    new = head.program == "alexeyab" and head.o.new_coords
    cells, points = head.cells(torch.from_numpy(truth)).int().numpy(), head.point(torch.from_numpy(truth)).numpy()
    for image, number in np.argwhere((truth[..., 0] != 0).cumprod(1)):
        if rng.random() < 0.5:
            continue
        column, row = cells[image, number]
        anchor = rng.integers(head.n)
        box = planes[image, anchor, row, column]
        within = points[image, number] * [head.input.w, head.input.h] - (column, row)
        sides = truth[image, number, 2:4] / anchors[anchor]
        box[: 2 * step : step] = logit((within + 0.5 * (scale - 1)) / scale)
        box[2 * step : 4 * step : step] = logit((sides / 4) ** 0.5) if new else np.log(sides)
        box[: 4 * step : step] += rng.normal(0, 0.2, 4)


def logit(p):
    p = p.clip(0.001, 0.999)
    return np.log(p / (1 - p))


def run(library, folder, section, switches, networks, cases, kinds=("",)):
    """So many networks with these switches and ``iou_loss`` one of the kinds after the other, so many cases of each:
    a tally of each kind; all within the bounds."""
    rng, tallies = np.random.default_rng(0), {kind: Tally() for kind in kinds}
    for kind in islice(cycle(kinds), networks):
        options = f"iou_loss={kind}" if kind else ""
        pair = Pair(library, folder, random_section(rng, section, folder, switches, options))
        for _ in range(cases):
            pair.compare(*random_case(rng, pair.network), tallies[kind])
    assert sum(tally.truths for tally in tallies.values()) > networks * cases
    assert sum(tally.rounded for tally in tallies.values()) <= 2 + 0.05 * networks * cases
    return tallies


def row(name, tallies):
    """Of a table: the worst delta of each kind, the worst figure, the cases that rounding decides."""
    some = tallies.values()
    worst = " | ".join(f"{tally.delta:.1e}" for tally in some)
    figure, rounded = max(tally.figure for tally in some), sum(tally.rounded for tally in some)
    cases, truths = (sum(getattr(tally, name) for tally in some) for name in ("cases", "truths"))
    return f"| {name} | {cases} | {truths} | {worst} | {figure:.1e} | {rounded} |"


def check_delta_normalizer(text, folder):
    """It scales the gradient and nothing that is printed, as in his GPU build; his CPU build passes over it."""
    plain = made(text("iou_loss=ciou"), folder, "alexeyab")
    scaled = made(text("iou_loss=ciou\ndelta_normalizer=.5"), folder, "alexeyab")
    raw, truth = random_case(np.random.default_rng(4), plain)
    whole, figures = deltas(plain, raw, truth)
    half, others = deltas(scaled, raw, truth)
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)
    assert int(figures.count) > 1
    assert [float(one) for one in figures] == [float(one) for one in others]
