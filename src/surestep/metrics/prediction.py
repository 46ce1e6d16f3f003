"""What evaluation, prediction and training hand back, under the original's names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

# An array, or a nesting of tuples, lists and dicts of arrays, as the model returned them.
Arrays = Any


class EvalPrediction:
    """What `compute_metrics` receives. Unpacks as `predictions, label_ids` (and `inputs`, `losses` where asked for).

    Arrays have the samples along the first dimension. `inputs` and `losses` are there when `include_for_metrics`
    names them.
    """

    def __init__(
        self,
        predictions: Arrays,
        label_ids: Arrays,
        inputs: Arrays | None = None,
        losses: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.predictions = predictions
        self.label_ids = label_ids
        self.inputs = inputs
        self.losses = losses
        self.elements: tuple[Any, ...] = (predictions, label_ids)
        self.elements += tuple(extra for extra in (inputs, losses) if extra is not None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.elements)

    def __getitem__(self, index: int) -> Any:
        return self.elements[index]


class EvalLoopOutput(NamedTuple):
    """What `evaluation_loop` returns."""

    predictions: Arrays
    label_ids: Arrays | None
    metrics: dict[str, float] | None
    num_samples: int | None


class PredictionOutput(NamedTuple):
    """What `predict` returns."""

    predictions: Arrays
    label_ids: Arrays | None
    metrics: dict[str, float] | None


class PredictionMetrics(dict[str, float]):
    """The metrics of a prediction; those of a test set are found under the names of older versions as well.

    Up to 4.5 `predict` put `eval_` before every name, as `evaluate` does.
    """

    def __missing__(self, name: str) -> float:
        today = f"test_{name.removeprefix('eval_')}"
        if not name.startswith("eval_") or today not in self:
            raise KeyError(name)
        warnings.warn(f"The metrics of predict() are named '{today}' today, not '{name}'.", FutureWarning, stacklevel=2)
        return self[today]


class TrainOutput(NamedTuple):
    """What `train` returns; `training_loss` is the mean over the steps of this call."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]
