from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darknet_compat import load_network, save_weights
from darknet_compat import weights as weights_module
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.cli import main
from darknet_compat.engines import start_engine
from darknet_compat.errors import (
    DarknetError,
    WeightsEndError,
    WeightsError,
    WeightsHeaderError,
    WeightsLeftoverError,
    WeightsValueError,
)
from darknet_compat.network import Network
from darknet_compat.program import VERSIONS
from darknet_compat.weights import CHUNK, Header, load_into, load_weights, read_header
from tests.compare import CFGS, net, network_of, randomise
from tests.conftest import ROOT, SHAPES
from tests.oracle import PROGRAM

SMALL = net(
    8, 8, 3,
    "[conv]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky",
    "[batchnorm]",
    "[maxpool]\nsize=2\nstride=2",
    "[conv]\nfilters=6\nactivation=linear",
    "[connected]\noutput=5\nbatch_normalize=1\nactivation=leaky",
    "[connected]\noutput=3",
)  # fmt: skip


def saved(network: Network, path) -> bytes:
    save_weights(network, path)
    return path.read_bytes()


def test_trained_weights_come_out_byte_for_byte(trained, tmp_path):
    cfg, weights = trained
    network = load_network(cfg, weights)
    assert saved(network, tmp_path / "out.weights") == weights.read_bytes()
    assert network.version == ((0, 2, 0) if trained == SHAPES else (0, 1, 0))
    assert network.report.kept == []


def test_what_a_file_fills_gets_no_random_numbers_before():
    before = torch.get_rng_state()
    start_engine(load_network(*SHAPES))
    assert torch.equal(torch.get_rng_state(), before)
    load_network(SHAPES[0])
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", CFGS)
def test_random_weights_of_every_cfg_come_out_byte_for_byte(tmp_path, name):
    network = randomise(Network(read_cfg(ROOT / "cfg" / f"{name}.cfg")))
    first = saved(network, tmp_path / "first.weights")
    again = load_network(ROOT / "cfg" / f"{name}.cfg", tmp_path / "first.weights")
    assert saved(again, tmp_path / "second.weights") == first
    assert again.seen == 64_000


