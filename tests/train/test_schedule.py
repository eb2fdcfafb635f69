"""The learning rate against libdarknet's get_current_rate."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.net import read_net
from darknet_compat.train.schedule import (
    DETECTION,
    Scaling,
    batch_number,
    check_schedule,
    current_rate,
    images_per_update,
)

MAX_BATCHES = 40200
POLICIES = {
    "constant": {},
    "step": dict(step=777, scale=0.37),
    "steps": dict(steps=[400, 700, 20000, 30000], scales=[0.1, 10.0, 0.1, 0.5]),
    "exp": dict(gamma=0.9993),
    "poly": dict(power=2.5),
    "poly 4": dict(power=4.0),
    "random": dict(power=1.7),
    "sigmoid": dict(gamma=0.0007, step=0),
    "sigmoid down": dict(gamma=-0.01, step=-3),
}


def read(text):
    cfg = parse_cfg(f"[net]\nwidth=32\nheight=32\nchannels=3\nmax_batches={MAX_BATCHES}\n{text}\n[maxpool]\n")
    net, _ = read_net(cfg.net)
    check_schedule(net, cfg.net)
    return net


def net_of(policy, **options):
    defaults = dict(learning_rate=0.001, burn_in=0, power=4.0, gamma=1.0, scale=1.0, step=1, steps=[], scales=[])
    return SimpleNamespace(policy=policy, max_batches=MAX_BATCHES, **{**defaults, **options})


@pytest.mark.parametrize("burn_in", [0, 1000])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_darknets_rate(darknet, name, burn_in):
    options = {"learning_rate": 0.0013, "burn_in": burn_in, **POLICIES[name]}
    policy = name.split()[0]
    net = net_of(policy, **options)
    theirs = {"policy": "sig" if policy == "sigmoid" else policy, "max_batches": MAX_BATCHES, **options}
    rng = np.random.default_rng(1)
    for batch in [0, 1, 2, 399, 400, 999, 1000, 1001, *rng.integers(0, MAX_BATCHES, 992).tolist()]:
        draw = 0.0
        if policy == "random":
            darknet.srand(batch)
            draw = darknet.rand_uniform(0, 1)
            darknet.srand(batch)
        expected = darknet.rate(batch, **theirs)
        assert current_rate(net, batch, draw) == pytest.approx(expected, rel=1e-6, abs=1e-30), batch


def test_steps_from_minus_1_is_the_warm_up_that_the_cfg_means(darknet):
    """The program of 2018 compares -1 without sign: its rate is .001 from first to last. Ours is the cfg's."""
    options = dict(steps=[-1, 100, 20000, 30000], scales=[0.1, 10.0, 0.1, 0.1])
    for batch in (1, 99, 100, 20000, 30000, 35000):
        assert darknet.rate(batch, "steps", **options) == pytest.approx(0.001, rel=1e-6)
    rates = [current_rate(net_of("steps", **options), batch) for batch in (1, 99, 100, 19999, 20000, 30000)]
    assert rates == pytest.approx([0.0001, 0.0001, 0.001, 0.001, 0.0001, 0.00001], rel=1e-6)


def test_sigmoid_before_its_step_is_what_the_cfg_means(darknet):
    """The same comparison without sign: the C program's rate is 0 up to ``step``, where it should be near full."""
    options = dict(gamma=0.01, step=2000)
    net = net_of("sigmoid", **options)
    for batch in (1, 1000, 1999):
        assert darknet.rate(batch, "sig", **options) == 0
        assert current_rate(net, batch) == pytest.approx(0.001 / (1 + np.exp(0.01 * (batch - 2000))), rel=1e-5)
    for batch in (2000, 2500, 9000):
        assert current_rate(net, batch) == pytest.approx(darknet.rate(batch, "sig", **options), rel=1e-6)


def test_steps_that_do_not_rise_are_darknets(darknet):
    """get_current_rate returns at the first step that is to come."""
    options = dict(steps=[50, 20, 90], scales=[0.1, 0.5, 3.0], learning_rate=0.01, burn_in=0)
    for batch in (10, 30, 60, 100):
        expected = darknet.rate(batch, policy="steps", max_batches=MAX_BATCHES, **options)
        assert current_rate(net_of("steps", **options), batch) == pytest.approx(expected, rel=1e-6), batch


def test_rates_no_number_can_hold_are_no_traceback():
    assert current_rate(net_of("step", scale=10.0), 5000) == np.inf
    assert current_rate(net_of("poly"), MAX_BATCHES + 3) == 0
    assert current_rate(net_of("sigmoid", gamma=1.0), MAX_BATCHES) == 0
    assert current_rate(net_of("random"), 5) == 0, "nothing drawn is 0"


