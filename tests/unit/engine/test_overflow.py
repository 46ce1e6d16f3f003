"""Where numbers leave their range: the first module is named, with those before it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from surestep.engine.overflow import OverflowWatch
from surestep.errors import ModelError


class Spoils(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> Any:
        return {"hidden": (x * self.value, torch.tensor(1))}


def network(value: float) -> nn.Module:
    first = nn.Linear(2, 2)
    nn.init.constant_(first.weight, 0.5)
    nn.init.zeros_(first.bias)
    return nn.Sequential(first, nn.ReLU(), Spoils(value))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_the_first_module_whose_output_is_not_finite_is_named(value: float) -> None:
    model = network(value)
    with pytest.raises(ModelError) as caught, OverflowWatch(model).watching():
        model(torch.tensor([[2.0, 4.0]]))

    message = str(caught.value)
    assert "The output of module '2' is not finite" in message
    assert "0 (Linear)  weight: 5.00e-01..5.00e-01  bias: 0.00e+00..0.00e+00  in: 2.00e+00..4.00e+00" in message
    assert message.index("0 (Linear)") < message.index("1 (ReLU)") < message.index("2 (Spoils)")
    assert "a lower learning_rate" in message


def test_finite_numbers_pass_and_the_hooks_go() -> None:
    model = network(1.0)
    with OverflowWatch(model).watching():
        model(torch.ones(1, 2))

    assert not any(module._forward_hooks for module in model.modules())


def test_the_record_is_bounded() -> None:
    model = nn.Sequential(*[nn.Identity() for _ in range(40)], Spoils(math.inf))
    with pytest.raises(ModelError) as caught, OverflowWatch(model).watching():
        model(torch.ones(1))

    assert str(caught.value).count("(Identity)") == 20


def test_what_has_no_numbers_is_a_dash() -> None:
    class Divides(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum() / 0

    model = nn.Sequential(nn.Identity(), Divides())
    with pytest.raises(ModelError, match=r"0 \(Identity\)  in: -  out: -"), OverflowWatch(model).watching():
        model(torch.ones(0))