def test_darknets_files_and_ours_are_the_same_bytes(darknet, tmp_path):
    """libdarknet writes, we read and write; libdarknet reads ours and gives the same output and the same bytes."""
    cfg = tmp_path / "net.cfg"
    cfg.write_text(SMALL)
    reference = darknet.load_network(cfg)
    reference.seen = 4242
    reference.save_weights(tmp_path / "theirs.weights")
    theirs = (tmp_path / "theirs.weights").read_bytes()
    assert struct.unpack("<3i", theirs[:12]) == VERSIONS["pjreddie"] == Network(read_cfg(cfg)).version

    network = load_network(cfg, tmp_path / "theirs.weights", numerics="cpu")
    assert (network.version, network.seen) == ((0, 2, 0), 4242)
    assert saved(network, tmp_path / "ours.weights") == theirs

    # libdarknet's CPU build cannot run a [batchnorm], so the outputs are compared without it.
    cfg.write_text(SMALL.replace("[batchnorm]\n", ""))
    network = randomise(Network(read_cfg(cfg), "cpu"))
    save_weights(network, tmp_path / "ours.weights")
    other = darknet.load_network(cfg, tmp_path / "ours.weights")
    other.save_weights(tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == (tmp_path / "ours.weights").read_bytes()
    other.set_batch(1)
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    other.predict(x)
    with torch.inference_mode():
        ours = network(torch.from_numpy(x)).numpy().ravel()
    np.testing.assert_allclose(ours, other.layer_output(4).ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cutoff", [0, 1, 2, 3, 4, 6])
def test_cut_files(darknet, tmp_path, cutoff):
    """A cut file is libdarknet's cut file; what it does not hold keeps the start values."""
    network, cfg, weights = network_of(SMALL, tmp_path)
    reference = darknet.load_network(cfg, weights)
    reference.save_weights(tmp_path / "theirs.weights", cutoff)
    save_weights(network, tmp_path / "ours.weights", cutoff)
    assert (tmp_path / "ours.weights").read_bytes() == (tmp_path / "theirs.weights").read_bytes()

    again = load_network(cfg, tmp_path / "ours.weights")
    with_numbers = [0, 1, 3, 4, 5]
    assert again.report.loaded == [index for index in with_numbers if index < cutoff]
    assert again.report.kept == [index for index in with_numbers if index >= cutoff]
    if cutoff <= 4:
        assert torch.equal(again.layers[4].scales, torch.ones(5))
        assert not again.layers[4].biases.any()
        assert again.layers[4].weights.std() > 0


def test_both_headers_and_transposed_connected_layers(tmp_path):
    network, cfg, _ = network_of(SMALL, tmp_path)
    plain = saved(network, tmp_path / "plain.weights")
    assert struct.unpack("<3iQ", plain[:20]) == (0, 2, 0, 64_000)

    network.version = (0, 1, 0)
    old = saved(network, tmp_path / "old.weights")
    assert struct.unpack("<4i", old[:16]) == (0, 1, 0, 64_000)
    assert old[16:] == plain[20:]

    network.version = (1001, 0, 0)
    transposed = saved(network, tmp_path / "transposed.weights")
    assert len(transposed) == len(old)
    assert transposed != old
    again = load_network(cfg, tmp_path / "transposed.weights")
    assert torch.equal(again.layers[4].weights, network.layers[4].weights)
    assert saved(again, tmp_path / "again.weights") == transposed


def test_libdarknet_reads_our_transposed_file(darknet, tmp_path):
    network, cfg, _ = network_of(SMALL, tmp_path)
    network.version = (1001, 0, 0)
    save_weights(network, tmp_path / "transposed.weights")
    reference = darknet.load_network(cfg, tmp_path / "transposed.weights")
    ours = network.layers[4].weights.detach().numpy().ravel()
    np.testing.assert_array_equal(reference.layer_tensor(4, "weights").ravel(), ours)


@pytest.mark.parametrize(
    ("option", "first"),
    [("dontload=1", 0), ("dontloadscales=1", 4 + 108), ("numload=2", 4 * 2 + 54), ("flipped=1", 4 * 4 + 108)],
)
def test_options_of_loading_are_darknets(darknet, tmp_path, option, first):
    """``first`` of the file's numbers are for the first layer, whose 4 filters have 4*4 + 4*27 in all."""
    plain = net(8, 8, 3, "[conv]\nfilters=4\nsize=3\nbatch_normalize=1", "[conv]\nfilters=6")
    _, _, weights = network_of(plain, tmp_path)
    changed = tmp_path / "changed.cfg"
    changed.write_text(plain.replace("filters=4", f"filters=4\n{option}"))
    # Darknet reads on in the same bytes, so give it a file in which exactly the loaded numbers stand.
    short = tmp_path / "short.weights"
    short.write_bytes(weights.read_bytes()[: 20 + 4 * (first + 30)])
    reference = darknet.load_network(changed, short)
    target = Network(read_cfg(changed)).start()
    load_weights(target, short)
    loaded = {"dontload=1": 0, "numload=2": 2}.get(option, 4)
    for index, name, count in (
        (0, "weights", loaded * 27),
        (0, "biases", loaded),
        (1, "weights", 24),
        (1, "biases", 6),
    ):
        theirs = reference.layer_tensor(index, name).ravel()[:count]
        np.testing.assert_array_equal(getattr(target.layers[index], name).detach().numpy().ravel()[:count], theirs)
    scales = torch.ones(4) if option == "dontloadscales=1" else torch.from_numpy(reference.layer_tensor(0, "scales"))
    assert torch.equal(target.layers[0].scales, scales)
    # They say nothing about writing.
    assert len(saved(target, tmp_path / "out.weights")) == 20 + 4 * (4 * 4 + 108 + 30)


def test_flipped_weights_stand_with_the_filters_side_by_side(tmp_path):
    """Number by number: the file holds (c*size*size, filters), and writing gives the same bytes again."""
    cfg = tmp_path / "net.cfg"
    cfg.write_text(net(8, 8, 3, "[conv]\nfilters=4\nsize=3\nflipped=1"))
    numbers = np.arange(4 + 4 * 27, dtype=np.float32)
    (tmp_path / "in.weights").write_bytes(Header((0, 2, 0), 64_000).pack() + numbers.tobytes())
    network = load_network(cfg, tmp_path / "in.weights")
    weights = network.layers[0].weights.detach().numpy()
    np.testing.assert_array_equal(weights.reshape(4, 27), numbers[4:].reshape(27, 4).T)
    assert saved(network, tmp_path / "out.weights") == (tmp_path / "in.weights").read_bytes()


@pytest.mark.parametrize(
    ("major", "minor"),
    [(0, 0), (0, 1), (0, 2), (0, 3), (0, 12), (1, 0), (0, 999), (0, 1000), (0, 1001), (999, 0), (1000, 0), (1001, 0)],
)
def test_versions_are_read_as_darknet_reads_them(darknet, tmp_path, major, minor):
    """The width of ``seen``, and where connected weights stand as (inputs, outputs); counted out from the bytes."""
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    cfg.write_text(net(2, 2, 1, "[connected]\noutput=3"))
    wide = (major, minor) not in [(0, 0), (0, 1), (0, 1000), (0, 1001), (1000, 0), (1001, 0)]
    numbers = np.arange(15, dtype=np.float32)
    weights.write_bytes(struct.pack("<3iQ" if wide else "<3ii", major, minor, 7, 64_000) + numbers.tobytes())
    reference, network = darknet.load_network(cfg, weights), load_network(cfg, weights)
    assert network.seen == reference.seen == 64_000
    assert network.version == (major, minor, 7)
    for name in ("biases", "weights"):
        ours = getattr(network.layers[0], name).detach().numpy().ravel()
        np.testing.assert_array_equal(ours, reference.layer_tensor(0, name).ravel())
    assert saved(network, tmp_path / "out.weights") == weights.read_bytes()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (struct.pack("<3iQ", 0, 100_000, 0, 0), None),
        (
            struct.pack("<3iQ", 0, 2, 100_001, 0),
            r"offset 0: the version reads 0\.2\.100001; expected one such as 0\.1\.0",
        ),
        (struct.pack("<3iQ", 0, 2, -1, 0), r"offset 0: the version reads 0\.2\.-1;"),
        (struct.pack("<3iQ", 0, 2, 0, 2**62 - 1), None),
        (
            struct.pack("<3iQ", 0, 2, 0, 2**62),
            r"offset 12: the count of images seen reads 4611686018427387904; expected 0",
        ),
        (struct.pack("<3ii", 0, 1, 0, -1), r"offset 12: the count of images seen reads -1; expected 0 or more"),
        (struct.pack("<3iI", 0, 2, 0, 0), r"offset 12: the file ends in the count of .* expected 8 bytes, found 4"),
        (struct.pack("<3ih", 0, 1, 0, 0), r"offset 12: the file ends in the count of .* expected 4 bytes, found 2"),
        (
            struct.pack("<5i", 0, 2, 0, 0, 0)[:-1],
            r"offset 12: the file ends in the count of .* expected 8 bytes, found 7",
        ),
        (struct.pack("<4i", 0, 1, 0, 0)[:-1], r"offset 12: the file ends in the count of .* expected 4 bytes, found 3"),
        (b"12345678901", r"offset 0: the file has 11 bytes; expected a header of 16 or 20"),
    ],
)
def test_headers_at_their_limits(header, found):
    file = io.BytesIO(header)
    if found is None:
        assert read_header(file, "x.weights").pack() in (header, header[:16])
    else:
        with pytest.raises(WeightsHeaderError, match=rf"x\.weights: {found}"):
            read_header(file, "x.weights")


