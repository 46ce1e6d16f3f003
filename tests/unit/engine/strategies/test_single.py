"""One device: nothing is wrapped, exchanged or gathered."""

from __future__ import annotations

import torch
from torch import nn

from surestep.engine.strategies.single import SingleDevice
from surestep.runtime.world import World


def test_everything_is_as_it_was() -> None:
    strategy, model, value = SingleDevice(World(), torch.device("cpu")), nn.Linear(1, 1), torch.ones(2)

    assert strategy.prepare(model) is model
    assert strategy.unwrap(model) is model
    assert strategy.mean(value) is value
    assert strategy.gather({"a": value})["a"] is value
    assert strategy.precisions == {"no", "bf16", "fp16", "fp8"}
    with strategy.accumulating(model):
        pass
