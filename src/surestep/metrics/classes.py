"""Metrics of classes: accuracy, F1, precision, recall, Matthews correlation, intersection over union.

All but accuracy are functions of three counts for each class: how often it was predicted rightly, predicted, and
right. That is linear in the classes, where a confusion matrix is quadratic, and exact whatever the order of addition.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surestep.errors import DataError
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch, Reading, Task


class Accuracy(SummedMetric):
    """The share of positions predicted rightly; in a multi-label task, of all labels of all samples."""

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return right and counted positions of each sample."""
        task = _classes_of(batch, "accuracy")
        if task.kind == "multilabel":
            scores, actual, counted = batch.several
            right = (_chosen(scores) == actual) & counted
            return torch.stack([right.sum(1), counted.sum(1)], dim=1).double()
        found = batch.classified
        right = (found.predicted == found.actual) & found.counted
        both = torch.stack([right, found.counted], dim=1).double()
        return both.new_zeros(batch.size, 2).index_add_(0, found.sample, both)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the share."""
        return {"": sums[..., 0] / sums[..., 1]}


Figure = Callable[[Tensor, Tensor, Tensor], Tensor]


def precision(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    """Return the share of the predicted that is right; 0 where nothing was predicted."""
    del actual
    return _share(right, predicted)


def recall(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    """Return the share of the right that was predicted; 0 where there is none."""
    del predicted
    return _share(right, actual)


def f1(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    """Return the harmonic mean of precision and recall."""
    return _share(2 * right, predicted + actual)


def overlap(right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    """Return intersection over union."""
    return _share(right, predicted + actual - right)


class ClassCounts(SummedMetric):
    """A figure of the classes, averaged: `binary` (the second class alone), `macro`, `micro` or `weighted`.

    Without an average a binary task gives that of the second class, any other the mean over classes that occur, as
    scikit-learn takes it.
    """

    def __init__(
        self,
        figure: Figure,
        reading: Reading,
        *,
        name: str,
        average: str | None = None,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(bootstrap)
        self.figure, self.reading, self.name, self.average = figure, reading, name, average

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return the counts of each class by sample."""
        return self._counts(batch, by_sample=True)

    def total(self, batch: PredictionBatch) -> Tensor:
        """Return the counts of each class."""
        return self._counts(batch, by_sample=False)[0]

    def _counts(self, batch: PredictionBatch, *, by_sample: bool) -> Tensor:
        """Return rows of right, predicted and actual of each class, and the positions counted."""
        task = _classes_of(batch, self.name)
        if task.kind == "multilabel":
            return _label_counts(batch, by_sample=by_sample)
        found = batch.classified
        rows = batch.size if by_sample else 1
        row = found.sample if by_sample else torch.zeros_like(found.sample)
        counted = found.counted.double()
        right = counted * (found.predicted == found.actual)
        counts = [
            _tally(row, number, weight, rows, task.classes)
            for number, weight in ((found.actual, right), (found.predicted, counted), (found.actual, counted))
        ]
        positions = counted.new_zeros(rows).index_add_(0, row, counted)
        return torch.cat([*counts, positions[:, None]], dim=1)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the averaged figure."""
        right, predicted, actual, _ = split_counts(sums)
        how = self.average or ("binary" if self._kind == "binary" else "macro")
        if how == "binary":
            return {"": self.figure(right, predicted, actual)[..., 1]}
        if how == "micro":
            return {"": self.figure(right.sum(-1), predicted.sum(-1), actual.sum(-1))}
        each = self.figure(right, predicted, actual)
        weights = actual if how == "weighted" else (predicted + actual > 0).double()
        return {"": _share((each * weights).sum(-1), weights.sum(-1))}

    @property
    def _kind(self) -> str | None:
        return None if self.reading.task is None else self.reading.task.kind


class Matthews(ClassCounts):
    """The Matthews correlation coefficient; in a multi-label task that of all labels taken together."""

    def __init__(self, reading: Reading, *, bootstrap: Bootstrap | None = None) -> None:
        super().__init__(f1, reading, name="mcc", bootstrap=bootstrap)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the coefficient; 0 where all predictions, or all labels, are one class."""
        right, predicted, actual, positions = split_counts(sums)
        if self._kind == "multilabel":
            yes, chosen, true = (count.sum(-1) for count in (right, predicted, actual))
            no = positions - chosen - true + yes
            right = torch.stack([no, yes], dim=-1)
            predicted = torch.stack([positions - chosen, chosen], dim=-1)
            actual = torch.stack([positions - true, true], dim=-1)
        covariance = right.sum(-1) * positions - (predicted * actual).sum(-1)
        spread = (positions**2 - (predicted**2).sum(-1)) * (positions**2 - (actual**2).sum(-1))
        return {"": _share(covariance, spread.sqrt())}


def split_counts(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return right, predicted and actual of each class, and the number of positions, from sums."""
    right, predicted, actual = sums[..., :-1].chunk(3, dim=-1)
    return right, predicted, actual, sums[..., -1]


def _tally(row: Tensor, number: Tensor, weight: Tensor, rows: int, classes: int) -> Tensor:
    """Return how much of each class there is in each row."""
    flat = weight.new_zeros(rows * classes).index_add_(0, row * classes + number, weight)
    return flat.view(rows, classes)


def _label_counts(batch: PredictionBatch, *, by_sample: bool) -> Tensor:
    scores, actual, counted = batch.several
    chosen = _chosen(scores) * counted
    counts = torch.cat([chosen * actual, chosen, actual, counted.sum(1, keepdim=True)], dim=1).double()
    return counts if by_sample else counts.sum(0, keepdim=True)


def _chosen(scores: Tensor) -> Tensor:
    """Return the labels whose probability is above a half: of logits, or of what is chosen already."""
    return (scores > 0).long()


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where there is no whole."""
    return torch.where(whole == 0, 0.0, part / torch.where(whole == 0, 1.0, whole))


def _classes_of(batch: PredictionBatch, name: str) -> Task:
    task = batch.task
    if task.kind == "regression":
        raise DataError(
            f"The metric '{name}' needs classes, and the labels are those of a regression. Write metrics='mse', or "
            "give whole-number labels; of a multi-label task set config.problem_type='multi_label_classification'."
        )
    return task
