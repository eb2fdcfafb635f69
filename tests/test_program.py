"""Which Darknet a cfg is for: the words of each, held against the two libraries' own lists of words."""

from __future__ import annotations

import re

import pytest

from darknet_compat import load_network, save_weights
from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers import TYPES
from darknet_compat.layers.activation import ALEXEYAB_ACTIVATIONS
from darknet_compat.layers.net import ALEXEYAB_OPTIONS, OPTIONS, PJREDDIE_OPTIONS
from darknet_compat.network import Network
from darknet_compat.program import read_program
from tests.compare import net
from tests.oracle import LIBRARY

HIS_OPTIONS = sorted(ALEXEYAB_OPTIONS.keys() - OPTIONS.keys() - PJREDDIE_OPTIONS.keys())
# Words of his options that stand in pjreddie's library for other reasons: options of other sections, names of files.
ELSEWHERE = {
    *("clip", "flip", "resize", "mean", "std", "filters", "atoms", "size", "angle", "reverse", "stream", "groups"),
    "logistic",
}


def words(library) -> set[str]:
    """Every text of letters that ends a text in a library, as linkers let a short one be the end of a longer one."""
    texts = (text.decode() for text in re.findall(rb"[-A-Za-z_0-9]+(?=\0)", library.read_bytes()))
    return {text[start:] for text in texts for start in range(len(text))}


def his_words() -> list[tuple[str, str]]:
    """Sections and options that mean AlexeyAB's program."""
    found = [("net", name) for name in HIS_OPTIONS]
    for name, kind in sorted(TYPES.items()):
        own = kind.options_of("alexeyab").keys() - kind.options_of("pjreddie").keys()
        found += [(name, option) for option in sorted(own)]
    return found


def test_every_option_that_means_alexeyabs_program_is_one_that_only_his_library_reads(darknet, alexeyab):
    theirs, his = words(LIBRARY), words(alexeyab / "libdarknet.so")
    options = {option for _, option in his_words()}
    assert len(options) > 30
    assert options - his == set()
    # pjreddie's has the same word in other sections: [crnn] of his has groups, as all convolutions do.
    elsewhere = {option for kind in TYPES.values() for option in kind.options_of("pjreddie")}
    assert (options & theirs) - elsewhere - ELSEWHERE == set()
    both = OPTIONS.keys() - {"steps", "scales"}
    assert both - theirs == both - his == set()
    assert PJREDDIE_OPTIONS.keys() - theirs == set()


@pytest.mark.parametrize("option", HIS_OPTIONS)
def test_an_option_of_net_says_alexeyab(option):
    cfg = parse_cfg(f"[net]\nwidth=8\nheight=8\nchannels=3\n{option}=1\n[conv]\n", "x.cfg")
    program, place = read_program(cfg)
    assert (program, place.name, place.line) == ("alexeyab", option, 5)
    assert Network(cfg).follows == f"program alexeyab (x.cfg:5: {option})"


@pytest.mark.parametrize(
    ("layer", "line", "word"),
    [
        *[(f"[conv]\nactivation={name}", 6, "activation") for name in ALEXEYAB_ACTIVATIONS],
        ("[conv]\nfilters=2\ntrain_only_bn=1", 7, "train_only_bn"),
        ("[dropout]\ndropblock=1", 6, "dropblock"),
        ("[rnn]\noutput=3\nhidden=3\nlogistic=1", 8, "logistic"),
        ("[crnn]\nhidden=3", 6, "hidden"),
    ],
)
def test_an_option_of_a_layer_says_alexeyab(layer, line, word):
    program, place = read_program(parse_cfg(f"[net]\nwidth=8\nheight=8\nchannels=3\n{layer}\n"))
    assert (program, place.name, place.line) == ("alexeyab", word, line)


def test_policy_sgdr_says_alexeyab_and_other_policies_do_not():
    text = "[net]\nwidth=8\nheight=8\nchannels=3\npolicy={}\n[conv]\n"
    assert read_program(parse_cfg(text.format("sgdr")))[0] == "alexeyab"
    assert read_program(parse_cfg(text.format("steps"))) == ("pjreddie", None)


def test_what_both_programs_read_is_pjreddies():
    network = Network(parse_cfg(net(8, 8, 3, "[conv]\nactivation=leaky\nlearning_rate=2", "[dropout]\nprobability=.1")))
    assert (network.program, network.program_from, network.follows) == ("pjreddie", None, "program pjreddie")


def test_the_stock_cfgs_of_pjreddie_are_his_own(darknet_share):
    """But for none: his folder holds no word of the other program."""
    files = sorted((darknet_share / "cfg").glob("*.cfg"))
    assert len(files) > 30
    for path in files:
        assert read_program(parse_cfg(path.read_text(errors="replace"), str(path)))[0] == "pjreddie", path


def test_the_callers_word_counts_more_than_the_cfgs(tmp_path):
    text = net(8, 8, 3, "[conv]\nfilters=4", "[dropout]")
    asked = load_network(parse_cfg(text), program="alexeyab")
    assert (asked.program, asked.follows) == ("alexeyab", "program alexeyab")
    assert asked.layers[1].o.probability == pytest.approx(0.2)
    assert load_network(parse_cfg(text)).layers[1].o.probability == 0.5
    # With pjreddie's program his option is an unknown one.
    with pytest.warns(UserWarning, match=r"letter_box=0: unknown option of \[net\], ignored"):
        plain = Network(parse_cfg(text.replace("[net]", "[net]\nletter_box=0")), program="pjreddie")
    assert plain.net.letter_box == 1
    with pytest.raises(ValueError, match="program is 'opencv'; expected one of pjreddie, alexeyab"):
        Network(parse_cfg(text), program="opencv")


def test_defaults_of_net_are_each_programs():
    text = net(8, 8, 3, "[conv]")
    theirs, his = (Network(parse_cfg(text), program=program).net for program in ("pjreddie", "alexeyab"))
    assert (theirs.letter_box, theirs.eps) == (1, 1e-7)
    assert (his.letter_box, his.eps) == (0, 1e-6)
    assert theirs.flip == his.flip == 1


def test_an_activation_of_alexeyabs_is_no_word_of_pjreddies():
    with pytest.raises(CfgError, match="no activation is called 'mish'; expected one of elu, hardtan"):
        Network(parse_cfg(net(8, 8, 3, "[conv]\nactivation=mish")), program="pjreddie")


def test_the_version_of_weights_is_the_programs(tmp_path):
    for program, version in (("pjreddie", (0, 2, 0)), ("alexeyab", (0, 2, 5))):
        network = load_network(parse_cfg(net(8, 8, 3, "[conv]")), program=program)
        save_weights(network, tmp_path / "x.weights")
        assert (
            tuple(int.from_bytes((tmp_path / "x.weights").read_bytes()[i : i + 4], "little") for i in (0, 4, 8))
            == version
        )
