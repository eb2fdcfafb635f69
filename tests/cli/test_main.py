"""The command line as a person meets it: help, wrong commands, one-line errors, exit codes, what gets loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import darknet_compat
from darknet_compat.cli import build_parser, main
from tests.conftest import ROOT
from tests.train.test_distributed import environment

NO_TENSORS = (["--help"], ["detector", "--help"], ["detector", "test", "--help"], ["net", "--help"], ["nonsense"],
              ["detector", "test"], ["voc_eval", "--help"], ["voc_eval", "--results", "none"],
              ["detector", "calc_anchors", "none.data"])  # fmt: skip


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "darknet_compat", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


@pytest.mark.parametrize("arguments", NO_TENSORS, ids=" ".join)
def test_torch_is_not_loaded_where_no_tensor_is_needed(arguments):
    code = (
        "import sys\nfrom darknet_compat.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print('LOADED', [name for name in ('torch', 'cv2', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOADED []" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["detector", "test", "--help"], ["detector", "test", "-wrong"]])
def test_the_help_loads_nothing_large(arguments):
    large = {"torch", "numpy", "cv2", "lark", "matplotlib", "tqdm", "urllib.request", "xml.etree", "subprocess"}
    code = (
        "import sys\nfrom darknet_compat.cli import main\n"
        f"main({arguments!r})\nprint('LOADED', sorted({large!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("LOADED []\n"), result.stdout + result.stderr


def test_an_image_that_is_not_there_is_named_before_torch_is_loaded(tmp_path):
    code = (
        "import sys\nfrom darknet_compat.cli import main\n"
        "code = main(['detector', 'test', 'a.data', 'a.cfg', 'a.weights', 'none.jpg'])\n"
        "print(code, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "1 False\n"
    assert "none.jpg: no such image" in result.stderr


def test_detecting_loads_nothing_large_beside_torch_and_opencv(tmp_path):
    """What torch itself loads with ``import torch`` is not ours to choose."""
    large = ("torch", "sympy", "matplotlib", "torchvision", "supervision", "PIL", "pandas", "tqdm", "onnx",
             "onnxruntime", "openvino", "safetensors", "faster_coco_eval", "darknet_compat.train",
             "darknet_compat.evaluate", "darknet_compat.export", "darknet_compat.engines.exported",
             "darknet_compat.classify", "darknet_compat.text", "darknet_compat.compat")  # fmt: skip
    words = ["detector", "test", "cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights"]
    words += [str(ROOT / "data/shapes-sample.jpg"), "-device", "cpu"]
    code = (
        "import sys, torch\nbefore = set(sys.modules)\nfrom darknet_compat.cli import main\n"
        f"assert main({words!r}) == 0\nprint(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    loaded = result.stdout.splitlines()[-1].split()
    assert "darknet_compat.engines.packed" in loaded
    assert "cv2" in loaded
    assert [name for name in loaded if f"{name}.".startswith(tuple(f"{one}." for one in large))] == []


def test_the_package_loads_no_torch():
    code = "import sys, darknet_compat, darknet_compat.cfg, darknet_compat.evaluate; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), "required: VERB"),
        (("detector",), "required: VERB"),
        (("train",), "invalid choice: 'train'"),
        (("net",), "required: CFG"),
        (("detector", "test", "a", "b", "c", "d", "-thresh", "2"), "2 is not from 0 to 1"),
        (("detector", "test", "a", "b", "c", "d", "-batch", "0"), "0 is under 1"),
        (("detector", "test", "a", "b", "c", "d", "-numerics", "tpu"), "invalid choice: 'tpu'"),
    ],
)
def test_a_wrong_command_exits_2_with_one_line(arguments, found):
    result = run(*arguments)
    assert result.returncode == 2
    assert found in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ("detector test", "detector test"),
        ("detector test a b c d -foo", "detector test"),
        ("detector test a b c d -thresh 2", "detector test"),
        ("detector recall a b c d", "detector recall"),
        ("detector train a b c d", "detector train"),
        ("detector nonsense", "detector"),
        ("net a b", "net"),
        ("voc_eval --results a --devkit b c", "voc_eval"),
    ],
)
def test_an_error_points_to_the_help_of_its_verb(words, verb, capsys):
    with pytest.raises(SystemExit) as exit:
        build_parser().parse_args(words.split())
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"darknet-compat {verb}: ")
    assert error.endswith(f"; see darknet-compat {verb} --help\n")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("net", "none.cfg"), "none.cfg"),
        (("detector", "test", "none.data", "a", "b", "c.jpg"), "c.jpg: no such image"),
        (("partial", "none.cfg", "a", "b", "3"), "none.cfg"),
    ],
)
def test_a_job_that_fails_exits_1_with_one_line(arguments, found, tmp_path):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert found in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_debug_shows_where_an_error_came_from(tmp_path):
    result = run("net", "none.cfg", "-debug", cwd=tmp_path)
    assert "Traceback" in result.stderr


def test_warnings_are_one_line_each(tmp_path):
    (tmp_path / "x.cfg").write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilterz=3\n")
    result = run("net", "x.cfg", cwd=tmp_path)
    assert result.returncode == 0
    assert "warning: x.cfg:6: filterz=3: unknown option" in result.stderr
    assert "did you mean `filters`?" in result.stderr
    assert result.stderr.count("\n") == 1


ELSEWHERE = "import tests.elsewhere; from darknet_compat.cli import main; raise SystemExit(main())"


def test_only_training_needs_what_windows_lacks(tmp_path):
    words = ["cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights"]
    ends = {"test": ["data/shapes-sample.jpg", "-json", tmp_path / "found.json"], "train": ["-clear"]}
    done = {}
    for verb, more in ends.items():
        command = [sys.executable, "-c", ELSEWHERE, "detector", verb, *words, *map(str, more)]
        done[verb] = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done["test"].returncode == 0, done["test"].stderr
    assert (tmp_path / "found.json").read_text().count('"prob"') > 0
    assert done["train"].returncode == 1
    assert done["train"].stderr == (
        "darknet-compat: training needs a system that forks processes, as Linux and macOS do; this one does not\n"
    )


PYTHON = f"{sys.executable} -m darknet_compat"
# A job that says more than a pipe holds.
LONG = """
import argparse
from darknet_compat import cli
parser = argparse.ArgumentParser()
parser.set_defaults(run=lambda options: [print("line " * 20) for _ in range(10000)] and 0)
cli.build_parser = lambda name: parser
raise SystemExit(cli.main([]))
"""
# One that says something, not yet written, before a Ctrl-C.
STOPPED = """
import argparse
from darknet_compat import cli
def run(options):
    print("line")
    raise KeyboardInterrupt
