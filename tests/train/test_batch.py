"""Batches of a data set of one's own."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from darknet_compat.errors import TrainingError
from darknet_compat.train import collate


def sample(objects, value):
    """Rows that begin with ``value``, a half of it, a quarter ..."""
    return torch.full((3, 4, 6), value), torch.full((objects, 5), value) / 2 ** torch.arange(objects)[:, None]


def test_truth_is_filled_up_with_rows_of_0():
    images, truth, paths = collate([sample(2, 0.5), sample(0, 0.25), sample(1, 0.75)])
    assert (images.shape, truth.shape, paths) == ((3, 3, 4, 6), (3, 2, 5), ())
    assert images[:, 0, 0, 0].tolist() == [0.5, 0.25, 0.75]
    assert truth[..., 0].tolist() == [[0.5, 0.25], [0, 0], [0.75, 0]]
    assert truth.dtype == images.dtype == torch.float32


def test_without_objects_there_is_one_row_of_0():
    assert collate([sample(0, 0.5)] * 2).truth.tolist() == [[[0.0] * 5]] * 2


def test_a_loader_takes_it():
    loader = DataLoader([sample(number, 0.5) for number in range(5)], batch_size=2, collate_fn=collate)
    assert [tuple(batch.truth.shape) for batch in loader] == [(2, 1, 5), (2, 3, 5), (1, 4, 5)]


def test_a_classifiers_truth_is_a_number_for_each_class():
    images, truth, paths = collate(
        [(torch.full((3, 4, 6), value), torch.eye(4)[kind]) for value, kind in ((0.5, 2), (1.0, 0))]
    )
    assert (images[:, 0, 0, 0].tolist(), paths) == ([0.5, 1.0], ())
    assert truth.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert collate([(torch.zeros(3, 4, 6), torch.tensor([0, 1]))]).truth.dtype == torch.float32


@pytest.mark.parametrize(
    "shapes",
    [
        [((3, 4), (1, 5))],
        [((3, 4), (5,))],
        [((3, 4, 6), (1, 4))],
        [((3, 4, 6), ())],
        [((3, 4, 6), (4,)), ((3, 4, 6), (5,))],
        [((3, 4, 6), (4,)), ((3, 4, 6), (1, 5))],
        [((3, 4, 6), (1, 5)), ((3, 4, 6), (4,))],
    ],
)
def test_other_shapes_are_one_line(shapes):
    samples = [tuple(torch.zeros(shape) for shape in pair) for pair in shapes]
    with pytest.raises(TrainingError, match=r"expected an image .* and its truth"):
        collate(samples)
