from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError, CfgWarning
from darknet_compat.network import Network
from tests.compare import net
from tests.layers.recurrent_oracle import check_steps, check_steps_in_one_call, text_of

RNN = "[rnn]\noutput=6\nhidden=6\n{}"


@pytest.mark.parametrize(
    "options",
    ["", "activation=leaky", "activation=tanh\nbatch_normalize=1", "activation=tanh\nshortcut=1"],
    ids=lambda options: options.replace("\n", " ") or "defaults",
)
def test_twenty_steps_and_the_file_are_darknets(library, tmp_path, options):
    check_steps(library, text_of(RNN.format(options), RNN.format(options)), tmp_path)


@pytest.mark.parametrize("options", ["", "logistic=1", "logistic=2"])
def test_hidden_and_logistic_are_alexeyabs(alexeyab_darknet, tmp_path, options):
    check_steps(alexeyab_darknet, text_of(f"[rnn]\noutput=6\nhidden=9\nactivation=leaky\n{options}"), tmp_path)


def test_several_steps_in_a_call(library, tmp_path):
    check_steps_in_one_call(library, RNN.format("activation=leaky"), tmp_path)


def test_pjreddie_passes_over_hidden(darknet, tmp_path):
    with pytest.warns(CfgWarning, match="hidden=9: the program pjreddie ignores hidden and uses output=6"):
        check_steps(darknet, text_of("[rnn]\noutput=6\nhidden=9\nactivation=leaky"), tmp_path)
    assert Network(parse_cfg(net(4, 3, 2, RNN.format("")))).program == "pjreddie"


def test_what_does_not_fit_is_refused():
    with pytest.raises(CfgError, match="output=0: output is 0; expected 1 or more"):
        Network(parse_cfg(net(4, 3, 2, "[rnn]\noutput=0")))
    with pytest.raises(CfgError, match="hidden=0: hidden is 0; expected 1 or more"):
        Network(parse_cfg(net(4, 3, 2, "[rnn]\nhidden=0")), program="alexeyab")
    with pytest.raises(CfgError, match="activation=swoosh: no activation is called 'swoosh'"):
        Network(parse_cfg(net(4, 3, 2, "[rnn]\nactivation=swoosh")))
    with pytest.raises(CfgError, match=r"<text>:6: \[rnn\]: the layer would hold [0-9,]+ numbers in one tensor"):
        Network(parse_cfg(net(4, 3, 2, "[rnn]\noutput=2000000000")))
