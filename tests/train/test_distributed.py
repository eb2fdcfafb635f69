"""Two processes on the CPU, started by torch's own launcher."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.cli import main
from darknet_compat.errors import TrainingError
from darknet_compat.processes import Processes, join, leave
from darknet_compat.train import distributed
from darknet_compat.train.detector import DetectorTraining
from darknet_compat.train.distributed import Sums
from darknet_compat.train.step import Trainer
from darknet_compat.weights import load_weights, save_weights
from tests.train import nets
from tests.train.nets import data_set, dropping, small
from tests.trainings import CLASSIFIER

ROOT = Path(__file__).resolve().parents[2]
# What `-gpus 0,1` runs, with two CPU processes in the place of the GPUs.
LAUNCH = """
import sys
from darknet_compat.processes import launch_processes
sys.exit(launch_processes(2, sys.argv[1:]))
"""


def environment():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def command(folder, net, *flags, two=True):
    """The command that trains ``net`` on the folder's images, in one process or in two."""
    (folder / "small.cfg").write_text(net)
    start = [sys.executable, "-c", LAUNCH] if two else [sys.executable, "-m", "darknet_compat"]
    return [*start, "detector", "train", str(folder / "set.data"), str(folder / "small.cfg"), "-device", "cpu", *flags]


def start(*arguments, **options):
    pipe = subprocess.PIPE
    return subprocess.Popen(command(*arguments, **options), stdout=pipe, stderr=pipe, text=True, env=environment())


def run(*arguments, **options):
    """The finished process's exit code, stdout and stderr."""
    process = start(*arguments, **options)
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


def plain(**net):
    """SMALL without batch normalisation, with a constant rate that does not hang on the batch number."""
    lines = "\n".join(f"{name}={value}" for name, value in {"policy": "constant", "burn_in": 0, **net}.items())
    return small(lines).replace("batch_normalize=1\n", "")


def weights(folder):
    network = load_network(read_cfg(folder / "small.cfg"))
    report = load_weights(network, folder / "backup" / "small_final.weights")
    return network, report.header.seen


def test_two_processes_are_one_with_twice_batch_and_subdivisions_at_twice_the_rate(tmp_path):
    pairs = (
        ("two", plain(batch=4, subdivisions=2, learning_rate=0.001, max_batches=12)),
        ("one", plain(batch=8, subdivisions=4, learning_rate=0.002, max_batches=6)),
    )
    started = []
    for name, net in pairs:
        data_set(tmp_path / name)
        started.append(start(tmp_path / name, net, "-seed", "3", two=name == "two"))
    results = []
    for (name, _), process in zip(pairs, started, strict=True):
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        results.append((*weights(tmp_path / name), out))
    (two, two_seen, two_out), (one, one_seen, one_out) = results
    assert two_seen == one_seen == 48
    for (name, a), (_, b) in zip(two.named_parameters(), one.named_parameters(), strict=True):
        assert (a - b).norm() < 1e-5 * b.norm(), name

    def losses(out):
        return [float(line.split()[1].rstrip(",")) for line in out.splitlines() if line.endswith(" hours left")]

    assert losses(two_out) == pytest.approx(losses(one_out), rel=1e-5)
    assert "Learning Rate: 0.002" in two_out
    # Darknet counts the images of all GPUs: the batch number goes up by two.
    lines = [line.split() for line in two_out.splitlines() if line.endswith(" hours left")]
    assert [int(words[0].rstrip(":")) for words in lines] == [2, 4, 6, 8, 10, 12]
    # The images seen, which Darknet's line counts twice.
    assert [int(words[8]) for words in lines] == [8, 16, 24, 32, 40, 48]


@pytest.mark.slow
def test_two_processes_with_batch_normalisation_speak_with_one_voice(tmp_path):
    data_set(tmp_path)
    code, out, error = run(tmp_path, small("max_batches=6"), "-seed", "3", "-workers", "1")
    assert (code, error) == (0, "")
    assert out.count("Learning Rate") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_saves_once_and_resumes(tmp_path, number, code):
    data_set(tmp_path)
    net = small("max_batches=100000\nlearning_rate=1e-5")
    process = start(tmp_path, net, "-seed", "3")
    for line in process.stdout:
        if line.startswith("10: "):
            process.send_signal(number)
            break
    rest, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert rest.rstrip().splitlines()[-1].startswith("stopped after batch ")
    assert "-resume" in rest
    stopped = int(rest.split("stopped after batch ")[1].split(";")[0])
    code, out, error = run(tmp_path, small(f"max_batches={stopped + 4}\nlearning_rate=1e-5"), "-resume")
    assert code == 0, error
    assert f"going on after batch {stopped}, {stopped * 8:,} images seen" in out


