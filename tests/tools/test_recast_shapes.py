"""tools/recast_shapes.py: the same images with the same objects, as `new` finds them in either form."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.cfg import read_names
from darknet_compat.images import load_image
from darknet_compat.labels import label_path, read_labels
from darknet_compat.new.collect import collect
from tests.conftest import ROOT
from tests.tools.run import load_tool

recast_shapes = load_tool("recast_shapes")


def recast(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["recast_shapes.py", *map(str, words)])
    return recast_shapes.main()


@pytest.mark.parametrize("form", ["coco", "darknet"])
def test_the_same_objects_come_back(made_shapes, tmp_path, monkeypatch, capsys, form):
    dest = tmp_path / "Bilder für später"
    assert recast(monkeypatch, form, made_shapes, dest) == 0
    images = sorted(made_shapes.glob("VOCdevkit/VOC2007/JPEGImages/*.jpg"))
    assert capsys.readouterr().out == f"{dest}: {len(images)} images\n"
    found = collect(dest)
    assert found.form == form
    assert found.names == (read_names(ROOT / "data/shapes.names") if form == "coco" else recast_shapes.NAMES)
    assert {image.part for image in found.images} == {""}
    assert not found.left_out.total()
    order = {path.read_bytes(): path for path in images}
    assert len(order) == len(images)
    back = {order.pop(Path(image.path).read_bytes()): image for image in found.images}
    assert not order
    for path, image in back.items():
        height, width = load_image(str(path)).shape[:2]
        labelled = read_labels(label_path(str(path)))
        assert np.array_equal(image.objects[:, 0], labelled[:, 0])
        # JSON has two decimals of a pixel.
        within = [0.011 / width, 0.011 / height] * 2 if form == "coco" else 0
        assert (abs(image.objects[:, 1:] - labelled[:, 1:]) <= within).all()
    folders = {Path(image.path).parent.name for image in found.images}
    assert len(folders) == (recast_shapes.DAYS if form == "coco" else 1)


def test_errors_are_one_line(made_shapes, tmp_path, monkeypatch, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    shutil.copytree(made_shapes / "VOCdevkit", tmp_path / "torn/VOCdevkit")
    next((tmp_path / "torn/VOCdevkit/VOC2007/labels").iterdir()).unlink()
    for words, what in (
        (("coco", tmp_path / "none", tmp_path / "new"), "none: no VOCdevkit/VOC*/JPEGImages/*.jpg; expected what"),
        (("coco", made_shapes, tmp_path / "there"), "File exists"),
        (("darknet", made_shapes, tmp_path / "file/new"), "Not a directory"),
        (("coco", tmp_path / "torn", tmp_path / "a"), "No such file"),
        (("darknet", tmp_path / "torn", tmp_path / "b"), "No such file"),
    ):
        assert recast(monkeypatch, *words) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert what in said
        assert "Traceback" not in said
