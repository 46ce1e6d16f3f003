"""Comparing what two runs came to."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Figures of the clock: their names must agree, their values cannot.
CLOCK = ("_runtime", "_per_second", "_model_preparation_time")
# Evaluation sums in float64 and the original in float32.
_SUMS = 1e-6
# Compared on their own, or a matter of each side's own callbacks.
_APART = {"log_history", "best_model_checkpoint", "stateful_callbacks", "best_metric"}


@dataclass
class Seen:
    """What a run came to."""

    logs: list[dict[str, Any]]
    events: list[str]
    weights: dict[str, Tensor]
    numbers: list[int]
    losses: list[float]
    state: Any
    output: Any
    optimizer: Any = field(repr=False)
    rates: list[float]
    files: list[str]
    trainer: Any = field(repr=False)

    @property
    def last_logs(self) -> dict[str, Any]:
        """Every figure that was logged, in its last value."""
        return {name: value for entry in self.logs for name, value in entry.items()}


def assert_same(theirs: Seen, ours: Seen, *, tolerance: float = 0.0) -> None:
    """Compare all that was seen; `tolerance` is relative, 0 means bit for bit."""
    assert ours.numbers == theirs.numbers, "order of samples"
    assert ours.events == theirs.events, "events"
    assert_close(theirs.losses, ours.losses, tolerance, "losses of micro-batches")
    assert_same_logs(theirs.logs, ours.logs, tolerance=tolerance)
    assert_close(theirs.weights, ours.weights, tolerance, "weights")
    assert_close(theirs.optimizer, ours.optimizer, tolerance, "optimizer state")
    assert_close(theirs.rates, ours.rates, tolerance, "learning rates")
    assert_same_state(theirs.state, ours.state, tolerance=tolerance)
    assert_close(_without_clock(theirs.output), _without_clock(ours.output), tolerance or _SUMS, "what was returned")


def assert_same_logs(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], *, tolerance: float = 0.0) -> None:
    """Compare log histories: names, their order, and values but those of the clock."""
    assert [_names(entry) for entry in ours] == [_names(entry) for entry in theirs], "names in the logs"
    for number, (entry, other) in enumerate(zip(theirs, ours, strict=True)):
        for name, value in entry.items():
            if not name.endswith(CLOCK):
                allowed = max(tolerance, _SUMS if name.endswith("_loss") and name != "train_loss" else 0.0)
                assert_close(value, other[name], allowed, f"log {number}, {name}")


def assert_same_state(theirs: Any, ours: Any, *, tolerance: float = 0.0) -> None:
    """Compare two `TrainerState`s field by field; the best checkpoint by its name."""
    one, other = dataclasses.asdict(theirs), dataclasses.asdict(ours)
    assert one.keys() == other.keys(), "fields of the state"
    for name in one.keys() - _APART:
        assert_close(one[name], other[name], tolerance, f"state.{name}")
    assert_close(one["best_metric"], other["best_metric"], tolerance or _SUMS, "state.best_metric")
    assert _name(one["best_model_checkpoint"]) == _name(other["best_model_checkpoint"])


def assert_close(one: Any, other: Any, tolerance: float, what: str) -> None:
    """Compare nested structures of numbers, arrays and tensors; NaN equals NaN."""
    if isinstance(one, dict):
        assert set(one) == set(other), f"{what}: {sorted(map(str, one))} there, {sorted(map(str, other))} here"
        for name, value in one.items():
            assert_close(value, other[name], tolerance, f"{what}, {name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), f"{what}: {len(one)} there, {len(other)} here"
        for number, (value, twin) in enumerate(zip(one, other, strict=True)):
            assert_close(value, twin, tolerance, f"{what}[{number}]")
    elif isinstance(one, np.ndarray | Tensor):
        _assert_close_arrays(torch.as_tensor(one), torch.as_tensor(other), tolerance, what)
    elif isinstance(one, float) and isinstance(other, float):
        same = one == other or math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-12 if tolerance else 0.0)
        assert same or (math.isnan(one) and math.isnan(other)), f"{what}: {one!r} there, {other!r} here"
    else:
        assert one == other, f"{what}: {one!r} there, {other!r} here"


def _assert_close_arrays(one: Tensor, other: Tensor, tolerance: float, what: str) -> None:
    assert one.dtype == other.dtype, f"{what}: {one.dtype} there, {other.dtype} here"
    torch.testing.assert_close(
        other, one, rtol=tolerance, atol=tolerance * 0.1, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


def _names(entry: dict[str, Any]) -> list[str]:
    """Return the names of a log entry in their order; where the time to prepare a model stands does not matter."""
    late = "_model_preparation_time"
    return sorted(entry, key=lambda name: name.endswith(late))


def _name(path: str | None) -> str | None:
    return None if path is None else Path(path).name


def _without_clock(output: Any) -> Any:
    """Return what a trainer returned as plain data, figures of the clock by name only.

    Without `total_flos`: the original's printer takes it out of what `train` returns (see docs/differences.md).
    """
    if isinstance(output, dict):
        kept = {name: value for name, value in output.items() if name != "total_flos"}
        return {name: 0.0 if name.endswith(CLOCK) else _without_clock(value) for name, value in kept.items()}
    if isinstance(output, list | tuple):
        return [_without_clock(value) for value in output]
    return output
