"""Real .cfg files, damaged: each builds a network that runs, or is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from darknet_compat.cfg import SECTIONS, parse_cfg
from darknet_compat.layers import TYPES
from darknet_compat.layers.base import ALEXEYAB, PJREDDIE
from darknet_compat.layers.net import OPTIONS
from darknet_compat.network import Network
from tests.compare import net
from tests.conftest import ROOT
from tests.fuzz.outcome import outcome

EXAMPLES = 1500
REAL = sorted([*(ROOT / "cfg").glob("*.cfg"), *Path("/usr/share/darknet/cfg").glob("*.cfg")])
NUMBERS = [
    "0", "-1", "1", "2", "3", "7", "32", "255", "65536", "99999999", "2147483647", "-2147483648", "2147483648", "1e38",
    "1e39", "-1e38", "1e-45", ".5", "nan", "inf", "0x10", "9" * 400, "1,2", "-1,-2,-3", ",", "x", "",
]  # fmt: skip
LINES = [
    "[net]", "[conv]", "[maxpool]", "[reorg]", "[route]", "[shortcut]", "[upsample]", "[softmax]", "[connected]",
    "[batchnorm]", "[dropout]", "[avgpool]", "[cost]", "[activation]", "[local]", "[crop]",
    "[rnn]", "[gru]", "[region]", "[yolo]", "[bogus]", "[", "=",
    "x", "#", "stride=2", "size=3", "padding=1", "groups=2", "from=-1", "layers=-1", "layers=0,-1", "reverse=1",
    "tree=/dev/zero", "map=/dev/zero", "tree=/etc/passwd", "map=/etc/passwd", "num=1", "classes=1", "coords=4",
    "anchors=1,1", "activation=elu", "batch_normalize=1", "inputs=10", "flatten=1", "numload=1", "flipped=1",
    "spatial=1", "softmax=1", "background=1", "output=3", "filters=6", "temperature=0", "probability=.9", "scale=2",
]  # fmt: skip
# Section type -> the options that it reads.
KNOWN = {
    "net": sorted(OPTIONS),
    **{name: sorted({**layer.options_of(PJREDDIE), **layer.options_of(ALEXEYAB)}) for name, layer in TYPES.items()},
}
# Small enough to be run: one network of each section that is built.
SMALL = [
    net(12, 8, 3, "[conv]\nfilters=8\nsize=3\npad=1\nbatch_normalize=1", "[maxpool]\nsize=2\nstride=2",
        "[reorg]\nstride=2", "[upsample]\nstride=2", "[route]\nlayers=-1,1", "[conv]\nfilters=12",
        "[region]\nnum=2\nclasses=1\nanchors=1,2,3,4"),
    net(9, 9, 4, "[conv]\nfilters=4\ngroups=2", "[batchnorm]", "[shortcut]\nfrom=-2\nactivation=leaky",
        "[activation]", "[avgpool]", "[connected]\noutput=6", "[dropout]", "[softmax]\ngroups=3", "[cost]"),
    net(9, 8, 3, "[crop]\ncrop_height=7\ncrop_width=6", "[local]\nfilters=4\nsize=3\npad=1", "[lrn]\nsize=3",
        "[deconv]\nfilters=2\nsize=2\nstride=2\nbatch_normalize=1", "[l2norm]", "[reorg]\nflatten=1",
        "[reorg]\nextra=2", "[logistic]"),
    net(4, 4, 2, "[crnn]\noutput_filters=3\nhidden_filters=2\nbatch_normalize=1", "[rnn]\noutput=4\nhidden=4",
        "[gru]\noutput=3\nbatch_normalize=1", "[lstm]\noutput=3"),
]  # fmt: skip


@st.composite
def damaged(draw, texts):
    """A text with up to three of its lines or sections changed, doubled, moved or left out."""
    lines = draw(st.sampled_from(texts)).split("\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1)) if lines else 0
        heads = [number for number, line in enumerate(lines) if line.startswith("[")]
        what = draw(st.sampled_from(["number", "option", "option", "line", "delete", "double", "move", "cut", "text"]))
        if what == "number" and lines:
            found = [number for number, line in enumerate(lines) if re.search(r"=\s*[-.0-9]", line)]
            at = draw(st.sampled_from(found)) if found else at
            lines[at] = lines[at].split("=")[0] + "=" + draw(st.sampled_from(NUMBERS))
        elif what == "line":
            lines.insert(at, draw(st.sampled_from(LINES)))
        elif what == "text" and lines:
            cut = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:cut] + draw(st.text(max_size=4)) + lines[at][cut:]
        elif what == "option" and heads:
            head = draw(st.sampled_from(heads))
            known = KNOWN.get(SECTIONS.get(lines[head].strip("[]")), ["truth"])
            files = [name for name in known if name in ("tree", "map")]
            name = draw(st.sampled_from(files if files and draw(st.booleans()) else known))
            value = draw(st.sampled_from(["/dev/zero", "/etc/passwd"] if name in files else NUMBERS))
            # Of two equal options the first counts.
            lines.insert(head + 1, f"{name}={value}")
        elif heads:
            first, other = draw(st.sampled_from(heads)), draw(st.sampled_from(heads))
            last = next((head for head in heads if head > first), len(lines))
            section = lines[first:last]
            if what in ("delete", "move"):
                del lines[first:last]
            if what in ("double", "move"):
                lines[other:other] = section * (draw(st.sampled_from([1, 2, 50])) if what == "double" else 1)
            if what == "cut":
                del lines[at : at + draw(st.integers(1, 10))]
    return "\n".join(lines)


def build_and_run(text: str) -> None:
    network = outcome(lambda: Network(parse_cfg(text, "fuzz.cfg"), device="meta"))
    event("refused" if network is None else "built")
    if network is None:
        return
    assert outcome(network.table)
    numbers = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    maps = network.input.outputs + sum(layer.output.outputs for layer in network.layers)
    if numbers + maps > 10**6 or sum(layer.flops() for layer in network.layers) > 10**8:
        return
    event("run")
    network = outcome(lambda: Network(parse_cfg(text, "fuzz.cfg")).start().eval())
    with torch.inference_mode():
        outputs = outcome(lambda: network.outputs(torch.zeros(2, *network.input)))
    assert [output.shape[1:] for output in outputs] == [layer.output for layer in network.layers]


FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@FUZZ
@given(damaged([path.read_text() for path in REAL]))
def test_fuzz_real_cfgs(text):
    build_and_run(text)


@pytest.mark.slow
@FUZZ
@given(damaged(SMALL))
def test_fuzz_small_cfgs(text):
    build_and_run(text)
