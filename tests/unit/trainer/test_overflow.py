"""Steps that overflow in float16: the schedule waits for them, whoever leaves them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points, quick
from torch import Tensor

from surestep import Trainer
from surestep.trainer import nonfinite


class Overflows(Line):
    """Its gradient is too large for any scale in the batches of some calls."""

    def __init__(self, calls: set[int]) -> None:
        super().__init__()
        self.calls, self.count = calls, 0

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        outputs = super().forward(x, labels)
        self.count += 1
        # The loss is finite, and so small otherwise that the first scale fits.
        factor = 1e38 if self.count in self.calls else 0.0
        steep = factor * (self.layer.bias - self.layer.bias.detach()).sum()
        return {**outputs, "loss": outputs["loss"] / 100 + steep}


def trained(folder: Path, optim: str, calls: set[int], **settings: Any) -> Trainer:
    torch.manual_seed(0)
    usual = {"fp16": True, "logging_steps": 1, "learning_rate": 0.1, "lr_scheduler_type": "linear"}
    trainer = quick(folder, model=Overflows(calls), train_dataset=Points(), optim=optim, **{**usual, **settings})
    trainer.train()
    return trainer


def rates(trainer: Trainer) -> list[float]:
    return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("logging_steps", [1, 5])
@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd"])
@pytest.mark.parametrize("calls", [set(), {2}, {1, 2, 4}, {5}], ids=str)
def test_the_schedule_waits_for_steps_that_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: set[int], optim: str, logging_steps: int, late: bool
) -> None:
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: late)
    trainer = trained(tmp_path, optim, calls, logging_steps=logging_steps)

    assert trainer.state.global_step == 5
    assert trainer.lr_scheduler.last_epoch == 5 - len(calls)
    assert trainer.engine.precision.scaler.get_scale() == 65536.0 * 0.5 ** len(calls)
    if logging_steps == 1:
        made = [sum(step not in calls for step in range(1, before)) for before in range(1, 6)]
        assert rates(trainer) == pytest.approx([0.1 * (1 - steps / 5) for steps in made])


@pytest.mark.parametrize("late", [False, True])
def test_a_loss_that_is_infinite_with_finite_gradients_is_no_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: late)

    class Infinite(Overflows):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            outputs = super().forward(x, labels)
            return {**outputs, "loss": outputs["loss"] + torch.inf}

    trainer = quick(tmp_path, model=Infinite(set()), fp16=True, optim="adamw_torch_fused", learning_rate=0.1)
    trainer.train()

    assert trainer.lr_scheduler.last_epoch == 5
