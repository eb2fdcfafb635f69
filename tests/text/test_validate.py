"""Lines and what the first layer makes of them; tests/cli/test_rnn.py has the rest, beside the C programs."""

from __future__ import annotations

import numpy as np

from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.text.reader import Reader
from darknet_compat.text.validate import line_vectors
from tests.compare import randomise
from tests.text_cases import text_cfg


def test_each_line_starts_anew_behind_the_seed():
    """vec_char_rnn calls reset_network_state, which pjreddie's program without a GPU leaves undone."""
    reader = Reader(randomise(Network(parse_cfg(text_cfg("[gru]\noutput=24")))))
    assert reader.network.layers[0].type == "gru"
    together = list(line_vectors(reader, [b"Rough winds", b"do shake"]))
    ((_, alone),) = line_vectors(reader, [b"do shake"])
    assert [one for one, _ in together] == [b"Roughwinds", b"doshake"]
    np.testing.assert_array_equal(together[1][1], alone)
    ((_, other),) = line_vectors(reader, [b"do shake"], b"And ")
    assert np.abs(other - alone).max() > 1e-6
    reader.reset()
    reader.feed_all(b"\n\ndoshake")
    np.testing.assert_array_equal(reader.first_layer(ord(" ")), alone)
