"""What people get and how it is made: sdist and wheel, the installed commands, the citation, the changes, public CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

from darknet_compat import __version__
from tests.conftest import ROOT

SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
FOLDERS = ("cfg", "data", "weights")
SAMPLE = ["cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights", "data/shapes-sample.jpg"]
# What a build, a run and a download leave in a checkout.
STALE = ("build/lib/darknet_compat/stale.py", "darknet_compat/__pycache__/stale.pyc", "data/made/shapes/stale.jpg",
         "tests/__pycache__/stale.pyc", "weights/stale.weights")  # fmt: skip


@pytest.fixture(scope="module")
def files():
    """The files of the checkout that git has or would take, by their paths in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a checkout of git")
    return {path for path in listed.split("\0") if path and (ROOT / path).is_file()}


@pytest.fixture(scope="module")
def built(files, tmp_path_factory):
    """The sdist, the wheel that is made of it, and what was said: from a copy of the checkout, with stale files."""
    pytest.importorskip("build", reason="needs build: pip install build")
    copy, made = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("made")
    for path in files:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    for path in STALE:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(b"")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", made, copy]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist], [wheel] = made.glob("*.tar.gz"), made.glob("*.whl")
    return sdist, wheel, done.stdout + done.stderr


def test_the_sdist_is_the_checkout(built, files):
    """So tests and documentation can be made from it, too."""
    with tarfile.open(built[0]) as archive:
        held = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {"PKG-INFO"} | {path for path in held if path.startswith("darknet_compat.egg-info/")}
    assert held - made == files


