"""The options that every section has, and every section's defaults."""

from __future__ import annotations

import re
import subprocess

import pytest

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import net
from tests.oracle import PROGRAM

COMMON = {
    **{name: name for name in ("truth", "onlyforward", "stopbackward", "dontsave", "dontload", "numload", "smooth")},
    "dontloadscales": "dontloadscales",
    "learning_rate": "learning_rate_scale",
}
NEEDED = {"route": "layers=-1", **dict.fromkeys(("shortcut", "sam", "scale_channels"), "from=0")}
# Section -> our option's name -> the field of Darknet's struct layer that it fills.
DEFAULTS = {
    "conv": {"filters": "n", "pad": "pad", "padding": "pad", "activation": "activation"}
    | {name: name for name in ("size", "stride", "groups", "batch_normalize", "binary", "xnor", "flipped", "dot")},
    "connected": {"output": "outputs", "batch_normalize": "batch_normalize", "activation": "activation"},
    "maxpool": {"stride": "stride"},
    "avgpool": {},
    "activation": {"activation": "activation"},
    "dropout": {"probability": "probability"},
    "softmax": {name: name for name in ("groups", "temperature", "spatial", "noloss")},
    "cost": {"scale": "scale", "ratio": "ratio", "noobj": "noobject_scale", "thresh": "thresh"},
    "reorg": {name: name for name in ("stride", "reverse", "flatten", "extra")},
    "upsample": {"stride": "stride", "scale": "scale"},
    "route": {},
    "shortcut": {"alpha": "alpha", "beta": "beta", "activation": "activation"},
    "region": {"num": "n", "max": "max_boxes"}
    | {name: name for name in ("coords", "classes", "softmax", "background", "thresh", "rescore", "bias_match")}
    | {f"{name}_scale": f"{name}_scale" for name in ("coord", "object", "noobject", "class", "mask")}
    | {name: name for name in ("classfix", "jitter", "random", "log", "sqrt", "absolute")},
}


@pytest.mark.parametrize("section", DEFAULTS)
def test_defaults_are_darknets(darknet, tmp_path, section):
    check_defaults(darknet, tmp_path, section, {**COMMON, **DEFAULTS[section]})


# The same for AlexeyAB's program. A default of None is another option's value.
ALEXEYAB_COMMON = {
    **{name: name for name in ("onlyforward", "stopbackward", "dontload", "dontloadscales", "clip")},
    **{name: name for name in ("dont_update", "burnin_update", "train_only_bn")},
    "learning_rate": "learning_rate_scale",
}
ALEXEYAB_DEFAULTS = {
    "conv": {"filters": "n", "pad": "pad", "padding": "pad", "activation": "activation", "bin_output": "use_bin_output"}
    | {name: name for name in ("size", "stride", "groups", "batch_normalize", "binary", "xnor", "flipped", "dot")}
    | {name: name for name in ("dilation", "antialiasing", "sway", "rotate", "stretch", "stretch_sway", "grad_centr")}
    | {name: name for name in ("coordconv", "angle", "reverse", "assisted_excitation", "stream")}
    | {"wait_stream": "wait_stream_id"},
    "connected": DEFAULTS["connected"],
    "maxpool": {name: name for name in ("stride", "maxpool_depth", "out_channels", "antialiasing")}
    | {"maxpool_zero_nonmax": "maxpool_zero_nonmax"},
    "local_avgpool": {"stride": "stride"},
    "dropout": {name: name for name in ("probability", "dropblock", "dropblock_size_rel", "dropblock_size_abs")},
    "cost": {"scale": "scale"},
    "reorg": {"stride": "stride", "reverse": "reverse"},
    "reorg3d": {"stride": "stride", "reverse": "reverse"},
    "upsample": {"stride": "stride", "scale": "scale"},
    "route": {"groups": "groups", "group_id": "group_id", "stream": "stream", "wait_stream": "wait_stream_id"},
    "shortcut": {"activation": "activation"},
    "sam": {"activation": "activation"},
    "scale_channels": {"activation": "activation", "scale_wh": "scale_wh"},
    "implicit": {"filters": "out_c", "atoms": "out_h"},
}


@pytest.mark.parametrize("section", ALEXEYAB_DEFAULTS)
def test_defaults_are_alexeyabs(alexeyab_darknet, tmp_path, section):
    check_defaults(alexeyab_darknet, tmp_path, section, {**ALEXEYAB_COMMON, **ALEXEYAB_DEFAULTS[section]})


def check_defaults(darknet, folder, section, options):
    """Of a section with no more options than it needs, Darknet's layer and ours hold the same numbers."""
    before = "[conv]\nfilters=25\nactivation=linear" + ("\n[avgpool]" if section == "scale_channels" else "")
    cfg = folder / "net.cfg"
    cfg.write_text(net(4, 4, 3, before, f"[{section}]\n{NEEDED.get(section, '')}"))
    ours = Network(parse_cfg(cfg.read_text()), program=darknet.program).layers[-1].o
    theirs = darknet.load_network(cfg).layers[-1]
    for option, field in options.items():
        found = getattr(ours, option)
        if option == "activation":
            found = darknet.ACTIVATIONS.index(found)
        assert found == pytest.approx(theirs.number(field), rel=1e-6), option