@pytest.fixture(scope="module")
def wide_file(tmp_path_factory):
    """A layer of more numbers than are read at a time."""
    return network_of(net(60, 100, 1, "[connected]\noutput=100"), tmp_path_factory.mktemp("wide"))


@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK, 600_000 - 1])
def test_a_number_that_is_none_is_found_in_every_chunk(wide_file, tmp_path, at):
    _, cfg, weights = wide_file
    content = bytearray(weights.read_bytes())
    offset = 20 + 4 * (100 + at)
    content[-4:] = struct.pack("<f", float("inf"))
    content[offset : offset + 4] = struct.pack("<f", float("nan"))
    (tmp_path / "bad.weights").write_bytes(content)
    found = 1 if at == 600_000 - 1 else 2
    message = rf"offset {offset}: weights\[{at}\] of layer 0 \[connected\] is nan; .* found {found} that are not"
    with pytest.raises(WeightsValueError, match=message):
        load_network(cfg, tmp_path / "bad.weights")


def test_numbers_whose_sum_overflows_are_finite(wide_file, tmp_path):
    _, cfg, weights = wide_file
    content = weights.read_bytes()[:420] + np.full(600_000, 3e38, np.float32).tobytes()
    (tmp_path / "large.weights").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, of sums that overflow
        assert bool((load_network(cfg, tmp_path / "large.weights").layers[0].weights == np.float32(3e38)).all())


