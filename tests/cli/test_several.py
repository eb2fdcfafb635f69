"""The verbs that share their images among processes, against one process; and what becomes of all when one ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.cfg import read_cfg
from darknet_compat.cli import build_parser, main, several
from darknet_compat.images import load_image, save_image
from darknet_compat.network import Network
from darknet_compat.processes import LAUNCHER
from darknet_compat.weights import save_weights
from tests.compare import randomise
from tests.conftest import ROOT, SHAPES
from tests.train.test_distributed import environment, in_processes
from tests.trainings import CLASSIFIER, REGION

pytestmark = pytest.mark.posix

DETECTOR = f"my.data {SHAPES[0]} {SHAPES[1]} -device cpu"
MISSING = DETECTOR.replace("my.data", "missing.data")
CLASSES = "classes.data classes.cfg classes.weights -device cpu"
# All verbs that share, with the flags that make work of their own. The list has 21 images.
LINES = [
    f"detector valid {DETECTOR} -out voc_",
    "detector valid coco.data coco.cfg coco.weights -device cpu",
    f"detector valid2 {DETECTOR} -batch 3 -out mirrored_",
    f"detector valid {DETECTOR} -tiles 2 -out tiles_",
    f"detector valid {DETECTOR} -batch 21 -out once_",
    f"detector valid {MISSING} -batch 2",
    f"detector map {DETECTOR}",
    f"detector recall {DETECTOR} -batch 5",
    f"detector test {DETECTOR} list.txt -out drawn -json found.json -save_labels -overwrite",
    f"detector test {DETECTOR} list.txt -ext_output -out result.json -batch 1",
    f"detector test {DETECTOR} missing.txt -json some.json",
    f"detector test {DETECTOR} missing.txt -json others.json -skip",
    f"detector test {DETECTOR} JPEGImages/3.jpg",
    *(f"classifier {verb} {CLASSES}" for verb in ("valid", "valid10", "validmulti", "validfull", "validcrop")),
    f"classifier valid {CLASSES} -out figures -batch 2",
    *(f"classifier {verb} {CLASSES}" for verb in ("label", "csv", "test")),
    f"classifier fout {CLASSES} list.txt",
    f"classifier predict {CLASSES} list.txt -json classes.json",
    f"classifier label {CLASSES} missing.txt -skip",
    f"classifier label {CLASSES} missing.txt",
]
# Runs them all in this process, joined once to the others, if any.
RUN = """
import shlex, sys
from darknet_compat import processes
from darknet_compat.cli import main
joined = processes.join("cpu")
processes.join, processes.leave = lambda name: joined, lambda: None
for line in open("lines").read().splitlines():
    code = main(shlex.split(line))
    for stream in (sys.stdout, sys.stderr) if joined.first else ():
        print("###", line, code, file=stream, flush=True)
"""


def plain(text):
    """Without what a clock says."""
    return re.sub(r"\d+\.\d+ ([Ss])econds|\d+\.\d+ images/s|\d+\.\d+ milli-", "", text)


def files(folder):
    """What each file holds, and each folder without one."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with images, labels, lists, .data files and a classifier."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("JPEGImages", "labels"):
        (folder / name).mkdir()
    image = load_image(str(ROOT / "data/shapes-sample.jpg"))
    for number in range(21):
        save_image(np.roll(image, 7 * number, 1)[: 150 + number].copy(), folder / f"JPEGImages/{number}.jpg")
        (folder / f"labels/{number}.txt").write_text(f"{number % 6} .5 .5 .3 .3\n0 0.148 0.207 0.246 0.26\n")
    paths = [f"JPEGImages/{number}.jpg\n" for number in range(21)]
    (folder / "list.txt").write_text("".join(paths))
    (folder / "missing.txt").write_text("".join([*paths[:13], "JPEGImages/none.jpg\n", *paths[14:]]))
    names = f"classes=6\nnames={ROOT}/data/shapes.names\n"
    (folder / "my.data").write_text(f"{names}valid=list.txt\nresults=results\n")
    (folder / "missing.data").write_text(f"{names}valid=missing.txt\nresults=no-results\n")
    (folder / "coco.names").write_text("".join(f"class {number}\n" for number in range(80)))
    (folder / "coco.data").write_text("classes=80\nnames=coco.names\nvalid=list.txt\nresults=results\neval=coco\n")
    (folder / "coco.cfg").write_text(REGION.replace("filters=22", "filters=170").replace("classes=6", "classes=80"))
    save_weights(randomise(Network(read_cfg(folder / "coco.cfg"))), folder / "coco.weights")
    (folder / "classes.cfg").write_text(CLASSIFIER)
    save_weights(randomise(Network(read_cfg(folder / "classes.cfg"))), folder / "classes.weights")
    (folder / "classes.labels").write_text("".join(f"{number}.jpg\n" for number in range(6)))
    (folder / "classes.data").write_text("classes=6\nlabels=classes.labels\nvalid=list.txt\ntest=list.txt\ntop=2\n")
    return folder


