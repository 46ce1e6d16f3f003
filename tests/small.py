"""A small model, a small set and a quick trainer, shared by tests that need some and not particular ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from surestep import Trainer, TrainingArguments


class Points(Dataset):
    """A regression set in which every sample is known: 3 inputs, 1 label."""

    def __init__(self, size: int = 20, seed: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, 3, generator=generator)
        self.y = self.x.sum(dim=1, keepdim=True)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index]}


class Line(nn.Module):
    """One linear layer; returns its loss where it is given labels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        prediction = self.layer(x)
        if labels is None:
            return {"logits": prediction}
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


def line(seed: int = 0) -> Line:
    """A `Line` with known weights."""
    torch.manual_seed(seed)
    return Line()


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """Arguments of a quiet run on the CPU: 5 steps an epoch of 4 samples each, for a set of 20."""
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
    return TrainingArguments(
        str(folder), **{**quiet, "per_device_train_batch_size": 4, "num_train_epochs": 1, **settings}
    )


def quick(folder: Path, kind: type[Trainer] = Trainer, **settings: Any) -> Trainer:
    """A trainer; names that `Trainer` takes go to it, all others to the arguments."""
    takes = {
        "callbacks", "compute_loss_func", "compute_metrics", "data_collator", "eval_dataset", "model", "model_init",
        "metrics", "metrics_confidence", "optimizer_cls_and_kwargs", "optimizers", "preprocess_logits_for_metrics",
        "processing_class", "train_dataset",
        "train_metrics",
    }  # fmt: skip
    parts = {name: settings.pop(name) for name in takes & settings.keys()}
    if "model_init" not in parts:
        parts.setdefault("model", line())
    parts.setdefault("train_dataset", Points())
    return kind(args=arguments(folder, **settings), **parts)