def test_short_reads_are_gone_on_with(wide_file, tmp_path, monkeypatch):
    """The system may give fewer bytes than asked for; where it gives none the file became shorter."""
    network, cfg, weights = wide_file
    preadv = os.preadv
    monkeypatch.setattr("os.preadv", lambda file, views, offset: preadv(file, [views[0][:1000]], offset))
    assert saved(load_network(cfg, weights), tmp_path / "out.weights") == weights.read_bytes()
    monkeypatch.setattr("os.preadv", lambda *_: 0)
    with pytest.raises(WeightsEndError, match=r"offset (20|420): the file became shorter while it was read"):
        load_weights(network, weights)


@pytest.mark.parametrize("part", [CHUNK, CHUNK + 1, 100_000])
def test_a_large_tensor_is_read_in_parts(wide_file, tmp_path, monkeypatch, part):
    """By two threads; where one of its numbers is not finite, the line counts those of all parts."""
    _, cfg, weights = wide_file
    monkeypatch.setattr("darknet_compat.weights.PART", part)
    assert saved(load_network(cfg, weights), tmp_path / "out.weights") == weights.read_bytes()
    content = bytearray(weights.read_bytes())
    for number in (99_999, 100_000, 599_999):
        content[420 + 4 * number : 424 + 4 * number] = np.float32(np.inf).tobytes()
    (tmp_path / "bad.weights").write_bytes(content)
    with pytest.raises(WeightsValueError, match=r"weights\[99999\] .* found 3 that are not"):
        load_network(cfg, tmp_path / "bad.weights")


def test_what_is_said_of_a_loaded_file(tmp_path):
    network, cfg, weights = network_of(SMALL, tmp_path)
    said = {None: "5 layers (0-5) got numbers", 4: "3 layers (0-3) got numbers, 2 layers (4-5) kept their start values",
            1: "layer 0 got numbers, 4 layers (1-5) kept their start values",
            0: "no layers got numbers, 5 layers (0-5) kept their start values"}  # fmt: skip
    for cutoff, words in said.items():
        save_weights(network, weights, cutoff)
        report = load_network(cfg, weights).report
        assert str(report) == f"{weights}: version 0.2.0, seen 64,000 images, {words}; program pjreddie"


def test_clear_forgets_the_images_seen(tmp_path):
    _, cfg, weights = network_of(SMALL, tmp_path)
    network = Network(read_cfg(cfg))
    assert load_into(network, weights).header.seen == network.seen == 64_000
    load_into(network, weights, clear=True)
    assert network.seen == 0


def test_limits_of_writing(tmp_path):
    network, _, weights = network_of(SMALL, tmp_path)
    network.version, network.seen = (0, 1, 0), 2**31 - 1
    assert struct.unpack("<4i", saved(network, weights)[:16]) == (0, 1, 0, 2**31 - 1)
    network.version, network.seen = (0, 2, 0), 2**31
    assert struct.unpack("<3iQ", saved(network, weights)[:20]) == (0, 2, 0, 2**31)
    before = weights.read_bytes()
    with pytest.raises(WeightsError, match="cutoff is -1; expected a layer count, 0 or more"):
        save_weights(network, weights, -1)
    assert weights.read_bytes() == before


def test_a_layer_that_is_not_saved_is_not_in_the_file(darknet, tmp_path):
    cfg, path = tmp_path / "net.cfg", tmp_path / "ours.weights"
    cfg.write_text(net(4, 4, 3, "[conv]\nfilters=2\ndontsave=1", "[conv]\nfilters=3"))
    content = saved(randomise(Network(read_cfg(cfg))), path)
    assert len(content) == 20 + 4 * (3 + 6)
    reference = darknet.load_network(cfg)
    reference.save_weights(tmp_path / "theirs.weights")
    assert len((tmp_path / "theirs.weights").read_bytes()) == len(content)


def damaged(tmp_path, change):
    _, cfg, weights = network_of(SMALL, tmp_path)
    content = bytearray(weights.read_bytes())
    weights.write_bytes(change(content))
    return cfg, weights


