"""Training on a text: the streams, whole runs beside both C programs, going on, and what comes of it."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
import torch

from darknet_compat import load_network, load_reader, train_text, validate_text
from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError, DataError
from darknet_compat.layers.recurrent import Recurrent
from darknet_compat.network import Network
from darknet_compat.train.step import Trainer
from darknet_compat.train.text import draw_starts, starts, text_batches
from darknet_compat.weights import save_weights
from tests.compare import network_of
from tests.oracle import PROGRAM
from tests.text_cases import SECTIONS, SONNETS, seed_c, starts_of, text_cfg

TEXT = SONNETS.read_bytes()
LINE = re.compile(r"^(\d+): (\S+), (\S+) avg, (\S+) rate, \S+ seconds, (\S+) epochs(?:, \S+ hours left)?$", re.M)


def trainer_of(section="gru", batch=6, steps=4, net="max_batches=9"):
    network = Network(parse_cfg(text_cfg(SECTIONS[section], batch, steps, net)))
    return Trainer(network.start(), seed=3)


def test_a_mini_batch_is_time_first_and_its_truth_what_follows():
    trainer = trainer_of(batch=2, steps=3)
    text = np.frombuffer(b"abcdefg", np.uint8).astype(np.int64)
    again = {0: ([True, True], [0, 5]), 1: ([False, False], [0, 0]), 2: ([True, False], [4, 0])}
    batches = text_batches(trainer, text, lambda number: tuple(map(np.array, again[number])))
    found = list(itertools.islice(batches, 3))
    for images, truth, _ in found:
        assert images.shape == (6, 2, 8, 8)
        assert truth.shape == (6, 128)
        assert images.flatten(1).sum(1).tolist() == truth.sum(1).tolist() == [1] * 6
    read = [bytes(batch.images.flatten(1).argmax(1).tolist()) for batch in found]
    following = [bytes(batch.truth.argmax(1).tolist()) for batch in found]
    assert read == [b"afbgca", b"dbecfd", b"eeffgg"]
    assert following == [b"bgcadb", b"ecfdge", b"ffggaa"]


def test_where_streams_stand_hangs_on_the_number_alone():
    draw = draw_starts(1000, 16, 8, seed=4)
    at = draw(0)[1]
    assert len(set(at)) > 8
    anew = 0
    for number in range(1, 60):
        again, places = draw(number)
        anew += again.sum()
        at = np.where(again, places, at + 7)
        assert (starts(draw, number, 7) == at).all()
    assert 59 * 16 / 8 * 0.7 < anew < 59 * 16 / 8 * 1.4
    assert (draw_starts(1000, 16, 8, seed=4, rank=1)(0)[1] != draw(0)[1]).any()


@pytest.mark.parametrize("section", ["gru", "lstm"])
def test_a_stream_that_starts_anew_is_forgotten_and_no_other(section):
    trainer = trainer_of(section, batch=3, steps=2)
    text = np.frombuffer(TEXT, np.uint8).astype(np.int64)
    again = {0: [True] * 3, 1: [False] * 3, 2: [False, True, False]}
    batches = text_batches(trainer, text, lambda number: (np.array(again[number]), np.array([5, 50, 500])))
    (layer,) = [layer for layer in trainer.network.layers if isinstance(layer, Recurrent)]
    for _ in range(2):
        trainer.update(itertools.islice(batches, 1))
    before = layer.state.clone()
    next(batches)
    assert bool(before[1].any())
    assert not layer.state[1].any()
    assert torch.equal(layer.state[[0, 2]], before[[0, 2]])


def figures(text: str) -> np.ndarray:
    """Of the lines of each update: number, loss, average, rate, epochs."""
    return np.array(LINE.findall(text), float)


def run_c(program, cfg, weights, folder) -> tuple[str, range]:
    """What ``rnn train`` of a C program prints, and the seconds at one of which it called srand(time(0))."""
    started = int(time.time())
    command = [program, "rnn", "train", cfg, weights, "-file", SONNETS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=True)
    return done.stdout + done.stderr, range(started, int(time.time()) + 1)


def same_run(library, cfg, weights, expected, seconds, folder, streams, restart, **options) -> np.ndarray:
    """Our training by the C program's random numbers, which started at one of these seconds: its figures."""
    for second in seconds:
        seed_c(library, second, cfg, weights)
        draw = starts_of(library, len(TEXT), streams, restart)
        shutil.rmtree(folder, ignore_errors=True)
        train_text(
            cfg, weights, text=SONNETS, backup=folder, draw=draw, device="cpu", program=library.program, **options
        )
        found = figures((folder / "net.log").read_text())
        if found[0] == pytest.approx(expected[0], rel=1e-4):
            break
    return found