# The command with sizes that a small network trains quickly on.
SMALL_SIZES = """
import sys
from darknet_compat.cli import main
from darknet_compat.train import loop
loop.DETECTION = loop.DETECTION._replace(sizes=range(32, 161, 32), last=1)
sys.exit(main(sys.argv[1:]))
"""


def train_in(world, folder, net, *flags):
    """Train with :data:`SMALL_SIZES` in so many processes, as :func:`in_processes`."""
    arguments = command(folder, net, *flags, two=False)
    arguments[1:3] = ["-c", SMALL_SIZES]
    return in_processes(world, arguments)


def in_processes(world, arguments):
    """Run a command in so many processes; their exit codes, the first one's stdout, all stderrs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        place = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        launched = {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if world > 1 else {}
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, env={**environment(), **launched})
        )
    ended = [process.communicate(timeout=240) for process in processes]
    return [process.returncode for process in processes], ended[0][0], "".join(error for _, error in ended)


@pytest.mark.parametrize("missing", [0, 1])
def test_what_one_process_alone_finds_wrong_ends_all(tmp_path, missing):
    """A cfg that one of two machines lacks: the other must not wait for it."""
    data_set(tmp_path)
    command(tmp_path, small("max_batches=2"))
    code = "import os, sys; from darknet_compat.cli import main; sys.exit(main([word + (os.environ['RANK'] == '{}') * "
    code = code.format(missing) + "word.endswith('.cfg') * 'x' for word in sys.argv[1:]]))"
    files = tmp_path / "set.data", tmp_path / "small.cfg"
    codes, _, error = in_processes(
        2, [sys.executable, "-c", code, "detector", "train", *map(str, files), "-device", "cpu"]
    )
    assert codes == [1, 1]
    assert error.count("small.cfgx: no such file") == error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "cfg", "says"),
    [("-resume", "", "process 1 has -resume True, the first one False; expected the same command on all machines"),
     ("", "learning_rate=1", "small.cfg: process 1 has another cfg than the first one; expected the same files on")],
)  # fmt: skip
def test_machines_that_would_train_otherwise_are_refused(tmp_path, more, cfg, says):
    for rank in "01":
        data_set(tmp_path / rank)
        command(tmp_path / rank, small(f"max_batches=2\n{cfg if rank == '1' else ''}"), two=False)[3:]
    code = (
        "import os, sys; from darknet_compat.cli import main; rank = os.environ['RANK']; os.chdir(sys.argv[1] + rank); "
    )
    code += "sys.exit(main(['detector', 'train', 'set.data', 'small.cfg', *sys.argv[2:] * int(rank)]))"
    codes, _, error = in_processes(2, [sys.executable, "-c", code, f"{tmp_path}/", *more.split()])
    assert codes == [1, 1]
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_training_goes_on_in_two_processes_and_in_one_again(tmp_path):
    """With random=1: what two processes load must have the size that they resize to."""
    data_set(tmp_path)

    def net(batches):
        return small(f"max_batches={batches}\nbatch=2\nsubdivisions=2\nlearning_rate=1e-6", random=1)

    for world, batches, flags in ((1, 12, ("-seed", "2")), (2, 24, ("-resume",)), (1, 30, ("-resume",))):
        codes, out, error = train_in(world, tmp_path, net(batches), "-workers", "1", *flags)
        assert (codes, error) == ([0] * world, "")
    assert "changed since: the number of processes was 2 and is 1" in out
    with open(tmp_path / "backup" / "small.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["batch"]) for row in rows] == [*range(1, 13), *range(14, 25, 2), *range(25, 31)]
    sizes = [row["size"] for row in rows]
    assert [len(set(sizes[start : start + 10])) for start in (0, 10, 20)] == [1, 1, 1]
    assert len(set(sizes)) > 1


@pytest.mark.slow
def test_two_processes_that_go_on_draw_the_dropout_of_those_that_were_not_stopped(tmp_path):
    def net(batches):
        return dropping(f"max_batches={batches}\npolicy=constant\nbatch=2\nsubdivisions=1")

    for folder in ("straight", "broken"):
        data_set(tmp_path / folder)
    for folder, batches, flags in (("straight", 12, ("-seed", "3")), ("broken", 6, ("-seed", "3")),
                                   ("broken", 12, ("-resume",))):  # fmt: skip
        codes, _, error = train_in(2, tmp_path / folder, net(batches), "-workers", "0", *flags)
        assert (codes, error) == ([0, 0], "")
    final = "backup/small_final.weights"
    assert (tmp_path / "broken" / final).read_bytes() == (tmp_path / "straight" / final).read_bytes()


def test_what_is_wrong_is_said_once(tmp_path):
    data_set(tmp_path)
    code, _, error = run(tmp_path, small("policy=never"))
    assert code == 1
    assert error.count("no policy is called `never`") == 1
    assert len(error.splitlines()) == 1


class Recording(Processes):
    """Of two processes the one that is here; what is summed doubles when it is waited for."""

    def all_reduce(self, tensor):
        self.summed.append((tensor.data_ptr(), tensor.numel(), tensor.clone()))
        return lambda: tensor.mul_(2)


def test_compressed_gradients_are_sums_of_rounded_ones(tmp_path):
    """Two real processes: each gradient is rounded, and their sum; the cost goes as it is. All have the same bits."""
    torch.manual_seed(1)
    ours = [torch.randn(1000) * 10.0 ** torch.randint(-8, 4, (1000,)) for _ in range(2)]
    torch.save(ours, tmp_path / "gradients")
    codes, _, error = in_processes(2, [sys.executable, "-c", COMPRESSED, str(tmp_path)])
    assert (codes, error) == ([0, 0], "")
    expected = (ours[0].bfloat16() + ours[1].bfloat16()).float()
    found = [torch.load(tmp_path / f"sums{rank}") for rank in range(2)]
    for one in found:
        assert torch.equal(one[:900], expected[:900])
        assert torch.equal(one[900:], ours[0][900:] + ours[1][900:])
    assert not torch.equal(expected[:900], ours[0][:900] + ours[1][:900])


# The last 100 numbers stand for the cost, which no parameter has.
COMPRESSED = """
import sys, torch
from darknet_compat.processes import join
from darknet_compat.train.distributed import Sums

