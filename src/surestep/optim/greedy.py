"""A schedule that follows a metric both ways: up while it improves, down when it does not."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, SupportsFloat

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from surestep.errors import ArgumentError


class StreamingAverage:
    """The mean of the last `window_size` values."""

    def __init__(self, window_size: int) -> None:
        self.window_size = window_size
        self.values: list[float] = []
        self.sum = 0.0

    def streamavg(self, value: float) -> float:
        """Take in `value` and return the mean of the window."""
        self.values.append(value)
        self.sum += value
        if len(self.values) > self.window_size:
            self.sum -= self.values.pop(0)
        return self.sum / len(self.values)

    def state_dict(self) -> dict[str, Any]:
        """Return the window as plain data."""
        return {"window_size": self.window_size, "values": self.values.copy(), "sum": self.sum}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.window_size = state_dict["window_size"]
        self.values = list(state_dict["values"])
        self.sum = state_dict["sum"]


class GreedyLR(LRScheduler):
    """Raises the rates after more than `patience` improvements in a row and cuts them after as many failures.

    A raise divides by `factor`, a cut multiplies. A change of at most `threshold` (absolute, or relative to the best
    under `threshold_mode='rel'`) is no improvement. `warmup` and `cooldown` are evaluations to sit out after a raise
    and after a cut; `smooth` judges the mean of the last `window_size` values; after `reset_start` cuts with every rate
    at its `min_lr`, the rates of the start return.

    The arguments, the saved state and the rates are those of the original (the method: arXiv 2512.14527).

    Raises:
        ArgumentError: A factor of 1 or more, an unknown mode, or a list of bounds of the wrong length.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: str = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: float | Sequence[float] = 1e-3,
        max_lr: float | Sequence[float] = 1.0,
        eps: float = 1e-8,
        verbose: bool = False,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ) -> None:
        if factor >= 1.0:
            raise ArgumentError(f"The greedy schedule's factor is {factor}; write one below 1.")
        for setting, value, known in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if value not in known:
                raise ArgumentError(f"The greedy schedule's {setting} is '{value}'; write {' or '.join(known)}.")
        self.optimizer = optimizer
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.warmup = warmup
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.eps = eps
        self.smooth = smooth
        self.window_size = window_size
        self.reset_start_original = reset_start
        self.last_epoch = 0
        self.min_lrs = self._per_group("min_lr", min_lr)
        self.max_lrs = self._per_group("max_lr", max_lr)
        self._init_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self._last_lr = [*self._init_lrs]
        self._forget()

    def _per_group(self, setting: str, value: float | Sequence[float]) -> list[float]:
        groups = len(self.optimizer.param_groups)
        if not isinstance(value, Sequence):
            return [value] * groups
        if len(value) != groups:
            raise ArgumentError(
                f"{setting} has {len(value)} values, the optimizer {groups} groups: write one number, or {groups}."
            )
        return list(value)

    def _forget(self) -> None:
        """Stand as at the start, the rates aside."""
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = self.num_good_epochs = 0
        self.cooldown_counter = self.warmup_counter = 0
        self.reset_start = self.reset_start_original
        self._average = StreamingAverage(self.window_size) if self.smooth else None

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]  # as torch's plateau
        """Judge the metric of an evaluation, and change the rates when patience ran out."""
        current = float(metrics)
        if self._average is not None:
            current = self._average.streamavg(current)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.cooldown_counter > 0 or self.warmup_counter > 0:
            self._sit_out()
        else:
            self._judge(current)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _sit_out(self) -> None:
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
        else:
            self.warmup_counter -= 1
        self.num_bad_epochs = self.num_good_epochs = 0

    def _judge(self, current: float) -> None:
        if self.is_better(current, self.best):
            self.best = current
            self.num_good_epochs, self.num_bad_epochs = self.num_good_epochs + 1, 0
        else:
            self.num_good_epochs, self.num_bad_epochs = 0, self.num_bad_epochs + 1
        if self.num_good_epochs > self.patience:
            self._raise()
            self.warmup_counter = self.warmup
            self.num_good_epochs = 0
        elif self.num_bad_epochs > self.patience:
            self._cut()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def is_better(self, current: float, best: float) -> bool:
        """Say whether `current` improves on `best` by more than the threshold."""
        sign = -1.0 if self.mode == "min" else 1.0
        relative = self.threshold_mode == "rel"
        mark = best * (1.0 + sign * self.threshold) if relative else best + sign * self.threshold
        return current < mark if self.mode == "min" else current > mark

    def _raise(self) -> None:
        for i, (group, highest) in enumerate(zip(self.optimizer.param_groups, self.max_lrs, strict=True)):
            self._set(i, group, min(float(group["lr"]) / self.factor, highest), upwards=True)
        self.reset_start = self.reset_start_original

    def _cut(self) -> None:
        groups = self.optimizer.param_groups
        for i, (group, lowest) in enumerate(zip(groups, self.min_lrs, strict=True)):
            self._set(i, group, max(float(group["lr"]) * self.factor, lowest), upwards=False)
        if any(group["lr"] > lowest for group, lowest in zip(groups, self.min_lrs, strict=True)):
            return
        self.reset_start -= 1
        if self.reset_start <= 0:
            for group, rate in zip(groups, self._init_lrs, strict=True):
                group["lr"] = rate
            self._forget()
            self._say("the greedy schedule starts over with the rates of the start")

    def _set(self, index: int, group: dict[str, Any], rate: float, *, upwards: bool) -> None:
        """Set a rate unless it would change by no more than `eps`, or in the wrong direction."""
        change = rate - float(group["lr"])
        if (change if upwards else -change) > self.eps:
            group["lr"] = rate
            self._say(f"evaluation {self.last_epoch}: learning rate of group {index} is now {rate:.4e}")

    def _say(self, message: str) -> None:
        if self.verbose:
            sys.stdout.write(message + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer as plain data, under the original's keys."""
        state = {key: value for key, value in vars(self).items() if key not in ("optimizer", "_average")}
        if self._average is not None:
            state["_streaming_avg"] = self._average.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned, the optimizer's rates included."""
        state = dict(state_dict)
        window = state.pop("_streaming_avg", None)
        vars(self).update(state)
        self._average = StreamingAverage(self.window_size) if window is not None else None
        if self._average is not None:
            self._average.load_state_dict(window)
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
