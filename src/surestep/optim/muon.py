"""Muon for the hidden matrices and AdamW for all the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class MuonWithAdamW(Optimizer):
    """Takes groups marked `use_muon`: torch's Muon steps those that are, torch's AdamW the others.

    Muon orthogonalises the momentum of a matrix (Jordan et al. 2024). `adjust_lr_fn` is 'match_rms_adamw' unless given
    (Liu et al. 2025, arXiv 2502.16982), so that one learning rate and one weight decay suit both parts. Schedules,
    state and groups are those of a single optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
    ) -> None:
        self._options: dict[bool, dict[str, Any]] = {
            True: {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn},
            False: {"betas": betas, "eps": eps},
        }
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._assemble()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; one without `use_muon` goes to AdamW."""
        options = self._options[param_group.setdefault("use_muon", False)]
        super().add_param_group({**options, **param_group})
        if hasattr(self, "_parts"):
            self._assemble()

    def _assemble(self) -> None:
        """Make the two parts over this optimizer's own groups and state, so that there is one of each."""
        kinds: dict[bool, Callable[..., Optimizer]] = {True: torch.optim.Muon, False: torch.optim.AdamW}
        self._parts: list[Optimizer] = []
        for use_muon, kind in kinds.items():
            if groups := [group for group in self.param_groups if group["use_muon"] is use_muon]:
                part = kind(groups, lr=self.defaults["lr"], weight_decay=self.defaults["weight_decay"])
                part.state = self.state
                self._parts.append(part)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._assemble()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both parts; return what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
