"""Finding where numbers stop being finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep.engine.culprit import find_culprit


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Net(nn.Module):
    """Two layers with a root between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.root, self.last = nn.Linear(2, 3), Root(), nn.Linear(3, 1)

    def forward(self, x: Tensor, *, shift: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.last(self.root(self.first(x).square() + shift))}


def culprit(model: nn.Module, x: Tensor, loss: Any = lambda outputs: outputs["logits"].mean(), **keywords: Any) -> Any:
    return find_culprit(model, lambda: loss(model(x, **keywords)))


def test_nothing_is_found_where_all_is_finite() -> None:
    model = Net()
    assert culprit(model, torch.ones(4, 2)) is None
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_first_module_and_what_it_had() -> None:
    found = culprit(Net(), torch.full((4, 2), math.nan))
    assert (found.module, found.kind, found.inputs_bad, found.weights_bad) == ("first", "Linear", True, ())
    found = culprit(Net(), torch.ones(4, 2), shift=-100.0)
    assert (found.module, found.kind, found.inputs_bad) == ("root", "Root", False)
    model = Net()
    model.last.bias.data.fill_(math.inf)
    found = culprit(model, torch.ones(4, 2))
    assert (found.module, found.inputs_bad, found.weights_bad) == ("last", False, ("bias",))


def test_a_loss_of_its_own() -> None:
    assert culprit(Net(), torch.ones(4, 2), loss=lambda outputs: outputs["logits"].mean() / 0).loss_bad
    pair = culprit(Net(), torch.ones(4, 2), loss=lambda outputs: (outputs["logits"].sum() * math.inf, torch.tensor(4)))
    assert pair.loss_bad


def test_gradients_that_are_not_finite_behind_a_finite_loss() -> None:
    model = Net()
    nn.init.zeros_(model.first.weight)
    nn.init.zeros_(model.first.bias)
    found = culprit(model, torch.ones(4, 2), shift=0.0)
    assert found.module is None
    assert found.weights == ("first.weight", "first.bias")


@pytest.mark.parametrize("loss", [lambda outputs: 0.0, lambda outputs: outputs["logits"].detach().mean()])
def test_a_loss_without_gradients(loss: Any) -> None:
    assert culprit(Net(), torch.ones(4, 2), loss=loss) is None
