"""What the drawings of scores show."""

from __future__ import annotations

import numpy as np

from darknet_compat.evaluate import plots
from darknet_compat.evaluate.voc import ClassScore, Scores


def test_every_column_of_the_curves_has_its_numbers_below(tmp_path, monkeypatch):
    """Six classes: five panels and one below the first of them."""
    nothing = np.zeros(0)
    classes = [ClassScore(name, None, 0, 0, None, *[nothing] * 7) for name in "abcdef"]
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plots.draw_curves(Scores("voc07", 0.5, classes), tmp_path / "curves.png")
    below = [panel.xaxis.get_tick_params()["labelbottom"] for panel in figures[0].axes[:6]]
    assert below == [False, True, True, True, True, True]
