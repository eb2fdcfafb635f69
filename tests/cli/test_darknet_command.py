"""The command ``darknet``, and that nobody takes it for the C program of that name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser

import pytest

from tests.conftest import ROOT
from tests.oracle import PROGRAM


@pytest.fixture
def first_on_the_path(tmp_path):
    """An environment whose PATH begins with our ``darknet``, as pip writes it, like that of an activated venv."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    module, function = dict(line.split(" = ") for line in lines if line)["darknet"].split(":")
    script = tmp_path / "bin/darknet"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        f"if __name__ == '__main__':\n    sys.exit({function}())\n"
    )
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_old_lines_run_under_the_old_name(first_on_the_path, tmp_path):
    words = "detector test cfg/shapes.data -dont_show cfg/yolov2-shapes.cfg weights/yolov2-shapes.weights -c 1"
    done = subprocess.run(
        ["bash", "-c", f"darknet {words} {ROOT}/data/shapes-sample.jpg; darknet detector test; darknet net none.cfg"],
        capture_output=True, text=True, cwd=tmp_path, env=first_on_the_path,
    )  # fmt: skip
    assert re.search(r"^disc: \d\d%", done.stdout, re.MULTILINE)
    said = done.stderr.splitlines()
    assert said[0] == "darknet: -c has no meaning here: it chooses a camera"
    assert said[-2].startswith("darknet detector test: the following arguments are required: ")
    assert said[-2].endswith("; see darknet detector test --help")
    assert said[-1].startswith("darknet: none.cfg: ")
    assert done.returncode == 1


def test_the_tests_run_the_c_program_all_the_same(first_on_the_path, pjreddie):
    done = subprocess.run([pjreddie], capture_output=True, text=True, env=first_on_the_path)
    assert done.stderr == f"usage: {PROGRAM} <function>\n"


def test_nothing_looks_for_the_c_program_on_the_path():
    """There our own command may be found first: what would compare both programs would compare ours with itself."""
    calls = re.compile(
        r"""which\(["']darknet["']\)|\[["']darknet["'], |, f?["']darknet (?:detector|classifier|rnn|yolo) """
    )
    lines = re.compile(r"(?:^ {4}|&& )darknet (?:detector|classifier|rnn|yolo|partial)", re.MULTILINE)
    read = 0
    for pattern, files in ((calls, ["tests/**/*.py", "tools/*.py", "eval/*.py"]), (lines, ["README.md", "docs/*.md"])):
        for path in (path for glob in files for path in ROOT.glob(glob)):
            text = path.read_text(encoding="utf-8")
            for found in re.findall(rf".*(?:{pattern.pattern}).*", text, pattern.flags):
                # Fixtures are called so, and a page may show lines for our own command.
                assert "params=" in found or "parametrize" in found or path.name == "command-line.md", (path, found)
            read += 1
    assert read > 100