parser = argparse.ArgumentParser()
parser.set_defaults(run=run)
cli.build_parser = lambda name: parser
raise SystemExit(cli.main([]))
"""


def test_what_standard_output_has_no_letters_for(tmp_path):
    """A letter beyond its encoding is escaped; a byte of a path that is no UTF-8 goes out as it is."""
    code = LONG.replace('"line " * 20', '"名 \\udce9"').replace("10000", "1")
    env = {**environment(), "PYTHONIOENCODING": "ascii:strict"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=env)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"\\u540d \xe9\n", b"")


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"{PYTHON} net {ROOT}/cfg/yolov2.cfg | head -1", 0, ""),
        (f"{PYTHON} --help | true", 0, ""),
        (f"{sys.executable} -c '{LONG}' | head -1", 141, ""),
        (f"{PYTHON} --help >/dev/full", 1, "standard output: No space left on device"),
        (f"{sys.executable} -c '{LONG}' >/dev/full", 1, "standard output, or a file: No space left on device"),
        (f"{sys.executable} -c '{STOPPED}' >/dev/full", 130, "stopped"),
        (f"{PYTHON} --help >&-", 1, "standard output: Bad file descriptor"),
        (f"{PYTHON} net none.cfg 2>&-", 1, ""),
        (f"{PYTHON} net none.cfg 2>/dev/full", 1, ""),
    ],
    ids=["done", "help", "broken off", "full", "full soon", "full and stopped", "closed", "no errors", "errors full"],
)
def test_what_nobody_reads(command, code, says, tmp_path):
    """A reader that had enough is no error; a job that it broke off says so by its code, as SIGPIPE would."""
    env = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert result.returncode == code
    assert result.stderr == (f"darknet-compat: {says}\n" if says else "")


def test_what_was_kept_at_ctrl_c_is_said():
    """The job's own words; without any it is "stopped" alone, as above."""
    code = STOPPED.replace("raise KeyboardInterrupt", "raise KeyboardInterrupt('; 3 images stand in a.json')")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, "darknet-compat: stopped; 3 images stand in a.json\n")


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_the_version_is_the_packages(flag, capsys):
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"darknet_compat {darknet_compat.__version__}\n"


THREADS = """
import sys
from darknet_compat import cli
cli.main(sys.argv[1:])
import torch
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(
    ("words", "given", "expected"),
    [
        ([], {}, f"{os.cpu_count()}"),
        (["-threads", "1"], {}, "1"),
        (["--threads", "1"], {"OMP_NUM_THREADS": "2"}, "1"),
        ([], {"OMP_NUM_THREADS": "1"}, "1"),
    ],
)
def test_threads_are_as_many_as_asked_for(words, given, expected, tmp_path):
    """Torch reads their number as it is loaded, so the command says it before."""
    usual = {key: value for key, value in environment().items() if not key.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", THREADS, "detector", "test", "cfg/shapes.data", "cfg/yolov2-shapes.cfg",
         "weights/yolov2-shapes.weights", "data/shapes-sample.jpg", *words],
        capture_output=True, text=True, check=True, env={**usual, **given}, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == expected
    assert (tmp_path / "predictions.jpg").exists()


def test_threads_of_a_process_that_has_torch():
    before = torch.get_num_threads()
    try:
        assert main(["detector", "train", "none.data", "none.cfg", "-threads", "7"]) == 1
        assert torch.get_num_threads() == 7
        assert main(["detector", "train", "none.data", "none.cfg", "-threads", "0"]) == 2
    finally:
        torch.set_num_threads(before)
