"""Whether an optimizer can be saved is known before its first step."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from surestep.checkpoint.names import parameter_names
from surestep.checkpoint.optimizer_trial import try_codec
from surestep.errors import CheckpointError
from surestep.runtime.random import capture_random_state

KNOWN: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "fused": lambda p: torch.optim.AdamW(p, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
    "adafactor": torch.optim.Adafactor,
    "lbfgs": torch.optim.LBFGS,
    "muon": lambda p: torch.optim.Muon([parameter for parameter in p if parameter.dim() == 2]),
}


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(300, 40), nn.LayerNorm(40), nn.Linear(40, 1))


class Keeps(Optimizer):
    """Puts `value()` into the state at its first step."""

    def __init__(self, params: Any, value: Callable[[], object], held: object = None) -> None:
        super().__init__(params, {"lr": 0.1})
        self.values = [value]
        self.held = held

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["kept"] = self.values[0]()
                with torch.no_grad():
                    parameter.add_(1)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("scheduled", [False, True])
def test_the_later_state_of_the_usual_optimizers_is_known(kind: str, scheduled: bool) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = KNOWN[kind](list(model.parameters()))
    called: list[object] = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    if scheduled:
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = {key: str(value) for key, value in optimizer.state.items()}
    assert try_codec(optimizer, parameter_names(model))
    assert {key: str(value) for key, value in optimizer.state.items()} == state
    assert called == []
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def draw() -> float:
    return random.random() + float(np.random.rand()) + float(torch.rand(()))


def test_no_generator_notices() -> None:
    model = make_model()
    before = str(capture_random_state())
    assert try_codec(Keeps(model.parameters(), draw), {})
    assert str(capture_random_state()) == before


def test_state_that_cannot_be_stored_is_found_before_the_first_step() -> None:
    model = make_model()
    with pytest.raises(CheckpointError, match=r"optimizer/state/0.weight/kept .*builtins.object"):
        try_codec(Keeps(model.parameters(), object), parameter_names(model))


def test_state_that_is_there_is_checked_by_name() -> None:
    model = make_model()
    optimizer = Keeps(model.parameters(), object)
    optimizer.step()
    with pytest.raises(CheckpointError, match=r"optimizer/state/0.weight/kept .*builtins.object"):
        try_codec(optimizer, parameter_names(model))


def test_settings_that_cannot_be_stored_are_found() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["curve"] = len
    with pytest.raises(CheckpointError, match=r"optimizer/groups/0/curve .*builtin"):
        try_codec(optimizer, {})


class Picky(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        assert self.param_groups[0]["params"][0].shape == (40, 300)
        return super().step(closure)


class Subclass(nn.Parameter):
    pass


@pytest.mark.parametrize(
    "optimizer",
    [
        Picky(make_model().parameters(), lr=0.1),
        # Code that it holds might reach the true parameters.
        Keeps(make_model().parameters(), int, held=lambda: None),
        # Cannot be copied.
        Keeps(make_model().parameters(), int, held=(step for step in range(3))),
        torch.optim.SGD([Subclass(torch.ones(2))], lr=0.1),
    ],
    ids=["shapes", "code", "no copy", "subclass"],
)
def test_what_cannot_be_tried_is_not_claimed(optimizer: Optimizer) -> None:
    assert not try_codec(optimizer, {})


def test_parameters_that_are_frozen_get_no_gradient() -> None:
    frozen, live = nn.Parameter(torch.ones(3), requires_grad=False), nn.Parameter(torch.ones(3))
    assert try_codec(torch.optim.AdamW([frozen, live]), {})
