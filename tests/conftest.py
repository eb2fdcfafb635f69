"""Fixtures for what may be absent: the real Darknet, and the shared real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRE = os.environ.get("DARKNET_COMPAT_REQUIRE_REFERENCE") == "1"
MISSING_REFERENCE = "needs the real Darknet: apt-get install darknet"


@pytest.fixture(scope="session")
def darknet():
    """The driver of libdarknet; the test skips, or fails where the reference is required, without it."""
    from tests.oracle import OracleMissing, load_oracle

    try:
        return load_oracle()
    except OracleMissing as missing:
        if REQUIRE:
            pytest.fail(f"{missing}; DARKNET_COMPAT_REQUIRE_REFERENCE=1 asks for it", pytrace=False)
        pytest.skip(MISSING_REFERENCE)


@pytest.fixture(scope="session")
def darknet_share() -> Path:
    """Debian's folder with Darknet's stock cfg files, photographs and names."""
    folder = Path("/usr/share/darknet")
    if not folder.is_dir():
        if REQUIRE:
            pytest.fail("/usr/share/darknet is missing; DARKNET_COMPAT_REQUIRE_REFERENCE=1 asks for it", pytrace=False)
        pytest.skip(MISSING_REFERENCE)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real weights, pictures and detections that are not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared real data beside the checkout")
    return folder


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    reference = [report for report in skipped if MISSING_REFERENCE in str(report.longrepr)]
    if reference:
        terminalreporter.write_line(
            f"{len(reference)} tests were skipped because the real Darknet is missing: apt-get install darknet"
        )
