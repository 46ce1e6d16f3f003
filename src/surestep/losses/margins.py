"""Softmax with a margin between classes on the sphere: ArcFace and CosFace."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surestep.errors import ArgumentError, DataError
from surestep.losses.pair import LossSum
from surestep.losses.reading import IGNORED, check_classes, in_float32, labels_given, predicted

# Cosines computed in half precision may leave [-1, 1] by so much.
_SLACK = 2e-2


class CosineHead(nn.Module):
    """A last layer whose outputs are the cosines between embeddings and one direction for each class.

    `(..., dim)` in, `(..., num_classes)` out. It is part of the model, so that its directions are trained and saved.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the cosines."""
        normalize = nn.functional.normalize
        return nn.functional.linear(normalize(embeddings, dim=-1), normalize(self.weight, dim=-1))


@dataclass(frozen=True, kw_only=True, eq=False)
class _MarginLoss(ABC):
    """Cross-entropy over `scale` times cosines, of which the true class's are made smaller by a margin."""

    margin: float
    scale: float = 64.0
    ignore_index: int = IGNORED
    key: str = "logits"

    def __post_init__(self) -> None:
        if self.margin < 0 or self.scale <= 0:
            raise ArgumentError(f"margin is {self.margin} and scale {self.scale}: give 0 or more, and above 0.")

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> LossSum:
        """Return the sum over the labels that count and their number."""
        del num_items_in_batch
        cosines, labels = in_float32(predicted(outputs, self.key)), labels_given(labels, self)
        check_classes(cosines, labels, self.ignore_index)
        _check_cosines(cosines)
        counted = labels != self.ignore_index
        places = labels.where(counted, 0).unsqueeze(-1)
        lowered = self._lowered(cosines.gather(-1, places))
        logits = self.scale * cosines.scatter(-1, places, lowered)
        total = nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=self.ignore_index, reduction="sum"
        )
        return LossSum(total, counted.sum())

    def weight(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what the loss of a batch will weigh, which its labels tell."""
        return (labels_given(batch.get("labels"), self) != self.ignore_index).sum()

    @abstractmethod
    def _lowered(self, cosine: Tensor) -> Tensor:
        """Return the true class's cosine, made smaller."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArcFaceLoss(_MarginLoss):
    """The margin is an angle in radians: `scale * cos(angle + margin)` for the true class (Deng et al. 2019).

    Logits are cosines, as `CosineHead` gives them. From the angle `pi - margin` on, where `cos` would turn round, the
    true class's cosine falls by `margin * sin(margin)` instead. The weight is the number of labels that count.
    """

    margin: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin >= math.pi:
            raise ArgumentError(f"margin is {self.margin}: an angle in radians, below pi.")

    def _lowered(self, cosine: Tensor) -> Tensor:
        # The slope of the sine is infinite where the cosine is 1.
        sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).eps).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        return torch.where(cosine > -math.cos(self.margin), turned, cosine - self.margin * math.sin(self.margin))


@dataclass(frozen=True, kw_only=True, eq=False)
class CosFaceLoss(_MarginLoss):
    """The margin is a cosine: `scale * (cos(angle) - margin)` for the true class (Wang et al. 2018).

    Logits are cosines, as `CosineHead` gives them. The weight is the number of labels that count.
    """

    margin: float = 0.35

    def _lowered(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin


def _check_cosines(cosines: Tensor) -> None:
    """Check, on the CPU alone, that logits can be cosines."""
    if cosines.device.type != "cpu" or cosines.numel() == 0:
        return
    largest = float(cosines.detach().abs().max())
    if largest > 1 + _SLACK:
        raise DataError(f"A logit is {largest:.4g}, which no cosine is. Let the model end in CosineHead(dim, classes).")
