"""An optimizer that warms up by itself is told steps, also where the arguments name a share of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.small import Line, Points

from surestep import Trainer, TrainingArguments


class Recorded(torch.optim.SGD):
    """Keeps what it is told of the warm-up."""

    def __init__(self, params, lr: float, warmup_steps: float) -> None:
        super().__init__(params, lr)
        self.warmup_steps = warmup_steps


class Warming(Trainer):
    @staticmethod
    def get_optimizer_cls_and_kwargs(args, model=None):
        return Recorded, {"lr": args.learning_rate, "warmup_steps": args.warmup_steps}


@pytest.mark.parametrize(("asked", "told"), [(0.25, 3), (4, 4), (0, 0)])
def test_a_share_of_warm_up_becomes_steps(tmp_path: Path, asked: float, told: int) -> None:
    args = TrainingArguments(
        str(tmp_path), max_steps=10, warmup_steps=asked, save_strategy="no", disable_tqdm=True, use_cpu=True
    )
    trainer = Warming(Line(), args, train_dataset=Points())
    trainer.train()
    assert trainer.optimizer.warmup_steps == told
