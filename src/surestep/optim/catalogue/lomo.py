"""LOMO and AdaLomo, made to work as ordinary optimizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch.optim import Optimizer

from surestep.optim.recipe import Imported

# What AdaLomo keeps outside of the optimizer's state: the means of squared gradients, by the parameters' names.
_MEANS = ("exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col")


@cache
def lomo(name: str) -> type[Optimizer]:
    """Return `Lomo` or `AdaLomo` of lomo-optim as a class that an ordinary loop can drive.

    The package updates in the hooks of backward but wants its own `fused_backward(loss, lr)` in the place of
    `loss.backward()`. Here the rate is that of the group, where schedules set it; `step` updates the parameter whose
    gradient came last; and AdaLomo's means are part of `state_dict`.
    """
    base: Any = Imported("lomo_optim", name, also=("transformers",))()

    class Driven(base):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self, model: Any, lr: float, **options: Any) -> None:
            self._first_rate = lr
            super().__init__(model, lr=lr, **options)
            # AdaLomo counts before backward, and scales the loss in its own backward only.
            self.step_num, self.loss_scale = 1, None

        @property
        def lr(self) -> float:
            groups = getattr(self, "param_groups", None)
            return float(groups[0]["lr"]) if groups else self._first_rate

        @lr.setter
        def lr(self, rate: float) -> None:
            self._first_rate = rate

        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            loss = closure() if closure is not None else None
            self.grad_func(0)
            self.step_num += 1
            return loss

        def state_dict(self) -> dict[str, Any]:
            kept = {key: getattr(self, key) for key in _MEANS if hasattr(self, key)}
            return {**super().state_dict(), "step_num": self.step_num, **kept}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
            self.step_num = state_dict["step_num"]
            for key in _MEANS:
                for parameter, mean in state_dict.get(key, {}).items():
                    getattr(self, key)[parameter].copy_(mean)

    Driven.__name__ = Driven.__qualname__ = name
    driven: type[Optimizer] = Driven
    return driven
