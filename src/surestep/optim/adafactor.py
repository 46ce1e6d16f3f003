"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235): Adam's second moment kept as one row and one column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from surestep.errors import ArgumentError, ModelError
from surestep.optim import curves

_LOW = (torch.float16, torch.bfloat16)


class Adafactor(Optimizer):
    """Adafactor with the original's arguments, defaults and state.

    A parameter with two dimensions or more keeps the means of its squared gradients by row and by column, any other all
    of them; `beta1` adds a first moment. An update is scaled so that its root mean square is at most `clip_threshold`.

    `eps` is added to the squared gradient, and bounds the parameter scale from below. `scale_parameter` multiplies the
    rate by the parameter's root mean square. `relative_step` takes the place of `lr`: one over the root of the step, at
    most 0.01, or a millionth of the step under `warmup_init`. Parameters in 16 bits are updated in 32, and so is their
    state, also after loading.

    Raises:
        ArgumentError: Both `lr` and `relative_step`, or `warmup_init` without `relative_step`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        if lr is not None and relative_step:
            raise ArgumentError(f"Adafactor has lr={lr} and relative_step=True: write relative_step=False, or no lr.")
        if warmup_init and not relative_step:
            raise ArgumentError("Adafactor has warmup_init=True and relative_step=False: leave one out.")
        defaults = {
            "lr": lr,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "decay_rate": decay_rate,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(group, parameter)
        return loss

    def _update(self, group: dict[str, Any], parameter: Tensor) -> None:
        if parameter.grad is None or parameter.grad.is_sparse:
            raise ModelError("Adafactor takes no sparse gradients. Write sparse=False where the embedding is made.")
        gradient = _single(parameter.grad)
        weight = _single(parameter)
        state = self.state[parameter]
        if not state:
            state.update(_fresh_state(gradient, with_momentum=group["beta1"] is not None))
        state["step"] += 1
        if group["scale_parameter"]:
            state["RMS"] = _rms(weight)
        rate = self.rate(group, state)
        update = _second_moment(state, gradient, group).mul_(gradient)
        update.div_((_rms(update) / group["clip_threshold"]).clamp_(min=1.0)).mul_(rate)
        if group["beta1"] is not None:
            update = state["exp_avg"].mul_(group["beta1"]).add_(update, alpha=1 - group["beta1"])
        if group["weight_decay"] != 0:
            weight.sub_(weight * (group["weight_decay"] * rate))
        weight.sub_(update)
        if weight is not parameter:
            parameter.copy_(weight)

    @staticmethod
    def rate(group: dict[str, Any], state: dict[str, Any]) -> float | Tensor:
        """Return the rate of a parameter with this `state`: a scalar on the device if it scales with the parameter."""
        rate: float = group["lr"]
        if group["relative_step"]:
            highest = 1e-6 * state["step"] if group["warmup_init"] else 1e-2
            rate = min(highest, 1.0 / math.sqrt(state["step"]))
        if not group["scale_parameter"]:
            return rate
        scale: Tensor = state["RMS"]
        return scale.clamp(min=group["eps"][1]) * rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a state back as it was saved; torch would round it to the parameters' 16 bits."""
        super().load_state_dict(state_dict)
        indices = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for index, parameter in zip(indices, parameters, strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[parameter][key] = value.to(parameter.device, copy=True)


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _LOW else tensor


def _rms(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm / math.sqrt(tensor.numel())


def _fresh_state(gradient: Tensor, *, with_momentum: bool) -> dict[str, Any]:
    state: dict[str, Any] = {"step": 0, "RMS": gradient.new_zeros(())}
    if with_momentum:
        state["exp_avg"] = torch.zeros_like(gradient)
    if gradient.ndim >= 2:
        state["exp_avg_sq_row"] = gradient.new_zeros(gradient.shape[:-1])
        state["exp_avg_sq_col"] = gradient.new_zeros(gradient.shape[:-2] + gradient.shape[-1:])
    else:
        state["exp_avg_sq"] = torch.zeros_like(gradient)
    return state


def _second_moment(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Take the gradient into the running squares; return one over their root, in the gradient's shape."""
    beta2 = 1.0 - state["step"] ** group["decay_rate"]
    squares = gradient**2 + group["eps"][0]
    if "exp_avg_sq" in state:
        full: Tensor = state["exp_avg_sq"].mul_(beta2).add_(squares, alpha=1.0 - beta2)
        return full.rsqrt()
    row: Tensor = state["exp_avg_sq_row"].mul_(beta2).add_(squares.mean(dim=-1), alpha=1.0 - beta2)
    column: Tensor = state["exp_avg_sq_col"].mul_(beta2).add_(squares.mean(dim=-2), alpha=1.0 - beta2)
    return (row / row.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1) * column.unsqueeze(-2).rsqrt()


class AdafactorSchedule(LambdaLR):
    """Shows the rates that Adafactor works out for itself, of each group's first parameter: for logs.

    Before a group's first step its rate is `initial_lr`.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float = 0.0) -> None:
        for group in optimizer.param_groups:
            group["initial_lr"] = initial_lr
        super().__init__(optimizer, curves.constant)
        for group in optimizer.param_groups:
            del group["initial_lr"]

    def get_lr(self) -> list[float | Tensor]:
        """Return a rate for each group."""
        groups = zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        return [self._rate(group, initial) for group, initial in groups]

    def _rate(self, group: dict[str, Any], initial: float | Tensor) -> float | Tensor:
        state = self.optimizer.state.get(group["params"][0]) if group["params"] else None
        return Adafactor.rate(group, state) if state else initial


def get_adafactor_schedule(optimizer: Optimizer, initial_lr: float = 0.0) -> AdafactorSchedule:
    """Return the schedule that shows Adafactor's own rates."""
    return AdafactorSchedule(optimizer, initial_lr)
