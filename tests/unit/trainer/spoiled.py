"""Points and models that are not finite in places, and loops by hand that leave steps out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from tests.small import Points, quick
from torch import Tensor, nn

from surestep import Trainer

SEQUENTIAL = {"train_sampling_strategy": "sequential", "logging_steps": 1, "num_train_epochs": 2}


class Numbered(Points):
    """Points that know their number; those in `bad` have an input that is NaN."""

    def __init__(self, bad: tuple[int, ...] = (), value: float = math.nan) -> None:
        super().__init__()
        for number in bad:
            self.x[number, 1] = value

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "number": index}


class Deep(nn.Module):
    """Two layers, statistics and, where asked for, dropout; `spoils` changes the loss of the batches that it knows."""

    def __init__(self, spoils: Any = None, *, dropout: float = 0.0, statistics: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4) if statistics else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.spoils = spoils

    def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
        predicted = self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))
        loss = nn.functional.mse_loss(predicted, labels)
        if self.spoils is not None:
            loss = self.spoils(self, loss, number)
        return {"loss": loss, "logits": predicted}


def at(number: int, change: Any) -> Any:
    """Change the loss of the batch that holds a sample."""
    return lambda model, loss, numbers: change(model, loss) if (numbers == number).any() else loss


def infinite(model: nn.Module, loss: Tensor) -> Tensor:
    """A loss that is infinite, with gradients that are finite."""
    return loss + math.inf


def steep(model: nn.Module, loss: Tensor) -> Tensor:
    """A finite loss with a gradient that is not: that of a square root at 0."""
    return loss + (0 * model.first.weight[0, 0]).sqrt()


def undone(model: nn.Module, loss: Tensor) -> Tensor:
    """A weight that is not finite from here on."""
    with torch.no_grad():
        model.last.weight[0, 2] = math.nan
    return model.last.weight.sum()


def weights(model: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def by_hand(
    model: nn.Module, data: Any, groups: list[list[list[int]]], left_out: set[int], *, lr: float = 0.05
) -> list[Tensor]:
    """Train with AdamW, clipping and a linear schedule on micro-batches of samples; the steps of `left_out` do not."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / len(groups)))
    model.train()
    for step, group in enumerate(groups):
        if step in left_out:
            continue
        for numbers in group:
            samples = [data[number] for number in numbers]
            batch = {name: torch.stack([torch.as_tensor(one[name]) for one in samples]) for name in samples[0]}
            (model(**batch)["loss"] / len(group)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return weights(model)


def groups_of(micro: int, accumulation: int, epochs: int = 2) -> list[list[list[int]]]:
    batches = [list(range(start, start + micro)) for start in range(0, 20, micro)]
    return [batches[start : start + accumulation] for start in range(0, len(batches), accumulation)] * epochs


def losses_of(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def training(folder: Path, policy: str, **settings: Any) -> Trainer:
    usual = {**SEQUENTIAL, "nonfinite": policy, "learning_rate": 0.05, "train_dataset": Numbered(), "model": Deep()}
    return quick(folder, **{**usual, **settings})


FUSED = {"optim": "adamw_torch_fused"}
KINDS = [(None, (9,)), (at(9, infinite), ()), (at(9, steep), ())]


def history(trainer: Trainer) -> str:
    """What was logged, but for times; as text, where NaN equals NaN."""
    kept = ("loss", "grad_norm", "learning_rate", "nonfinite_steps", "train_loss", "step", "epoch")
    return str([{name: one[name] for name in kept if name in one} for one in trainer.state.log_history])