def test_rates_of_a_stock_cfg(darknet, darknet_share):
    path = darknet_share / "cfg" / "yolov2-tiny.cfg"
    cfg = read_cfg(path)
    net, _ = read_net(cfg.net)
    check_schedule(net, cfg.net)
    oracle = darknet.load_network(path)
    for batch in (1, 100, 999, 1000, 50000, 410000):
        seen = batch * images_per_update(net)
        oracle.seen = seen
        assert batch_number(net, seen) == batch
        assert current_rate(net, batch) == pytest.approx(oracle.current_rate(), rel=1e-6)


SGDR = "policy=sgdr\nlearning_rate=.01\nburn_in=20\nmax_batches=5000\n"


@pytest.mark.parametrize("more", ["", "sgdr_cycle=300\n", "sgdr_cycle=100\nsgdr_mult=3\nlearning_rate_min=.001\n",
                                  "sgdr_cycle=50\nsgdr_mult=1\nlearning_rate_min=.02\n"])  # fmt: skip
def test_sgdr_is_alexeyabs(alexeyab_darknet, tmp_path, more):
    path = tmp_path / "net.cfg"
    path.write_text(
        f"[net]\nwidth=32\nheight=32\nchannels=3\nbatch=4\nsubdivisions=2\n{SGDR}{more}[conv]\nfilters=2\n[softmax]\n"
    )
    cfg = read_cfg(path)
    net, _ = read_net(cfg.net, "alexeyab")
    check_schedule(net, cfg.net)
    theirs = alexeyab_darknet.load_network(path)
    rates = []
    for batch in (0, 1, 19, 20, 21, 50, 51, 99, 100, 101, 300, 301, 899, 900, 901, 1700, 4999, 5000):
        theirs.seen = batch * 4
        rates.append(current_rate(net, batch))
        assert rates[-1] == pytest.approx(theirs.current_rate(), rel=2e-5, abs=1e-9), batch
    assert len(set(rates)) > 5


@pytest.mark.parametrize(
    ("more", "says"), [("sgdr_cycle=0", "sgdr_cycle is 0; expected 1"), ("sgdr_mult=0", "sgdr_mult is 0; expected 1")]
)
def test_a_cycle_that_never_ends_is_one_line(more, says):
    """AlexeyAB's program would count cycles for ever."""
    cfg = parse_cfg(f"[net]\nwidth=32\nheight=32\nchannels=3\nbatch=2\n{SGDR}{more}\n[maxpool]\n")
    net, _ = read_net(cfg.net, "alexeyab")
    with pytest.raises(CfgError, match=f"<text>:10: .*{says}"):
        check_schedule(net, cfg.net)


def test_the_least_that_a_training_needs_is_taken():
    cfg = parse_cfg("[net]\nwidth=32\nheight=32\nchannels=3\nmax_batches=1\npolicy=step\nstep=1\nbatch=2\n[maxpool]\n")
    net, _ = read_net(cfg.net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_schedule(net, cfg.net)


def test_batch_number_counts_what_the_subdivisions_take():
    net = read("batch=10\nsubdivisions=4")
    assert (images_per_update(net), batch_number(net, 23)) == (8, 2)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("policy=sgdr", 6, "no policy is called `sgdr`"),
        ("policy=steps\nsteps=1,2\nscales=.1", 8, "1 scales for 2 steps"),
        ("policy=steps\nscales=.1", 6, "without `steps`"),
        ("policy=steps\nsteps=1", 6, "without `scales`"),
        ("policy=step\nstep=0", 7, "step is 0"),
        ("batch=2\nsubdivisions=4", 7, "batch=2 leaves under one"),
        ("policy=steps\nsteps=80%,90%\nscales=.1,.1", 7, "steps=80%,90% holds a percentage.* up to the 40200"),
    ],
)
def test_what_no_rate_comes_from_is_refused_with_its_line(text, line, words):
    with pytest.raises(CfgError, match=f"<text>:{line}: .*{words}"):
        read(text)


@pytest.mark.parametrize(("text", "line"), [("batch=1", 6), ("subdivisions=1", 1), ("batch=3\nsubdivisions=2", None)])
def test_one_image_per_update_is_warned_of(text, line):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(text)
    expected = [] if line is None else [f"<text>:{line}: "]
    assert [str(one.message)[:10] for one in caught] == expected
    assert all("one image per update" in str(one.message) for one in caught)


def test_max_batches_0_is_refused():
    cfg = parse_cfg("[net]\nwidth=32\nheight=32\nchannels=3\n[maxpool]\n")
    net, _ = read_net(cfg.net)
    with pytest.raises(CfgError, match="nothing to train"):
        check_schedule(net, cfg.net)


def test_random_sizes_are_darknets_and_can_be_drawn_again():
    net = net_of("constant")
    drawn = [DETECTION.size(net, 7, update, update)[0] for update in range(0, 4000, 10)]
    assert set(drawn) == set(DETECTION.sizes) == {320, 352, 384, 416, 448, 480, 512, 544, 576, 608}
    assert drawn == [DETECTION.size(net, 7, update, update)[0] for update in range(0, 4000, 10)]
    assert drawn != [DETECTION.size(net, 8, update, update)[0] for update in range(0, 4000, 10)]


