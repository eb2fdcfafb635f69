from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from darknet_compat.cfg import read_cfg
from darknet_compat.network import Network
from tests.conftest import ROOT
from tests.tools.run import load_tool, run_tool
from tests.train.test_distributed import in_processes

SMALL = "--cfg", str(ROOT / "cfg/yolov2-shapes.cfg"), "--size", "64", "--batch", "2"


def parameters():
    return sum(one.numel() for one in Network(read_cfg(ROOT / "cfg/yolov2-shapes.cfg")).parameters())


def test_two_processes_take_turns_in_every_way():
    tool = load_tool("bench_network")
    command = [sys.executable, str(ROOT / "tools/bench_network.py"), *SMALL, "--updates", "1"]
    codes, out, error = in_processes(2, command)
    assert (codes, error) == ([0, 0], "")
    found = json.loads(out)
    assert tuple(found["seconds"]) == tool.WAYS
    assert min(found["seconds"].values()) > 0
    assert 0 <= found["bytes"] - 4 * parameters() < 100


@pytest.mark.parametrize("rate", ["fast", "1gb", "0mbit"])
def test_a_rate_that_tc_does_not_know(rate):
    result = run_tool("bench_network", "--rate", rate)
    assert result.returncode == 2
    assert f"'{rate}'; expected something like 1gbit or 100mbit" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("ip") and shutil.which("tc") and os.geteuid() == 0), reason="needs root, and Linux's ip and tc"
)
def test_the_network_is_as_slow_as_was_asked(tmp_path):
    """An exchange takes the time that its bytes take, half of it in bf16, and nothing stays behind.

    Some less: tc lets the first 256 KiB pass at once.
    """
    file = tmp_path / "network.json"
    result = run_tool("bench_network", *SMALL, "--machines", "2", "--rate", "10mbit", "--updates", "3", "--json", file)
    assert result.returncode == 0, result.stderr
    [found] = json.loads(file.read_text())
    least = 8 * found["bytes"] / 10e6
    assert least > 1
    for way, share in (("at the end", 1), ("at the end, bf16", 0.5)):
        added = found["seconds"][way] - found["seconds"]["none"]
        assert 0.75 * share * least < added < 1.3 * share * least
    assert "bench" not in os.popen("ip netns list").read()
