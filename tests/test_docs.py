"""What the pages name is there: tests, files, sections."""

from __future__ import annotations

import doctest
import re

import cv2
import pytest

from tests.conftest import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def slug(heading: str) -> str:
    """The name by which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names(page):
    file = None
    for path, function in NAMED.findall(page.read_text(encoding="utf-8")):
        if not path and not function:
            continue
        file = path or file
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in text, f"{file}::{function}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    for path, part in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if part:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in map(slug, headings), f"{path}#{part}"


def test_every_row_of_differences_names_a_test():
    """A row's last cell names a test, in full or as `::name` of the file named before."""
    rows = [
        line
        for line in (ROOT / "docs/DIFFERENCES.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| what |")
    ]
    assert len(rows) > 40
    assert [row for row in rows if not any(path for path, _ in NAMED.findall(row))] == []


def test_the_readme_says_what_python_answers(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    monkeypatch.chdir(tmp_path)
    for folder in ("cfg", "data", "weights"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    test = doctest.DocTestParser().get_doctest(examples, {}, "README.md", None, 0)
    assert len(test.examples) == 7
    results = doctest.DocTestRunner().run(test)
    assert results.failed == 0
    assert (tmp_path / "copy.weights").read_bytes() == (ROOT / "weights/yolov2-shapes.weights").read_bytes()


def test_the_examples_in_python_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)  # cfg/, weights/ and data/ of the project are found from anywhere
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes-sample.jpg").symlink_to(ROOT / "data/shapes-sample.jpg")
    names: dict[str, object] = {}
    said = []
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
        said.append(capsys.readouterr().out)
    called, detected, classified, likeliest_one, shapes, trained, own = said
    assert re.search(r"^disc: 0\.\d\d \[", called, re.MULTILINE)
    drawn, image = cv2.imread(str(tmp_path / "drawn.png")), cv2.imread(str(ROOT / "data/shapes-sample.jpg"))
    assert 0 < (drawn != image).any(2).mean() < 0.5
    assert re.search(r"data/shapes-sample\.jpg disc 0\.\d\d \[", detected)
    *likeliest, scores = classified.splitlines()
    assert [re.sub(r"photo|shapes|drawing", "#", line)[:5] for line in likeliest] == ["#: 0."] * 2
    assert re.fullmatch(r"top 1 [01]\.000, top 2 [01]\.000 over 1 images", scores)
    assert likeliest[0].rstrip() == likeliest_one.rstrip()
    assert shapes.startswith("torch.Size([2, 55, 16, 16]) ['region'] ")
    assert [line.split(":")[0] for line in trained.splitlines()] == ["1", "2", "3"]
    assert (tmp_path / "squares.weights").stat().st_size == 20 + 4 * 436_231
    assert own.startswith("IOU 0.")
    assert names["network"].seen == 3 * 8 + 64
