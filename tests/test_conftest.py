"""No skip goes unseen: the last line counts them by what is missing, and where none is allowed each is a failure."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

TESTS = """
import pytest

@pytest.fixture
def moon():
    pytest.skip("needs the moon")

@pytest.mark.parametrize("number", [1, 2])
def test_fixture(moon, number):
    pass

@pytest.mark.skipif(True, reason="needs a sun")
def test_skipif():
    pass

def test_import():
    pytest.importorskip("no_such_package", reason="needs the extra none")

def test_good():
    pass

@pytest.mark.real_data
def test_real():
    pass

def test_shared(shared):
    pass

@pytest.mark.xfail
def test_known():
    assert False
"""
MODULE = 'import pytest\npytest.importorskip("no_such_package", reason="needs the extra none")\n'


@pytest.fixture
def outcome(tmp_path):
    """The exit code and the lines of pytest on the tests above, under this conftest."""

    def run(no_skips, *arguments, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = real_data\n")
        command = [sys.executable, "-m", "pytest", "-q", "-c", tmp_path / "pytest.ini", "-p", "tests.conftest"]
        environment = {**os.environ, "DARKNET_COMPAT_NO_SKIPS": no_skips, "PYTEST_ADDOPTS": ""}
        files = [tmp_path / f"{name}.py" for name in files]
        result = subprocess.run(
            [*command, *files, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        return result.returncode, result.stdout.splitlines()

    return run


def test_the_last_line_counts_by_reason(outcome):
    code, lines = outcome("0", "-m", "not real_data", test_few=TESTS, test_module=MODULE)
    assert code == 0
    assert lines[-2].startswith("1 passed, 5 skipped, 2 deselected, 1 xfailed in ")
    assert lines[-1] == "5 skipped: 2 need the extra none, 2 need the moon, 1 needs a sun"


def test_processes_that_share_the_tests_count_together(outcome):
    code, lines = outcome("0", "-n", "2", "-m", "not real_data", test_few=TESTS, test_module=MODULE)
    assert code == 0
    assert lines[-2].startswith("1 passed, 5 skipped, 1 xfailed in ")
    assert lines[-1] == "5 skipped: 2 need the extra none, 2 need the moon, 1 needs a sun"
    code, lines = outcome("1", "-n", "2", "-m", "not real_data", test_few=TESTS)
    assert code == 1
    assert lines[-1].startswith("1 failed, 1 passed, 1 xfailed, 3 errors in ")


def test_where_no_skip_is_allowed_each_is_a_failure(outcome):
    code, lines = outcome("1", "-m", "not real_data", test_few=TESTS)
    assert code == 1
    assert lines[-1].startswith("1 failed, 1 passed, 2 deselected, 1 xfailed, 3 errors in ")
    assert any("needs a sun; DARKNET_COMPAT_NO_SKIPS=1 allows no skip" in line for line in lines)


def test_a_module_that_skips_is_a_failure_too(outcome):
    code, lines = outcome("1", test_module=MODULE)
    assert code == 2
    assert lines[-1].startswith("1 error in ")


def test_without_skips_there_is_no_line_more(outcome):
    code, lines = outcome("1", test_module="def test_good():\n    pass\n")
    assert code == 0
    assert lines[-1].startswith("1 passed in ")
