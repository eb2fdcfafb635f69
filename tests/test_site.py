"""The documentation as a site: it builds without a warning, and holds every page and what is public of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import darknet_compat
from tests.conftest import ROOT

for package in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(package, reason="needs the extra docs: pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    options = re.search(r"python -m (sphinx .*) docs build/site", (ROOT / "Makefile").read_text())[1].split()
    assert "-W" in options, "with which a warning is an error"
    command = [sys.executable, "-m", *options, ROOT / "docs", folder / "out", "-d", folder / "doctrees"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder / "out"


def test_every_page_is_in_it_and_in_both_lists_of_pages(site):
    """That at the side, and the table of what somebody may want."""
    side, table = (site / "index.html").read_text().split("<article")
    for page in (ROOT / "docs").glob("*.md"):
        text = (site / f"{page.stem}.html").read_text()
        title = re.search(r"^# (.*)$", page.read_text(), re.MULTILINE)[1]
        assert re.sub(r"[`*]", "", title)[:10] in re.sub(r"<[^>]*>", "", text)
        for part in (side, table):
            assert f'href="{page.stem}.html' in part or page.stem == "index"


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.glob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"([^\"]*)\"", page.read_text())
        assert not [address for address in loaded if address.startswith(("http:", "https:", "//"))]


def test_what_is_public_is_in_the_reference(site):
    text = (site / "api.html").read_text()
    missing = [name for name in darknet_compat.__all__ if f'.{name}"' not in text]
    assert not missing
