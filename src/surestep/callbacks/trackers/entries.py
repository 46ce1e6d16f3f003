"""What trackers are given: entries of the log, under the names by which trackers group them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Figures of a whole training: trackers with a place for single values keep them there and not as a series.
SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")


@dataclass(frozen=True)
class Entry:
    """Figures logged after `step`. `replayed` ones come from the log of the run that is resumed."""

    step: int
    values: Mapping[str, Any]
    epoch: float | None = None
    replayed: bool = False

    def series(self) -> dict[str, Any]:
        """Return what is a point of a curve, under the names that trackers group by."""
        return rewrite_logs({name: value for name, value in self.values.items() if name not in SUMMARY})

    def summary(self) -> dict[str, Any]:
        """Return the figures of the whole training, under their own names."""
        return {name: self.values[name] for name in SUMMARY if name in self.values}


def history(log: list[dict[str, Any]]) -> list[Entry]:
    """Return the entries of a `state.log_history`."""
    return [
        Entry(entry["step"], {name: value for name, value in entry.items() if name != "step"}, entry.get("epoch"), True)
        for entry in log
    ]


def number(value: Any) -> int | float | None:
    """Return a number, also of an array or tensor with one element; None for anything else."""
    if isinstance(value, int | float):
        return value
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", None) is not None and _elements(value) == 1:
        return number(item())
    return None


def _elements(value: Any) -> int:
    return int(value.numel() if hasattr(value, "numel") else value.size)


def rewrite_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry under the names that trackers group by: eval_x is eval/x, test_x is test/x, x is train/x."""
    return {_grouped(name): value for name, value in logs.items()}


def _grouped(name: str) -> str:
    for group in ("eval", "test"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return f"train/{name}"
