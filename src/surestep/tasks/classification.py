"""Scores of a classifier. All of them come from one confusion matrix, and confusion matrices of parts add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from surestep.errors import DataError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Predicted(Protocol):
    """What an evaluation hands to a metric function: scores of shape (samples, classes) and ids of shape (samples,)."""

    predictions: Any
    label_ids: Any


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int) -> IntArray:
    """Count the samples of each pair (true class, predicted class): rows are true, columns predicted."""
    true, guessed = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if true.shape != guessed.shape:
        raise DataError(f"{true.shape} labels cannot be compared with {guessed.shape} predictions.")
    if true.size and (min(true.min(), guessed.min()) < 0 or max(true.max(), guessed.max()) >= num_classes):
        raise DataError(f"labels and predictions must be classes from 0 to {num_classes - 1}.")
    counts = np.bincount(true.ravel() * num_classes + guessed.ravel(), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def precision_recall_f1(confusion: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return precision, recall and F1 of each class, shape (classes,) each; a ratio over nothing is 0."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    return _ratio(hits, predicted), _ratio(hits, true), _ratio(2 * hits, predicted + true)


def accuracy(confusion: IntArray) -> float:
    """Return the share of samples whose class was predicted."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def balanced_accuracy(confusion: IntArray) -> float:
    """Return the mean recall of the classes that have samples."""
    recall = precision_recall_f1(confusion)[1]
    return _mean(recall[confusion.sum(axis=1) > 0])


def macro_f1(confusion: IntArray) -> float:
    """Return the mean F1 of the classes that occur in labels or predictions."""
    f1 = precision_recall_f1(confusion)[2]
    return _mean(f1[(confusion.sum(axis=0) + confusion.sum(axis=1)) > 0])


def weighted_f1(confusion: IntArray) -> float:
    """Return the F1 of the classes, each weighted by its number of samples."""
    return float(_ratio(precision_recall_f1(confusion)[2] @ confusion.sum(axis=1), confusion.sum()))


def matthews_correlation(confusion: IntArray) -> float:
    """Return the correlation of labels and predictions for any number of classes (Gorodkin 2004); 0 where undefined."""
    counts = confusion.astype(np.float64)
    total, hits = counts.sum(), np.trace(counts)
    predicted, true = counts.sum(axis=0), counts.sum(axis=1)
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(_ratio(hits * total - predicted @ true, np.sqrt(spread)))


METRICS: dict[str, Callable[[IntArray], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "matthews_correlation": matthews_correlation,
}


class ClassificationMetrics:
    """A metric function for a trainer: computes the named metrics, and keeps the confusion matrix of the last result.

    With `batch_eval_metrics` a trainer calls it once a batch, with `compute_result=True` on the last: only the matrix
    is kept in between.
    """

    def __init__(self, names: Sequence[str], num_classes: int) -> None:
        self.names, self.num_classes = tuple(names), num_classes
        self.confusion = self._nothing()
        self._counted = self._nothing()

    def __call__(self, predicted: Predicted, compute_result: bool = True) -> dict[str, float]:
        """Count a batch or a whole evaluation, and return the metrics when the result is asked for."""
        scores = predicted.predictions
        scores = np.asarray(scores[0] if isinstance(scores, tuple) else scores)
        self._counted = self._counted + confusion_matrix(
            np.asarray(predicted.label_ids), scores.argmax(axis=-1), self.num_classes
        )
        if not compute_result:
            return {}
        self.confusion, self._counted = self._counted, self._nothing()
        return {name: METRICS[name](self.confusion) for name in self.names}

    def _nothing(self) -> IntArray:
        return np.zeros((self.num_classes, self.num_classes), dtype=np.int64)


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> FloatArray:
    """Divide, with 0 where there is nothing to divide by."""
    top, bottom = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom != 0)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else 0.0