def test_a_run_is_pjreddies(darknet, tmp_path):
    """Every line of 30 updates, of a network that his CPU build trains rightly; it cannot save in his own folder."""
    section = "[connected]\noutput=16\nactivation=tanh"
    net = "learning_rate=.2\nmomentum=.9\ndecay=.001\nmax_batches=3230"
    _, cfg, weights = network_of(text_cfg(section, batch=4, steps=5, net=net), tmp_path)  # 64,000 letters seen
    printed, seconds = run_c(PROGRAM, cfg, weights, tmp_path)
    expected = figures(printed)
    assert expected[:, 0].tolist() == list(range(3201, 3231))
    found = same_run(darknet, cfg, weights, expected, seconds, tmp_path / "backup", streams=4, restart=64)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
    assert expected[-1, 1] < expected[0, 1]


LINEAR = "[conv]\nfilters=2\nsize=1\nactivation=linear\n[rnn]\noutput=16\nhidden=12\nactivation=linear"


def test_updates_through_time_are_those_of_alexeyabs_library(alexeyab_darknet, tmp_path):
    """Losses and weights of 30 updates of a linear [rnn], which his CPU build trains rightly."""
    net = "learning_rate=.05\nmomentum=.9\ndecay=.001\nmax_batches=3000"
    text = text_cfg(LINEAR, batch=4, steps=10, net=net)
    network, cfg, weights = network_of(text, tmp_path, numerics="gpu", program="alexeyab")
    network.layers[1].self_layer.weights.data *= 0.3  # so that the state does not grow
    save_weights(network, weights)
    reference = alexeyab_darknet.load_network(cfg, weights)
    trainer = Trainer(network)
    symbols = np.frombuffer(TEXT, np.uint8).astype(np.int64)
    losses = []
    for batch in itertools.islice(text_batches(trainer, symbols, draw_starts(len(TEXT), 4, 10, seed=1)), 30):
        step = reference.train_step(batch.images.numpy(), batch.truth.numpy(), update=True)
        losses.append((trainer.update([batch]).loss, step.cost / 40))
    found, expected = np.array(losses).T
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert expected[-5:].mean() < 0.85 * expected[:5].mean()
    reference.save_weights(tmp_path / "theirs.weights")
    theirs = load_network(cfg, tmp_path / "theirs.weights", numerics="gpu", program="alexeyab").state_dict()
    for key, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-4, msg=key)