@pytest.mark.parametrize(
    ("change", "error", "found"),
    [
        (lambda b: b[:-4], WeightsEndError, "ends inside layer 5 [connected]: expected 18 numbers, found 17"),
        (lambda b: b[:-3], WeightsEndError, "1 bytes make no number"),
        (lambda b: b + b"\0" * 8, WeightsLeftoverError, "8 bytes are left over after the last layer"),
        (lambda b: b"", WeightsHeaderError, "the file has 0 bytes; expected a header of 16 or 20"),
        (lambda b: b[:14], WeightsHeaderError, "ends in the count of images seen"),
        (lambda b: b"\x89PNG\r\n\x1a\n" + b[8:], WeightsHeaderError, "the version reads"),
        (lambda b: b[:12] + b"\xff" * 8 + b[20:], WeightsHeaderError, "images seen reads"),
        (lambda b: b[:40] + struct.pack("<f", float("nan")) + b[44:], WeightsValueError, "offset 40: scales[1]"),
        (lambda b: b[:40] + struct.pack("<f", float("inf")) + b[44:], WeightsValueError, "is inf; expected finite"),
    ],
)  # fmt: skip
def test_each_kind_of_damage_has_its_error(tmp_path, change, error, found):
    cfg, weights = damaged(tmp_path, change)
    with pytest.raises(error) as caught:
        load_network(cfg, weights)
    message = str(caught.value)
    assert found in message
    assert message.startswith(f"{weights}: ")
    assert "\n" not in message


def test_a_file_of_another_network_is_recognised(tmp_path):
    """The error computes which stock cfg the numbers would fill."""
    other = randomise(Network(read_cfg(ROOT / "cfg/tiny.cfg")))
    save_weights(other, tmp_path / "mystery.weights")
    with pytest.raises(WeightsError, match=r"holds 1,046,488 numbers.*it fits tiny\.cfg"):
        load_network(ROOT / "cfg/yolov2-tiny-voc.cfg", tmp_path / "mystery.weights")
    save_weights(other, tmp_path / "cut.weights", 12)
    with pytest.raises(WeightsError, match=r"it fits the first 11 layers of tiny\.cfg|first 12 layers of tiny\.cfg"):
        load_network(ROOT / "cfg/yolov2-tiny-voc.cfg", tmp_path / "cut.weights")


def test_where_a_stock_network_ends_is_counted_exactly(tmp_path, monkeypatch):
    """And a stock cfg that cannot be built is passed over."""
    (tmp_path / "a.cfg").write_text("no cfg")
    (tmp_path / "b.cfg").write_text(SMALL)
    monkeypatch.setattr(weights_module, "stock_files", lambda *_: [tmp_path / "a.cfg", tmp_path / "b.cfg"])
    monkeypatch.setattr(weights_module, "_stock_ends", weights_module._stock_ends.__wrapped__)  # nothing kept
    _, cfg, weights = network_of(net(8, 8, 3, "[conv]\nfilters=1000"), tmp_path)
    target = Network(read_cfg(cfg))
    for cutoff, fits in ((1, "the first 1 layers of b.cfg"), (4, "the first 4 layers of b.cfg"), (6, "b.cfg")):
        save_weights(randomise(Network(parse_cfg(SMALL))), weights, cutoff)
        with pytest.raises(WeightsError, match=rf"the cfg asks for 4,000; it fits {re.escape(fits)}$"):
            load_weights(target, weights)


def test_without_a_file_all_layers_have_start_values():
    torch.manual_seed(0)
    network = load_network(parse_cfg(SMALL))
    assert network.report is None
    for layer in (network.layers[0], network.layers[4]):
        assert float(layer.weights.detach().std()) > 0.01
        assert (layer.scales.unique().tolist(), layer.biases.unique().tolist()) == ([1], [0])


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "net.cfg").write_text(SMALL)
    for path in (tmp_path / "none.weights", tmp_path):
        with pytest.raises(WeightsError, match=str(path)):
            load_network(tmp_path / "net.cfg", path)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    network, _, weights = network_of(SMALL, tmp_path)
    before = weights.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WeightsError, match="No space left on device; the file was not written"):
        save_weights(network, weights)
    assert weights.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.cfg", "net.weights"]


