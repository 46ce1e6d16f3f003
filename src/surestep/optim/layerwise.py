"""An optimizer that updates each parameter during backward, so that no two gradients need to be held at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surestep.logs import get_logger, warn_once

_logger = get_logger(__name__)


class LayerwiseOptimizer(Optimizer):
    """Steps an optimizer of the class `inner` for each parameter as soon as its gradient is complete, then drops it.

    Groups, rates and state are those of an ordinary optimizer, so that schedules and checkpoints work; `step` has
    nothing left to do. There are no gradients after backward: they can be neither clipped nor accumulated.
    """

    def __init__(self, params: Iterable[Any], lr: float, inner: Callable[..., Optimizer], **options: Any) -> None:
        super().__init__(params, {"lr": lr})
        self._inner: dict[Tensor, Optimizer] = {}
        self._groups: dict[Tensor, dict[str, Any]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                alone = {key: value for key, value in group.items() if key != "params"}
                self._inner[parameter] = inner([{**alone, "params": [parameter]}], lr=lr, **options)
                # Some optimizers put something into the state when they are made.
                self.state.update(self._inner[parameter].state)
                parameter.register_post_accumulate_grad_hook(self._update)
        self._link()
        warn_once(_logger, "a layer-wise optimizer updates during backward: gradients are not clipped")

    def _link(self) -> None:
        """Let every inner optimizer use this one's state, and find each parameter's group."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._groups[parameter] = group
                self._inner[parameter].state = self.state

    def _update(self, parameter: nn.Parameter) -> None:
        optimizer = self._inner[parameter]
        optimizer.param_groups[0]["lr"] = self._groups[parameter]["lr"]
        optimizer.step()
        parameter.grad = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._link()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Return what `closure` returned; the parameters were updated by its backward."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()