def run_lines(folder, lines, world, threads, monkeypatch):
    """What all lines print, and leave, in so many processes with so many threads in all."""
    monkeypatch.chdir(folder)
    (folder / "lines").write_text("\n".join(lines))
    code = f"import os; os.environ['OMP_NUM_THREADS'] = '{threads // world}'\n" + RUN
    codes, out, error = in_processes(world, [sys.executable, "-c", code])
    assert codes == [0] * world, error
    return plain(out).split("###"), plain(error).split("###"), files(folder)


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_several_processes_print_and_write_what_one_does(made, tmp_path, monkeypatch, world):
    for name in ("one", "several"):
        shutil.copytree(made, tmp_path / name)
    lines = LINES if world == 2 else LINES[::3]
    one = run_lines(tmp_path / "one", lines, 1, world, monkeypatch)
    several = run_lines(tmp_path / "several", lines, world, world, monkeypatch)
    for ours, theirs in zip(several[:2], one[:2], strict=True):
        for after, before in zip(ours, theirs, strict=True):
            assert after == before
    assert several[2].keys() == one[2].keys()
    for name, content in one[2].items():
        assert several[2][name] == content, name
    if world == 2:  # with all lines
        assert len([name for name in one[2] if name.startswith("results/")]) == 25
        assert one[2]["results/voc_disc.txt"].count(b"\n") > 20
        assert one[2]["results/coco_results.json"].count(b"image_id") > 20
        assert not [name for name in one[2] if name.startswith("no-results/comp4")]
        assert "12 of 21 images are kept, and -resume goes on" in "".join(one[1])


# What `-gpus 0,1` runs, with CPU processes in the place of the GPUs.
GPUS = """
import sys
from darknet_compat import processes
from darknet_compat.cli import main
processes.torch.cuda.device_count = lambda: 3
launch = processes.launch_processes
processes.launch_processes = lambda count, words, died: launch(count, [*words, "-nogpu"], died)
sys.exit(main(sys.argv[1:]))
"""


def valid(folder, *flags, gpus=None):
    """Start ``detector valid`` over the long list of a folder, in one process or in several."""
    start = ["-m", "darknet_compat"] if gpus is None else ["-c", GPUS]
    words = ["detector", "valid", "long.data", *map(str, SHAPES), *([] if gpus is None else ["-gpus", gpus]), *flags]
    return subprocess.Popen(
        [sys.executable, *start, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def long(made, tmp_path_factory):
    """A folder with a list of 800 images, some of which are the same; and the files of one process."""
    folder = tmp_path_factory.mktemp("long")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    (folder / "many").mkdir()
    for number in range(800):
        os.link(folder / f"JPEGImages/{number % 21}.jpg", folder / f"many/{number}.jpg")
    (folder / "long.txt").write_text("".join(f"many/{number}.jpg\n" for number in range(800)))
    (folder / "long.data").write_text((folder / "my.data").read_text().replace("list.txt", "long.txt"))
    process = valid(folder, "-nogpu")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    shutil.move(folder / "results", folder / "whole")
    return folder


def places(launcher):
    """The processes that it started, by their rank."""
    found = {}
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found.update({int(one[5:]): int(pid) for one in variables if one.startswith(b"RANK=")})
    return found


def lives(pid):
    """A process, and not what is left of one that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("which", "number", "code", "says"),
    [
        pytest.param(
            0, signal.SIGKILL, 137, "^darknet-compat: process 0 of 2 was ended by SIGKILL; -resume goes on$",
            marks=pytest.mark.slow,
        ),
        (1, signal.SIGKILL, 137, "^darknet-compat: process 1 of 2 was ended by SIGKILL; -resume goes on$"),
        pytest.param(
            "launcher", signal.SIGKILL, -9,
            r"^darknet-compat: the process that started this one has ended; [\d,]+ of 800 images are ",
            marks=pytest.mark.slow,
        ),
        ("all", signal.SIGINT, 130, r"^darknet-compat: stopped; [\d,]+ of 800 images are kept, and -resume goes on$"),
        pytest.param("launcher", signal.SIGINT, 130, "^darknet-compat: stopped; ", marks=pytest.mark.slow),
        pytest.param("launcher", signal.SIGTERM, 143, None, marks=pytest.mark.slow),
        pytest.param(
            1, signal.SIGTERM, 143, "^darknet-compat: process 1 of 2 ended with exit code 143", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_a_killed_process_ends_all_and_a_run_goes_on(long, which, number, code, says):
    """In one line, with nothing half-written; and what another run adds makes the same bytes."""
    shutil.rmtree(long / "results", ignore_errors=True)
    journal = long / "results/.comp4_det_test_.journal"
    process = valid(long, gpus="0,2")
    began = time.monotonic()
    while not journal.exists() or journal.stat().st_size < 5_000:
        assert process.poll() is None
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    ranks = places(process.pid)
    assert ranks.keys() == {0, 1}
    if which == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(ranks.get(which, process.pid), number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    lines = [line for line in error.splitlines() if "version 0.2.0" not in line]
    assert len(lines) == (says is not None), error
    assert all(re.search(says, line) for line in lines), error
    while any(map(lives, ranks.values())):  # after the launcher itself was killed
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    left = {path.name for path in (long / "results").iterdir()}
    # Who is killed by SIGKILL tidies nothing up; the next run does.
    assert left - {".comp4_det_test_.part"} == {".comp4_det_test_.journal"}
    assert left == {".comp4_det_test_.journal"} or (which, number) == (0, signal.SIGKILL)

    first = (long / "many/0.jpg").rename(long / "away.jpg")
    process = valid(long, "-resume", gpus="0,1,2" if which == 0 else None)
    out, error = process.communicate(timeout=120)
    first.rename(long / "many/0.jpg")  # nobody looked at it: its batch was written whole
    assert process.returncode == 0, error
    assert files(long / "results") == files(long / "whole")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_kill_while_the_files_get_their_names_is_made_good(long):
    """All were written by then; some have their names, and -resume gives them to the others."""
    shutil.rmtree(long / "results", ignore_errors=True)
    code = (
        "import os, sys; from darknet_compat.cli import main; rename, done = os.rename, []\n"
        "def counted(*names):\n    len(done) == 3 and os.kill(os.getpid(), 9)\n    done.append(rename(*names))\n"
        "os.rename = counted; main(sys.argv[1:])"
    )
    words = ["detector", "valid", "my.data", *map(str, SHAPES), "-device", "cpu"]
    killed = subprocess.run([sys.executable, "-c", code, *words], cwd=long, capture_output=True, env=environment())
    assert killed.returncode == -9
    assert len(list((long / "results").glob("comp4*"))) == 3
    done = subprocess.run([sys.executable, "-m", "darknet_compat", *words, "-resume"], cwd=long, env=environment(),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = files(long / "results")
    subprocess.run([sys.executable, "-m", "darknet_compat", *words], cwd=long, env=environment(), check=True)
    assert found == files(long / "results")
    assert len(found) == 6


def test_torchrun_starts_them_too(made, tmp_path):
    shutil.copytree(made, tmp_path / "it")
    words = ["detector", "map", *DETECTOR.split()]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "darknet_compat"]
    one, two = (
        subprocess.run([*begin, *words], cwd=tmp_path / "it", env=environment(), capture_output=True, text=True)
        for begin in (start[:1] + start[-2:], start)
    )
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert two.stdout == one.stdout
    assert "mean average precision" in one.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [(f"detector map none.data {DETECTOR[8:]}", "none.data: no such file"),
     (f"detector map {DETECTOR} -thresh 2", "2 is not from 0 to 1"),
     (f"detector test {DETECTOR} none.jpg", "none.jpg: no such image"),
     (f"detector test {DETECTOR}", "expected IMAGE with several processes")],
)  # fmt: skip
def test_what_is_wrong_is_said_once(made, words, says, tmp_path, monkeypatch):
    (tmp_path / "my.data").write_bytes((made / "my.data").read_bytes())
    monkeypatch.chdir(tmp_path)
    codes, out, error = in_processes(3, [sys.executable, "-m", "darknet_compat", *words.split()])
    assert codes[0] == codes[1] == codes[2] > 0
    assert (out, error.count("\n"), error.count(says)) == ("", 1, 1), error


SHARED = [line.split()[:2] for line in LINES] + [["yolo", "valid"], ["yolo", "recall"], ["yolo", "test"]]


@pytest.mark.parametrize(("family", "verb"), sorted({tuple(words) for words in SHARED}))
def test_gpus_start_a_process_each_with_the_commands_words(monkeypatch, capsys, family, verb):
    """Before a file is read; a line about a flag that means nothing comes once, from the process that starts them."""
    started = []
    monkeypatch.setattr(
        "darknet_compat.processes.launch", lambda gpus, words, died: started.append((gpus, words, died)) or 3
    )
    words = [family, verb, "x.data", "a.cfg", "a.weights", *(["a.jpg"] if verb in ("test", "predict", "fout") else [])]
    words += ["-gpus", "1,3", "-s", "1"] if family != "classifier" else ["-gpus", "1,3", "-c", "1"]
    assert main(words) == 3
    [(gpus, given, died)] = started
    assert (gpus, given) == ([1, 3], words)
    assert capsys.readouterr().err.count("has no meaning here") == 1
    died("process 1 of 2 was ended by SIGKILL")
    more = "; -resume goes on" if verb in ("valid", "valid2") and family != "classifier" else ""
    assert capsys.readouterr().err == f"darknet-compat: process 1 of 2 was ended by SIGKILL{more}\n"
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        build_parser().parse_args([*words, "-nothing"])
    assert capsys.readouterr().err == "", "the first process says it"


def test_one_gpu_is_a_device_and_two_ways_to_name_it_are_refused(monkeypatch, capsys):
    asked = []
    monkeypatch.delenv("RANK", raising=False)
    options = build_parser().parse_args(["detector", "map", "x.data", "a.cfg", "a.weights", "-gpus", "2"])
    monkeypatch.setattr("darknet_compat.detect.detector.load_detector", lambda *_, device, **__: asked.append(device))
    with pytest.raises(AttributeError):  # of the detector, which is None
        options.run(options)
    assert asked == ["cuda:2"]
    for more, says in ((["-device", "cpu"], "exclude each other"), (["-gpus", "0,0"], "no list of GPU numbers")):
        assert main(["detector", "map", "x.data", "a.cfg", "a.weights", "-gpus", "2", *more]) == 2
        assert says in capsys.readouterr().err


def test_the_first_signal_ends_a_process_and_no_other_disturbs_that():
    before = {number: signal.getsignal(number) for number in LAUNCHER}
    try:
        for number, end in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
            with pytest.raises(end):
                several._stop(number, None)
            assert {signal.getsignal(each) for each in LAUNCHER} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
