"""Metrics of torchmetrics, fed with what they expect and merged over uneven ranks.

Torchmetrics exchanges the states of ranks by itself, and waits for ever where one rank has kept more than another; it
also takes scores for probabilities if those of a batch happen to lie between 0 and 1. So states are merged here, and
classification metrics get probabilities.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from surestep.errors import ArgumentError, DataError
from surestep.logs import get_logger, warn_once
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.ranks import Ranks
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch
from surestep.metrics.text import texts

logger = get_logger(__name__)
_FAMILIES = re.compile(r"torchmetrics\.(classification|regression|text)\.(\w+)")
# Metrics that take several references for a text.
_SEVERAL_REFERENCES = ("bleu", "sacre_bleu", "chrf", "ter")


def is_torchmetric(value: Any) -> bool:
    """Say whether `value` is a metric of torchmetrics, or a collection of them."""
    package = sys.modules.get("torchmetrics")
    return package is not None and isinstance(value, package.Metric | package.MetricCollection)


class TorchMetric:
    """A metric (or a collection) of torchmetrics in an evaluation; a copy, so that the user's stays as it is.

    Float states are kept in float64, unless the metric has a model of its own.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = deepcopy(metric)
        self.higher_is_better: bool | None = getattr(metric, "higher_is_better", None)
        self._family = _family_of(self.metric)
        self._parts = [part for part in self.metric.modules() if _is_metric(part)]
        for part in self._parts:
            part.distributed_available_fn = _never
            _tell_of_lists(part)
        self._kept: list[tuple[int, dict[str, Any]]] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.metric.reset()
        self._device: torch.device | None = None

    def update(self, batch: PredictionBatch) -> None:
        """Take a batch of this rank."""
        predictions, labels = self._feed(batch)
        # Torchmetrics cannot take what has no position, such as a batch whose labels are all ignored.
        if isinstance(labels, Tensor) and not labels.numel():
            return
        self._place(predictions.device if isinstance(predictions, Tensor) else torch.device("cpu"))
        try:
            self.metric.update(predictions, labels)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise DataError(
                f"The metric {type(self.metric).__name__} cannot take predictions of {_shape(predictions)} and labels "
                f"of {_shape(labels)}: {error}"
            ) from error

    def _place(self, device: torch.device) -> None:
        """Move the metric to a device, the first time."""
        if device == self._device:
            return
        self.metric.to(device)
        self._device = device
        if device.type != "mps" and not any(True for _ in self.metric.parameters()):
            self.metric.set_dtype(torch.float64)

    def _feed(self, batch: PredictionBatch) -> tuple[Any, Any]:
        """Return predictions and labels in the form that the metric expects."""
        family, module = self._family
        if family == "classification":
            return _probabilities(batch, binary=type(self._parts[-1]).__name__.startswith("Binary"))
        if family == "regression":
            predictions, labels = batch.amounts
            return predictions.squeeze(1), labels.squeeze(1)
        if module == "perplexity":
            found = batch.classified
            return found.scores[None, found.counted], found.actual[None, found.counted]  # type: ignore[index]
        if family == "text":
            said, wanted = texts(batch)
            return said, [[one] for one in wanted] if module in _SEVERAL_REFERENCES else wanted
        return batch.predictions, batch.labels

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the metric and of those in it, for a checkpoint."""
        return {
            "updates": [part._update_count for part in self._parts],
            "states": [_states(part) for part in self._parts],
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Put the states back."""
        self._place(device)
        for part, updates, states in zip(self._parts, state["updates"], state["states"], strict=True):
            part._update_count = updates
            for name, value in states.items():
                moved = [one.to(device) for one in value] if isinstance(value, list) else value.to(device)
                setattr(part, name, moved)

    def keep(self) -> None:
        """Remember the states; lists only grow, so that their length does."""
        self._kept = [
            (part._update_count, {name: _copied(getattr(part, name)) for name in part._defaults})
            for part in self._parts
        ]

    def put_back_where(self, bad: Tensor) -> None:
        """Make the states what was remembered where `bad` holds; only where there are lists the host asks."""
        for part, (updates, states) in zip(self._parts, self._kept, strict=True):
            for name, before in states.items():
                setattr(part, name, _where(bad, before, getattr(part, name)))
            part._computed = None
            if bad.device.type == "cpu" and bad:
                part._update_count = updates

    def take_in(self, state: dict[str, Any], device: torch.device) -> None:
        """Add the states of another rank, reduced as the metric says."""
        if not any(part._update_count for part in self._parts):
            return self.load_state_dict(state, device)
        for part, updates, states in zip(self._parts, state["updates"], state["states"], strict=True):
            for name, value in states.items() if updates else ():
                setattr(part, name, _joined(getattr(part, name), value, part._reductions[name], device))
            part._update_count = max(part._update_count, updates)
        return None

    def merge(self, ranks: Ranks) -> None:
        """Reduce each state over the ranks as the metric says, leaving out those that have seen nothing."""
        if ranks.world.size == 1:
            return
        for part in self._parts:
            counts = ranks.agree(part._update_count)
            seen = part._update_count > 0
            for name, reduction in part._reductions.items():
                merged = _merged(getattr(part, name) if seen else None, reduction, ranks, part._defaults[name])
                setattr(part, name, merged)
            part._update_count = max(counts)
            part._computed = None

    def compute(self) -> dict[str, float]:
        """Return the figures: one, or those of a dict, or of each class."""
        if not any(part._update_count for part in self._parts):
            return {}
        return dict(_figures(self.metric.compute()))


