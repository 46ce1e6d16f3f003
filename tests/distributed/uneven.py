"""The samples that a rank trains on, under the original and here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import surestep
from tests.distributed.training import Sentences


class Seen(nn.Module):
    """Notes the samples of each training forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 1)
        self.seen: list[int] = []

    def forward(self, tokens: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
        self.seen += number.tolist()
        return {"loss": (self.layer(tokens.float()) - labels.float().mean()).square().mean()}


def seen(package: Any, folder: Path, size: int = 5, **given: Any) -> dict[str, Any]:
    model = Seen()
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "use_cpu": True, "save_strategy": "no"}
    args = package.TrainingArguments(str(folder), **settings, **given, report_to="none", disable_tqdm=True)
    trainer = package.Trainer(model, args, train_dataset=Sentences(size))
    trainer.train()
    total = trainer.get_total_train_batch_size(args)
    return {"seen": model.seen, "steps": trainer.state.global_step, "total": total}


def work(folder: Path) -> dict[str, Any]:
    """Train on five samples, two a batch, with both; and on eight, where a batch of two is split."""
    split = {"size": 8, "accelerator_config": {"split_batches": True}}
    return {
        "theirs": seen(transformers, folder / "theirs")["seen"],
        "ours": seen(surestep, folder / "ours")["seen"],
        "theirs split": seen(transformers, folder / "theirs_split", **split),
        "ours split": seen(surestep, folder / "ours_split", **split),
    }
