"""The state of every schedule is a tree: stored and read, it goes on as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

from surestep.checkpoint.tree import read_tree, write_tree


class Slope:
    """A schedule with a state of its own."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, step: int) -> float:
        self.seen += 1
        return 1 / (1 + step + 0.1 * self.seen)


def linear(step: int) -> float:
    return 1 / (1 + step)


def sequential(optimizer: torch.optim.Optimizer) -> Any:
    warmup = schedules.LinearLR(optimizer, start_factor=0.1, total_iters=3)
    return schedules.SequentialLR(optimizer, [warmup, schedules.CosineAnnealingLR(optimizer, T_max=7)], milestones=[3])


def chained(optimizer: torch.optim.Optimizer) -> Any:
    return schedules.ChainedScheduler(
        [schedules.ConstantLR(optimizer, 0.5, total_iters=4), schedules.ExponentialLR(optimizer, 0.9)]
    )


def of_transformers(name: str) -> Callable[[torch.optim.Optimizer], Any]:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        from transformers import get_scheduler

        options = {"min_lr": 1e-3} if name == "cosine_with_min_lr" else {}
        return get_scheduler(name, optimizer, 2, 12, scheduler_specific_kwargs=options)

    return make


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "lambda": lambda optimizer: schedules.LambdaLR(optimizer, linear),
    "lambda object": lambda optimizer: schedules.LambdaLR(optimizer, Slope()),
    "multiplicative": lambda optimizer: schedules.MultiplicativeLR(optimizer, lambda step: 0.9),
    "step": lambda optimizer: schedules.StepLR(optimizer, 2, 0.5),
    "multi step": lambda optimizer: schedules.MultiStepLR(optimizer, [2, 5, 5, 8], 0.5),
    "exponential": lambda optimizer: schedules.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: schedules.CosineAnnealingLR(optimizer, T_max=10),
    "cosine restarts": lambda optimizer: schedules.CosineAnnealingWarmRestarts(optimizer, T_0=3, T_mult=2),
    "polynomial": lambda optimizer: schedules.PolynomialLR(optimizer, total_iters=10, power=2.0),
    "one cycle": lambda optimizer: schedules.OneCycleLR(optimizer, max_lr=0.2, total_steps=14),
    "one cycle linear": lambda optimizer: schedules.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=14, anneal_strategy="linear"
    ),
    "cyclic": lambda optimizer: schedules.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3, mode="exp_range", gamma=0.9),
    "plateau": lambda optimizer: schedules.ReduceLROnPlateau(optimizer, patience=1, factor=0.5),
    "sequential": sequential,
    "chained": chained,
    **{
        f"transformers {name}": of_transformers(name)
        for name in (
            "linear",
            "cosine",
            "constant_with_warmup",
            "inverse_sqrt",
            "polynomial",
            "cosine_with_min_lr",
            "reduce_lr_on_plateau",
        )
    },
}


def make(kind: str) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))], "lr": 0.3}],
        lr=0.1,
        momentum=0.5,
    )
    return optimizer, SCHEDULES[kind](optimizer)


def run(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[list[float]]:
    rates = []
    for _ in range(steps):
        optimizer.step()
        plateau = isinstance(scheduler, schedules.ReduceLROnPlateau)
        scheduler.step(*([1.0] if plateau else []))
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("saved_after", [0, 1, 5])
def test_a_stored_schedule_goes_on_as_if_it_had_not_been(tmp_path: Path, kind: str, saved_after: int) -> None:
    optimizer, scheduler = make(kind)
    run(optimizer, scheduler, saved_after)
    write_tree(tmp_path, "scheduler", scheduler.state_dict())
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    expected = run(optimizer, scheduler, 6)
    resumed, second = make(kind)
    for group, saved in zip(resumed.param_groups, groups, strict=True):
        group.update(saved)
    state = read_tree(tmp_path, "scheduler")
    second.load_state_dict(state)
    assert run(resumed, second, 6) == expected
    assert len({tuple(rates) for rates in expected}) > 1 or kind.startswith("transformers")