class SummedTorchMetric(SummedMetric):
    """A metric of torchmetrics whose states are sums, sample by sample, for a confidence interval."""

    def __init__(self, metric: Any, bootstrap: Bootstrap) -> None:
        super().__init__(bootstrap)
        self._one = TorchMetric(metric)
        self.higher_is_better = self._one.higher_is_better
        if not _has_sums_alone(self._one.metric):
            raise ArgumentError(
                f"metrics_confidence needs metrics whose states are sums, and {type(metric).__name__} has others. "
                "Leave metrics_confidence out, or use metrics by name."
            )

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return the states after each sample alone."""
        rows = []
        for place in range(batch.size):
            self._one.reset()
            self._one.update(_sample(batch, place))
            rows.append(torch.cat([state.reshape(-1).double() for state in self._states()]))
        return torch.stack(rows)

    def _states(self) -> list[Tensor]:
        return [getattr(self._one.metric, name) for name in self._one.metric._defaults]

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return what the metric computes of each row of sums."""
        rows = sums.reshape(-1, sums.shape[-1])
        found = [self._of(row) for row in rows]
        return {name: torch.tensor([one[name] for one in found]).reshape(sums.shape[:-1]) for name in found[0]}

    def _of(self, row: Tensor) -> dict[str, float]:
        metric = self._one.metric
        metric.reset()
        start = 0
        for name, default in metric._defaults.items():
            end = start + default.numel()
            setattr(metric, name, row[start:end].reshape(default.shape).to(default.device, default.dtype))
            start = end
        metric._update_count = 1
        with _quiet():
            return self._one.compute()


def _states(metric: Any) -> dict[str, Any]:
    """Return the states of a metric on the host."""
    values = {name: getattr(metric, name) for name in metric._defaults}
    return {
        name: [one.cpu() for one in value] if isinstance(value, list) else value.cpu() for name, value in values.items()
    }


def _copied(state: Any) -> Any:
    return list(state) if isinstance(state, list) else state.clone()


def _where(bad: Tensor, before: Any, now: Any) -> Any:
    if isinstance(now, list):
        return before if bad else now
    return torch.where(bad.to(now.device), before.to(now), now)


def _never() -> bool:
    """Say that there are no other ranks: states are merged by us."""
    return False


def _is_metric(part: Any) -> bool:
    return hasattr(part, "_defaults") and hasattr(part, "_reductions")


