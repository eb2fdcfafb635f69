from __future__ import annotations

import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darknet_compat import load_network, save_weights
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import (
    DarknetError,
    WeightsEndError,
    WeightsError,
    WeightsHeaderError,
    WeightsLeftoverError,
    WeightsValueError,
)
from darknet_compat.network import Network
from darknet_compat.weights import Header, load_weights
from tests.compare import CFGS, net, network_of, randomise
from tests.conftest import ROOT

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


@pytest.mark.parametrize("name", ["yolo-lite/tiny-yolov2-trial3", "tiny-imagenet/tiny"])
def test_real_weights_come_out_byte_for_byte(shared, tmp_path, name):
    weights = shared / f"{name}.weights"
    network = load_network(shared / f"{name}.cfg", weights)
    assert saved(network, tmp_path / "out.weights") == weights.read_bytes()
    assert network.version == (0, 1, 0)
    assert network.report.kept == []


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
    subprocess.run(["darknet", "partial", cfg, weights, tmp_path / "theirs.weights", "3"], check=True,
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