def test_a_count_too_large_for_an_old_header(tmp_path):
    network, _, weights = network_of(SMALL, tmp_path)
    network.version, network.seen = (0, 1, 0), 2**31
    with pytest.raises(WeightsError, match="cannot count 2147483648 images"):
        save_weights(network, weights)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    return network_of(SMALL, tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzz_only_our_errors_come_out(small_file, data):
    """Cut, grown, overwritten and random files: an error of ours or a network, in bounded time and memory."""
    network, _, weights = small_file
    content = bytearray(weights.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "grow", "overwrite", "random", "header"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content)))]
    elif kind == "grow":
        content += data.draw(st.binary(min_size=1, max_size=64))
    elif kind == "overwrite":
        at = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=32))
        content[at : at + len(patch)] = patch
    elif kind == "header":
        numbers = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=5, max_size=5))
        content[:20] = struct.pack("<5i", *numbers)
    else:
        content = bytearray(data.draw(st.binary(max_size=400)))
    path = weights.parent / "fuzz.weights"
    path.write_bytes(content)
    try:
        load_weights(network, path)
    except DarknetError as error:
        if "\n" in str(error):
            pytest.fail(f"more than one line: {error}")


def test_a_small_file_for_a_huge_network_allocates_nothing(tmp_path):
    """The counts come from the cfg: one that asks for 10^12 numbers is refused by its own line."""
    (tmp_path / "huge.cfg").write_text(net(8, 8, 3, "[connected]\noutput=1000000000\nactivation=linear"))
    (tmp_path / "small.weights").write_bytes(Header((0, 2, 0), 0).pack() + b"\0" * 64)
    with pytest.raises(DarknetError, match=r"huge\.cfg:"):
        load_network(tmp_path / "huge.cfg", tmp_path / "small.weights")


def test_the_verb_partial_is_darknets(darknet, tmp_path):
    _, cfg, weights = network_of(SMALL, tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "darknet_compat", "partial", cfg, weights, tmp_path / "ours.weights", "3"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    subprocess.run([PROGRAM, "partial", cfg, weights, tmp_path / "theirs.weights", "3"], check=True,
                   capture_output=True)  # fmt: skip
    assert (tmp_path / "ours.weights").read_bytes() == (tmp_path / "theirs.weights").read_bytes()


@pytest.mark.slow
def test_loading_is_as_fast_as_reading(tmp_path):
    """203 MB of yolov2-voc.weights in at most twice the time of numpy.fromfile, in one run, best of several."""
    cfg, weights = read_cfg(ROOT / "cfg/yolov2-voc.cfg"), tmp_path / "yolov2-voc.weights"
    save_weights(randomise(Network(cfg)), weights)
    assert weights.stat().st_size == 202_704_264
    ours, numpys = [], []
    for _ in range(5):
        start = time.perf_counter()
        numbers = np.fromfile(weights, np.float32)
        numpys.append(time.perf_counter() - start)
        del numbers
        start = time.perf_counter()
        network = load_network(cfg, weights)
        ours.append(time.perf_counter() - start)
        del network
    print(f"load {min(ours):.3f} s, numpy.fromfile {min(numpys):.3f} s, ratio {min(ours) / min(numpys):.2f}")
    assert min(ours) <= 2 * min(numpys)


def test_parse_cfg_network_saves_without_a_file_name(tmp_path):
    network = Network(parse_cfg(SMALL)).start()
    assert len(saved(network, tmp_path / "x.weights")) == 20 + 4 * sum(t.numel() for t in network.state_dict().values())


def test_partial_and_net_follow_the_program_that_is_asked_for(tmp_path, capsys):
    cfg, weights, out = tmp_path / "net.cfg", tmp_path / "net.weights", tmp_path / "part.weights"
    cfg.write_text(net(8, 8, 3, "[conv]\nfilters=4", "[dropout]"))
    save_weights(load_network(cfg), weights)
    for flags, version, chance in (((), (0, 2, 0), "0.50"), (("-program", "alexeyab"), (0, 2, 5), "0.20")):
        assert main(["partial", str(cfg), str(weights), str(out), "1", *flags]) == 0
        assert struct.unpack("<3i", out.read_bytes()[:12]) == version
        assert main(["net", str(cfg), *flags]) == 0
        printed = capsys.readouterr().out
        assert f"p = {chance}" in printed
        assert printed.endswith(f"\nprogram {flags[1] if flags else 'pjreddie'}\n")