def test_the_last_199_batches_see_the_largest_size():
    """train_detector: get_current_batch(net)+200 > net->max_batches."""
    net = net_of("constant")
    for batch, largest in ((MAX_BATCHES - 200, False), (MAX_BATCHES - 199, True)):
        assert ({DETECTION.size(net, seed, 40000, batch)[0] for seed in range(50)} == {608}) == largest


def alexeyabs_size(w, h, factor, step, value=None):
    """The lines of his train_detector, in the floats of C; ``value``: what rand_scale drew."""
    round_up = lambda number: int(np.floor(np.float32(number) + 0.5))  # noqa: E731  # roundl of what is above 0
    scaled = lambda by: [round_up(np.float32(by) * side / np.float32(step) + 1) * step for side in (w, h)]  # noqa: E731
    sides = scaled(factor if value is None else value)
    if value is not None and value < 1 and (sides[0] > w or sides[1] > h):
        sides = [w, h]
    return tuple(max(side, step) for side in sides)


@pytest.mark.parametrize(("w", "h"), [(416, 416), (608, 320), (96, 64)])
@pytest.mark.parametrize(("factor", "step"), [(1.4, 32), (2.0, 64), (1.1, 32)])
def test_random_of_alexeyabs_is_a_factor(w, h, factor, step):
    net, drawn = SimpleNamespace(width=w, height=h, resize_step=float(step), max_batches=9000), Scaling(factor)
    assert drawn.largest(net) == alexeyabs_size(w, h, factor, step) == drawn.size(net, 1, 0, 0)
    possible = {alexeyabs_size(w, h, factor, step, v) for v in np.linspace(1 / factor, factor, 3001)}
    found = [drawn.size(net, 3, update, update) for update in range(10, 4000, 10)]
    assert set(found) <= possible
    assert len(set(found)) > 0.6 * len(possible)
    assert found == [drawn.size(net, 3, update, update) for update in range(10, 4000, 10)]
    assert all(side % step == 0 or size == (w, h) for size in found for side in size)


def alexeyabs_images(count, w, h, factor, step, size):
    """train_detector of his src/detector.c, in C's integers: dim_b."""
    largest = alexeyabs_size(w, h, factor, step)
    images = (count * largest[0] * largest[1]) // (size[0] * size[1])
    fewer = int(images * 0.8)
    return fewer if fewer > count else images


@pytest.mark.parametrize(("factor", "count"), [(1.4, 8), (1.4, 1), (2.0, 3), (1.1, 64)])
def test_a_dynamic_minibatch_fills_the_memory_of_the_largest_size(factor, count):
    net = SimpleNamespace(
        width=416, height=320, resize_step=32.0, max_batches=9000, mini_batch=count, dynamic_minibatch=1
    )
    drawn = Scaling(factor)
    sizes = {drawn.size(net, 3, update, update) for update in range(0, 4000, 10)}
    found = {size: drawn.images(net, size) for size in sizes}
    assert found == {size: alexeyabs_images(count, 416, 320, factor, 32, size) for size in sizes}
    assert found[drawn.largest(net)] == count
    assert max(found.values()) <= drawn.most_images(net)
    whole = count * np.prod(drawn.largest(net))
    assert all(images * np.prod(size) <= whole for size, images in found.items())
    net.dynamic_minibatch = 0
    assert {drawn.images(net, size) for size in sizes} == {drawn.most_images(net)} == {count}


def test_half_of_the_factors_enlarge():
    """rand_scale: uniform between 1 and the factor, or one over it."""
    net, drawn = SimpleNamespace(width=3200, height=3200, resize_step=32.0, max_batches=90000), Scaling(1.4)
    widths = np.array([drawn.size(net, 5, update, 1)[0] for update in range(10, 40000, 10)]) / 3200
    assert np.mean(widths > 1.02) == pytest.approx(0.5, abs=0.05)
    larger = widths[widths > 1.02]
    assert larger.mean() == pytest.approx(1.2 + 0.01, abs=0.01)
    assert (1 / widths[widths < 0.98]).mean() == pytest.approx(1.2, abs=0.02)


def test_alexeyabs_last_100_batches_see_the_largest_size():
    """get_current_iteration(net) > net.max_batches - 100; and % 10 == 0 for those before."""
    assert Scaling(1.4).every == 10
    net = SimpleNamespace(width=416, height=416, resize_step=32.0, max_batches=9000)
    for batch, largest in ((8900, False), (8901, True)):
        sizes = {Scaling(1.4).size(net, seed, 40000, batch) for seed in range(50)}
        assert (sizes == {(608, 608)}) == largest
