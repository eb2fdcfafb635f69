"""Nine images on one: each object keeps its place in its own image."""

from __future__ import annotations

import numpy as np

from darknet_compat.cfg import read_list
from darknet_compat.images import load_image
from darknet_compat.labels import label_path, read_labels
from tests.tools.run import one_line, run_tool


def test_objects_keep_their_places(made_shapes, tmp_path):
    result = run_tool("mosaic_shapes", made_shapes, tmp_path / "nine")
    assert result.returncode == 0, result.stderr
    assert "nine.data: 2 images" in result.stdout  # of 24
    sources = read_list(made_shapes / "2007_test.txt")
    for number, path in enumerate(read_list(tmp_path / "nine/valid.txt")):
        canvas, objects = load_image(path), read_labels(label_path(path))
        mine = sources[9 * number : 9 * number + 9]
        assert len(objects) == sum(len(read_labels(label_path(source))) for source in mine)
        rows = iter(objects)
        for place, source in enumerate(mine):
            image = load_image(source)
            height, width = image.shape[:2]
            top, left = 192 * (place // 3), 192 * (place % 3)
            assert np.array_equal(canvas[top : top + height, left : left + width], image)
            for own in read_labels(label_path(source)):
                placed = next(rows)
                assert placed[0] == own[0]
                offset = np.array([left, top, 0, 0])
                assert np.allclose(576 * placed[1:] - offset, own[1:] * [width, height, width, height])


def test_errors_are_one_line(made_shapes, tmp_path):
    assert "2007_test.txt" in one_line(run_tool("mosaic_shapes", tmp_path, tmp_path / "a"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/images").mkdir()
    assert "b/images" in one_line(run_tool("mosaic_shapes", made_shapes, tmp_path / "b"))