processes = join("cpu")
flat = torch.load(f"{sys.argv[1]}/gradients")[processes.rank]
sums = Sums(processes, [torch.nn.Parameter(torch.zeros(900))], flat, torch.bfloat16)
sums.finish()
torch.save(flat, f"{sys.argv[1]}/sums{processes.rank}")
"""


@pytest.mark.slow
def test_training_with_compressed_gradients(tmp_path):
    """Near that without; the state knows how it was, and goes on so."""
    final = {}
    for words in ((), ("-compress", "bf16")):
        folder = tmp_path / f"{len(words)}"
        data_set(folder)
        codes, _, error = train_in(2, folder, plain(max_batches=16, learning_rate=0.01), "-seed", "3", *words)
        assert (codes, error) == ([0, 0], "")
        final[words] = weights(folder)[0]
    pairs = zip(final[()].named_parameters(), final["-compress", "bf16"].named_parameters(), strict=True)
    for (name, one), (_, other) in pairs:
        assert 0 < (one - other).norm() < 0.01 * one.norm(), name
    codes, _, error = train_in(2, folder, plain(max_batches=20, learning_rate=0.01), "-resume")
    assert codes == [1, 1]
    assert "that training has -compress bf16, this command None" in error


def test_a_training_goes_on_with_the_compression_it_began_with(tmp_path):
    data_set(tmp_path)
    (tmp_path / "small.cfg").write_text(small("max_batches=1"))
    files = tmp_path / "set.data", tmp_path / "small.cfg"
    DetectorTraining(*files, device="cpu", workers=0, seed=3, compress="bf16").run()
    with pytest.raises(TrainingError, match="that training has -compress bf16, this command None"):
        DetectorTraining(*files, device="cpu", workers=0, resume=True)


# A training in which a process is killed the first time it comes so far; the words are RANK UPDATE and the command's.
# The second process has a folder of its own for snapshots, as on another machine.
KILLED = """
import os, signal, sys
from darknet_compat.cli import main
from darknet_compat.train.step import Trainer

