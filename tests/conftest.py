"""Fixtures for what may be absent: the real Darknet, and the shared real data; and what becomes of a test without it.

A reason to skip starts with "needs" and says what is missing and how to get it: the last line of a run counts the
skipped tests by these reasons.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from darknet_compat import cli
from darknet_compat.cli import arguments

# Processes that share the cores (pytest -n): each has one of them. Before torch is imported, which reads it then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
NO_SKIPS = os.environ.get("DARKNET_COMPAT_NO_SKIPS") == "1"
# The network that the repository ships, as (cfg, weights).
SHAPES = ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights"


# What a test of signals starts from. A run in the background, or under nohup, inherits ignored signals; and a verb that
# ends by Ctrl-C leaves it ignored, since its process ends, which here the next test's processes would inherit.
SIGNALS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
for name in {"SIGHUP", "SIGQUIT"} & vars(signal).keys():  # Windows has neither
    SIGNALS[getattr(signal, name)] = signal.SIG_DFL


def pytest_configure():
    # A verb that runs in this process would let it keep all that thousands of tests free: 10 GiB at the end.
    cli.keep_memory = lambda: None
    arguments.without_garbage_collection = contextlib.nullcontext  # likewise


def real(*values, **kwargs):
    """A parameter that needs the shared real data."""
    return pytest.param(*values, marks=pytest.mark.real_data, **kwargs)


@pytest.fixture(scope="session")
def darknet():
    """The driver of libdarknet."""
    from tests.oracle import OracleMissing, load_oracle

    try:
        return load_oracle()
    except OracleMissing as missing:
        pytest.skip(f"needs the real Darknet ({missing}): apt-get install darknet")


@pytest.fixture(scope="session")
def alexeyab() -> Path:
    """The folder of AlexeyAB's program, built: libdarknet.so, darknet, cfg/, include/. A variable may name another."""
    from tests.oracle import OracleMissing
    from tests.oracle.alexeyab import find_alexeyab

    try:
        return find_alexeyab()
    except OracleMissing as missing:
        pytest.skip(f"needs AlexeyAB's program ({missing})")


@pytest.fixture(scope="session")
def alexeyab_opencv(alexeyab):
    """The driver of a build of AlexeyAB's library with OpenCV, which alone has his loader of training images."""
    from tests.oracle import OracleMissing
    from tests.oracle.alexeyab import build_with_opencv, load_alexeyab

    try:
        return load_alexeyab(build_with_opencv(alexeyab))
    except OracleMissing as missing:
        pytest.skip(f"needs AlexeyAB's program with OpenCV ({missing}): apt-get install g++ libopencv-dev pkg-config")


@pytest.fixture(scope="session")
def alexeyab_darknet(alexeyab):
    """The driver of AlexeyAB's library, as ``darknet`` is of Debian's."""
    from tests.oracle import OracleMissing
    from tests.oracle.alexeyab import load_alexeyab

    try:
        return load_alexeyab(alexeyab)
    except OracleMissing as missing:
        pytest.skip(f"needs AlexeyAB's program ({missing}): apt-get install gcc")


@pytest.fixture(scope="session")
def alexeyab_fast(alexeyab):
    """The driver of a build of AlexeyAB's library with AVX and OpenMP."""
    from tests.oracle import OracleMissing
    from tests.oracle.alexeyab import build_fast, load_alexeyab

    try:
        return load_alexeyab(build_fast(alexeyab))
    except OracleMissing as missing:
        pytest.skip(f"needs AlexeyAB's program with AVX ({missing}): apt-get install g++")


@pytest.fixture(scope="session")
def darknet_share() -> Path:
    """Debian's folder with Darknet's stock cfg files, photographs and names."""
    folder = Path("/usr/share/darknet")
    if not folder.is_dir():
        pytest.skip("needs the real Darknet (/usr/share/darknet is missing): apt-get install darknet")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real weights, images and detections that are not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data beside the checkout (../shared)")
    return folder


def network_files(request, name: str) -> tuple[Path, Path]:
    """The cfg and .weights of a trained network: the repository's own "yolov2-shapes", or one of the shared data."""
    if name == "yolov2-shapes":
        return SHAPES
    folder = request.getfixturevalue("shared")
    return folder / f"{name}.cfg", folder / f"{name}.weights"


@pytest.fixture(scope="session", params=["yolov2-shapes", real("yolo-lite/tiny-yolov2-trial3")])
def detector(request) -> tuple[Path, Path]:
    """The cfg and .weights of each trained detector at hand."""
    return network_files(request, request.param)


@pytest.fixture(
    scope="session", params=["yolov2-shapes", real("yolo-lite/tiny-yolov2-trial3"), real("tiny-imagenet/tiny")]
)
def trained(request) -> tuple[Path, Path]:
    """The cfg and .weights of each trained network at hand, the classifier too."""
    return network_files(request, request.param)


@pytest.fixture(scope="session")
def made_shapes(tmp_path_factory) -> Path:
    """A small set of made shapes: a VOCdevkit with labels and lists, 8 images to train and 24 to test."""
    folder = tmp_path_factory.mktemp("made") / "shapes"
    command = [sys.executable, ROOT / "tools/make_shapes.py", folder, "--train", "8", "--test", "24", "--workers", "1"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return path


@pytest.fixture(scope="session")
def xvfb() -> list[str]:
    """What a command line begins with that gives a program a display, for one that cannot do without."""
    path = shutil.which("xvfb-run")
    if path is None:
        pytest.skip("needs a display of its own: apt-get install xvfb xauth")
    return [path, "-a"]


@pytest.fixture(scope="session")
def trainings(tmp_path_factory, made_shapes) -> Path:
    """A folder in which three trainings of two updates were started (tests/trainings.py)."""
    from tests.trainings import make_trainings

    folder = tmp_path_factory.mktemp("a person's é")
    make_trainings(folder, made_shapes)
    return folder


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if "shared" in item.fixturenames:
            item.add_marker("real_data")


def pytest_runtest_setup(item):
    for number, usual in SIGNALS.items():
        signal.signal(number, usual)
    if item.get_closest_marker("posix") and not hasattr(os, "fork"):
        pytest.skip("needs what Windows lacks: forked processes, named pipes")
    if item.get_closest_marker("bf16"):
        from darknet_compat.engines import has_bf16

        if not has_bf16():
            pytest.skip("needs a processor with bf16")


# No skip goes unseen: where DARKNET_COMPAT_NO_SKIPS=1 (.ci/run sets it) each is a failure, whichever way it was asked
# for (pytest.skip, importorskip, skipif); elsewhere the last line of all counts them.


def reason_of(report) -> str:
    return report.longrepr[2].removeprefix("Skipped: ")


def no_skips(report):
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"{reason_of(report)}; DARKNET_COMPAT_NO_SKIPS=1 allows no skip"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return no_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return no_skips((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Outside of all other wrappers, so that the line stands after pytest's own summary."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # one of several processes (-n), whose skips the first one counts
        return
    reasons = Counter(reason_of(report).removeprefix("needs ") for report in reporter.stats.get("skipped", []))
    if reasons:
        listed = ", ".join(f"{n} {'needs' if n == 1 else 'need'} {what}" for what, n in reasons.most_common())
        reporter.write_line(f"{reasons.total()} skipped: {listed}")
