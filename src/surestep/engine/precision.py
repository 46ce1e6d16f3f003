"""In which number format the model computes, and what that asks of backward and of the optimizer step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surestep.errors import ArgumentError
from surestep.runtime.device import supports_bf16
from surestep.runtime.nested import map_structure


def _to_float32(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16):
        return leaf.float()
    return leaf


def _is_applied(model: nn.Module) -> bool:
    return hasattr(vars(model).get("forward"), "surestep_precision")


class Precision:
    """Float32 throughout: nothing around forward, plain backward, plain step. Base of the others."""

    name = "no"
    scaler: torch.amp.GradScaler | None = None

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Make `model` compute in this precision inside the block."""
        del model
        yield

    def apply_to(self, model: nn.Module) -> None:
        """Make a further model, such as a teacher, compute in this precision for good."""

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward from `loss`."""
        torch.autograd.backward(loss, **kwargs)

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring gradients to their true size before they are clipped or looked at."""

    def step(self, optimizer: Optimizer) -> bool:
        """Step the optimizer; False where the step was skipped because of an overflow."""
        optimizer.step()
        return True

    def state_dict(self) -> dict[str, Any] | None:
        """Return what evolves, or None where nothing does."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class Autocast(Precision):
    """Bfloat16 where it is safe: forward runs under autocast and hands out float32.

    Only the model's forward is under autocast, so a loss computed outside the model sees float32 logits, as with the
    original.
    """

    name = "bf16"
    dtype = torch.bfloat16

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._check(device)

    def _check(self, device: torch.device) -> None:
        if not supports_bf16(device):
            raise ArgumentError(f"bf16 is True, but {device} does not compute in bfloat16. Set fp16=True or neither.")

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put autocast around `model.forward` for the length of the block; nested blocks add nothing."""
        own = vars(model).get("forward")
        if _is_applied(model):
            yield
            return
        self.apply_to(model)
        try:
            yield
        finally:
            if own is None:
                del model.forward
            else:
                model.forward = own

    def apply_to(self, model: nn.Module) -> None:
        """Put autocast around `model.forward`, once."""
        if not _is_applied(model):
            model.forward = self._wrapped(model.forward)

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        device_type, dtype = self._device.type, self.dtype

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast(device_type, dtype):
                outputs = forward(*args, **kwargs)
            return map_structure(_to_float32, outputs)

        run.surestep_precision = self.name  # type: ignore[attr-defined]
        return run


class ScaledAutocast(Autocast):
    """Float16 with a loss scale that grows while gradients are finite and shrinks when they are not."""

    name = "fp16"
    dtype = torch.float16

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.scaler: torch.amp.GradScaler = torch.amp.GradScaler(device.type)
        self._unscaled = False
        self._stepped = False
        self._watched: Optimizer | None = None

    def _check(self, device: torch.device) -> None:
        if device.type == "mps":
            raise ArgumentError("fp16 is True, but mps has no loss scaling. Set bf16=True or neither.")

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward from the scaled loss."""
        torch.autograd.backward(self.scaler.scale(loss), **kwargs)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, once a step."""
        if not self._unscaled:
            self.scaler.unscale_(optimizer)
            self._unscaled = True

    def step(self, optimizer: Optimizer) -> bool:
        """Step unless a gradient overflowed, then adapt the scale."""
        self._watch(optimizer)
        self._stepped = self._unscaled = False
        self.scaler.step(optimizer)
        self.scaler.update()
        return self._stepped

    def _watch(self, optimizer: Optimizer) -> None:
        """Learn from the optimizer itself whether it stepped; comparing scales would read the device every step."""
        if optimizer is not self._watched:
            optimizer.register_step_post_hook(self._note_step)
            self._watched = optimizer

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    def state_dict(self) -> dict[str, Any] | None:
        """Return the scale and its growth counter."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the scale back."""
        self.scaler.load_state_dict(state)


def make_precision(name: str, device: torch.device) -> Precision:
    """Return the precision called `name` (`no`, `bf16`, `fp16`, `fp8`) on `device`."""
    kinds: dict[str, Callable[[], Precision]] = {
        "no": Precision,
        "bf16": lambda: Autocast(device),
        "fp16": lambda: ScaledAutocast(device),
        "fp8": lambda: _float8(device),
    }
    if name not in kinds:
        raise ArgumentError(f"mixed precision is '{name}'; this machine serves {', '.join(kinds)}.")
    return kinds[name]()


def _float8(device: torch.device) -> Precision:
    from surestep.engine.float8 import Float8

    return Float8(device)
