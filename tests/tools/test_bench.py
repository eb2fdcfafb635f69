from __future__ import annotations

import json

from tests.tools.run import run_tool


def test_a_section_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "bench.json"
    result = run_tool("bench", "--only", "cfg,suppression", "--budget", ".2", "--json", file)
    assert result.returncode == 0, result.stderr
    for part in ("command: ", "processor: ", "versions: ", "limits: ", "yolov2-voc.cfg", "845 boxes"):
        assert part in result.stdout
    content = json.loads(file.read_text())
    assert content["versions"]["torch"]
    assert content["limits"]["float32"] > 1e9
    rows = content["rows"]
    assert {row["section"] for row in rows} == {"cfg", "NMS"}
    for row in rows:
        assert 0 < row["least"] <= row["seconds"] < 1
        assert row["runs"] >= 2
        assert row["peak_mib"] > 5
    assert rows[0]["times_first"] == 1


def test_an_unknown_section_is_named():
    result = run_tool("bench", "--only", "speed")
    assert result.returncode == 2
    assert "no section 'speed'; expected some of inference," in result.stderr
