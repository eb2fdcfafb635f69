"""What setup.cfg promises of versions."""

from __future__ import annotations

import re
from configparser import ConfigParser

from tests.conftest import ROOT


def test_the_least_versions_are_those_that_were_tested():
    """constraints-least.txt has the first release that each bound of setup.cfg allows."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    bounds = dict(re.findall(r"([\w-]+)>=([\d.]+)", "\n".join(lines)))
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-least.txt").read_text(), re.MULTILINE))
    assert bounds.keys() - pins.keys() == {"ruff", "opencv-python", "cosmic-ray", "coverage"}  # no test runs them
    for name, pin in pins.items():
        assert f"{pin}.".startswith(f"{bounds[name]}."), name


def test_torch_loads_weights_without_running_code():
    """CVE-2025-32434 is mended in 2.6, CVE-2026-24747 in 2.10."""
    least = re.search(r"torch>=(\d+)\.(\d+)", (ROOT / "setup.cfg").read_text())
    assert tuple(map(int, least.groups())) >= (2, 10)
