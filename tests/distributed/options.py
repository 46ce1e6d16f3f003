"""What runs on every rank: trainings under each setting of the exchange."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from surestep import Trainer
from tests.distributed.mistaken import Numbered, raised
from tests.distributed.training import Exchanges, arguments

# Leaves the second rank without a sample in the last step of an epoch.
SIZE = 13


class Wide(nn.Module):
    """Three layers of 1 MiB each, statistics, and where asked for a layer that no forward uses."""

    def __init__(self, *, unused: bool = False, statistics: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(512, 512) for _ in range(3)])
        self.norm = nn.BatchNorm1d(512, momentum=0.5) if statistics else nn.Identity()
        self.unused = nn.Linear(2, 2) if unused else None

    def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
        hidden = self.norm(x.repeat(1, 171)[:, :512] + number[:, None])
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        return {"loss": (hidden.mean(1, keepdim=True) - labels).square().mean()}


def trained(folder: Path, model: nn.Module, size: int = SIZE, **settings: Any) -> dict[str, Any]:
    args = arguments(folder, "options", per_device_train_batch_size=2, num_train_epochs=1, **settings)
    counter = Exchanges()
    trainer = Trainer(model, args, train_dataset=Numbered(size), callbacks=[counter])
    counter.trainer = trainer
    trainer.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return {"weights": weights, "exchanges": counter.count, "steps": trainer.state.global_step}


def work(folder: Path) -> dict[str, Any]:
    """Join with a backend and a time of our own, then train in each way."""
    logging.getLogger("surestep").setLevel(logging.ERROR)
    arguments(folder, "first", ddp_backend="gloo", ddp_timeout=77)
    group = dist.distributed_c10d._get_default_group()
    return {
        "backend": dist.get_backend(),
        "timeout": group._get_backend(torch.device("cpu")).options._timeout.total_seconds(),
        "plain": trained(folder, Wide()),
        "small buckets": trained(folder, Wide(), ddp_bucket_cap_mb=1),
        "static": trained(folder, Wide(unused=True), ddp_static_graph=True),
        "static refused": raised(lambda: trained(folder, Wide(), ddp_static_graph=True, gradient_accumulation_steps=2)),
        "buffers": trained(folder, Wide(statistics=True), 12, ddp_find_unused_parameters=False),
        "own buffers": trained(
            folder, Wide(statistics=True), 12, ddp_find_unused_parameters=False, ddp_broadcast_buffers=False
        ),
        "unused": trained(folder, Wide(unused=True)),
        "unused refused": raised(lambda: trained(folder, Wide(unused=True), ddp_find_unused_parameters=False)),
    }