def _has_sums_alone(metric: Any) -> bool:
    if not _is_metric(metric) or not metric._defaults or any(_is_metric(child) for child in metric.children()):
        return False
    summed = all(getattr(reduction, "__name__", "") == "dim_zero_sum" for reduction in metric._reductions.values())
    return summed and all(isinstance(default, Tensor) for default in metric._defaults.values())


def _family_of(metric: Any) -> tuple[str, str]:
    """Return what kind of predictions a metric reads, by where torchmetrics keeps it or what it wraps."""
    for part in metric.modules():
        found = next((_FAMILIES.match(kind.__module__) for kind in type(part).__mro__[:2] if kind.__module__), None)
        if found:
            return found[1], found[2]
    return "", ""


def _tell_of_lists(metric: Any) -> None:
    if any(isinstance(default, list) for default in metric._defaults.values()):
        warn_once(
            logger,
            f"The metric {type(metric).__name__} keeps every prediction in memory. Where it takes thresholds, set "
            "them; exact AUROC by name (metrics='auroc') keeps its scores on disk.",
        )


def _probabilities(batch: PredictionBatch, *, binary: bool) -> tuple[Tensor, Tensor]:
    """Return probabilities, or numbers of classes, and labels, of the positions that count."""
    if batch.task.kind == "multilabel":
        scores, actual, counted = batch.several
        return scores.sigmoid(), actual.masked_fill(~counted, -100)
    found = batch.classified
    actual = found.actual[found.counted]
    if found.scores is None:
        return found.predicted[found.counted], actual
    scores = found.scores[found.counted]
    if scores.shape[1] == 1:
        return scores[:, 0].sigmoid(), actual
    return (scores[:, 1] - scores[:, 0]).sigmoid() if binary else scores.softmax(1), actual


def _sample(batch: PredictionBatch, place: int) -> PredictionBatch:
    """Return one sample of a batch."""
    from surestep.runtime.nested import map_structure

    def cut(value: Any) -> Any:
        return map_structure(lambda leaf: leaf[place : place + 1] if isinstance(leaf, Tensor) else leaf, value)

    return PredictionBatch(cut(batch.predictions), cut(batch.labels), batch.reading, batch.inputs)


def _merged(value: Any, reduction: Any, ranks: Ranks, default: Any) -> Any:
    """Return a state of all ranks; `value` is None on a rank that has seen nothing."""
    if isinstance(default, list):
        return _merged_lists(value, ranks)
    stacked = ranks.gather(None if value is None else value[None])
    if stacked is None:
        return default.clone()
    if reduction is None:
        return stacked if len(stacked) > 1 else stacked[0]
    return reduction(stacked)


def _joined(own: Any, other: Any, reduction: Any, device: torch.device) -> Any:
    """Return a state of two ranks."""
    if isinstance(own, list):
        return [*own, *(one.to(device) for one in other)]
    stacked = torch.stack([own, other.to(device)])
    return stacked if reduction is None else reduction(stacked)


def _merged_lists(values: list[Any] | None, ranks: Ranks) -> list[Any]:
    tensors = [value.reshape(1) if value.ndim == 0 else value for value in values or () if isinstance(value, Tensor)]
    gathered = ranks.gather(torch.cat(tensors) if tensors else None)
    return [] if gathered is None else [gathered]


def _figures(value: Any, suffix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a result with what follows the metric's name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _figures(inner, f"{suffix}_{key}")
    elif isinstance(value, Tensor) and value.ndim == 1 and value.numel() > 1:
        for place, number in enumerate(value.tolist()):
            yield f"{suffix}_{place}", number
    elif isinstance(value, Tensor) and value.numel() == 1:
        yield suffix, float(value)
    else:
        raise ArgumentError(
            f"A metric computes {_shape(value)}, which is no figure. Use one that gives a number, a vector or a dict."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what a metric warns of when a repetition lacks a class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
    return f"type {type(value).__name__}"
