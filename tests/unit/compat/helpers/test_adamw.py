"""The optimizer of the 3.x and 4.x years, against its formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from surestep.compat.helpers.adamw import AdamW
from surestep.errors import ArgumentError

GRADIENTS = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_hand(start: Tensor, lr: float, eps: float, decay: float, *, corrected: bool) -> Tensor:
    weight, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step, gradient in enumerate(GRADIENTS, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = lr * math.sqrt(1 - 0.999**step) / (1 - 0.9**step) if corrected else lr
        weight = weight - rate * mean / (square.sqrt() + eps)
        weight = weight - lr * decay * weight
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("corrected", [True, False])
def test_steps_are_those_of_the_formula(decay: float, corrected: bool) -> None:
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)
    weight, untouched = start.clone().requires_grad_(), torch.ones(1, requires_grad=True)
    optimizer = AdamW([weight, untouched], lr=0.05, weight_decay=decay, correct_bias=corrected)
    for gradient in GRADIENTS:
        weight.grad = gradient
        optimizer.step(lambda: None)

    torch.testing.assert_close(weight.detach(), by_hand(start, 0.05, 1e-6, decay, corrected=corrected))
    assert untouched.item() == 1


def test_settings_that_cannot_be_right() -> None:
    with pytest.raises(ArgumentError, match="write rates of 0 or more"):
        AdamW([torch.zeros(1)], lr=-1.0)
