"""One step over eight samples, as one batch or in groups of micro-batches: what a loss and its gradient come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tests.parity.harness import run

ONE_STEP: dict[str, Any] = {
    "max_steps": 1,
    "logging_steps": 1,
    "optim": "sgd",
    "max_grad_norm": 0,
    "train_sampling_strategy": "sequential",
}


def loss_and_norm(side: Any, batch: int, *, arguments: dict[str, Any] | None = None, **options: Any) -> list[float]:
    """Make one step over eight samples in batches of this size; return the loss and the gradient's norm."""
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
    seen = run(side, {**ONE_STEP, **cut, **(arguments or {})}, **options)
    return [seen.logs[0]["loss"], seen.logs[0]["grad_norm"]]


def aligned(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return what makes models that say that their logits stand where their labels do."""

    def made() -> nn.Module:
        model = make()
        model.shifts_labels = False  # type: ignore[assignment]
        return model

    return made