# What the C programs' CPU builds can train, a part of [gru] at least: section, [net], updates, and whether to the same.
TRAINABLE = {
    "alexeyab": ("[conv]\nfilters=2\nsize=1\nactivation=linear\n[rnn]\noutput=64\nhidden=64\nactivation=linear",
                 "learning_rate=.01\nmomentum=.9\ndecay=0\nmax_batches=3000", 400, True),
    "pjreddie": ("[gru]\noutput=64\ntanh=1", "learning_rate=.3\nmomentum=.9\ndecay=0\nmax_batches=3000", 300, False),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("program", TRAINABLE)
def test_bits_per_letter_beside_the_c_libraries(program, request, tmp_path, capsys):
    """The same start values and batches: 16 streams of 20 steps, of all sonnets but the last two, which are held out.

    pjreddie's [gru] has no backward pass on a CPU, so that only the [connected] behind it learns.
    """
    section, net, updates, equal = TRAINABLE[program]
    library = request.getfixturevalue("darknet" if program == "pjreddie" else "alexeyab_darknet")
    lines = TEXT.splitlines(keepends=True)
    seen, held = b"".join(lines[:269]), b"".join(lines[270:])
    cfg, one, start = (tmp_path / name for name in ("net.cfg", "one.cfg", "start.weights"))
    cfg.write_text(text_cfg(section, 16, 20, net))
    one.write_text(text_cfg(section, 1, 1, net))
    torch.manual_seed(1)
    save_weights(load_network(cfg, None, numerics="gpu", program=program), start)
    reference = library.load_network(cfg, start)
    trainer = Trainer(load_network(cfg, start, numerics="gpu", program=program))
    symbols = np.frombuffer(seen, np.uint8).astype(np.int64)
    losses = []
    for batch in itertools.islice(text_batches(trainer, symbols, draw_starts(len(seen), 16, 64, seed=1)), updates):
        theirs = reference.train_step(batch.images.numpy(), batch.truth.numpy(), update=True).cost / 320
        losses.append((trainer.update([batch]).loss, theirs))
    save_weights(trainer.network, tmp_path / "ours.weights")
    reference.save_weights(tmp_path / "theirs.weights")
    trained = np.mean(losses[-100:], 0) / np.log(2)
    scored = []
    for weights in ("ours.weights", "theirs.weights"):
        *_, judged = validate_text(load_reader(one, tmp_path / weights, device="cpu", program=program), held)
        scored.append(judged.bits_per_symbol)
    with capsys.disabled():
        print(f"\n{program}, bits per letter: trained on {trained[0]:.4f}, {program}'s {trained[1]:.4f}; "
              f"held out {scored[0]:.4f}, {scored[1]:.4f}")  # fmt: skip
    if equal:
        assert trained[0] == pytest.approx(trained[1], abs=1e-3)
        assert scored[0] == pytest.approx(scored[1], abs=1e-3)
    else:
        assert trained[0] < trained[1] - 0.5
        assert scored[0] < scored[1] - 0.5


def test_alexeyabs_program_updates_nothing(alexeyab, tmp_path):
    """Its train_network_datum has lost the call of update_network. (Past a snapshot it counts from its start again.)"""
    text = text_cfg(LINEAR, batch=4, steps=10, net="learning_rate=.05\nmax_batches=1603")
    network, cfg, weights = network_of(text, tmp_path, program="alexeyab")  # 64,000 letters seen
    (tmp_path / "backup").mkdir()
    printed, _ = run_c(alexeyab / "darknet", cfg, weights, tmp_path)
    assert figures(printed)[:, 0].tolist() == [1601, 1602, 1603]
    left = load_network(cfg, tmp_path / "backup/net_final.weights", program="alexeyab").state_dict()
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, left[key]), key


@pytest.mark.parametrize("section", SECTIONS)
def test_a_training_goes_on_to_the_last_bit(section, tmp_path):
    """With the states of its streams, and where they stand."""
    cfg = tmp_path / "net.cfg"

    def train(updates, folder, **options):
        net = f"learning_rate=.1\nsubdivisions=2\nmax_batches={updates}"
        cfg.write_text(text_cfg(SECTIONS[section], batch=6, steps=3, net=net))
        return train_text(cfg, text=SONNETS, backup=folder, device="cpu", **options).network.state_dict()

    whole = train(6, tmp_path / "whole", seed=11)
    first = train(3, tmp_path / "parts", seed=11)
    last = train(6, tmp_path / "parts", resume=True)
    assert any(not torch.equal(first[key], last[key]) for key in whole)
    for key, tensor in whole.items():
        assert torch.equal(tensor, last[key]), key
    assert len(figures((tmp_path / "parts/net.log").read_text())) == 6


def test_snapshots_are_named_as_in_both_programs(tmp_path):
    from darknet_compat.train.text import TextTraining

    cfg = tmp_path / "net.cfg"
    cfg.write_text(text_cfg(SECTIONS["gru"], net="max_batches=2\nlearning_rate=.1"))
    for program, every, numbered in (("pjreddie", 100, 10000), ("alexeyab", 10, 1000)):
        made = TextTraining(cfg, text=SONNETS, backup=tmp_path, device="cpu", program=program).snapshots
        assert made.due(every - 2, every - 1, 1) == []
        assert [path.name for path in made.due(every - 1, every, 1)] == ["net.backup"]
        assert [path.name for path in made.due(numbered - 1, numbered, 1)] == [f"net_{numbered}.weights", "net.backup"]
        assert made.final.name == "net_final.weights"


