"""The pair, and reading what a loss function returned."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from surestep import LossSum
from surestep.errors import ModelError
from surestep.losses.pair import ALONE, pairs_of

SUM = torch.tensor(6.0, requires_grad=True)


@pytest.mark.parametrize("weight", [3, 3.0, torch.tensor(3), torch.tensor([3.0])], ids=str)
def test_a_plain_tuple_of_scalars_is_a_pair(weight: Any) -> None:
    ((name, pair),) = pairs_of((SUM, weight)).items()

    assert name == ALONE
    assert isinstance(pair, LossSum)
    assert pair.mean().item() == 2.0
    assert pair.sum.requires_grad


def test_a_weight_takes_no_gradient() -> None:
    (pair,) = pairs_of((SUM, torch.tensor(3.0, requires_grad=True) * 1)).values()

    assert not pair.weight.requires_grad


def test_a_mapping_holds_pairs_and_means() -> None:
    pairs = pairs_of({"main": LossSum(SUM, 4), "aux": (SUM, torch.tensor(2)), "penalty": SUM})

    assert {name: pair.mean().item() for name, pair in pairs.items()} == {"main": 1.5, "aux": 3.0, "penalty": 6.0}


def test_a_mean_over_nothing_is_nothing() -> None:
    assert LossSum(torch.tensor(0.0), torch.tensor(0)).mean().item() == 0.0
    assert not LossSum(SUM, torch.tensor(2.0)).detach().sum.requires_grad


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({}, "The loss is an empty dict"),
        (None, "The loss is of type NoneType"),
        ((SUM, {"logits": SUM}), "a tuple of a tensor of shape (), of type dict"),
        ((torch.ones(3), 2), "a tuple of a tensor of shape (3,), of type int"),
        ((SUM, torch.ones(3)), "a tensor of shape (3,)"),
        ((2.0, 3.0), "a tuple of of type float"),
        ({"main": (SUM, 1), "aux": torch.ones(2)}, "The loss 'aux' is a tensor of shape (2,)"),
    ],
)
def test_what_is_no_loss_is_told(loss: Any, said: str) -> None:
    with pytest.raises(ModelError) as error:
        pairs_of(loss)

    assert said in str(error.value)
    assert "Return" in str(error.value)
