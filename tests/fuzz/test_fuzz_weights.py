"""Damaged .weights files: refused in one line, or read so that they are written back byte for byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from darknet_compat import weights
from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.weights import Header, load_weights, save_weights
from tests.compare import net, randomise
from tests.fuzz.outcome import outcome

NETWORKS = {
    name: randomise(Network(parse_cfg(text)))
    for name, text in {
        "convolutional": net(8, 8, 3, "[conv]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1", "[conv]\nfilters=6"),
        "flipped": net(8, 8, 2, "[conv]\nfilters=4\nsize=3\nflipped=1", "[batchnorm]", "[conv]\nfilters=2\ngroups=2"),
        "connected": net(4, 4, 2, "[connected]\noutput=5\nbatch_normalize=1", "[dropout]", "[connected]\noutput=3"),
        "local": net(4, 4, 2, "[local]\nfilters=2\nsize=3", "[deconv]\nsize=2\nstride=2\nbatch_normalize=1"),
        "recurrent": net(4, 4, 2, "[gru]\noutput=3\nbatch_normalize=1", "[lstm]\noutput=2", "[crnn]"),
        "without numbers": net(4, 4, 2, "[maxpool]\nstride=2"),
    }.items()
}
PARTS = st.sampled_from([-(2**31), -1, 0, 1, 2, 9, 1000, 1001, 100_000, 100_001, 2**31 - 1]) | st.integers(0, 2000)


@st.composite
def files(draw):
    """A network's name, and the bytes of a file that was one for it."""
    name = draw(st.sampled_from(sorted(NETWORKS)))
    count = sum(tensor.numel() for layer in NETWORKS[name].layers for _, tensor in layer.numbers())
    real = st.sampled_from([(0, 1, 0), (0, 2, 0), (0, 2, 5), (1001, 0, 0)])
    version = draw(st.one_of(real, real, real, st.tuples(PARTS, PARTS, PARTS)))
    seen = draw(st.sampled_from([0, 0, 64, 2**31 - 1, -1, -5]))
    header = struct.pack("<3iq" if Header(version, seen).wide else "<4i", *version, seen)
    values = [number / 7 - 3 for number in range(count)]
    content = bytearray(header + struct.pack(f"<{count}f", *values))
    what = draw(st.sampled_from(["whole", "whole", "whole", "cut", "cut at a number", "grown", "overwritten", "a bit"]))
    at = draw(st.integers(0, len(content) - 1))
    if what == "cut":
        del content[at:]
    elif what == "cut at a number":
        del content[len(header) + 4 * draw(st.integers(0, count)) :]
    elif what == "grown":
        content += draw(st.binary(min_size=1, max_size=64))
    elif what == "overwritten":
        patch = draw(st.binary(min_size=1, max_size=32))
        content[at : at + len(patch)] = patch
    elif what == "a bit":
        content[at] ^= 1 << draw(st.integers(0, 7))
    return name, bytes(content)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(files())
def test_fuzz_weights(tmp_path_factory, monkeypatch, file):
    # Which stock cfg a file fits takes half a second to find out, and its own test.
    monkeypatch.setattr(weights, "_stock_fit", lambda found: None)
    name, content = file
    network = NETWORKS[name]
    path = tmp_path_factory.getbasetemp() / "fuzz.weights"
    path.write_bytes(content)
    report = outcome(lambda: load_weights(network, path))
    event("refused" if report is None else "read")
    if report is not None:
        save_weights(network, path)
        assert path.read_bytes()[: len(content)] == content
