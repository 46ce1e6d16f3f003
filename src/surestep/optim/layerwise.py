"""An optimizer that updates each parameter during backward, so that no two gradients need to be held at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

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


class LayerWiseDummyOptimizer(Optimizer):
    """Stands in for the optimizers of `optimizer_dict`, one a parameter, which hooks of a script step during backward.

    The original's name. `get_scheduler` makes a schedule for each of them. Ours is `LayerwiseOptimizer`, which brings
    its hooks along.
    """

    def __init__(self, optimizer_dict: Mapping[Any, Optimizer] | None = None, **kwargs: Any) -> None:
        self.optimizer_dict = optimizer_dict
        super().__init__([torch.zeros(1, 1)], {"lr": kwargs.get("lr", 1e-3)})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the hooks dropped the gradients."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Return what `closure` returned; the hooks made the step."""
        return None if closure is None else closure()


class LayerWiseDummyScheduler(LRScheduler):
    """Shows the rates of the optimizers of `optimizer_dict`, whose own schedules hooks of a script step."""

    def __init__(self, *_: Any, **kwargs: Any) -> None:
        self.default_lr = kwargs["lr"]
        super().__init__(LayerWiseDummyOptimizer(**kwargs))

    def step(self, epoch: int | None = None) -> None:
        """Note the rates that the hooks have come to; there is nothing to set."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._last_lr = self.get_lr()

    def get_lr(self) -> list[Any]:
        """Return the rate of every group of every optimizer."""
        optimizers = vars(self.optimizer)["optimizer_dict"]
        if not optimizers:
            return [self.default_lr]
        return [group["lr"] for optimizer in optimizers.values() for group in optimizer.param_groups]