def test_rows_are_darknets(darknet, tmp_path):
    """The line that Darknet prints of every section, with shapes and options other than the stock cfgs'."""
    sections = [
        "[conv]\nfilters=9\nsize=3\nstride=2\ngroups=3", "[batchnorm]", "[activation]", "[maxpool]\nsize=3\nstride=1",
        "[shortcut]\nfrom=-4", "[route]\nlayers=-1,1", "[reorg]\nstride=3", "[reorg]\nstride=3\nreverse=1",
        "[upsample]\nstride=3", "[conv]\nfilters=25", "[region]", "[avgpool]", "[dropout]\nprobability=.25",
        "[connected]\noutput=9", "[softmax]", "[cost]",
    ]  # fmt: skip
    cfg = tmp_path / "net.cfg"
    cfg.write_text(net(380, 260, 9, *sections))
    printed = subprocess.run([PROGRAM, "ops", cfg], capture_output=True, text=True).stderr
    printed = re.sub(r"\w+: Using default .*\n", "", printed)
    printed = [line for line in printed.splitlines() if line[:5].strip().isdigit()]
    ours = [" ".join(line.split()) for line in Network(read_cfg(cfg), device="meta").table().splitlines()]
    assert len(printed) == len(sections)
    for line, mine in zip(printed, ours[1:], strict=False):
        assert mine.startswith(" ".join(line.split())), line


@pytest.mark.parametrize(
    ("section", "window"),
    [
        ("[conv]\nsize=5\nstride=3", (5, 3)),
        ("[maxpool]\nsize=3\nstride=2", (3, 2)),
        ("[avgpool]", (9, 1)),
        ("[upsample]\nstride=3", (1, 1)),
        ("[upsample]\nstride=-3", (3, 3)),
        ("[activation]", (1, 1)),
    ],
)
def test_windows(section, window):
    """Size and stride of what one value sees of the layer before; an average sees the longer side."""
    assert Network(parse_cfg(net(9, 6, 3, section))).layers[0].window() == window
    assert Network(parse_cfg(net(6, 9, 3, section))).layers[0].window() == window


def test_operations_are_counted_for_convolutions_alone():
    """2 for each multiplication with its addition, as `darknet ops` has it."""
    text = net(9, 6, 4, "[conv]\nfilters=6\nsize=3\ngroups=2\nstride=3", "[connected]\noutput=3", "[softmax]")
    assert [layer.flops() for layer in Network(parse_cfg(text)).layers] == [2 * 6 * 9 * 2 * (3 * 2), 0, 0]


@pytest.mark.parametrize("section", ["softmax", "dropout", "connected", "batchnorm"])
def test_sections_that_take_no_other_size(section):
    """Those that Darknet's resize_network refuses, or passes over with the old size."""
    network = Network(parse_cfg(net(8, 8, 3, "[conv]", f"[{section}]")))
    with pytest.raises(CfgError, match="cannot take another size"):
        network.resize(16, 16)
    assert network.input == (3, 8, 8)


def test_a_tensor_or_an_output_over_what_an_int_counts():
    with pytest.raises(CfgError, match=r"would hold 2,147,483,648 numbers in one tensor; expected at most 2,147,483,6"):
        Network(parse_cfg(net(32768, 16384, 1, "[connected]\noutput=4")), device="meta")
    with pytest.raises(CfgError, match=r"an input of 32768 x 65536 x 1; expected at most 2,147,483,647 values"):
        Network(parse_cfg(net(32768, 65536, 1, "[maxpool]")), device="meta")
    with pytest.raises(CfgError, match=r"the output would be 32768 x 65536 x 1 from"):
        Network(parse_cfg(net(16384, 32768, 1, "[upsample]")), device="meta")


def test_as_many_as_an_int_counts_are_taken():
    """2,147,483,647 is a prime number, so one side of the input is all of them."""
    for section in ("[maxpool]\nsize=1\nstride=1", "[connected]"):
        layer = Network(parse_cfg(net(2147483647, 1, 1, section)), device="meta").layers[0]
        assert layer.input.outputs == 2**31 - 1


@pytest.mark.parametrize(
    ("side", "section", "padded"),
    [
        (46336, "[conv]\nsize=5\nstride=5\npad=1", 46340),
        (46337, "[conv]\nsize=5\nstride=5\npad=1", 46341),
        (46336, "[maxpool]\nsize=5\nstride=5\npadding=4", 46340),
        (46337, "[maxpool]\nsize=5\nstride=5\npadding=4", 46341),
    ],
)
def test_an_input_that_padding_makes_too_large(side, section, padded):
    """46340 * 46340 is the largest square that an int counts."""
    cfg = parse_cfg(net(side, side, 1, section))
    if padded == 46340:
        Network(cfg, device="meta")
    else:
        with pytest.raises(CfgError, match="the padded input would be 46341 x 46341 x 1; expected at most 2,147,483,6"):
            Network(cfg, device="meta")
    for w, h in ((side, 10), (10, side)):
        Network(parse_cfg(net(w, h, 1, section)), device="meta")


@pytest.mark.parametrize(
    ("section", "option", "least"),
    [
        *(("conv", option, 1) for option in ("filters", "size", "stride", "groups")),
        *((section, "padding", 0) for section in ("conv", "maxpool")),
        *(("maxpool", option, 1) for option in ("stride", "size")),
        *(("region", option, 1) for option in ("num", "classes", "max")),
        *(("region", "coords", 4), ("connected", "output", 1), ("softmax", "groups", 1), ("reorg", "stride", 1)),
    ],
)
def test_numbers_that_are_too_small(section, option, least):
    """One below the least is refused; the least itself is another matter, or fits."""
    message = rf"<text>:7: {option}={least - 1}: {option} is {least - 1}; expected {least} or more"
    with pytest.raises(CfgError, match=message):
        Network(parse_cfg(net(4, 4, 3, f"[{section}]\n{option}={least - 1}")))
    found = ""
    try:
        Network(parse_cfg(net(4, 4, 3, f"[{section}]\n{option}={least}")))
    except CfgError as error:
        found = str(error)
    assert "or more" not in found
