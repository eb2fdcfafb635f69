from __future__ import annotations

import pytest

from tests.layers.recurrent_oracle import check_steps, check_steps_in_one_call, text_of

LSTM = "[lstm]\noutput=6\n{}"


@pytest.mark.parametrize("options", ["", "batch_normalize=1"])
def test_twenty_steps_and_the_file_are_darknets(library, tmp_path, options):
    check_steps(library, text_of(LSTM.format(options), LSTM.format(options)), tmp_path)


def test_several_steps_in_a_call(library, tmp_path):
    check_steps_in_one_call(library, LSTM.format("batch_normalize=1"), tmp_path)
