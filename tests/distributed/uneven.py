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


def seen(package: Any, folder: Path) -> list[int]:
    model = Seen()
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "use_cpu": True, "save_strategy": "no"}
    args = package.TrainingArguments(str(folder), **settings, report_to="none", disable_tqdm=True)
    package.Trainer(model, args, train_dataset=Sentences(5)).train()
    return model.seen


def work(folder: Path) -> dict[str, list[int]]:
    """Train on five samples, two a batch, with both."""
    return {"theirs": seen(transformers, folder / "theirs"), "ours": seen(surestep, folder / "ours")}
