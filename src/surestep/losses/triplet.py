"""Triplet loss: an anchor is to be nearer to its own class than to any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surestep.errors import ArgumentError
from surestep.losses.embeddings import check_one_each, check_parts, distance
from surestep.losses.pair import LossSum
from surestep.losses.reading import in_float32, labels_given, predicted


@dataclass(frozen=True, kw_only=True, eq=False)
class TripletLoss:
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`, with Euclidean distances (Schroff et al. 2015).

    Embeddings `(samples, 3, dim)` are anchor, positive and negative of each sample, and the weight is their number.
    Embeddings `(samples, dim)` with class labels `(samples,)` make their own triplets: for each anchor the farthest of
    its class and the nearest of another (Hermans et al. 2017); the weight is the number of anchors that have both. That
    form depends on what else is in the micro-batch, so that its split changes it.
    """

    margin: float = 1.0
    key: str = "embeddings"

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ArgumentError(f"margin is {self.margin}: give 0 or more.")

    def __call__(self, outputs: Any, labels: Any = None, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum over triplets and their number."""
        del num_items_in_batch
        embeddings = in_float32(predicted(outputs, self.key))
        if embeddings.dim() == 2:
            return self._hardest(embeddings, labels_given(labels, self))
        check_parts(embeddings, ("anchor", "positive", "negative"))
        anchor, positive, negative = embeddings.unbind(1)
        losses = self._losses(distance(anchor, positive), distance(anchor, negative))
        return LossSum(losses.sum(), float(len(losses)))

    def _hardest(self, embeddings: Tensor, labels: Tensor) -> LossSum:
        check_one_each(embeddings, labels)
        apart = distance(embeddings.unsqueeze(1), embeddings.unsqueeze(0))
        same = labels.unsqueeze(1) == labels.unsqueeze(0)
        own = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = apart.where(own, -torch.inf).amax(1)
        negative = apart.where(~same, torch.inf).amin(1)
        usable = own.any(1) & (~same).any(1)
        losses = self._losses(positive.where(usable, 0.0), negative.where(usable, 0.0))
        return LossSum(losses.where(usable, 0.0).sum(), usable.sum())

    def _losses(self, positive: Tensor, negative: Tensor) -> Tensor:
        return torch.relu(positive - negative + self.margin)