rank, last = sys.argv[1:3]
update = Trainer.update

def killed(trainer, batches):
    if (os.environ["RANK"], trainer.updates, os.environ["TORCHELASTIC_RESTART_COUNT"]) == (rank, int(last), "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    return update(trainer, batches)

Trainer.update = killed
sys.exit(main([*sys.argv[3:], *["-backup", "other"] * (os.environ["RANK"] == "1")]))
"""


@pytest.mark.parametrize(
    ("rank", "last", "kept"),
    [(0, 6, 4), pytest.param(1, 6, 6, marks=pytest.mark.slow), pytest.param(0, 2, 0, marks=pytest.mark.slow)],
)
def test_torchrun_starts_again_and_the_training_goes_on(tmp_path, rank, last, kept):
    """From the last .state, to the bit: that of a snapshot every 4 updates, or what the first process saved of its own
    accord as it found the other one dead. Without a .state it begins anew, also where an earlier training left one.
    """
    (tmp_path / "killed.py").write_text(KILLED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--max-restarts", "1", str(tmp_path / "killed.py")]
    net, words = small("max_batches=16\nbatch=4\nsubdivisions=2"), ["-seed", "3", "-snapshot", "8", "-workers", "1"]
    for name, place in (("straight", (0, 99)), ("broken", (rank, last))):
        folder = tmp_path / name
        data_set(folder)
        if not kept:
            earlier = in_processes(1, command(folder, net, "-seed", "5", two=False))
            assert earlier[0] == [0], earlier
        train = command(folder, net, *words, two=False)[3:]
        done = subprocess.run([*launcher, *map(str, place), *train], capture_output=True, text=True, check=False,
                              cwd=folder, env=environment(), timeout=240)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert ("going on after batch" in done.stdout) == bool(kept)
    assert (f"going on after batch {2 * kept}, {8 * kept} images seen" in done.stdout) == bool(kept)
    for name in ("small_final.weights", "small.backup"):
        assert (folder / "backup" / name).read_bytes() == (tmp_path / "straight/backup" / name).read_bytes()
    rows = [(tmp_path / name / "backup/small.csv").read_text().splitlines() for name in ("straight", "broken")]
    figures = [[line.split(",")[:4] for line in lines] for lines in rows]
    assert figures[0] == figures[1]


# A training whose second process is killed at its fourth update, and its launcher with it: so a machine fails. The
# words are a file that says so, and the command's.
FAILED = """
import os, signal, sys
from darknet_compat.cli import main
from darknet_compat.train.step import Trainer

update = Trainer.update

def fails(trainer, batches):
    if os.environ["RANK"] == "1" and trainer.updates == 3 and not os.path.exists(sys.argv[1]):
        open(sys.argv[1], "w").close()
        for process in (os.getppid(), os.getpid()):
            os.kill(process, signal.SIGKILL)
    return update(trainer, batches)

Trainer.update = fails
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_machine_that_failed_comes_back(tmp_path):
    """Its torchrun knows of no restart, the other one of one. They go on together, to the bit.

    But for the variable torch 2.13's torchrun cannot come to another one that goes on.
    """
    (tmp_path / "fails.py").write_text(FAILED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"

    def machine(folder, number, failed):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        launcher += ["--max-restarts", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", place]
        launcher += ["--rdzv-conf", f"is_host={number == 0}", "--local-addr", "127.0.0.1"]
        train = command(folder, net, "-seed", "3", "-workers", "1", two=False)[3:]
        with open(folder / f"{number}.out", "w") as out:
            words = [*launcher, str(tmp_path / "fails.py"), str(failed), *train]
            own = {**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
            return subprocess.Popen(words, stdout=out, stderr=out, env=own)

    net = small("max_batches=16\nbatch=4\nsubdivisions=2")
    for name, failed in (("straight", tmp_path), ("broken", tmp_path / "failed")):
        folder = tmp_path / name
        data_set(folder)
        machines = [machine(folder, number, failed) for number in range(2)]
        try:
            if failed != tmp_path:
                assert machines[1].wait(timeout=120) == -signal.SIGKILL
                machines[1] = machine(folder, 1, failed)
            assert [one.wait(timeout=120) for one in machines] == [0, 0], (folder / "0.out").read_text()
        finally:
            for one in machines:
                one.terminate()
                one.wait()
    assert "going on after batch 6, 24 images seen" in (folder / "0.out").read_text()
    final = "backup/small_final.weights"
    assert (folder / final).read_bytes() == (tmp_path / "straight" / final).read_bytes()


class Launched(Processes):
    """A process that torchrun starts, again and again."""

    def launchers(self):
        return ["torchrun"]


def test_weights_and_clear_count_at_the_first_start_only(tmp_path):
    data_set(tmp_path)
    files = tmp_path / "set.data", tmp_path / "small.cfg", tmp_path / "initial.weights"
    options = {"clear": True, "processes": Launched(torch.device("cpu")), "workers": 0, "seed": 3}
    files[1].write_text(small())
    network = load_network(read_cfg(files[1]))
    network.seen = 800
    save_weights(network, files[2])
    for batches in (2, 3):
        files[1].write_text(small(f"max_batches={batches}"))
        training = DetectorTraining(*files, **options)
        assert training.trainer.batch == (0 if batches == 2 else 2)
        training.run()
        files[2].unlink(missing_ok=True)


# The second of two machines has a folder of its own for snapshots.
OWN_FOLDERS = """
import os, sys
from darknet_compat.cli import main
sys.exit(main([*sys.argv[1:], *["-backup", "other"] * (os.environ["RANK"] == "1")]))
"""


def test_the_first_process_reads_the_state_for_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(tmp_path)
    for batches in (2, 4):
        train = command(tmp_path, small(f"max_batches={batches}\nbatch=2\nsubdivisions=1"), two=False)[3:]
        train += ["-workers", "0"]
        if batches == 2:
            assert main(train) == 0
    codes, out, error = in_processes(2, [sys.executable, "-c", OWN_FOLDERS, *train, "-resume"])
    assert (codes, error) == ([0, 0], "")
    assert "going on after batch 2, 4 images seen" in out
    assert not list((tmp_path / "other").iterdir()), "the first process writes all"


# What each process looks for and reads of the images' files, into one file for each process.
LOOKED = """
import builtins, os, sys
from darknet_compat import labels
from darknet_compat.cli import main

said = open(f"{sys.argv[1]}.{os.environ['RANK']}", "w")
isfile, read_labels = os.path.isfile, labels.read_labels
os.path.isfile = lambda path: (print("isfile", path, file=said), isfile(path))[1]
labels.read_labels = lambda path: (print("read", path, file=said), read_labels(path))[1]
sys.exit(main(sys.argv[2:]))
"""


def test_each_label_file_is_read_by_one_process(tmp_path, capsys):
    """And what is wrong with any is said as one process says it."""
    data_set(tmp_path)
    train = command(tmp_path, small("max_batches=2\nbatch=2\nsubdivisions=1"), "-workers", "0", two=False)[3:]
    paths = (tmp_path / "list.txt").read_text().split()
    labels = [path.replace("JPEGImages", "labels").replace(".png", ".txt") for path in paths]
    look = [sys.executable, "-c", LOOKED, str(tmp_path / "looked"), *train]
    codes, _, error = in_processes(2, look)
    assert (codes, error) == ([0, 0], "")
    looked = [(tmp_path / f"looked.{rank}").read_text().splitlines() for rank in range(2)]
    for what, files in (("isfile", paths), ("read", labels)):
        each = [[line.split()[1] for line in lines if line.startswith(what) and line.split()[1].endswith(files[0][-4:])]
                for lines in looked]  # fmt: skip
        assert sorted(each[0] + each[1]) == sorted(files)
        assert min(map(len, each)) == len(files) // 2
    for path in (labels[-1], labels[0]):
        Path(path).write_text("0 2 2 2 2\n")
    codes, _, error = in_processes(2, [sys.executable, "-m", "darknet_compat", *train])
    assert (codes, main(train)) == ([1, 1], 1)
    assert error == capsys.readouterr().err
    assert "bad lines in all: 2" in error


def print_opened(folder, make):
    """In one of several processes: the first prints what each opens of the files and folders below ``folder``, while it
    makes a training of its ``make(processes=..., ...)``; a line for each.
    """
    processes, opened = join("cpu"), []

    def heard(event, given):
        if event in ("open", "os.scandir") and str(given[0]).startswith(folder):
            opened.append(os.path.relpath(given[0], folder))

    sys.addaudithook(heard)
    make(processes=processes, workers=0, seed=3)
    for line in processes.all_gather(" ".join(opened)):
        if processes.first:
            print(line)
    leave()


def opened_in_two(folder, code):
    """What each of two processes opens, sorted, by ``code`` that ends in :func:`print_opened`."""
    codes, out, error = in_processes(2, [sys.executable, "-c", code, str(folder)])
    assert (codes, error) == ([0, 0], "")
    return [sorted(line.split()) for line in out.splitlines()]


@pytest.fixture
def recording():
    processes = Recording(torch.device("cpu"), 0, 2)
    object.__setattr__(processes, "summed", [])
    return processes


def test_sums_begin_while_the_backward_pass_goes_on(recording, monkeypatch):
    """Of three layers the last one's before the first has a gradient; and all of the tensor is summed once."""
    monkeypatch.setattr(distributed, "BUCKET", 4 * 16)
    layers = [torch.nn.Linear(4, 4) for _ in range(3)]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    flat = torch.zeros(62)
    for parameter, part in zip(parameters, flat[:60].split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    sums, first = Sums(recording, parameters, flat), flat[:16]
    known = []
    layers[1].weight.register_hook(lambda _: known.append(len(recording.summed)))
    layers[0].weight.register_hook(lambda _: known.append(len(recording.summed)))
    for _ in range(2):  # updates
        flat.zero_()
        for mini_batch in range(2):
            if mini_batch == 1:
                sums.begin()
            value = torch.ones(2, 4)
            for layer in layers:
                value = layer(value).tanh()
            value.sum().backward()
            assert len(recording.summed) == (0 if mini_batch == 0 else 3), "the numbers behind come at the end"
        assert known == [0, 0, 1, 2]
        before = flat.clone()
        flat[60:] = torch.tensor([5.0, 6.0])
        sums.finish()
        assert torch.equal(flat[:60], 2 * before[:60])
        assert flat[60:].tolist() == [10, 12]
        assert sum(count for _, count, _ in recording.summed) == 62
        starts = [start for start, _, _ in recording.summed]
        assert starts[:-1] == sorted(starts[:-1], reverse=True)
        assert starts[2] == first.data_ptr()
        torch.testing.assert_close(recording.summed[0][2], before[40:60], rtol=0, atol=0)
        known.clear()
        recording.summed.clear()


def test_an_update_that_is_given_up_takes_part_in_every_sum(recording, monkeypatch):
    """As many, and of the same sizes, whether no gradient came, or some, or all."""
    monkeypatch.setattr(distributed, "BUCKET", 4 * 16)
    layers = [torch.nn.Linear(4, 4) for _ in range(3)]
    layers[1].requires_grad_(False)
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    flat, sizes = torch.zeros(62), []
    for parameter, part in zip(parameters, flat[:60].split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    sums = Sums(recording, parameters, flat)

    def fail(_):
        raise KeyboardInterrupt

    for broken in (None, "at once", layers[0], layers[2]):
        recording.summed.clear()
        if broken == "at once":
            sums.begin()
        elif broken:
            handle = broken.weight.register_hook(fail)
            sums.begin()
            with pytest.raises(KeyboardInterrupt):
                layers[2](layers[1](layers[0](torch.ones(2, 4)))).sum().backward()
            handle.remove()
        sums.finish()
        sizes.append([count for _, count, _ in recording.summed])
        recording.summed.clear()
        layers[2](layers[1](layers[0](torch.ones(2, 4)))).sum().backward()
        assert not recording.summed, "a mini-batch of the next update, which is not its last"
    assert sizes == [[20, 20, 20, 2]] * 4


def test_a_trainer_sums_in_its_last_mini_batch(recording, monkeypatch):
    """All but the cost have begun when the update comes to wait for them."""
    monkeypatch.setattr(distributed, "BUCKET", 4 * 16)
    trainer, begun = Trainer(load_network(parse_cfg(small())), recording), []
    finish = trainer.sums.finish

    def one_by_one(update):
        for batch in update:
            begun.append(len(recording.summed))
            yield batch

    monkeypatch.setattr(trainer.sums, "finish", lambda: begun.append(len(recording.summed)) or finish())
    for update in nets.batches(3, 2):
        recording.summed.clear()
        trainer.update(one_by_one(update))
    buckets = len(trainer.sums.buckets)
    assert buckets > 3
    assert begun == [0, 0, buckets - 1] * 2
    assert len(recording.summed) == buckets


# A training whose first process scores all images by itself, as one process does, where the last word says so.
ALONE = """
import sys
from darknet_compat.cli import main
from darknet_compat.processes import ShareDone
from darknet_compat.train import classifier, detector

detect, judged = detector.detect_files, classifier.DataClassifier

def detect_alone(network, paths, *, processes, **options):
    if not processes.first:
        raise ShareDone
    return detect(network, paths, **options)

def classifier_alone(*words, processes, **options):
    if not processes.first:
        raise ShareDone
    return judged(*words, **options)

if sys.argv.pop() == "alone":
    detector.detect_files, classifier.DataClassifier = detect_alone, classifier_alone
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("family", ["detector", pytest.param("classifier", marks=pytest.mark.slow)])
def test_scores_while_training_are_those_of_the_first_process_alone(tmp_path, family):
    """To the last bit, though all score, and each has rolling statistics of its own."""
    left = []
    for how in ("together", "alone"):
        folder = tmp_path / how / "it"
        data_set(folder)
        words = ["-map", "20", "-iou_thresh", "0.05"]
        (folder / "small.cfg").write_text(small("max_batches=80\npolicy=constant\nlearning_rate=0.005"))
        if family == "classifier":
            (folder / "small.cfg").write_text(CLASSIFIER.replace("max_batches=2", "max_batches=16"))
            labels = "".join(f"{number:03d}\n" for number in range(6))
            (folder / "the.labels").write_text(labels)
            text = (folder / "set.data").read_text().replace("classes=3", "classes=6\ntop=2").replace("names=", "#")
            (folder / "set.data").write_text(text + f"labels={folder}/the.labels\n")
            words = ["-topk", "4"]
        words = [family, "train", str(folder / "set.data"), str(folder / "small.cfg"), *words]
        codes, out, error = in_processes(
            2, [sys.executable, "-c", ALONE, *words, "-device", "cpu", "-seed", "3", "-workers", "0", how]
        )
        assert codes == [0, 0], error
        said = [line for line in out.splitlines() if ", best " in line]
        scored = [line.rsplit(",", 3)[-3:] for line in (folder / "backup/small.csv").read_text().splitlines()]
        weights = {path.name: path.read_bytes() for path in (folder / "backup").glob("*.weights")}
        left.append((said, scored, weights))
    assert left[0] == left[1]
    assert len(left[0][0]) == 4
    assert "small_best.weights" in left[0][2]
    assert any("best 0.00" not in line for line in left[0][0])


# A training whose first process gets a signal in the midst of a score, with the detections of the second image.
SIGNALLED = """
import os, signal, sys
from darknet_compat.cli import main
from darknet_compat.train import detector

map_of = detector.map_of

def signalled(found, *words, **options):
    def sending():
        for number, one in enumerate(found):
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
            assert number < 2
            yield one
    return map_of(sending(), *words, **options)

detector.map_of = signalled
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_ends_a_score_that_several_processes_make(tmp_path):
    """Between two results: the others must not wait for the first to ask for more."""
    data_set(tmp_path)
    (tmp_path / "small.cfg").write_text(small("max_batches=20\nbatch=2\nsubdivisions=1"))
    words = ["detector", "train", str(tmp_path / "set.data"), str(tmp_path / "small.cfg"), "-map", "4"]
    codes, out, error = in_processes(
        2, [sys.executable, "-c", SIGNALLED, *words, "-device", "cpu", "-seed", "3", "-workers", "0"]
    )
    assert (codes, error) == ([143, 143], "")
    assert "stopped after batch 4; to go on: " in out
    assert ", best " not in out
