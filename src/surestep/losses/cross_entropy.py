"""Cross-entropy: over samples or over tokens, with class weights and label smoothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surestep.errors import ArgumentError, DataError
from surestep.losses.pair import LossSum
from surestep.losses.reading import IGNORED, by_class, check_classes, in_float32, labels_given, predicted, weights_of


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossEntropyLoss:
    """Cross-entropy of logits `(..., classes)` and whole-number labels `(...)`, summed over labels that count.

    The weight is the number of labels that are not `ignore_index`, or with `class_weights` the sum of the weights of
    their classes: the mean is torch's `cross_entropy(weight=..., label_smoothing=...)`. `label_smoothing` moves that
    share of the target to all classes alike (Szegedy et al. 2016). Half precision is summed in float32. `key` names the
    logits among the outputs.
    """

    class_weights: Tensor | Sequence[float] | None = None
    label_smoothing: float = 0.0
    ignore_index: int = IGNORED
    key: str = "logits"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing is {self.label_smoothing}: give a share from 0 to 1.")

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum and the weight of the labels that count."""
        del num_items_in_batch
        return self._over(in_float32(predicted(outputs, self.key)), labels_given(labels, self))

    def weight(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what the loss of a batch will weigh, which its labels tell."""
        labels = labels_given(batch.get("labels"), self)
        counted = labels != self.ignore_index
        if self.class_weights is None:
            return counted.sum()
        weights = weights_of(self.class_weights, labels.where(counted, 0))
        return (weights * counted.to(weights.device)).sum()

    def _over(self, logits: Tensor, labels: Tensor) -> LossSum:
        check_classes(logits, labels, self.ignore_index)
        classes = by_class(self.class_weights, logits, "class_weights")
        rows, targets = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        total = torch.nn.functional.cross_entropy(
            rows,
            targets,
            weight=classes,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        counted = targets != self.ignore_index
        if classes is None:
            return LossSum(total, counted.sum())
        return LossSum(total, (classes[targets.where(counted, 0)] * counted).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy over tokens: logits `(samples, positions, classes)` and labels `(samples, positions)`.

    With `shift` position i is compared with label i + 1, as for causal models, and the labels are counted after that;
    set it to False for taggers, masked models and decoders whose labels are shifted already.
    """

    shift: bool = True

    def weight(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what the loss of a batch will weigh, which its labels tell."""
        labels = labels_given(batch.get("labels"), self)
        return super().weight({"labels": labels[..., 1:] if self.shift else labels})

    def _over(self, logits: Tensor, labels: Tensor) -> LossSum:
        if logits.dim() < 3 or labels.dim() < 2:
            raise DataError(
                f"logits are of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)}: a loss over "
                "tokens takes (samples, positions, classes) and (samples, positions). For one label a sample, use "
                "CrossEntropyLoss."
            )
        if self.shift:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        return super()._over(logits, labels)