def test_the_wheel_is_the_package_and_what_comes_along(built, files):
    """Each module, the grammar, py.typed, cfgs, names, the sample: these files, and no others."""
    with zipfile.ZipFile(built[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    share = {f"darknet_compat/share/{path}" for path in files if path.split("/")[0] in FOLDERS}
    assert held == share | {path for path in files if path.startswith("darknet_compat/")}
    assert {"darknet_compat/py.typed", "darknet_compat/cfg/grammar.lark"} < held
    assert {f"darknet_compat/share/{path}" for path in SAMPLE} < held


def test_nothing_is_deprecated(built):
    assert not re.search("deprecat", built[2], re.IGNORECASE)


def test_the_metadata_are_whole(built):
    with zipfile.ZipFile(built[1]) as archive:
        [path] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(path).decode())
        licence = archive.read(path.replace("METADATA", "licenses/LICENSE"))
    assert (told["Name"], told["Version"]) == ("darknet_compat", __version__)
    assert (told["License-Expression"], told["License-File"]) == ("MIT", "LICENSE")
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert told["Author"] == "The darknet_compat authors"
    assert told["Description-Content-Type"] == "text/markdown"
    assert told.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    assert told["Requires-Python"] == f">={PYTHONS[0]}"
    assert set(told.get_all("Provides-Extra")) == set(SETUP["options.extras_require"])
    assert all(told[name] for name in ("Summary", "Keywords"))
    assert all(" :: " in name for name in told.get_all("Classifier"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A function that runs a command in a folder of its own, with the wheel in a venv that sees our other packages."""
    folder, elsewhere = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = shutil.which("python", path=scripts)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", built[1]],
        check=True,
    )
    # Paths alone: a .pth file in them, such as that of an editable darknet_compat, is not read.
    [site] = folder.rglob("site-packages")
    (site / "ours.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{scripts}{os.pathsep}{environment['PATH']}"

    def run(*words):
        command = [shutil.which(words[0], path=scripts), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.site = site
    return run


FOUND = """
import darknet_compat, sys
from darknet_compat.stock import find_stock
print(darknet_compat.__file__, *map(find_stock, sys.argv[1:]), sep="\\n")
"""


def test_what_is_installed_comes_from_the_wheel(installed, files):
    stock = sorted(path for path in files if path.split("/")[0] in FOLDERS)
    module, *found = installed("python", "-c", FOUND, *stock).splitlines()
    assert Path(module) == installed.site / "darknet_compat/__init__.py"
    assert [Path(path) for path in found] == [installed.site / "darknet_compat/share" / path for path in stock]


@pytest.mark.parametrize("name", ["darknet-compat", "darknet"])
def test_both_commands_are_installed(installed, name):
    assert installed(name, "--version") == f"darknet_compat {__version__}\n"


def test_the_installed_command_detects_in_the_sample(installed):
    said = installed("darknet-compat", "detector", "test", *SAMPLE, "-engine", "torch", "-device", "cpu")
    assert {line.split(":")[0] for line in said.splitlines()[1:]} == {"square", "disc"}


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml", reason="needs the extra docs: pip install '.[docs]'")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], cited["version"], cited["license"]) == ("1.2.0", __version__, "MIT")
    assert cited["authors"] == [{"name": SETUP["metadata"]["author"]}]
    assert [reference["title"].split(":")[0] for reference in cited["references"]] == [
        "You Only Look Once", "YOLO9000", "YOLOv3", "YOLOv4",
    ]  # fmt: skip


def test_the_changes_begin_with_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.*?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert len(headings) == changes.count("\n## ")
    assert headings[0][0] == __version__


PYTHONS = re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)


@pytest.fixture(scope="module")
def jobs():
    yaml = pytest.importorskip("yaml", reason="needs the extra docs: pip install '.[docs]'")
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_ci_runs_every_python_that_is_named(jobs):
    assert SETUP["options"]["python_requires"] == f">={PYTHONS[0]}"
    assert [jobs[name]["strategy"]["matrix"]["python"] for name in ("linux", "elsewhere")] == [PYTHONS] * 2
    for job in jobs.values():
        [setup] = [step for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
        assert setup["with"]["python-version"] in ["${{ matrix.python }}", *PYTHONS]
        assert (ROOT / setup["with"]["cache-dependency-path"]).is_file()


def test_ci_says_only_what_is_there(jobs):
    """Targets of make, and files; what else a job runs is pytest and what installs packages."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in (command for job in jobs.values() for command in commands(job)):
        kind, _, rest = command.partition(" ")
        if kind == "make":
            assert re.search(rf"^{rest}:", makefile, re.MULTILINE), command
        elif kind == "sudo":
            assert command == "sudo apt-get update && sudo apt-get install -y darknet"
        else:
            assert command.startswith(("python -m pytest -n auto ", "python -m pip install -c "))
            named = [word for word in command.split()[3:] if "/" in word or "." in word.strip(".")]
            assert [word for word in named if not (ROOT / word).exists() and word != '".[test]"'] == []


def test_ci_takes_versions_from_the_constraints(jobs):
    """The newest of all by ``make``, the least on the Python that they are for; a version in the workflow is none."""
    assert "make test" in commands(jobs["linux"])
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 'python -m pip install -c constraints.txt -e ".[test]"' in commands(jobs["elsewhere"])
    assert 'python -m pip install -c constraints-least.txt -e ".[test]"' in commands(jobs["least"])
    least = (ROOT / "constraints-least.txt").read_text(encoding="utf-8")
    [setup] = [step["with"] for step in jobs["least"]["steps"] if "setup-python" in step.get("uses", "")]
    assert f"tested on Python {setup['python-version']} " in least
    assert "==" not in "".join(command for job in jobs.values() for command in commands(job))
    for name in ("constraints.txt", "constraints-least.txt"):
        assert re.search(r"^torch==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("more", [["--collect-only"], pytest.param([], marks=pytest.mark.slow)], ids=["read", "run"])
def test_what_ci_runs_on_windows_needs_nothing_that_it_lacks(jobs, more):
    [words] = [step["run"].split() for step in jobs["elsewhere"]["steps"] if "every system" in step.get("name", "")]
    named = [word for word in words[5:] if word != "tests/test_package.py"]
    command = [sys.executable, "-m", "pytest", "-p", "tests.elsewhere", "-p", "no:cacheprovider", *named, *more]
    environment = {**os.environ, "DARKNET_COMPAT_NO_SKIPS": "0", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout
