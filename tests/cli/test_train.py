"""``detector train`` as a person calls it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darknet_compat import load_network, save_weights
from darknet_compat.cfg import read_cfg
from darknet_compat.cli import build_parser, main
from darknet_compat.cli.train import _arguments
from darknet_compat.processes import Processes
from darknet_compat.train import data, detector, on_device, sources, step, training
from darknet_compat.train.checkpoint import Snapshots
from darknet_compat.train.detector import DetectorTraining
from darknet_compat.train.step import Trainer
from darknet_compat.weights import load_weights, read_header
from tests.cli.conftest import CFG, WEIGHTS
from tests.train import classes
from tests.train.nets import batches as made_batches
from tests.train.nets import data_set, dropping, small, two_heads
from tests.train.test_distributed import environment


def prepare(folder, net="max_batches=6", text=small):
    if not (folder / "set.data").exists():
        data_set(folder)
        (folder / "set.data").write_text((folder / "set.data").read_text().replace(f"{folder}/backup", "backup"))
    (folder / "small.cfg").write_text(text(net))


def words(*flags):
    return ["detector", "train", "set.data", "small.cfg", *flags]


def start(folder, *flags, net, text=small, **options):
    """The command in a process of its own."""
    prepare(folder, net, text)
    command = [sys.executable, "-m", "darknet_compat", *words(*flags)]
    return subprocess.Popen(command, cwd=folder, text=True, env=environment(), **options)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The command in this process, in the folder of the data: exit code, stdout, stderr."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*flags):
        capsys.readouterr()
        try:
            code = main(words(*flags, "-workers", "0"))
        except SystemExit as exit:
            code = exit.code
        return (code, *capsys.readouterr())

    return call


def test_without_backup_in_the_data_file_the_folder_is_backup(run):
    lines = Path("set.data").read_text().splitlines(keepends=True)
    Path("set.data").write_text("".join(line for line in lines if not line.startswith("backup")))
    assert run()[0] == 0
    assert os.path.exists("backup/small_final.weights")


def test_a_training_says_what_darknet_says(run):
    code, out, error = run("-seed", "4")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "small"
    assert lines[1] == "Learning Rate: 0.002, Momentum: 0.9, Decay: 0.0005"
    assert lines[2].startswith("12 images, ")
    assert "seed 4" in lines[2]
    assert lines[3].startswith("Loaded: ")
    assert lines[4].startswith("Region Avg IOU: ")
    assert lines[-1] == "Saving weights to backup/small_final.weights"
    assert sorted(os.listdir("backup")) == [
        "small.backup", "small.backup.state", "small.csv", "small.log", "small.png", "small.run.json",
        "small_final.weights",
    ]  # fmt: skip


def test_from_weights_that_end_early(run):
    network = load_network(read_cfg("small.cfg"))
    network.seen = 800
    save_weights(network, "start.conv.5", 5)
    code, out, _ = run("start.conv.5", "-clear")
    assert code == 0
    assert "start.conv.5: version 0.2.0, seen 800 images, 3 layers (0-4) got numbers, " in out
    assert [line.split(":")[0] for line in out.splitlines() if line.endswith(" hours left")] == list("123456")

    # Without -clear the header's count stands, and nothing is left to do: the C program would write _final at once.
    code, _, error = run("start.conv.5")
    assert code == 1
    assert error.startswith("darknet-compat: small.cfg:")
    assert "800 images seen are 100 batches, and max_batches=6; raise max_batches, or count from 0 with -clear" in error


def test_30_batches_are_15_kill_and_15_more(tmp_path):
    """Straight through; and killed with SIGKILL after the snapshot of batch 15, then taken up again. With dropout."""
    net = {"net": "max_batches=30", "text": dropping}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    through = start(straight, "-seed", "9", "-workers", "1", **net, stdout=subprocess.DEVNULL)
    process = start(broken, "-seed", "9", "-workers", "1", "-snapshot", "15", **net, stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("17: "):
            process.kill()
            break
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()
    assert not (broken / "backup" / "small_final.weights").exists()
    # As a kill in the midst of a file leaves it.
    (broken / "backup" / ".small.backup.state.abcd1234.part").write_bytes(b"half")
    process = start(broken, "-resume", "-workers", "2", "-snapshot", "15", **net, stdout=subprocess.PIPE)
    assert "going on after batch 15, 120 images seen" in process.communicate(timeout=120)[0]
    assert (process.returncode, through.wait(120)) == (0, 0)
    for name in ("small_final.weights", "small.backup"):
        assert (broken / "backup" / name).read_bytes() == (straight / "backup" / name).read_bytes()
    assert not [name for name in os.listdir(broken / "backup") if name.endswith(".part")]

    def figures(folder):
        rows = (folder / "backup" / "small.csv").read_text().splitlines()
        return [row.split(",")[:5] + row.split(",")[7:] for row in rows]

    assert figures(broken) == figures(straight)


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize(
    ("numbers", "code"),
    [((INT,), 130), ((INT, INT), 130), ((TERM,), 143), ((HUP,), 129)],
    ids=["INT", "INT-INT", "TERM", "HUP"],
)
def test_a_signal_to_all_processes_saves_and_says_how_to_go_on(tmp_path, numbers, code):
    """As Ctrl-C on a terminal reaches the loading processes too, and fingers press it twice."""
    process = start(
        tmp_path, "-seed", "9", "-workers", "2", net="max_batches=100000\nlearning_rate=1e-5",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("5: "):
            for number in numbers:
                os.killpg(process.pid, number)
                time.sleep(0.02)
            break
    rest, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (code, "")
    rest = rest.splitlines()
    assert rest[-2] == "Saving weights to backup/small.backup"
    assert rest[-1].startswith("stopped after batch ")
    assert rest[-1].endswith("to go on: darknet-compat detector train set.data small.cfg -resume -workers 2")
    batch = int(rest[-1].split("batch ")[1].split(";")[0])
    report = load_weights(load_network(read_cfg(tmp_path / "small.cfg")), tmp_path / "backup" / "small.backup")
    assert report.header.seen == 8 * batch


@pytest.mark.parametrize(
    ("output", "reason"),
    [("gone", "Broken pipe"), ("/dev/full", "No space left on device"), ("closed", "Bad file descriptor")],
)
def test_a_screen_that_nobody_reads_ends_no_training(tmp_path, output, reason):
    """``| head -1``, a full disk, and ``>&-``."""
    shell = {"gone": '"$@" | head -1', "/dev/full": '"$@" > /dev/full', "closed": '"$@" >&-'}[output]
    prepare(tmp_path)
    command = [sys.executable, "-m", "darknet_compat", *words("-seed", "4", "-workers", "1")]
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, "bash", *command],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.splitlines() == (["small"] if output == "gone" else [])
    says = "training continues, with its lines in backup/small.log only"
    assert done.stderr == f"warning: standard output: {reason}; {says}\n"
    assert (tmp_path / "backup" / "small_final.weights").exists()
    log = (tmp_path / "backup" / "small.log").read_text().splitlines()
    assert log[0] == "small"
    assert [line.split(":")[0] for line in log if line.endswith(" hours left")] == list("123456")
    assert log[-1] == "Saving weights to backup/small_final.weights"


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    """No file may be over 8 KiB, as on a full disk: the log may grow, the weights do not fit."""
    limit = 2**13
    process = start(
        tmp_path, "-seed", "4", "-workers", "0", net="max_batches=6", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert error == "darknet-compat: backup/small.backup: File too large; the file was not written\n"
    assert sorted(os.listdir(tmp_path / "backup")) == ["small.csv", "small.log", "small.run.json"]


def spy(monkeypatch, module, name, calls):
    """Count the calls of a module's function."""
    function = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: calls.append(arguments) or function(*arguments))


def test_what_is_cached_or_augmented_by_batches_trains_the_same(run, monkeypatch):
    weights, losses, decoded, augmented = {}, {}, [], []
    spy(monkeypatch, sources, "load_image", decoded)
    spy(monkeypatch, on_device, "augment", augmented)
    for flags in ((), ("-cache",), ("-augment", "device"), ("-cache", "-augment", "device")):
        decoded.clear(), augmented.clear()
        code, out, error = run("-seed", "4", *flags)
        assert code == 0, error
        assert len(decoded) == (12 if "-cache" in flags else 48), "12 images once, or 6 updates of 8"
        assert len(augmented) == (12 if "device" in flags else 0), "6 updates of 2 mini-batches"
        weights[flags] = Path("backup/small_final.weights").read_bytes()
        losses[flags] = [
            float(line.split()[1].rstrip(",")) for line in out.splitlines() if line.endswith(" hours left")
        ]
    assert len(losses[()]) == 6
    assert weights["-cache",] == weights[()]
    assert weights["-cache", "-augment", "device"] == weights["-augment", "device"]
    assert losses["-augment", "device"] == pytest.approx(losses[()], rel=1e-4)


def test_augment_device_needs_whole_heads(run):
    assert run("-augment", "device")[0] == 0
    first = Path(Path("list.txt").read_text().split()[0])
    first.write_bytes(b"no image")
    code, out, error = run("-augment", "device")
    assert (code, out) == (1, ""), "before the first update"
    assert f"{first}: " in error
    Path("small.cfg").write_text(small("max_batches=6\nletter_box=0"))  # AlexeyAB's program, by its own loader
    code, out, error = run("-augment", "device")
    assert code == 1
    assert error.startswith(f"darknet-compat: {first}: ")


def test_resume_finishes_a_training_that_ended_before_its_final_weights(run, monkeypatch):
    save = Snapshots.save

    def killed(snapshots, trainer, path, *extra):
        if path.name == "small_final.weights":
            raise KeyboardInterrupt
        save(snapshots, trainer, path, *extra)

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "save", killed)
        assert run("-seed", "4")[0] == 130
    backup, final = Path("backup/small.backup"), Path("backup/small_final.weights")
    assert (backup.exists(), final.exists()) == (True, False)
    code, out, error = run("-resume")
    assert (code, error) == (0, "")
    assert "nothing is left to train: max_batches=6; raise it to train on" in out.splitlines()
    assert out.splitlines()[-1] == "Saving weights to backup/small_final.weights"
    assert final.read_bytes() == backup.read_bytes()


def test_a_state_of_another_version_or_damaged_is_one_line(run):
    assert run("-seed", "4")[0] == 0
    state = Path("backup/small.backup.state")
    state.write_bytes(state.read_bytes()[:-1])
    code, _, error = run("-resume")
    assert code == 1
    assert error.startswith("darknet-compat: backup/small.backup.state: damaged")
    assert len(error.splitlines()) == 1


def test_a_cfg_for_detection_is_warned_of_before_it_trains(run):
    Path("small.cfg").write_text(small("max_batches=2\nbatch=1\nsubdivisions=1"))
    code, _, error = run()
    assert code == 0
    assert error.startswith("warning: small.cfg:")
    assert "batch=1: one image per update" in error
    assert len(error.splitlines()) == 1


def test_rank_without_the_launcher_is_one_line(run, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    for value, says in ((None, "WORLD_SIZE is not set"), ("two", "WORLD_SIZE is 'two'")):
        if value:
            monkeypatch.setenv("WORLD_SIZE", value)
        code, out, error = run()
        assert (code, out) == (1, "")
        assert error.startswith("darknet-compat: the environment variable RANK says")
        assert says in error
        assert len(error.splitlines()) == 1
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    code, _, error = run()
    assert code == 1
    assert error.startswith("darknet-compat: cannot join the 1 processes of this job: ")
    assert len(error.splitlines()) == 1


def test_map_on_the_valid_list(run):
    code, out, _ = run("-map", "3")
    assert code == 0
    assert sum(line.startswith("mAP ") and line.endswith(" %") for line in out.splitlines()) == 2
    assert os.path.exists("backup/small_best.weights")


def test_map_while_training_is_that_of_the_verb(verb, data, wide, tmp_path, capsys):
    """With the cfg's letter_box, down to a probability of .005: the cross is found with 2 %, the disc with 80."""
    scores = {}
    file = data([wide], {wide: "0 .14 .37 .27 .49\n5 .27 .6 .45 .8\n"}, train=tmp_path / "list.txt")
    for letter_box in (0, 1):
        cfg = tmp_path / "net.cfg"
        cfg.write_text(CFG.read_text().replace("batch = 8", f"letter_box = {letter_box}\nbatch = 8", 1))
        training = DetectorTraining(file, cfg, WEIGHTS, clear=True, map_every=0, device="cpu")
        training.trainer.network.eval()
        [scores[letter_box]] = training.scoring.score()
        assert verb("detector", "map", file, cfg, WEIGHTS, "-device", "cpu") == 0
        assert f"mAP@0.50) = {scores[letter_box]:.6f}," in capsys.readouterr().out
    assert scores[0] != scores[1]


def made_ready(**options):
    return DetectorTraining("set.data", "small.cfg", **{"device": "cpu", **options})


def test_epochs_show_every_image(run, monkeypatch):
    decoded = []
    spy(monkeypatch, sources, "load_image", decoded)
    Path("small.cfg").write_text(small("max_batches=3\nbatch=4"))
    shown = {}
    for flags in ((), ("-epochs",)):
        decoded.clear()
        assert run("-seed", "4", *flags)[0] == 0
        shown[flags] = len(set(decoded))
    assert shown["-epochs",] == 12
    assert shown[()] < 12


def test_flags_that_change_the_numbers_change_them(run, monkeypatch):
    exact = []
    monkeypatch.setattr(training, "strict", lambda: exact.append("strict"))
    monkeypatch.setattr(step, "speed_up", lambda network, losses: exact.append("fast") or losses)
    Path("small.cfg").write_text(small("max_batches=2"))
    weights, called = {}, {}
    for flags in ("", "-amp bf16", "-numerics cpu", "-fast", "-seed 5"):
        exact.clear()
        assert run("-seed", "4", *flags.split())[0] == 0
        weights[flags], called[flags] = Path("backup/small_final.weights").read_bytes(), exact.copy()
    assert called == {flags: ["fast" if flags == "-fast" else "strict"] for flags in weights}
    assert len({weights[flags] for flags in ("", "-amp bf16", "-numerics cpu", "-seed 5")}) == 4


def test_the_program_is_the_flags_or_else_the_cfgs(run):
    """Of a .weights file the version says whose it is."""
    for flags, cfg, version in (
        ((), "max_batches=2", (0, 2, 0)),
        (("-program", "alexeyab"), "max_batches=2", (0, 2, 5)),
        ((), "max_batches=2\nletter_box=1", (0, 2, 5)),
    ):
        Path("small.cfg").write_text(small(cfg))
        assert run("-seed", "4", *flags)[0] == 0
        with open("backup/small_final.weights", "rb") as file:
            assert read_header(file, "").version == version


def test_tensorboard_is_asked_for_by_its_flag(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run("-seed", "4")[0] == 0
    code, _, error = run("-seed", "4", "-tensorboard")
    assert code == 1
    assert error.startswith("darknet-compat: -tensorboard needs a package")


@pytest.mark.parametrize(("flag", "value"), [("-epochs", ()), ("-amp", ("bf16",)), ("-numerics", ("cpu",))])
def test_resume_takes_the_flags_that_the_training_had(run, flag, value):
    assert run("-seed", "4")[0] == 0
    code, _, error = run("-resume", flag, *value)
    assert code == 1
    assert error.startswith(f"darknet-compat: backup/small.backup.state: that training has {flag} ")
    assert len(error.splitlines()) == 1


def test_the_other_program_goes_on_from_its_own_snapshot(run):
    assert run("-seed", "4")[0] == 0
    code, _, error = run("-resume", "-program", "alexeyab")
    assert code == 1
    assert error.startswith("darknet-compat: backup/small_last.weights.state: No such file")
    assert len(error.splitlines()) == 1


def test_gradient_true_trains_otherwise_and_goes_on_so(run):
    """Of a head with an IOU loss; those of the other tests have none."""
    head = two_heads(options="iou_loss=ciou").replace("max_batches=1000", "max_batches=2")
    weights = []
    for flags in ("", "-gradient darknet", "-gradient true"):
        Path("small.cfg").write_text(head)
        assert run("-seed", "4", *flags.split())[0] == 0
        weights.append(Path("backup/small_final.weights").read_bytes())
    assert weights[0] == weights[1] != weights[2]
    Path("small.cfg").write_text(head.replace("max_batches=2", "max_batches=3"))
    code, _, error = run("-resume")
    assert code == 1
    assert "that training has -gradient true, this command darknet" in error
    assert run("-resume", "-gradient", "true")[0] == 0


def test_the_best_map_and_the_seed_are_those_of_the_training_that_goes_on(run):
    job = made_ready(seed=4, map_every=0)
    job.trainer.update(made_batches(1, 1)[0])
    job.snapshots.save(job.trainer, job.snapshots.backup, {"best": 0.25})
    again = made_ready(resume=True, map_every=7)
    assert (again.scoring.best, again.scoring.every) == (0.25, 7)
    assert again.trainer.seed == again.images.seed == 4


def test_map_is_scored_every_4_epochs_but_not_before_100_batches(run, monkeypatch):
    assert made_ready(map_every=0).scoring.every == 100
    monkeypatch.setattr(detector, "MAP_LEAST", 5)
    assert made_ready(map_every=0).scoring.every == 4 * 12 // 8
    assert made_ready(map_every=0, map_epochs=10).scoring.every == 10 * 12 // 8


def test_iou_thresh_is_that_of_the_map(run, monkeypatch):
    seen = []
    monkeypatch.setattr(detector, "map_of", lambda *_, **options: seen.append(options) or SimpleNamespace(mean=0.5))
    assert made_ready(map_every=5).scoring.score() == made_ready(map_every=5, iou_thresh=0.7).scoring.score() == [0.5]
    assert seen == [{"iou_thresh": 0.5}, {"iou_thresh": 0.7}]


def test_map_of_its_own_accord_waits_for_the_warm_up(run, monkeypatch):
    """AlexeyAB's next_map_calc: fmax(iter_map + calc_map_for_each, net.burn_in)."""
    scoring = made_ready(map_every=0).scoring
    assert (scoring.every, scoring.first) == (100, 100)
    path = Path("small.cfg")
    path.write_text(path.read_text().replace("[net]", "[net]\nburn_in=250", 1))
    scoring = made_ready(map_every=0).scoring
    assert (scoring.every, scoring.first) == (100, 250)
    scoring = made_ready(map_every=7).scoring
    assert (scoring.every, scoring.first) == (7, 0), "as one says it"


def test_all_processes_have_the_first_ones_seed(run):
    class Second(Processes):
        def broadcast_number(self, number):
            return 77

        def all_gather(self, thing):
            return [None, thing]

        def from_first(self, make):
            return make()

        def look_through(self, things, look):
            return [look(things)]

    job = made_ready(processes=Second(torch.device("cpu"), 1, 2))
    assert job.trainer.seed == job.images.seed == 77


def test_gpus_of_a_launched_process_start_no_launcher(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "-gpus names GPU 0; torch finds 0" in run("-gpus", "0,1")[2]
    assert "-device cuda:0: torch finds no such device" in run("-gpus", "0")[2]
    monkeypatch.setenv("RANK", "0")
    assert "WORLD_SIZE is not set" in run("-gpus", "0,1")[2]


def test_a_folder_whose_name_is_no_utf_8(tmp_path):
    prepare(tmp_path, "max_batches=2")
    text = (tmp_path / "set.data").read_bytes().replace(b"backup=backup", b"backup=caf\xe9")
    (tmp_path / "set.data").write_bytes(text)
    done = subprocess.run(
        [sys.executable, "-m", "darknet_compat", *words("-workers", "0")],
        cwd=tmp_path, env={**environment(), "PYTHONIOENCODING": "utf-8:strict"}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    last = b"Saving weights to caf\xe9/small_final.weights\n"
    assert done.stdout.endswith(last)
    assert (tmp_path / os.fsdecode(b"caf\xe9") / "small.log").read_bytes().endswith(last)


def test_going_on_that_was_stopped_before_an_update_goes_on(run):
    assert run("-seed", "4")[0] == 0
    assert made_ready(resume=True)._stopped(anew=True).endswith("train_detector(..., resume=True)")
    made = build_parser().parse_args(words("-resume", "-device", "cpu"))
    assert _arguments(made, True)[2:] == ["set.data", "small.cfg", "-resume", "-device", "cpu"]


def test_stopped_before_the_first_update(run, monkeypatch):
    """Nothing is saved, and no second Ctrl-C can spoil the end."""
    before = {number: signal.getsignal(number) for number in data.STOPPING}
    monkeypatch.setattr(Trainer, "_datum", lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        code, out, error = run("-seed", "4")
        assert {signal.getsignal(number) for number in data.STOPPING} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (code, error) == (130, "")
    again = "darknet-compat detector train set.data small.cfg -seed 4 -workers 0"
    assert out.splitlines()[-1] == f"stopped before an update was done, and nothing was saved; to start again: {again}"
    assert sorted(os.listdir("backup")) == ["small.csv", "small.log", "small.run.json"]


@pytest.mark.parametrize("name", ["small.log", "small.csv"])
def test_a_log_that_cannot_be_written_is_an_error_before_the_start(run, name):
    Path("backup", name).mkdir(parents=True)
    code, out, error = run()
    assert (code, out) == (1, "")
    assert error == f"darknet-compat: backup/{name}: cannot write the log: Is a directory\n"


def test_epochs_and_bad_labels(run):
    Path("labels/003.txt").write_text("7 .5 .5 .2 .2\n")
    code, _, error = run("-epochs")
    assert (code, "003.txt:1: class 7" in error) == (1, True)
    code, _, error = run("-epochs", "-labels", "warn")
    assert (code, "003.txt:1: class 7" in error) == (0, True)


def test_a_new_training_over_an_old_one_is_warned_of(run):
    run()
    code, _, error = run()
    assert code == 0
    assert error.startswith("warning: backup/small.backup.state is of an earlier training run")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("set.data", "classes=4\ntrain=list.txt\n", "set.data:1: classes=4: the last section"),
        ("list.txt", "", "list.txt: no path in the file"),
        ("backup", "a file", "backup: cannot make the folder"),
        ("small.cfg", small().split("[region]")[0], "the network ends in [convolutional]"),
        ("small.cfg", small().replace("coords=4", "coords=5"), "expected filters=18"),
        ("small.cfg", small().replace("channels=3", "channels=1"), "channels=1: the network takes 1 channels"),
        ("small.cfg", small("max_batches=0"), "nothing to train"),
        ("class.names", "one\ntwo\n", "2 names; expected 3"),
        (
            "set.data",
            "train=list.txt\nvalid=valid.txt\nnames=class.names\n",
            "gone.png: no such image; 1 of 1 images",
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_the_start(run, file, text, says):
    Path(file).write_text(text)
    Path("valid.txt").write_text("gone.png\n")
    code, out, error = run("-map")
    assert (code, out) == (1, "")
    assert says in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["a.weights", "-resume"], "WEIGHTS starts anew"),
        (["-resume", "-clear"], "give one of them"),
        (["-gpus", "0,1", "-device", "cpu"], "exclude each other"),
        (["-gpus", "0,x"], "no list of GPU numbers"),
        (["-gpus", "1,1"], "no list of GPU numbers"),
        (["-amp", "bf16", "-numerics", "cpu"], "-amp needs -numerics cudnn"),
        (["-workers", "-1"], "under 0"),
        (["-map", "0"], "under 1"),
        (["-ratio", "0"], "0 is not a number above 0"),
        (["-ratio", "-1"], "-1 is not a number above 0"),
        (["-ratio", "nan"], "nan is not a number above 0"),
        (["-ratio", "inf"], "inf is not a number above 0"),
    ],
)
def test_a_wrong_command_ends_with_2(run, flags, says):
    code, _, error = run(*flags)
    assert code == 2
    assert says in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("verbs", ["detector", "yolo"])
def test_the_command_to_go_on_repeats_its_flags(verbs):
    given = f"{verbs} train a.data b.cfg c.weights -clear -gpus 0,2 -amp bf16 -fast -seed 5 -epochs -map -snapshot 50"
    given += " -compress bf16 -tensorboard -gradient true -classify more.txt -ratio 2.5"
    given += " -mAP_epochs 7 -iou_thresh 0.6 -backup own"
    options = build_parser().parse_args(given.split())
    again = _arguments(options, resume=False)
    assert vars(build_parser().parse_args(again)) | {"run": 0} == vars(options) | {"run": 0}
    assert " ".join(_arguments(options, resume=True)) == (
        f"{verbs} train a.data b.cfg -resume -gpus 0,2 -map -amp bf16 -compress bf16 -fast -epochs -backup own "
        "-snapshot 50 -tensorboard -gradient true -classify more.txt -ratio 2.5 -mAP_epochs 7 -iou_thresh 0.6"
    )


@pytest.mark.parametrize("verbs", ["detector", "yolo"])
def test_the_flags_of_a_joint_training_reach_it(verbs, verb, monkeypatch):
    given = []
    monkeypatch.setattr(
        "darknet_compat.train.detector.train_detector",
        lambda *files, **options: given.append((files, options)) or SimpleNamespace(signal=None),
    )
    files = "a.data", "b.cfg", "c.weights"
    assert verb(verbs, "train", *files, "-device", "cpu", "-classify", "more.txt", "-ratio", "2.5") == 0
    assert verb(verbs, "train", *files, "-device", "cpu") == 0
    assert [one for one, _ in given] == [files, files]
    assert [(options["classify"], options["ratio"]) for _, options in given] == [("more.txt", 2.5), (None, None)]


SHARED = {"clear": True, "resume": False, "device": "cpu", "numerics": "gpu", "program": "alexeyab", "amp": None,
          "compress": None, "fast": True, "seed": 5, "epochs": True, "backup": "own", "snapshot": 7,
          "tensorboard": True, "workers": 2, "cache": True, "augment": "device"}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "more", "own"),
    [
        (
            "detector",
            "-gradient true -labels warn -map 3 -mAP_epochs 9 -iou_thresh .7 -classify more.txt -ratio 2",
            {"gradient": "true", "labels": "warn", "map_every": 3, "map_epochs": 9, "iou_thresh": 0.7,
             "verbs": "detector", "classify": "more.txt", "ratio": 2},
        ),
        ("yolo", "-labels warn -map", {"gradient": "darknet", "labels": "warn", "map_every": 0, "map_epochs": 4,
         "iou_thresh": 0.5, "verbs": "yolo", "classify": None, "ratio": None}),
        ("classifier", "-labels folder -topk 3 -top 2", {"labels": "folder", "topk_every": 3, "top": 2}),
    ],
)  # fmt: skip
def test_every_flag_reaches_the_training(verb, monkeypatch, family, more, own):
    given = []
    kind = "classifier" if family == "classifier" else "detector"
    monkeypatch.setattr(
        f"darknet_compat.train.{kind}.train_{kind}",
        lambda *files, **options: given.append((files, options)) or SimpleNamespace(signal=None),
    )
    flags = "-clear -device cpu -numerics gpu -program alexeyab -fast -seed 5 -epochs -backup own -snapshot 7"
    flags += f" -tensorboard -workers 2 -cache -augment device {more}"
    assert verb(family, "train", "a.data", "b.cfg", "c.weights", *flags.split()) == 0
    [(files, options)] = given
    assert files == ("a.data", "b.cfg", "c.weights")
    assert (options.pop("processes").device, options.pop("command")(False)) == (
        torch.device("cpu"), f"darknet-compat {' '.join(_arguments(options_of(family, flags), False))}"
    )  # fmt: skip
    assert options == {**SHARED, **own}


def options_of(family, flags):
    return build_parser().parse_args([family, "train", "a.data", "b.cfg", "c.weights", *flags.split()])


@pytest.mark.parametrize(
    ("flags", "device", "again"),
    [
        ("-gpus 1", "cuda:1", "-gpus 1"),
        ("-i 1", "cuda:1", "-device cuda:1"),
        ("-i -1", "cpu", "-device cpu"),
        ("-nogpu -threads 3", "cpu", "-device cpu -threads 3"),
        ("-i 1 -gpus 0", "cuda:0", "-gpus 0"),
        ("", None, ""),
    ],
)
def test_the_command_to_go_on_takes_the_device_that_the_training_had(verb, monkeypatch, flags, device, again):
    given = []
    monkeypatch.setattr(
        "darknet_compat.train.detector.train_detector",
        lambda *_, **options: given.append(options) or SimpleNamespace(signal=None),
    )
    monkeypatch.setattr("darknet_compat.processes.find_device", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert verb("detector", "train", "a.data", "b.cfg", *flags.split()) == 0
    assert (given[0]["device"], given[0]["processes"].device) == (device, device)
    command = given[0]["command"](True)
    assert command == f"darknet-compat detector train a.data b.cfg -resume {again}".strip()
    given.clear()
    assert verb(*command.split()[1:]) == 0, "it can be typed"
    assert (given[0]["device"], given[0]["resume"]) == (device, True)


def test_a_classifiers_command_to_go_on_repeats_its_flags_too():
    given = "classifier train a.data b.cfg c.weights -clear -amp bf16 -labels folder -topk 7 -top 3 -augment device"
    options = build_parser().parse_args(given.split())
    again = _arguments(options, resume=False)
    assert vars(build_parser().parse_args(again)) | {"run": 0} == vars(options) | {"run": 0}
    assert " ".join(_arguments(options, resume=True)) == (
        "classifier train a.data b.cfg -resume -topk 7 -top 3 -amp bf16 -augment device -labels folder"
    )
    given = "classifier train a.data b.cfg -device cpu -numerics gpu -program alexeyab -topk -fast -workers 3 -cache"
    given += " -epochs -snapshot 9"
    again = _arguments(build_parser().parse_args(given.split()), resume=False)
    assert " ".join(again) == given
    plain = build_parser().parse_args(["classifier", "train", "a.data", "b.cfg", "-labels", "path", "-topk"])
    assert " ".join(_arguments(plain, resume=False)) == "classifier train a.data b.cfg -topk"


@pytest.fixture
def classify(tmp_path, monkeypatch, capsys):
    """``classifier train`` in this process, in a folder of its own."""
    classes.data_set(tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*flags, **net):
        Path("net.cfg").write_text(classes.classifier("cost", **net))
        capsys.readouterr()
        code = main(["classifier", "train", "set.data", "net.cfg", "-device", "cpu", "-workers", "0", *flags])
        return (code, *capsys.readouterr())

    return call


def test_classifier_train_says_what_darknet_says(classify):
    code, out, error = classify("-seed", "4", "-topk", "3")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["net", "Learning Rate: 0.01, Momentum: 0.9, Decay: 0.0005"]
    assert lines[2].startswith("12 images, 3 classes; sides of 32 to 48; seed 4")
    assert [line.split(": ")[0] for line in lines if line.endswith(" hours left")] == [
        "1, 0.667", "2, 1.333", "3, 2.000", "4, 2.667", "5, 3.333", "6, 4.000"]  # fmt: skip
    assert [line.rsplit("/")[-1] for line in lines if line.startswith("Saving weights to")] == [
        "net_1.weights", "net_2.weights", "net_3.weights", "net_4.weights", "net.backup", "net.weights"]  # fmt: skip
    assert len([line for line in lines if line.startswith("top 1 ")]) == 2
    assert (Path("backup") / "net.png").read_bytes()[:4] == b"\x89PNG"
    assert "" not in lines, "heads without a line of their own say nothing"


def test_classifier_trains_flags_reach_the_training(classify):
    code, out, error = classify("-topk", "-top", "3", "-snapshot", "2")
    assert (code, error) == (0, "")
    assert out.count("/backup/net.backup\n") == 3
    assert Path("backup/net.csv").read_text().splitlines()[0].endswith(",top_1,top_3")
    assert out.count("top 1 ") == 1, "at the end alone: the first time would be batch 100"


def test_classifier_train_goes_on_as_its_flags_were(classify):
    assert classify("-seed", "4", "-labels", "folder", "-epochs", max_batches=3)[0] == 0
    code, _, error = classify("-resume", "-epochs", max_batches=5)
    assert (code, "that training has -labels folder, this command path" in error) == (1, True)
    code, out, error = classify("-resume", "-epochs", "-labels", "folder", max_batches=5)
    assert (code, error) == (0, "")
    assert "going on after batch 3, 24 images seen" in out


def test_classifier_train_of_what_is_not_there_is_one_line(classify):
    assert classify(max_batches=1)[0] == 0
    os.remove(Path("set/red/000.png"))
    code, _, error = classify(max_batches=40)
    assert code == 1
    assert re.fullmatch(r"darknet-compat: \S+set/red/000\.png: .*", error.splitlines()[-1]), error


def terminal():
    """A terminal's two ends: what shows it, and what a program has."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    return ours, theirs


def test_on_a_terminal_a_bar_stands_for_the_lines(tmp_path):
    ours, theirs = terminal()
    process = start(tmp_path, "-seed", "4", "-workers", "0", net="max_batches=6", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "6/6" in text
    assert "avg" in text
    assert "images/s" in text
    assert "Region Avg IOU" not in text
    log = (tmp_path / "backup" / "small.log").read_text()
    assert log.count("Region Avg IOU") == 12


def test_a_terminal_that_goes_away_ends_no_training(tmp_path):
    """As with nohup, or setsid: without SIGHUP, each line to it fails."""
    ours, theirs = terminal()
    process = start(
        tmp_path, "-seed", "4", "-workers", "1", net="max_batches=100", stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"/100" not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    assert process.wait(60) == 0
    log = (tmp_path / "backup" / "small.log").read_text()
    assert log.count("Region Avg IOU") == 200
    assert log.endswith("Saving weights to backup/small_final.weights\n")
