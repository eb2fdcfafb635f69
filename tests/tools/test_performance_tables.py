from __future__ import annotations

import json
import re

import pytest

from tests.conftest import ROOT
from tests.tools.run import load_tool, run_tool

PAGE, FIGURES = ROOT / "docs/PERFORMANCE.md", ROOT / "docs/performance.json"


def test_the_page_has_the_tables_of_the_stored_figures(tmp_path):
    page = tmp_path / "page.md"
    emptied = re.sub(r"(?<=-->\n)[^<]*(?=<!-- end -->)", "old\n", PAGE.read_text())
    page.write_text(emptied)
    assert "old\n<!-- end -->" in emptied
    done = run_tool("performance_tables", FIGURES, page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert page.read_text() == PAGE.read_text()


def test_each_table_stands_on_the_page_once():
    names = re.findall("<!-- table: (.*) -->", PAGE.read_text())
    assert sorted(names) == sorted(load_tool("performance_tables").TABLES)


def row(section, case, who, seconds, **more):
    return {"section": section, "case": case, "who": who, "seconds": seconds, **more}


def test_times_stand_beside_ours():
    tool = load_tool("performance_tables")
    case = "yolov3-tiny batch 8, kept"
    figures = tool.Figures(
        {
            "rows": [
                row("inference", case, "darknet_compat", 0.02),
                row("inference", case, "OpenVINO", 0.0264),
                row("inference", case, "OpenCV", 2.5),
            ]
        }
    )
    head, _, *lines = tool.inference(figures, 8).splitlines()
    assert head.split(" | ")[3] == "yolov3-tiny"
    assert lines == [
        "| darknet_compat | | | 20.0 | | | | |",
        "| OpenVINO | | | 26.4 (1.32×) | | | | |",
        "| OpenCV 5 dnn, from our ONNX file | | | 2.50 s (125.0×) | | | | |",
    ]


def test_a_share_is_that_of_the_networks_speed():
    tool = load_tool("performance_tables")
    figures = tool.Figures({"rows": [row("video", "net", "network alone", 0.009), row("video", "net", "demo", 0.01)]})
    assert tool.shares(figures, "video", "ms").splitlines()[2] == "| net | 9.00 | 10.0 (.90) |"


@pytest.mark.parametrize(
    ("figures", "page", "says"),
    [
        (None, "", "No such file"),
        ("{", "", "Expecting property name"),
        ('{"rows": []}', "<!-- table: speed -->\n<!-- end -->\n", "do not fit: no 'speed'"),
        ('{"rows": []}', "<!-- table: start-up -->\n<!-- end -->\n<!-- table: machine -->\n<!-- end -->\n", "'limits'"),
    ],
)
def test_what_does_not_fit_leaves_the_page_as_it_was(tmp_path, figures, page, says):
    if figures is not None:
        (tmp_path / "figures.json").write_text(figures)
    (tmp_path / "page.md").write_text(page)
    done = run_tool("performance_tables", tmp_path / "figures.json", tmp_path / "page.md")
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "page.md").read_text() == page


def test_the_figures_are_those_that_a_check_reads():
    """tools/bench.py --check docs/performance.json."""
    rows = json.loads(FIGURES.read_text())["rows"]
    assert len(load_tool("bench").ratios(rows)) > 100
