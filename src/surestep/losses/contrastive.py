"""Contrastive losses: over labelled pairs, and over pairs whose negatives are the rest of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from surestep.errors import ArgumentError, DataError
from surestep.losses.embeddings import check_parts, distance
from surestep.losses.pair import LossSum
from surestep.losses.reading import in_float32, labels_given, predicted


@dataclass(frozen=True, kw_only=True, eq=False)
class ContrastiveLoss:
    """`d ** 2 / 2` for a pair that belongs together, `max(0, margin - d) ** 2 / 2` for any other (Hadsell et al. 2006).

    Embeddings are `(samples, 2, dim)`, labels `(samples,)`: 1 together, 0 apart. d is the Euclidean distance; the
    weight is the number of pairs.
    """

    margin: float = 1.0
    key: str = "embeddings"

    def __post_init__(self) -> None:
        if self.margin <= 0:
            raise ArgumentError(f"margin is {self.margin}: give the distance, above 0, at which pairs are apart.")

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum over pairs and their number."""
        del num_items_in_batch
        embeddings, labels = in_float32(predicted(outputs, self.key)), labels_given(labels, self)
        check_parts(embeddings, ("the one", "the other"))
        if labels.shape != embeddings.shape[:1]:
            raise DataError(
                f"labels are of shape {tuple(labels.shape)}: give one for each of {len(embeddings)} pairs, 1 where "
                "they belong together and 0 where not."
            )
        apart = distance(embeddings[:, 0], embeddings[:, 1])
        together = labels.to(apart.dtype)
        losses = together * apart.square() + (1 - together) * torch.relu(self.margin - apart).square()
        return LossSum(losses.sum() / 2, float(len(losses)))

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return what the loss of a batch will weigh, which its labels tell."""
        return float(len(labels_given(batch.get("labels"), self)))


@dataclass(frozen=True, kw_only=True, eq=False)
class InBatchContrastiveLoss:
    """Each first embedding is to find its second among all seconds of the micro-batch, and the other way round.

    Cross-entropy over cosines divided by `temperature` (van den Oord et al. 2018, Radford et al. 2021), the mean of
    both directions. Embeddings are `(samples, 2, dim)`; the weight is the number of samples. The negatives are the
    others of the micro-batch, so that its size and split change the loss.
    """

    temperature: float = 0.05
    key: str = "embeddings"

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ArgumentError(f"temperature is {self.temperature}: give a number above 0, such as 0.05.")

    def __call__(self, outputs: Any, labels: Any = None, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum over samples and their number; labels are not looked at."""
        del labels, num_items_in_batch
        embeddings = in_float32(predicted(outputs, self.key))
        check_parts(embeddings, ("the one", "the other"))
        one, other = torch.nn.functional.normalize(embeddings, dim=-1).unbind(1)
        scores = one @ other.T / self.temperature
        own = torch.arange(len(scores), device=scores.device)
        total = sum(torch.nn.functional.cross_entropy(rows, own, reduction="sum") for rows in (scores, scores.T))
        return LossSum(torch.as_tensor(total) / 2, float(len(scores)))
