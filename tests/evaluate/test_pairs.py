"""The ragged indexing under every matching, against loops over single rows."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_compat.evaluate.pairs import first_best, pair_up


@pytest.mark.parametrize("seed", range(8))
def test_pairs_and_the_first_best_of_each_row_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    left_key, right_key = (rng.integers(0, 5, count) for count in rng.integers(0, 20, 2))
    pairs = pair_up(left_key, right_key)
    assert list(zip(*(side.tolist() for side in pairs), strict=True)) == [
        (left, right) for left, key in enumerate(left_key) for right in range(len(right_key)) if right_key[right] == key
    ]
    value = rng.choice([0.25, 0.5, np.nan, -np.inf] if seed % 2 else [0.25, 0.5], len(pairs.left))
    best, greatest = first_best(pairs, value, len(left_key))
    for row in range(len(left_key)):
        mine = value[pairs.left == row]
        if len(mine):
            assert best[row] == pairs.right[pairs.left == row][np.argmax(mine)]
            np.testing.assert_equal(greatest[row], np.max(mine))
        else:
            assert (best[row], greatest[row]) == (-1, -np.inf)
