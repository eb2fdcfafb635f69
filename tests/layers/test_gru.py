from __future__ import annotations

import pytest

from darknet_compat.errors import CfgWarning
from tests.layers.recurrent_oracle import check_steps, check_steps_in_one_call, text_of

GRU = "[gru]\noutput=6\n{}"


@pytest.mark.parametrize("options", ["", "batch_normalize=1"])
def test_twenty_steps_and_the_file_are_darknets(library, tmp_path, options):
    check_steps(library, text_of(GRU.format(options), GRU.format(options)), tmp_path)


def test_tanh_is_pjreddies(darknet, tmp_path):
    check_steps(darknet, text_of(GRU.format("tanh=1")), tmp_path)


def test_alexeyabs_has_no_tanh(alexeyab_darknet, tmp_path):
    with pytest.warns(CfgWarning, match="tanh=1: unknown option of"):
        check_steps(alexeyab_darknet, text_of(GRU.format("tanh=1")), tmp_path)


def test_several_steps_in_a_call(library, tmp_path):
    check_steps_in_one_call(library, GRU.format("batch_normalize=1"), tmp_path)
