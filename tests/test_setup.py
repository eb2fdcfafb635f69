"""What setup.cfg promises of versions, and what it packs."""

from __future__ import annotations

import re
from configparser import ConfigParser
from fnmatch import fnmatch

from tests.conftest import ROOT


def test_the_least_versions_are_those_that_were_tested():
    """constraints-least.txt has the first release that each bound of setup.cfg allows."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    bounds = dict(re.findall(r"([\w-]+)>=([\d.]+)", "\n".join(lines)))
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-least.txt").read_text(), re.MULTILINE))
    assert bounds.keys() - pins.keys() == {
        "ruff", "opencv-python", "cosmic-ray", "coverage",  # no test runs them
        "trackers", "scipy", "rich", "pydeprecate", "defusedxml",  # of -track, which needs numpy 2
    }  # fmt: skip
    for name, pin in pins.items():
        assert f"{pin}.".startswith(f"{bounds[name]}."), name


def test_builds_have_the_setuptools_that_are_tested():
    """Isolated ones go by pyproject.toml, those of the tests by the extra."""
    [isolated] = re.findall(
        r'^requires = \["(setuptools>=\d+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert isolated in (ROOT / "setup.cfg").read_text().split()


def test_torch_loads_weights_without_running_code():
    """CVE-2025-32434 is mended in 2.6, CVE-2026-24747 in 2.10."""
    least = re.search(r"torch>=(\d+)\.(\d+)", (ROOT / "setup.cfg").read_text())
    assert tuple(map(int, least.groups())) >= (2, 10)


def test_every_folder_of_code_is_packed():
    """An installed package has those of the list, and no others."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "darknet_compat").rglob("*.py")}
    listed = {package for package in setup["options"]["packages"].split() if ".share." not in package}
    assert listed == {".".join(folder.parts) for folder in folders}


def test_what_stands_beside_the_code_is_packed():
    """Among it py.typed, without which a type checker takes an installed package for one without types."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packed, left = set(), set()
    for package in setup["options"]["packages"].split():
        patterns = re.split(r",\s*", setup["options.package_data"].get(package, ""))
        for path in ROOT.joinpath(*package.split(".")).glob("*.*"):
            if path.is_file() and path.suffix != ".py":
                fits = any(fnmatch(path.name, pattern) for pattern in patterns)
                (packed if fits else left).add(path.relative_to(ROOT).as_posix())
    assert left == set()
    assert {"darknet_compat/py.typed", "darknet_compat/cfg/grammar.lark"} <= packed
