"""``new`` as it is typed: what it prints, and that the command it prints runs."""

import os
import shlex
import signal
import time

import pytest

from darknet_compat.cli import main
from tests.new.conftest import DataSet

LINES = """\
VOC XML: 10 images, 14 objects
left out, annotations without an image: 1
          train    valid
images        8        2
bird          8        2
cat           3        1
network: cfg/yolov2-shapes.cfg, 32 x 32; anchors: average IoU 96.7 %
schedule: 200 updates of 8 images, about """


def make(root):
    made = DataSet(root)
    for index in range(10):
        made.image(f"photos/{index}.jpg")
        objects = [(0, 1, 1, 9 + 5 * (index % 5), 12), *([(1, 20, 5, 14, 24)] if index % 3 == 0 else [])]
        made.xml(f"photos/{index}.xml", (60, 40), objects)
    made.xml("photos/lost.xml", (60, 40), [])


def test_two_commands_train(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "raw material")
    typed = "new birds --from 'raw material' --cfg cfg/yolov2-shapes.cfg --size 32 --minutes .0001"
    assert main(shlex.split(typed)) == 0
    out = capfd.readouterr().out
    printed = out.splitlines()
    assert out.startswith(LINES), out
    rule, following = printed[-2:]
    assert rule.startswith("AlexeyAB's rule asks for 6000 updates, ")
    program, *words = shlex.split(following.removeprefix("next: "))
    assert program == "darknet-compat"
    assert words == ["detector", "train", "birds/birds.data", "birds/birds.cfg", "-fast", "-map"]
    cfg = tmp_path / "birds/birds.cfg"
    cfg.write_text(cfg.read_text().replace("max_batches=200", "max_batches=2"))
    assert main(words) == 0
    assert (tmp_path / "birds/backup/birds_final.weights").is_file()


def test_each_flag_reaches_the_job(monkeypatch, capsys):
    asked = {}

    def run(name, source, **options):
        asked.update(options, name=name, source=source)
        raise SystemExit(0)

    monkeypatch.setattr("darknet_compat.new.new", run)
    typed = "new n --from s --form coco --names f --cfg c --size 7 --minutes 3.5 --split .3 --seed 4 --copy --skip"
    assert main([*shlex.split(typed), "--device", "d"]) == 0
    assert asked == {
        "name": "n", "source": "s", "form": "coco", "names": "f", "cfg": "c", "size": 7, "minutes": 3.5, "share": 0.3,
        "seed": 4, "copy": True, "skip": True, "device": "d",
    }  # fmt: skip
    for wrong in (
        "new n",
        "new n --from s --minutes 0",
        "new n --from s --split 2",
        "new n --from s --form yolo",
        "new n --from s --seed -1",
    ):
        assert main(shlex.split(wrong)) == 2
        assert "darknet-compat new" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_behind(tmp_path, monkeypatch, capsys, number, code):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "raw")

    def stop(*_):
        assert list(tmp_path.glob("deep/.birds.*/images/*"))
        os.kill(os.getpid(), number)
        time.sleep(10)  # the signal comes before that is over

    monkeypatch.setattr("darknet_compat.new.seconds_per_update", stop)

    def before(*_):
        pytest.fail("nobody minded the signal")

    signal.signal(signal.SIGTERM, before)
    start = time.monotonic()
    assert main(["new", "deep/birds", "--from", "raw", "--cfg", "cfg/yolov2-shapes.cfg"]) == code
    assert time.monotonic() - start < 10
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "n", "--from", "nowhere"]) == 1
    assert capsys.readouterr().err == (
        "darknet-compat: nowhere: no such file or folder; expected a folder of labelled images or a COCO JSON file\n"
    )
    assert not list(tmp_path.iterdir())
