"""What losses over embeddings share: their shapes, and distances that have a slope everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from surestep.errors import DataError


def check_parts(embeddings: Tensor, parts: tuple[str, ...]) -> None:
    """Check that each sample has one embedding for each of `parts`."""
    if embeddings.dim() != 3 or embeddings.shape[1] != len(parts):
        raise DataError(
            f"embeddings are of shape {tuple(embeddings.shape)}: give (samples, {len(parts)}, dim), for each sample "
            f"{', '.join(parts)}."
        )


def check_one_each(embeddings: Tensor, labels: Tensor) -> None:
    """Check that there is one label for each embedding."""
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise DataError(
            f"embeddings are of shape {tuple(embeddings.shape)} and labels of shape {tuple(labels.shape)}: give "
            "(samples, dim) and (samples,)."
        )


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Return Euclidean distances over the last dimension, with slope 0 where two points are the same."""
    squares = (one - other).square().sum(-1)
    apart = squares > 0
    return torch.where(apart, squares.where(apart, 1.0).sqrt(), 0.0)
