"""Drawing symbols, against sample_array of both libraries."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.text.reader import Reader
from darknet_compat.text.write import generate, sample
from tests.compare import randomise
from tests.text_cases import SECTIONS, text_cfg


@pytest.mark.parametrize("name", ["darknet", "alexeyab_darknet"])
def test_the_same_number_draws_the_same_symbol(request, name):
    library = request.getfixturevalue(name)
    random = np.random.default_rng(0)
    for seed in range(200):
        prob = random.dirichlet(np.full(256, 0.05)).astype(np.float32)
        given = np.where(prob < 0.0001, 0, prob).astype(np.float32)
        library.srand(seed)
        expected = library.lib.sample_array(given.ctypes.data_as(ctypes.c_void_p), len(given))
        library.srand(seed)
        assert sample(prob, library.rand_uniform(0, 1)) == expected


def test_the_unlikely_is_never_drawn():
    prob = np.array([0.00009, 0.5, 0.49991], np.float32)
    assert [sample(prob, number) for number in (1e-9, 0.3, 0.6, 1.0)] == [1, 1, 2, 2]
    assert sample(np.array([0.7, 0.2], np.float32), 1.0) == 1
    assert sample(np.array([0.5, 0.5], np.float32), 0.5) == 0  # r <= 0
    assert sample(np.full(4, 1e-5, np.float32), 0.5) == 3  # n - 1, where nothing is left
    # The float nearest to .0001 is less than it.
    assert [sample(np.array([least, 0.9999], np.float32), 1e-9) for least in (0.0001, 0.00010001)] == [1, 0]


def test_an_empty_seed_is_the_symbol_0():
    """test_char_rnn: its c starts at 0, and is printed."""
    reader = Reader(randomise(Network(parse_cfg(text_cfg(SECTIONS["gru"])))))
    assert list(generate(reader, b"", 0)) == [0]
    assert list(generate(reader, b"ab", 0)) == [97, 98]
    assert len(list(generate(reader, b"ab", 5))) == 7


def test_a_cfg_for_training_reads_one_stream():
    one, many = (Reader(randomise(Network(parse_cfg(text_cfg(SECTIONS["gru"], *how))))) for how in ((1, 1), (6, 5)))
    for symbol in b"Shall I":
        found = many.feed(symbol)
        np.testing.assert_array_equal(found, one.feed(symbol))
    assert found.shape == (128,)
