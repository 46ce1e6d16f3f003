"""Focal loss: cross-entropy that counts little where the model is sure and right already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surestep.errors import ArgumentError
from surestep.losses.pair import LossSum
from surestep.losses.reading import (
    IGNORED,
    by_class,
    check_classes,
    in_float32,
    labels_given,
    predicted,
    same_shape,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FocalLoss:
    """`alpha * (1 - p) ** gamma * -log(p)`, with p the probability of the truth (Lin et al. 2017).

    Whole-number labels `(...)` with logits `(..., classes)` take a softmax; float labels of the logits' own shape take
    a sigmoid for each entry, with targets from 0 to 1. `alpha` is one number for each class, or for two classes (or a
    sigmoid) one number: the factor of class 1, where class 0 gets `1 - alpha`. The weight is the number of labels that
    are not `ignore_index`, or of entries; alpha is no part of it. With `gamma=0` it is cross-entropy.
    """

    gamma: float = 2.0
    alpha: float | Tensor | Sequence[float] | None = None
    ignore_index: int = IGNORED
    key: str = "logits"

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ArgumentError(f"gamma is {self.gamma}: give 0 or more; 0 is cross-entropy.")

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum and the number of labels that count."""
        del num_items_in_batch
        logits, labels = in_float32(predicted(outputs, self.key)), labels_given(labels, self)
        return self._sigmoid(logits, labels) if labels.dtype.is_floating_point else self._softmax(logits, labels)

    def weight(self, batch: Mapping[str, Any]) -> Tensor | float:
        """Return what the loss of a batch will weigh, which its labels tell."""
        labels = labels_given(batch.get("labels"), self)
        return float(labels.numel()) if labels.dtype.is_floating_point else (labels != self.ignore_index).sum()

    def _softmax(self, logits: Tensor, labels: Tensor) -> LossSum:
        check_classes(logits, labels, self.ignore_index)
        counted = labels != self.ignore_index
        targets = labels.where(counted, 0)
        log_p = torch.log_softmax(logits, dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        losses = -log_p * self._doubt(log_p)
        alpha = by_class(self._alphas(logits.shape[-1]), logits, "alpha")
        if alpha is not None:
            losses = losses * alpha[targets]
        return LossSum(losses.where(counted, 0.0).sum(), counted.sum())

    def _sigmoid(self, logits: Tensor, labels: Tensor) -> LossSum:
        logits, targets = same_shape(logits, labels)
        off, on = (-torch.nn.functional.logsigmoid(sign * logits) for sign in (-1, 1))
        # The probability of the truth, for targets between 0 and 1 too.
        p = torch.sigmoid(logits) * targets + torch.sigmoid(-logits) * (1 - targets)
        losses = (on * targets + off * (1 - targets)) * _power(1 - p, self.gamma)
        if self.alpha is not None:
            low, high = self._pair_of_alphas()
            losses = losses * (high * targets + low * (1 - targets))
        return LossSum(losses.sum(), float(losses.numel()))

    def _doubt(self, log_p: Tensor) -> Tensor:
        """Return `(1 - p) ** gamma`, exact also where p is close to 1."""
        return _power(-torch.expm1(log_p), self.gamma)

    def _alphas(self, classes: int) -> Tensor | Sequence[float] | None:
        if not isinstance(self.alpha, int | float):
            return self.alpha
        if classes != 2:
            raise ArgumentError(f"alpha is {self.alpha}, and the logits have {classes} classes: give one for each.")
        return self._pair_of_alphas()

    def _pair_of_alphas(self) -> tuple[float, float]:
        if isinstance(self.alpha, int | float):
            return 1 - self.alpha, self.alpha
        values = [] if self.alpha is None else [float(value) for value in self.alpha]
        if len(values) != 2:
            raise ArgumentError(f"alpha has {len(values)} numbers; with float labels give one, or those for 0 and 1.")
        return values[0], values[1]


def _power(base: Tensor, exponent: float) -> Tensor:
    if exponent == 0:
        return torch.ones_like(base)
    # The slope of a small power is infinite at 0.
    return base.clamp(min=torch.finfo(base.dtype).tiny) ** exponent if exponent < 1 else base**exponent
