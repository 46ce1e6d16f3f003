"""The stand-ins of layer-wise optimizers that scripts make themselves, against the rates worked out by hand.

The original's own stop with an error under today's torch as soon as there are two parameters.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surestep.optim.layerwise import LayerWiseDummyOptimizer, LayerWiseDummyScheduler
from surestep.optim.schedules import get_scheduler

# A warm-up of 2 steps to 0.1, and down to 0 at step 6.
RATES = [0.0, 0.05, 0.1, 0.075, 0.05, 0.025, 0.0]


def test_each_parameter_has_its_own_schedule() -> None:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    optimizers = {parameter: torch.optim.SGD([parameter], lr=0.1) for parameter in model.parameters()}

    def step(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    optimizer = LayerWiseDummyOptimizer(optimizer_dict=optimizers, lr=0.1)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=2, num_training_steps=6)
    assert isinstance(schedule, LayerWiseDummyScheduler)
    for rate in RATES[1:]:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert schedule.get_last_lr() == pytest.approx([rate, rate])

    # The gradient of every weight is 1, so each has gone down by the sum of the rates.
    torch.testing.assert_close(model.weight.detach(), torch.full((2, 3), -sum(RATES)))


def test_without_optimizers_the_rate_is_the_one_given() -> None:
    assert LayerWiseDummyScheduler(lr=0.5).get_last_lr() == [0.5]
    assert LayerWiseDummyOptimizer(lr=0.5).step(lambda: 3) == 3
