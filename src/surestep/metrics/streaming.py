"""Metrics that see one batch after the other and keep sums, never predictions.

A metric owns its sums. Over ranks they are added up, so that the result is that of one process, whatever the size of
a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_once
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.ranks import Ranks, exact, summed
from surestep.metrics.task import PredictionBatch, Reading, Task

logger = get_logger(__name__)

# What repetitions may take, in bytes: more is refused before it is allocated.
_MOST_BYTES = 2**30


class StreamingMetric(Protocol):
    """A metric that can be given in `metrics=`: ours, or your own.

    `compute` names its figures by what follows the metric's name: `""` for a single one, `"_f1"` for one of several.
    """

    higher_is_better: bool | None

    def update(self, batch: PredictionBatch) -> None:
        """Take a batch of this rank."""

    def merge(self, ranks: Ranks) -> None:
        """Bring together what the ranks have seen; every rank calls it, those without a batch too."""

    def compute(self) -> Mapping[str, float]:
        """Return the figures of everything merged."""

    def reset(self) -> None:
        """Forget everything."""


class SummedMetric(ABC):
    """A metric that is a function of sums over samples: a subclass says what is summed, and what the sums come to."""

    higher_is_better: bool | None = True

    def __init__(self, bootstrap: Bootstrap | None = None) -> None:
        self.bootstrap = bootstrap
        self.sums: Tensor | None = None
        self.repeated: Tensor | None = None
        self._kept: Tensor | None = None

    @abstractmethod
    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return what each sample adds: shape (samples, sums)."""

    @abstractmethod
    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return figures, by what follows the metric's name, from sums along the last dimension."""

    def total(self, batch: PredictionBatch) -> Tensor:
        """Return what a whole batch adds."""
        return self.terms(batch).sum(0)

    def update(self, batch: PredictionBatch) -> None:
        """Add a batch of this rank."""
        if self.bootstrap is None:
            total = exact(self.total(batch))
        else:
            terms = exact(self.terms(batch))
            total = terms.sum(0)
            self._repeat(terms, batch.positions, self.bootstrap)
        self.sums = _added(self.sums, total)

    def _repeat(self, terms: Tensor, positions: Any, bootstrap: Bootstrap) -> None:
        size = bootstrap.repetitions * terms.shape[1] * 8
        if size > _MOST_BYTES:
            raise ArgumentError(
                f"metrics_confidence would keep {size / 2**30:.1f} GiB for {type(self).__name__}, which sums "
                f"{terms.shape[1]} numbers {bootstrap.repetitions} times. Leave it out, or use a metric without sums "
                "for each class, such as accuracy."
            )
        drawn = torch.from_numpy(bootstrap.weights(positions)).to(terms.device)
        added = drawn @ terms
        self.repeated = _added(self.repeated, added)

    def merge(self, ranks: Ranks) -> None:
        """Add up the sums of the ranks."""
        self.sums = summed(self.sums, ranks)
        if self.bootstrap is not None:
            self.repeated = summed(self.repeated, ranks)

    def compute(self) -> dict[str, float]:
        """Return the figures, with `_low` and `_high` after each where there is a bootstrap; none without a sample."""
        if self.sums is None:
            return {}
        found = {name: float(value) for name, value in self.figures(self.sums.cpu()).items()}
        if self.bootstrap is None or self.repeated is None:
            return found
        bounds = {}
        for name, values in self.figures(self.repeated.cpu()).items():
            bounds[f"{name}_low"], bounds[f"{name}_high"] = self.bootstrap.interval(values)
        return found | bounds

    def reset(self) -> None:
        """Forget the sums."""
        self.sums = self.repeated = None

    def keep(self) -> None:
        """Remember the sums as they are."""
        self._kept = None if self.sums is None else self.sums.clone()

    def put_back_where(self, bad: Tensor) -> None:
        """Make the sums what was remembered where `bad` holds, without asking the host."""
        if self.sums is not None:
            before = torch.zeros_like(self.sums) if self._kept is None else self._kept
            self.sums = torch.where(bad.to(self.sums.device), before, self.sums)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        return {"sums": None if self.sums is None else self.sums.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Put the sums back."""
        self.sums = None if state["sums"] is None else exact(state["sums"].to(device)).clone()

    def take_in(self, state: dict[str, Any], device: torch.device) -> None:
        """Add the sums of another rank."""
        if state["sums"] is not None:
            self.sums = _added(self.sums, exact(state["sums"].to(device)))


def _added(sums: Tensor | None, more: Tensor) -> Tensor:
    """Add in place: what is kept stays where it is, and no memory of a batch is kept from being used again."""
    return more.clone() if sums is None else sums.add_(more)


class StreamingMetrics:
    """The metrics of an evaluation, or of the steps since the last log, by name."""

    def __init__(self, metrics: Mapping[str, StreamingMetric], reading: Reading) -> None:
        self.metrics = dict(metrics)
        self.reading = reading

    def update(self, predictions: Any, labels: Any, inputs: Any = None, positions: Any = None) -> None:
        """Take a batch of this rank; one without predictions or labels has nothing to measure."""
        if predictions is None or labels is None:
            return
        batch = PredictionBatch(predictions, labels, self.reading, inputs, positions)
        for metric in self.metrics.values():
            metric.update(batch)

    def compute(self, ranks: Ranks) -> dict[str, float]:
        """Bring the ranks together, return all figures and start anew."""
        self.reading.agree(ranks)
        figures: dict[str, float] = {}
        for name, metric in self.metrics.items():
            metric.merge(ranks)
            for suffix, value in metric.compute().items():
                if name + suffix in figures:
                    raise ArgumentError(f"Two metrics give '{name + suffix}'. Name them in a dict: metrics={{...}}.")
                figures[name + suffix] = value
        self.reset()
        return figures

    def keep(self) -> None:
        """Remember what has been seen before the open step; metrics of the user's take part where they can."""
        for metric in self.metrics.values():
            if _can_go_back(metric):
                metric.keep()

    def put_back_where(self, bad: Tensor) -> None:
        """Forget the open step where `bad` holds."""
        for metric in self.metrics.values():
            if _can_go_back(metric):
                metric.put_back_where(bad)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen since the last `compute`, for a checkpoint."""
        task = self.reading.task
        return {
            "task": None if task is None else (task.kind, task.classes),
            "metrics": {name: metric.state_dict() for name, metric in self.metrics.items() if _can_save(metric)},
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Put it back; a metric that is new begins with nothing."""
        self.reading.task = None if state["task"] is None else Task(*state["task"])
        for name, metric in self.metrics.items():
            if name in state["metrics"] and _can_save(metric):
                metric.load_state_dict(state["metrics"][name], device)

    def take_in(self, state: dict[str, Any] | None, device: torch.device) -> None:
        """Add what another rank has seen, as its `state_dict` says; a metric that cannot do that says so."""
        if state is None:
            return
        self.reading.task = self.reading.task or (None if state["task"] is None else Task(*state["task"]))
        for name, metric in self.metrics.items():
            if name not in state["metrics"]:
                continue
            if hasattr(metric, "take_in"):
                metric.take_in(state["metrics"][name], device)
            else:
                warn_once(
                    logger,
                    f"train_metrics: the state of '{name}' cannot be shared out among other processes, so the next log "
                    f"is of the steps from here on. Give {type(metric).__name__} a method take_in(state, device).",
                )

    def __enter__(self) -> StreamingMetrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        for metric in self.metrics.values():
            metric.reset()


def _can_go_back(metric: Any) -> TypeGuard[Any]:
    return hasattr(metric, "keep") and hasattr(metric, "put_back_where")


def _can_save(metric: Any) -> TypeGuard[Any]:
    return hasattr(metric, "state_dict") and hasattr(metric, "load_state_dict")
