"""Losses of regression: squared and Huber."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from surestep.errors import ArgumentError
from surestep.losses.pair import LossSum
from surestep.losses.reading import in_float32, labels_given, predicted, same_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class MSELoss:
    """Squared errors, summed; the weight is the number of entries. Predictions and labels are of one shape."""

    key: str = "logits"

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum of squares and the number of entries."""
        del num_items_in_batch
        one, other = same_shape(in_float32(predicted(outputs, self.key)), labels_given(labels, self))
        return LossSum((one - other).square().sum(), float(one.numel()))

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return what the loss of a batch will weigh, which its labels tell."""
        return float(labels_given(batch.get("labels"), self).numel())


@dataclass(frozen=True, kw_only=True, eq=False)
class HuberLoss:
    """`error ** 2 / 2` up to an error of `delta`, and `delta * (|error| - delta / 2)` from there (Huber 1964).

    The weight is the number of entries.
    """

    delta: float = 1.0
    key: str = "logits"

    def __post_init__(self) -> None:
        if self.delta <= 0:
            raise ArgumentError(f"delta is {self.delta}: give the error, above 0, from which the loss is linear.")

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum and the number of entries."""
        del num_items_in_batch
        one, other = same_shape(in_float32(predicted(outputs, self.key)), labels_given(labels, self))
        total = torch.nn.functional.huber_loss(one, other, reduction="sum", delta=self.delta)
        return LossSum(total, float(one.numel()))

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return what the loss of a batch will weigh, which its labels tell."""
        return float(labels_given(batch.get("labels"), self).numel())
