from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from tests.tools.run import run_tool


@pytest.mark.slow
def test_a_section_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "bench.json"
    result = run_tool("bench", "--only", "cfg", "--budget", ".2", "--json", file)
    assert result.returncode == 0, result.stderr
    for part in ("command: ", "processor: ", "versions: ", "limits: ", "yolov2-voc.cfg"):
        assert part in result.stdout
    content = json.loads(file.read_text())
    assert content["versions"]["torch"]
    assert content["limits"]["float32"] > 1e9
    rows = content["rows"]
    assert {row["section"] for row in rows} == {"cfg"}
    for row in rows:
        assert 0 < row["seconds"] <= row["median"] < 1
        assert row["runs"] >= 2
        assert row["peak_mib"] > 5
        assert 0.01 < row["cores"] < 1.1  # they have one thread, and other jobs may have the processor
    assert rows[0]["times_first"] == 1


def test_an_unknown_section_is_named():
    result = run_tool("bench", "--only", "speed")
    assert result.returncode == 2
    assert "no section 'speed'; expected some of inference," in result.stderr


@pytest.fixture
def bench(monkeypatch):
    """The module tools/bench.py."""
    spec = importlib.util.spec_from_file_location("bench", ROOT / "tools/bench.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench", module)  # its data classes look it up
    spec.loader.exec_module(module)
    return module


def test_all_contestants_of_a_race_have_the_same_memory(bench, monkeypatch, tmp_path):
    """And inference is raced with memory that is kept, and with memory that is given back."""
    races = {}
    for name in ("weights", "graph", "off_by", "photographs", "labelled_images", "moving_photographs", "devkit"):
        monkeypatch.setattr(bench, name, lambda *_: ["image.jpg"])
    monkeypatch.setattr(bench, "has_bf16", lambda: True)
    (tmp_path / "yolov2-voc.weights").touch()
    options = SimpleNamespace(opencv4="python", threads=2, voc=None, alexeyab=tmp_path / "darknet", budget=1)
    fake = SimpleNamespace(
        folder=tmp_path, options=options, rates=dict.fromkeys(
            ("float32", "bf16", "memory"), 1.0), value=lambda *_, **__: {}, rows=[],
        race=lambda section, case, entries, **_: races.update({(section, case): {entry.kept for entry in entries}}),
    )  # fmt: skip
    for section in bench.SECTIONS.values():
        section(fake)
    assert len(races) > 20
    for (section, case), kept in races.items():
        expected = {True, False} if section == "memory" else {"given back" not in case}
        assert kept == expected, (section, case)
    assert sum(kept == {False} for kept in races.values()) == 2 * len(bench.NETS)


def test_memory_is_kept_where_the_package_cannot_be_imported():
    """The interpreter of OpenCV 4 has no more than numpy and OpenCV; this one not even that (-S)."""
    command = [sys.executable, "-S", "-E", ROOT / "tools/bench_contestants.py", "command", '{"arguments": ["-c", ""]}']
    result = subprocess.run(
        command, input='{"runs": 2}\n', capture_output=True, text=True, env={"BENCH_KEEP_MEMORY": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert all(len(pair) == 2 and min(pair) > 0 for pair in json.loads(result.stdout))


def rows(**times):
    """A race's rows: who took how long, with a tenth of that in MiB."""
    roles = {"mine": "ours", "also_mine": "ours", "stage": "part"}
    return [
        {"section": "race", "case": "a", "who": who, "seconds": time, "peak_mib": 100 * time,
         "role": roles.get(who, "other")} for who, time in times.items()
    ]  # fmt: skip


def test_ratios_hold_ours_against_each_other(bench):
    found = bench.ratios(rows(mine=2.0, also_mine=4.0, other=3.0, stage=1.0))
    assert found == {
        ("race", "a", who, "other", what): ratio
        for who, ratio in (("mine", 1.5), ("also_mine", 0.75))
        for what in ("time", "memory")
    }
    assert not bench.ratios([*rows(mine=1.0), *({**row, "case": "b"} for row in rows(other=1.0))])


@pytest.mark.parametrize(("now", "lines"), [(2.0, 0), (2.2, 0), (2.25, 2)])
def test_a_ratio_that_fell_by_over_a_tenth_is_named(bench, now, lines):
    both, found = bench.fallen(rows(mine=2.0, other=3.0, gone=5.0), rows(mine=now, other=3.0, new=0.1))
    assert both == 2
    assert len(found) == lines
    if lines:
        assert found == [
            f"race, a: other took 1.50 times the {what} of mine, now 1.33 times" for what in ("time", "memory")
        ]


@pytest.mark.parametrize(
    ("stored", "code", "said"),
    [(1.5, 0, ["0 of 2 ratios fell"]), (1.6, 0, []), (2.0, 1, ["a: other took 2.00 times the time of mine, now 1.50"]),
     (None, 1, ["0 of 0 ratios fell"])],
)  # fmt: skip
def test_check_ends_with_1_where_we_fell_behind(bench, monkeypatch, capsys, tmp_path, stored, code, said):
    """Or where the file says nothing of what was measured."""
    file = tmp_path / "stored.json"
    file.write_text(json.dumps({"rows": rows(mine=2.0, other=2.0 * stored) if stored else []}))

    def measured(run):
        for row in rows(mine=2.0, other=3.0):
            more = {"median": 1.0, "runs": 2, "times_first": 1.0, "work": None, "cores": 1.0}
            run.rows.append(bench.Row(**row, **more))

    monkeypatch.setitem(bench.SECTIONS, "cfg", measured)
    monkeypatch.setattr(bench.Bench, "value", lambda *_: dict.fromkeys(("float32", "bf16", "memory"), 1e9))
    monkeypatch.setattr(sys, "argv", ["bench.py", "--only", "cfg", "--check", str(file)])
    assert bench.main() == code
    out = capsys.readouterr().out
    assert all(line in out for line in said)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"rows": 1}', '{"rows": [{"section": "a"}]}'])
def test_what_holds_no_figures_is_refused(tmp_path, content):
    file = tmp_path / "stored.json"
    if content is not None:
        file.write_text(content)
    result = run_tool("bench", "--check", file)
    assert result.returncode == 2
    assert f"{file}: " in result.stderr
    assert "expected a file that --json wrote" in result.stderr
    assert "Traceback" not in result.stderr
