"""Runs a script of tools/, or a verb, as a person does, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from tests.conftest import ROOT


def run_tool(name: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``tools/<name>.py``; its exit code, output and errors as text."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )


def run_verb(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb of ``darknet-compat``; its exit code, output and errors as text."""
    return subprocess.run(
        [sys.executable, "-m", "darknet_compat", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )


def load_tool(name: str) -> ModuleType:
    """The script as a module, to run parts of it in this process."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a tool or a verb that failed; it must be one line, and no traceback."""
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.strip()