@pytest.mark.parametrize(("program", "restart"), [("pjreddie", 64), ("alexeyab", 10)])
def test_how_often_a_stream_starts_anew(program, restart, tmp_path):
    """train_char_rnn: ``rand()%64 == 0``; AlexeyAB's has 10."""
    from darknet_compat.train.text import TextTraining

    cfg = tmp_path / "net.cfg"
    cfg.write_text(text_cfg(SECTIONS["gru"], batch=20, steps=1, net="max_batches=2"))
    made = TextTraining(cfg, text=SONNETS, backup=tmp_path, device="cpu", program=program, seed=1)
    anew = sum(int(made.draw(number)[0].sum()) for number in range(1, 501))
    assert anew == pytest.approx(10000 / restart, rel=0.3)


def test_what_cannot_be_trained_is_said_before_the_start(tmp_path):
    cfg = tmp_path / "net.cfg"
    cfg.write_text(text_cfg(SECTIONS["gru"], net="max_batches=2"))
    with pytest.raises(DataError, match=r"no.txt: No such file or directory; expected a text"):
        train_text(cfg, text=tmp_path / "no.txt", backup=tmp_path, device="cpu")
    cfg.write_text(cfg.read_text().replace("output=128", "output=100"))
    with pytest.raises(CfgError, match="takes 128 values and gives 100"):
        train_text(cfg, text=SONNETS, backup=tmp_path, device="cpu")
    cfg.write_text(cfg.read_text().replace("output=100", "output=128").replace("[softmax]", ""))
    with pytest.raises(CfgError, match="no layer of the network has a loss"):
        train_text(cfg, text=SONNETS, backup=tmp_path, device="cpu")


LEARNING = {
    "rnn": ("[rnn]\noutput=32\nhidden=32\nactivation=tanh", 0.1),
    "gru": ("[gru]\noutput=32\ntanh=1", 0.5),
    "lstm": ("[lstm]\noutput=32", 1.0),
    "crnn": ("[connected]\noutput=32\nactivation=linear\n[crnn]\noutput_filters=32\nhidden_filters=32\n"
             "activation=tanh", 0.3),
}  # fmt: skip


@pytest.mark.parametrize("section", LEARNING)
def test_every_section_learns_to_foretell(section, darknet, tmp_path):
    """In 80 updates, more than the letters' frequencies tell: 4.46 bits a letter. His program foretells as well by
    our weights.
    """
    layers, rate = LEARNING[section]
    cfg, one = tmp_path / "net.cfg", tmp_path / "one.cfg"
    net = f"inputs=128\nlearning_rate={rate}\nmax_batches=120\npolicy=steps\nsteps=80\nscales=.1"
    end = f"{layers}\n[connected]\noutput=128\nactivation=linear\n[softmax]\n"
    cfg.write_text(f"[net]\nbatch=16\ntime_steps=12\n{net}\n{end}")
    one.write_text(f"[net]\nbatch=1\n{net}\n{end}")
    done = train_text(cfg, text=SONNETS, backup=tmp_path, device="cpu", seed=1)
    rows = figures((tmp_path / "net.log").read_text())
    counts = np.bincount(np.frombuffer(TEXT, np.uint8))
    share = counts[counts > 0] / len(TEXT)
    entropy = -(share * np.log2(share)).sum()
    assert entropy == pytest.approx(4.458, abs=1e-3)
    assert rows[-20:, 1].mean() / np.log(2) < entropy - 0.1
    assert rows[0, 1] / np.log(2) > 6
    *_, judged = validate_text(load_reader(one, done.weights, device="cpu"), TEXT[:300])
    assert judged.bits_per_symbol < entropy
    if section != "crnn":  # which needs a convolution before it in his program
        command = [PROGRAM, "rnn", "valid", one, done.weights]
        printed = subprocess.run(command, input=TEXT[:300], capture_output=True, check=True).stdout.decode()
        assert float(printed.splitlines()[-1].split()[2]) == pytest.approx(judged.bits_per_symbol, abs=2e-4)
