"""Runs in which one rank meets a loss or a gradient that is not finite."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surestep import Trainer
from surestep.errors import NonFiniteError
from surestep.trainer import nonfinite
from tests.distributed.training import arguments, outcome, size_of_world
from tests.small import Points

# Leaves the second rank without a sample in the last step of an epoch.
SIZE = 21


class Numbered(Points):
    def __init__(self) -> None:
        super().__init__(SIZE)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "number": index}


class Spoiled(nn.Module):
    """A line whose loss, or gradient, is not finite for the batch that holds a sample; statistics on the way."""

    def __init__(self, number: int, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))
        self.number, self.kind = number, kind
        self.double()

    def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
        self.mean.lerp_(x.detach().double().mean(0), 0.1)
        loss = nn.functional.mse_loss(self.layer(x.double() - self.mean), labels.double())
        if (number == self.number).any():
            root = (0 * self.layer.weight[0, 0]).sqrt()
            loss = {"loss": loss + math.inf, "gradient": loss + root, "all": loss * math.nan}[self.kind]
        return {"loss": loss}


def trainer_of(folder: Path, name: str, number: int, kind: str, policy: str, **settings: Any) -> Trainer:
    args = arguments(
        folder,
        name,
        per_device_train_batch_size=2,
        num_train_epochs=2,
        train_sampling_strategy="sequential",
        **{"nonfinite": policy, "ddp_find_unused_parameters": False, **settings},
    )
    return Trainer(Spoiled(number, kind), args, train_dataset=Numbered())


def stopped(folder: Path, number: int, kind: str, **settings: Any) -> dict[str, Any]:
    trainer = trainer_of(folder, "stopped", number, kind, "stop", **settings)
    try:
        trainer.train()
    except NonFiniteError as error:
        told = {"text": str(error), "step": error.step, "micro_batch": error.micro_batch, "samples": error.samples}
        return {**outcome(trainer), **told, "state": trainer.state.global_step}
    raise AssertionError("it went on")


def skipped(folder: Path, number: int, kind: str, policy: str = "skip", **settings: Any) -> dict[str, Any]:
    trainer = trainer_of(folder, policy, number, kind, policy, **settings)
    trainer.train()
    logs = [entry.get("nonfinite_steps", 0) for entry in trainer.state.log_history if "loss" in entry]
    return {**outcome(trainer), "left_out": logs, "rates": trainer.lr_scheduler.last_epoch}


def late(folder: Path, number: int) -> dict[str, Any]:
    """Skip as on an accelerator: the optimizer leaves the step out, and the host reads it one step late."""
    nonfinite._runs_ahead = lambda device: True
    return skipped(folder, number, "loss", optim="adamw_torch_fused", logging_steps=3)


def work(folder: Path) -> dict[str, Any]:
    """Spoil the second rank's second batch, in each way; and the last step, in which one rank has nothing."""
    logging.getLogger("surestep").setLevel(logging.ERROR)
    first_of_its_batch = 2 * size_of_world() + 2 * (size_of_world() - 1)
    return {
        "stopped": {kind: stopped(folder, first_of_its_batch, kind) for kind in ("loss", "gradient", "all")},
        "skipped": {kind: skipped(folder, first_of_its_batch, kind) for kind in ("loss", "gradient", "all")},
        "accumulated": skipped(folder, first_of_its_batch, "loss", gradient_accumulation_steps=2),
        "last": skipped(folder, SIZE - 1, "loss"),
        "rewound": skipped(folder, first_of_its_batch, "loss", "rewind", save_strategy="steps", save_steps=1),
        "late": late(folder, first_of_its_batch),
    }
