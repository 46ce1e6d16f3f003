"""What happened since the last log, summed on the device and read by the host once per log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Tally:
    """Sums between logs: the loss of every micro-batch, the steps, and the last step's norm and learning rate.

    `parts` are sums of the named losses of every step, where the loss has such.

    `hide_nonfinite` counts a loss that is not finite as the mean of those since the last log, which is what the
    original's `logging_nan_inf_filter` does to the log; weights and gradients do not know of it. `mean` gives the mean
    of a number over the ranks; each keeps its own sum until it is read.

    A step that is left out counts among the steps since the last log, but neither its loss nor itself in any mean.
    `counted` is the sum as the last step left it.
    """

    def __init__(
        self, device: torch.device, *, mean: Callable[[Tensor], Tensor] | None = None, hide_nonfinite: bool = False
    ) -> None:
        self.loss = torch.zeros((), device=device)
        self.counted = torch.zeros((), device=device)
        self.parts: dict[str, Tensor] = {}
        self._open_parts: dict[str, Tensor] = {}
        self.steps = 0
        self.left_out = 0
        self.grad_norm: Tensor | float | None = None
        self.learning_rate: Tensor | float | None = None
        self.logged_loss = 0.0
        self._logged_steps = 0
        self._hide_nonfinite = hide_nonfinite
        self._mean = mean

    def _total(self) -> float:
        """Read the sum of the losses: the mean of the ranks' sums, which every rank asks for at the same time."""
        return self._over_ranks(self.loss).item()

    def _over_ranks(self, value: Tensor) -> Tensor:
        return value if self._mean is None else self._mean(value)

    def add(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch, as `training_step` returned it: already divided for accumulation."""
        if self._hide_nonfinite:
            loss = torch.where(torch.isfinite(loss), loss, self.loss / (1 + self.steps))
        self.loss += loss

    def drop_open(self) -> None:
        """Forget the losses of the open group."""
        self.loss.copy_(self.counted)
        self._open_parts = {}

    def drop_open_where(self, bad: Tensor) -> None:
        """Do so on the device where `bad` holds, without asking the host."""
        torch.where(bad, self.counted, self.loss, out=self.loss)
        self._open_parts = {name: torch.where(bad, 0, value) for name, value in self._open_parts.items()}

    def add_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Add the named losses of the open group."""
        self._close_parts()
        for name, part in parts.items():
            value, before = part.float(), self.parts.get(name, torch.zeros_like(self.loss))
            if self._hide_nonfinite:
                value = torch.where(torch.isfinite(value), value, before / (1 + self.steps))
            self._open_parts[name] = value

    def _close_parts(self) -> None:
        for name, value in self._open_parts.items():
            self.parts[name] = self.parts[name] + value if name in self.parts else value
        self._open_parts = {}

    def drain_parts(self) -> dict[str, float]:
        """Return the mean of each named loss per step since the last log, and start anew; call it before `drain`."""
        self._close_parts()
        names, steps = sorted(self.parts), self.steps - self.left_out
        if not names:
            return {}
        sums = self._over_ranks(torch.stack([self.parts[name] for name in names]))
        self.parts = {}
        return {name: total / steps if steps else math.nan for name, total in zip(names, sums.tolist(), strict=True)}

    def drain(self) -> float:
        """Return the mean loss per step since the last log and start anew. This is the host read of a log.

        NaN where every step was left out.
        """
        total, steps = self._total(), self.steps - self.left_out
        self.loss.zero_()
        self.counted.zero_()
        self.logged_loss += total
        self.begin_anew()
        return total / steps if steps else math.nan

    def begin_anew(self, steps: int = 0) -> None:
        """Count the open steps as logged, but for `steps` of them."""
        self._logged_steps += self.steps - self.left_out - steps
        self.steps, self.left_out = steps, 0

    def mean_loss(self) -> float:
        """Return the mean loss per step of the whole run, across resumes."""
        steps = self._logged_steps + self.steps - self.left_out
        return (self.logged_loss + self._total()) / steps if steps else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, the open ones too, so that a resumed run logs what an uninterrupted one would have."""
        self._close_parts()
        return {
            "loss": self.loss.item(),
            "parts": {name: value.item() for name, value in self.parts.items()},
            "steps": self.steps,
            "left_out": self.left_out,
            "logged_loss": self.logged_loss,
            "logged_steps": self._logged_steps,
            "grad_norm": _number(self.grad_norm),
            "learning_rate": _number(self.learning_rate),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the sums back."""
        self.loss.fill_(state["loss"])
        self.counted.copy_(self.loss)
        parts: dict[str, float] = state.get("parts", {})
        self.parts = {name: torch.tensor(value, device=self.loss.device) for name, value in parts.items()}
        self.steps = state["steps"]
        self.left_out = state.get("left_out", 0)
        self.logged_loss = state["logged_loss"]
        self._logged_steps = state["logged_steps"]
        self.grad_norm = state["grad_norm"]
        self.learning_rate = state["learning_rate"]


def mean_over_ranks(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state in which every rank has the mean of the ranks' sums, from what `state_dict` gave on each."""
    names = {name for state in states for name in state["parts"]}
    parts = {name: sum(state["parts"].get(name, 0.0) for state in states) / len(states) for name in sorted(names)}
    return {**states[0], "loss": sum(state["loss"] for state in states) / len(states), "parts": parts}


def _number(value: Tensor | float | None) -> float | None:
    return None if value is None else float(value)
