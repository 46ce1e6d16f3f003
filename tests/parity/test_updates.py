"""Optimizers, schedules, clipping and decay: as in the original, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from tests.parity.harness import Case, Seen, as_parameters, assert_same, both, check
from tests.parity.models import FrozenNet, MatrixNet, Net, Points

BASE = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1, "learning_rate": 1e-2}
BY_LOSS = {**BASE, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}


def rates(seen: Seen) -> list[float]:
    return [entry["learning_rate"] for entry in seen.logs if "learning_rate" in entry]


def schedule(name: str, **settings: Any) -> Case:
    arguments = {**BASE, "lr_scheduler_type": name, "warmup_steps": 4, "lr_scheduler_kwargs": settings or None}
    moves = name != "constant"
    return Case(f"schedule {name}", arguments, shows=lambda seen: (len(set(rates(seen))) > 1) == moves)


SCHEDULES = [
    schedule("linear"),
    schedule("cosine"),
    schedule("cosine_with_restarts", num_cycles=2),
    schedule("polynomial", power=2.0, lr_end=1e-4),
    schedule("constant"),
    schedule("constant_with_warmup"),
    schedule("inverse_sqrt", timescale=5),
    schedule("cosine_with_min_lr", min_lr_rate=0.1),
    schedule("cosine_warmup_with_min_lr", min_lr_rate=0.1, warmup_lr_rate=0.01),
    schedule("warmup_stable_decay", num_decay_steps=6, min_lr_ratio=0.1),
    Case(
        "warm-up as a share of the run",
        {**BASE, "lr_scheduler_type": "cosine", "warmup_steps": 0.2},
        shows=lambda seen: rates(seen)[0] == 0 and max(rates(seen)) == rates(seen)[6],
    ),
    Case(
        "schedule reduce_lr_on_plateau",
        {
            **BY_LOSS,
            "lr_scheduler_type": "reduce_lr_on_plateau",
            "lr_scheduler_kwargs": {"patience": 0, "threshold": 0.2},
        },
        {"evaluate": lambda: Points(20, seed=1)},
        shows=lambda seen: len(set(rates(seen))) > 1,
    ),
    Case(
        "schedule greedy",
        {**BY_LOSS, "lr_scheduler_type": "greedy", "lr_scheduler_kwargs": {"patience": 0}},
        {"evaluate": lambda: Points(20, seed=1)},
        shows=lambda seen: len(set(rates(seen))) > 1,
    ),
]

OPTIMIZERS = [
    Case(f"optimizer {name}", {**BASE, "optim": name, "weight_decay": 0.1, **more})
    for name, more in {
        "adamw_torch": {},
        "adamw_torch_fused": {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-5},
        "sgd": {"optim_args": "momentum=0.9,nesterov=True"},
        "adagrad": {},
        "rmsprop": {"optim_args": "momentum=0.5"},
    }.items()
]


class OwnOptimizer:
    """A subclass that makes its optimizer itself, with groups of its own."""

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            slow, fast = self.model.first.parameters(), self.model.last.parameters()
            groups = [{"params": list(slow), "lr": 1e-3}, {"params": list(fast)}, {"params": self.model.norm.weight}]
            self.optimizer = torch.optim.SGD(groups, lr=1e-2, momentum=0.9)
        return self.optimizer


class OwnSchedule:
    """A subclass that makes its schedule itself."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = LambdaLR(chosen, lambda step: 1 / (1 + step / num_training_steps))
            self._created_lr_scheduler = True
        return self.lr_scheduler


def given_optimizer(model: Any) -> tuple[Any, Any]:
    return torch.optim.Adam(model.parameters(), lr=3e-3), None


def given_both(model: Any) -> tuple[Any, Any]:
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)


def given_metric_schedule(model: Any) -> tuple[Any, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)


OWN = [
    Case("an optimizer given", BASE, {"optimizers": given_optimizer}, lambda seen: rates(seen)[0] == 3e-3),
    Case("an optimizer and a schedule given", BASE, {"optimizers": given_both}, lambda seen: rates(seen)[-1] < 3e-4),
    Case(
        "a plateau schedule given",
        BY_LOSS,
        {"optimizers": given_metric_schedule, "evaluate": lambda: Points(20, seed=1)},
        lambda seen: rates(seen)[-1] < 0.1,
    ),
    Case("an optimizer class given", BASE, {"optimizer_cls_and_kwargs": (torch.optim.Adamax, {"lr": 2e-3})}),
    Case("create_optimizer overridden", BASE, {"mixin": OwnOptimizer}, lambda seen: rates(seen)[0] == 1e-3),
    Case("create_scheduler overridden", BASE, {"mixin": OwnSchedule}, lambda seen: rates(seen)[-1] > 5e-3),
]

CLIPPING = [
    Case("no clipping", {**BASE, "max_grad_norm": 0}, shows=lambda seen: "grad_norm" in seen.logs[0]),
    Case("clipping to little", {**BASE, "max_grad_norm": 0.01}, shows=lambda seen: seen.logs[0]["grad_norm"] > 0.01),
    Case("clipping that never acts", {**BASE, "max_grad_norm": 1e6}),
    Case("clipping over accumulation", {**BASE, "max_grad_norm": 0.1, "gradient_accumulation_steps": 3}),
    Case(
        "weight decay, none on biases and norms",
        {**BASE, "weight_decay": 0.3},
        shows=lambda seen: [group["weight_decay"] for group in seen.optimizer["param_groups"]] == [0.3, 0.0],
    ),
    Case(
        "frozen layers",
        {**BASE, "weight_decay": 0.3},
        {"model": FrozenNet},
        lambda seen: len(seen.optimizer["state"]) == 4,
    ),
    Case("no dropout", BASE, {"model": lambda: Net(dropout=0.0)}),
    Case("a model of matrices only", BASE, {"model": MatrixNet}),
]


def test_adafactor_equals_the_originals() -> None:
    arguments = {**BASE, "optim": "adafactor", "weight_decay": 0.1}
    theirs, ours = both(arguments, model=MatrixNet)
    # Its factors are multiplied in another order. The original notes each weight's size also where nothing reads it.
    for seen in (theirs, ours):
        for state in seen.optimizer["state"].values():
            state.pop("RMS")
    assert_same(theirs, ours, tolerance=1e-6)


@as_parameters(SCHEDULES + OPTIMIZERS + OWN + CLIPPING)
def test_updates_equal_the_originals(case: Case) -> None:
    check(case)
