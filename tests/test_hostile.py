"""Files made to hurt: each is read, or refused in one line, in little memory and time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.compare import net
from tests.conftest import ROOT

CONV = net(8, 8, 3, "[convolutional]")
CHAIN = "".join(f"a {number - 1}\n" for number in range(60_001))


def flat(inputs: int, *sections: str) -> str:
    return "\n".join([f"[net]\nwidth=1\nheight=1\nchannels={inputs}", *sections])


def region(**options: object) -> str:
    return flat(30, "[region]\nnum=5\nclasses=1", *(f"{name}={value}" for name, value in options.items()))


# Name -> what reads it, the file's text, or the path that is read instead; what comes of it; MiB.
CASES = {
    "many groups": ("network", flat(10**8, "[softmax]\ngroups=100000000"), "fine", 20),
    "most groups": ("network", flat(2**31 - 1, "[softmax]\ngroups=2147483647"), "fine|GiB", 20),
    "many anchors": ("network", flat(18 * 10**7, "[region]\nnum=30000000\nclasses=1"), "fine", 260),
    "most anchors": ("network", flat(18 * 10**8, "[region]\nnum=300000000\nclasses=1"), "GiB", 20),
    "batchnorm of a huge input": ("network", flat(2**31 - 1, "[batchnorm]"), "GiB", 20),
    "batchnorm beyond the memory": ("network", flat(10**8, "[batchnorm]"), "no more memory", 20),
    "padded to the end": ("network", CONV.replace("l]", "l]\npadding=2147483647\nstride=2147483647"), "padded", 20),
    "pooled to the end": ("network", CONV + "[maxpool]\npadding=2147483647\nstride=2147483647\n", "padded", 20),
    "an image of 2^93 values": ("network", net(2**31 - 1, 2**31 - 1, 2**31 - 1, "[avgpool]"), "an input of", 20),
    "150,000 layers": ("network", "[net]\n" + "[conv]\n" * 149_000, "149,002 lines; expected at most 20,000", 20),
    "500,000 lines": ("data", "#\n" * 500_000, "500,001 lines; expected at most 20,000", 20),
    "a chain of classes": ("tree", CHAIN, r":60001: a class on level 60,001; expected at most 279 levels", 40),
    "a chain in a softmax": ("network", flat(60_001, "[softmax]\ntree={chain}"), "60001: a class on level", 40),
    "tree=/dev/zero": ("network", region(tree="/dev/zero"), "a device or a pipe", 20),
    "map=/dev/zero": ("network", region(map="/dev/zero"), "a device or a pipe", 20),
    "softmax tree=/dev/zero": ("network", flat(4, "[softmax]\ntree=/dev/zero"), "a device or a pipe", 20),
    "tree=pipe": ("network", region(tree="{pipe}"), "a device or a pipe", 20),
    "map=pipe": ("network", region(map="{pipe}"), "a device or a pipe", 20),
    "a sparse file of a terabyte as a tree": ("tree", "{sparse}", "expected a text of at most 1,048,576", 20),
    "a sparse file of a terabyte as a map": ("map", "{sparse}", "expected a text of at most 1,048,576", 20),
    "a sparse file of a terabyte as names": ("names", "{sparse}", "expected a text of at most 16,777,216", 20),
    "a sparse file of a terabyte as a list": ("list", "{sparse}", "expected a text of at most 1,073,741,824", 20),
    "a sparse file of a terabyte as weights": ("weights", "{sparse}", "left over", 20),
    **{
        f"{path} as {what}": (what, path, "a device or a pipe", 20)
        for what in (
            "weights",
            "network",
            "data",
            "names",
            "list",
            "tree",
            "map",
            "image",
            "image size",
            "annotation",
            "result file",
        )
        for path in ("/dev/zero", "{pipe}")
    },
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    there = {name: str(folder / name) for name in ("chain", "pipe", "sparse")}
    (folder / "chain").write_text(CHAIN)
    os.mkfifo(folder / "pipe")
    with open(folder / "sparse", "wb") as file:
        file.truncate(2**40)
    (folder / "conv.cfg").write_text(CONV)
    asked = []
    for number, (what, text, _, _) in enumerate(CASES.values()):
        text = text.format(**there)
        path = folder / f"{number}.cfg"
        if "\n" in text:
            path.write_text(text)
        asked.append([what, str(path) if "\n" in text else text, *[str(folder / "conv.cfg")] * (what == "weights")])
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "hostile.py"],
        input=json.dumps(asked), capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return dict(zip(CASES, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_end_in_one_line_soon_and_small(outcomes, name):
    *_, expected, most = CASES[name]
    said, seconds, mib = outcomes[name]
    assert "no DarknetError" not in said
    assert said.isprintable()
    assert re.search(expected, said), said
    assert seconds < 5
    assert mib < most
