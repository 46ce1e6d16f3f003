"""Ours against a loop written by hand in plain torch: an independent reference, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

import surestep
from tests.parity.harness import run
from tests.parity.models import Net, Points


@dataclass
class ByHand:
    """What a loop came to."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def train_by_hand(
    model: nn.Module,
    data: Any,
    *,
    epochs: int,
    batch_size: int,
    accumulation: int,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    factor: Callable[[int, int], float],
    max_norm: float,
    seed: int = 42,
) -> ByHand:
    """Train as one would without any trainer: accumulation, clipping, a schedule."""
    seen = ByHand()
    optimizer = make_optimizer(model)
    micro_batches = math.ceil(len(data) / batch_size)
    steps = math.ceil(micro_batches / accumulation) * epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, steps))
    torch.manual_seed(seed)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        batches = iter(DataLoader(data, batch_size=batch_size, sampler=order, collate_fn=default_collate))
        left = micro_batches
        while left:
            group = [next(batches) for _ in range(min(accumulation, left))]
            left -= len(group)
            total = torch.zeros(())
            for batch in group:
                loss = model(**batch)["loss"] / len(group)
                loss.backward()
                total += loss.detach()
            norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            seen.losses.append(total.item())
            seen.norms.append(norm.item())
            seen.rates.append(optimizer.param_groups[0]["lr"])
            schedule.step()
            optimizer.zero_grad()
    return seen


def linear(step: int, steps: int) -> float:
    return max(0.0, float(steps - step) / float(max(1, steps)))


def warm_cosine(step: int, steps: int) -> float:
    warm = 4
    if step < warm:
        return float(step) / float(warm)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * (float(step - warm) / float(steps - warm)))))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW with decay on matrices only, in the one implementation that is the trainer's default."""
    matrices = [parameter for name, parameter in model.named_parameters() if parameter.dim() > 1]
    others = [parameter for name, parameter in model.named_parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, fused=True)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"accumulation": 1, "max_norm": 1.0}, {}),
    "accumulation with a ragged tail": ({"accumulation": 3, "max_norm": 1.0}, {"gradient_accumulation_steps": 3}),
    "clipping to little": (
        {"accumulation": 2, "max_norm": 0.05},
        {"gradient_accumulation_steps": 2, "max_grad_norm": 0.05},
    ),
    "warm-up and cosine": (
        {"accumulation": 3, "max_norm": 1.0, "factor": warm_cosine},
        {"gradient_accumulation_steps": 3, "warmup_steps": 4, "lr_scheduler_type": "cosine"},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_ours_equals_a_loop_by_hand(name: str) -> None:
    by_hand, arguments = SETTINGS[name]
    common: dict[str, Any] = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1}
    ours = run(surestep, {**common, "learning_rate": 1e-2, "weight_decay": 0.1, **arguments})
    torch.manual_seed(3)
    model = Net()
    settings = {"epochs": 2, "batch_size": 4, "make_optimizer": adamw, "factor": linear, **by_hand}
    seen = train_by_hand(model, Points(), **settings)
    _assert_equal(ours, seen, model)


def test_ours_with_an_optimizer_given_equals_a_loop_by_hand() -> None:
    arguments = {"per_device_train_batch_size": 8, "num_train_epochs": 3, "logging_steps": 1, "max_grad_norm": 0.5}
    ours = run(surestep, arguments, optimizers=lambda model: (momentum(model), None))
    torch.manual_seed(3)
    model = Net()
    seen = train_by_hand(
        model,
        Points(),
        epochs=3,
        batch_size=8,
        accumulation=1,
        make_optimizer=momentum,
        factor=linear,
        max_norm=0.5,
    )
    _assert_equal(ours, seen, model)


def _assert_equal(ours: Any, seen: ByHand, model: Net) -> None:
    steps = [entry for entry in ours.logs if "loss" in entry]
    assert len(steps) == len(seen.losses) > 5
    assert [entry["loss"] for entry in steps] == seen.losses
    assert [entry["grad_norm"] for entry in steps] == seen.norms
    assert [entry["learning_rate"] for entry in steps] == seen.rates
    assert ours.numbers == model.numbers
    for name, value in model.state_dict().items():
        assert torch.equal(ours.weights[name], value), name


def test_one_big_batch_and_its_split_give_one_gradient() -> None:
    """A step of 12 samples is the same step in micro-batches of 12, 6, 4 or 3, up to the order of the sums."""
    seen: dict[int, dict[str, Tensor]] = {}
    for size in (12, 6, 4, 3):
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 12 // size, "max_steps": 4}
        seen[size] = run(surestep, {**arguments, "optim": "sgd", "learning_rate": 0.1}, model=lambda: Net(0.0)).weights
    for size in (6, 4, 3):
        for name, value in seen[12].items():
            torch.testing.assert_close(seen[size][name], value, rtol=1e-5, atol=1e-6)
