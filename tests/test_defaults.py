"""Which thresholds the verbs take where no flag says otherwise, by the program that the network follows."""

from __future__ import annotations

import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cli import build_parser
from darknet_compat.detect import detect, detector
from tests.cli.conftest import CFG, WEIGHTS, data, verb, wide  # noqa: F401
from tests.compare import network_of
from tests.train.nets import v1


class Reached(Exception):
    """With what detect_files was called."""


@pytest.fixture
def asked(verb, data, wide, monkeypatch):  # noqa: F811
    """A function that runs a verb and returns what it asks detect_files for."""

    def detect_files(network, paths, **options):
        raise Reached(options)

    monkeypatch.setattr(detector, "detect_files", detect_files)

    def run(name, *flags, verbs="detector", files=(CFG, WEIGHTS)):
        images = (wide,) if name == "test" else ()
        with pytest.raises(Reached) as reached:
            verb(verbs, name, data([wide], {wide: "0 .5 .5 .2 .2\n"}), *files, *images, *flags)
        options = reached.value.args[0]
        return options.get("thresh"), options.get("nms"), options.get("letter_box")

    return run


# examples/detector.c of pjreddie's, src/detector.c of AlexeyAB's.
@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("test", "pjreddie", (0.5, 0.45, True)),
        ("test", "alexeyab", (0.25, 0.45, False)),
        ("valid", "pjreddie", (0.005, 0.45, True)),
        ("valid2", "pjreddie", (0.005, 0.45, True)),
        ("valid", "alexeyab", (0.001, 0.6, False)),
        ("map", "pjreddie", (0.005, 0.45, True)),
        ("map", "alexeyab", (0.005, 0.45, False)),
        ("recall", "pjreddie", (0.001, 0.4, False)),
        ("recall", "alexeyab", (0.001, 0.4, False)),
    ],
)
def test_each_programs_thresholds(asked, name, program, expected):
    assert asked(name, "-program", program) == expected


@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
@pytest.mark.parametrize(("name", "expected"), [("test", (0.2, 0.4)), ("valid", (0.001, 0.5)), ("recall", (0.001, 0))])
def test_the_thresholds_of_the_verbs_yolo(asked, tmp_path, name, expected, program):
    """examples/yolo.c, the same in both programs."""
    _, *files = network_of(v1(classes=6, output=256), tmp_path)
    assert asked(name, "-program", program, verbs="yolo", files=files) == (*expected, False)


def test_flags_count_more(asked):
    assert asked("test", "-program", "alexeyab", "-thresh", ".1", "-nms", "0", "-letter_box", "1") == (0.1, 0, True)
    assert asked("valid", "-program", "alexeyab", "-letter_box", "1") == (0.001, 0.6, True)


@pytest.mark.parametrize(("program", "thresh", "letter_box"), [("pjreddie", 0.5, True), ("alexeyab", 0.25, False)])
def test_detect_alone_is_detector_test(program, thresh, letter_box):
    network = load_network(CFG, WEIGHTS, program=program)
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)).mul_(0.2)
    images[:, :, 30:70, 20:60] += 0.7
    images[:, :2, 80:100, 70:110] += 0.5  # which the network is not sure of
    given = (network, images, [(200, 100)], [""])
    (plain,) = detect(*given)
    (said,) = detect(*given, thresh=thresh, nms=0.45, letter_box=letter_box)
    assert plain.boxes.tolist() == said.boxes.tolist()
    assert plain.prob.tolist() == said.prob.tolist()
    (all_of_them,) = detect(*given, thresh=0.001, letter_box=letter_box)
    probabilities = all_of_them.prob[all_of_them.prob > 0]
    assert ((probabilities > 0.25) & (probabilities < 0.5)).any(), "where the programs part"
    assert probabilities.min() < thresh / 2
    assert (plain.prob > 0).sum() == (probabilities > thresh).sum()


def test_help_says_both_programs_defaults(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["detector", "test", "-h"])
    assert "default .5; AlexeyAB's Darknet: .25" in " ".join(capsys.readouterr().out.split())
