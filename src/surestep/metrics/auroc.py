"""The area under the receiver operating characteristic, exact: over the order of all scores.

It needs every score, so these are kept on disk, and brought together over the ranks class by class: in memory is one
score a position.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surestep.errors import DataError
from surestep.logs import get_logger, warn_once
from surestep.losses.shift import IGNORED
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.ranks import Ranks
from surestep.metrics.spill import Array, Column, Store
from surestep.metrics.task import PredictionBatch, Reading

logger = get_logger(__name__)
# How many weights a block of repetitions has in memory at a time.
_BLOCK = 2**23


class Auroc:
    """The area under the curve of a binary task; of classes or labels one by one the mean.

    In a multi-class task each class is set against all others. Scores are probabilities there, in a binary or
    multi-label task logits, whose order is the same. Classes that all or no positions have are left out, and said.
    """

    higher_is_better: bool | None = True

    def __init__(self, reading: Reading, bootstrap: Bootstrap | None = None) -> None:
        self.reading, self.bootstrap = reading, bootstrap
        self._found: dict[str, float] = {}
        # A limit below nothing: the first score is written to disk.
        self._store = Store(-1)
        self.reset()

    def reset(self) -> None:
        """Forget the scores."""
        self._store.close()
        self._scores, self._targets, self._positions = (Column(self._store) for _ in range(3))
        self._seen = False

    def update(self, batch: PredictionBatch) -> None:
        """Write the scores of a batch to disk."""
        scores, targets, sample = _scored(batch)
        self._seen = True
        self._scores.append(_numbers(scores))
        self._targets.append(targets.to(torch.int32).cpu().numpy())
        if self.bootstrap is not None:
            self._positions.append(np.asarray(batch.positions, np.int64)[sample.cpu().numpy()])

    def merge(self, ranks: Ranks) -> None:
        """Bring the scores of the ranks together, class by class, and keep the areas."""
        with self._store:
            task = self.reading.task
            if task is None:
                return
            scores, targets = (self._joined(column) for column in (self._scores, self._targets))
            numbers = None if self.bootstrap is None else _everywhere(self._joined(self._positions), ranks)
            areas, repeated = [], []
            for place in range(1 if task.kind == "binary" else task.classes):
                column = _everywhere(None if scores is None else scores[:, place], ranks)
                truth = _everywhere(None if targets is None else _of(targets, place, task.kind), ranks)
                ranking = _Ranking(column, truth)
                areas.append(ranking.area())
                if self.bootstrap is not None:
                    repeated.append(ranking.repeated(self.bootstrap, numbers))
            self._found = self._figures(areas, repeated)

    def _joined(self, column: Column) -> Array | None:
        return column.joined(IGNORED) if self._seen else None

    def _figures(self, areas: list[float], repeated: list[Array]) -> dict[str, float]:
        known = [area for area in areas if not math.isnan(area)]
        if len(known) < len(areas):
            warn_once(
                logger,
                f"The metric 'auroc' leaves out {len(areas) - len(known)} of {len(areas)} classes, which all positions "
                "have, or none. Evaluate on a set in which each class occurs.",
            )
        figures = {"": sum(known) / len(known) if known else math.nan}
        if self.bootstrap is None:
            return figures
        kept = [one for one, area in zip(repeated, areas, strict=True) if not math.isnan(area)]
        low, high = self.bootstrap.interval(np.mean(kept, axis=0)) if kept else (math.nan, math.nan)
        return {**figures, "_low": low, "_high": high}

    def compute(self) -> dict[str, float]:
        """Return the area, and its bounds where there is a bootstrap."""
        found, self._found = self._found, {}
        return found


def _scored(batch: PredictionBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (positions, columns), targets, and the sample of each position, of what counts."""
    task = batch.task
    if task.kind == "regression":
        raise DataError("The metric 'auroc' needs classes, and the labels are those of a regression. Write 'mse'.")
    if task.kind == "multilabel":
        scores, actual, counted = batch.several
        return scores, actual.masked_fill(~counted, IGNORED), torch.arange(len(actual))
    found = batch.classified
    if found.scores is None:
        raise DataError(
            "The metric 'auroc' needs scores, and the predictions are numbers of classes. Return logits from "
            "preprocess_logits_for_metrics."
        )
    scores = found.scores if found.scores.dtype == torch.float64 else found.scores.float()
    if task.kind == "multiclass":
        scores = scores.softmax(1)
    elif scores.shape[1] == 2:
        scores = scores[:, 1:] - scores[:, :1]
    kept = found.counted
    return scores[kept], found.actual[kept], found.sample[kept]


def _numbers(scores: Tensor) -> Array:
    wide = scores if scores.dtype == torch.float64 else scores.float()
    numbers: Array = wide.detach().cpu().numpy()
    return numbers


def _of(targets: Array, place: int, kind: str) -> Array:
    """Return 1, 0 or -100 for each position: whether it is of a class."""
    if kind == "multilabel":
        return targets[:, place]
    return targets if kind == "binary" else (targets == place).astype(np.int32)


def _everywhere(values: Array | None, ranks: Ranks) -> Array:
    """Return the values of all ranks."""
    own = None if values is None else torch.from_numpy(np.ascontiguousarray(values))
    gathered: Any = ranks.gather(own)
    array: Array = gathered.numpy()
    return array


class _Ranking:
    """Positions in the order of their scores, with those of one score together."""

    def __init__(self, scores: Array, truth: Array) -> None:
        counted = np.flatnonzero(truth != IGNORED)
        self.order = counted[np.argsort(scores[counted], kind="stable")]
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, int)
        self.positive = truth[self.order] == 1

    def area(self, weights: Array | None = None) -> Any:
        """Return the area, of each row of weights where there are some; NaN where one side is empty."""
        if not len(self.order):
            return math.nan if weights is None else np.full(len(weights), math.nan)
        given = np.ones((1, len(self.order))) if weights is None else weights
        positive = np.add.reduceat(given * self.positive, self.starts, axis=1)
        negative = np.add.reduceat(given * ~self.positive, self.starts, axis=1)
        below = negative.cumsum(axis=1) - negative / 2
        with np.errstate(invalid="ignore"):
            areas = (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
        return float(areas[0]) if weights is None else areas

    def repeated(self, bootstrap: Bootstrap, numbers: Array | None) -> Array:
        """Return the area of each repetition; `numbers` are those of the samples in the dataset."""
        assert numbers is not None
        own = numbers[self.order]
        size = max(1, _BLOCK // max(1, len(own)))
        starts = range(0, bootstrap.repetitions, size)
        blocks = (range(start, min(start + size, bootstrap.repetitions)) for start in starts)
        return np.concatenate([self.area(bootstrap.weights(own, block)) for block in blocks])
