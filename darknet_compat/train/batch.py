"""What one forward pass of training takes; and how to make it of a data set of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import TrainingError


class Batch(NamedTuple):
    """Images, their truth, and their paths, which an error names."""

    images: Tensor
    """float32 (n, channels, h, w), RGB, 0..1. Of :func:`..data.load_batches` the memory is used again once the next
    batch but one is asked for, unless the batch lies on a GPU."""
    truth: Tensor
    """float32 (n, most, 5): x, y, w, h, relative to the image, and the class; a list ends at the first x = 0. Of a
    classifier (n, classes): 1 for the classes that an image shows."""
    paths: tuple[str, ...] = ()


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """A batch of a data set's samples: the ``collate_fn`` of a ``torch.utils.data.DataLoader``.

    A sample is an image (channels, h, w), float32, 0..1, and its truth (t, 5), rows of x, y, w, h (0..1) and class;
    t may be 0, and differs from sample to sample. For a classifier the truth is (classes,), 1 for those that the image
    shows. Raises :class:`TrainingError` for other shapes.
    """
    classifies = samples[0][1].dim() == 1
    for image, truth in samples:
        shape = tuple(truth.shape)
        if image.dim() != 3 or (shape != samples[0][1].shape if classifies else len(shape) != 2 or shape[1] != 5):
            raise TrainingError(
                f"a sample of shapes {tuple(image.shape)} and {shape}; expected an image (channels, height, width) "
                "and its truth (objects, 5): x, y, w, h, class; or, for a classifier, a number for each class"
            )
    if classifies:
        return Batch(torch.stack([image for image, _ in samples]), torch.stack([truth.float() for _, truth in samples]))
    most = max(1, *(len(truth) for _, truth in samples))
    rows = torch.zeros(len(samples), most, 5)
    for row, (_, truth) in zip(rows, samples, strict=True):
        row[: len(truth)] = truth
    return Batch(torch.stack([image for image, _ in samples]), rows)
