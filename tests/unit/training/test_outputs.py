"""Reading what a model returned, in each of its forms."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from surestep.errors import ModelError
from surestep.training.outputs import loss_of, predictions_of

LOSS, LOGITS, HIDDEN = torch.tensor(1.0), torch.ones(2, 3), torch.zeros(2, 4)


class Named(NamedTuple):
    loss: Any
    logits: Any


@pytest.mark.parametrize(
    "outputs",
    [
        {"loss": LOSS, "logits": LOGITS},
        OrderedDict(logits=LOGITS, loss=LOSS),
        SequenceClassifierOutput(loss=LOSS, logits=LOGITS),
        (LOSS, LOGITS),
        [LOSS, LOGITS],
        Named(LOSS, LOGITS),
        SimpleNamespace(logits=LOGITS, loss=LOSS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_loss_is_found_in_every_form(outputs: Any) -> None:
    assert loss_of(outputs, {}) is LOSS


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        ({"logits": LOGITS}, "only the keys logits"),
        ({"loss": None, "logits": LOGITS}, "only the keys loss, logits"),
        ({}, "only an empty mapping"),
        ((), "only an object of type tuple"),
        ((None, LOGITS), "only an object of type tuple"),
        (SimpleNamespace(logits=LOGITS), "only an object of type SimpleNamespace"),
        (LOGITS, "only an object of type Tensor"),
    ],
    ids=["mapping", "none", "empty", "empty tuple", "none in tuple", "object", "tensor"],
)
def test_a_missing_loss_is_told_with_what_there_was(outputs: Any, found: str) -> None:
    with pytest.raises(ModelError, match=rf"{found}; it was given x, y\. Give it its labels.*compute_loss_func"):
        loss_of(outputs, {"x": 1, "y": 2})


def test_inputs_that_are_no_mapping_are_named_by_their_type() -> None:
    with pytest.raises(ModelError, match="it was given list"):
        loss_of({}, [1, 2])


@pytest.mark.parametrize(
    ("outputs", "with_loss", "expected"),
    [
        ({"loss": LOSS, "logits": LOGITS, "hidden": HIDDEN}, True, (LOGITS, HIDDEN)),
        ({"logits": LOGITS, "hidden": HIDDEN}, False, (LOGITS, HIDDEN)),
        ({"loss": LOSS, "logits": LOGITS}, False, (LOSS, LOGITS)),
        (SequenceClassifierOutput(loss=LOSS, logits=LOGITS), True, (LOGITS,)),
        ((LOSS, LOGITS), True, (LOGITS,)),
        ((LOGITS, HIDDEN), False, (LOGITS, HIDDEN)),
        ([LOSS, LOGITS], True, (LOGITS,)),
        (SimpleNamespace(loss=LOSS, logits=LOGITS), True, (LOGITS,)),
        (LOGITS, False, (LOGITS,)),
        (LOGITS, True, (LOGITS,)),
    ],
    ids=["mapping", "no loss", "unasked loss", "hf", "tuple", "plain tuple", "list", "object", "tensor", "own loss"],
)
def test_predictions_are_everything_but_the_loss(outputs: Any, with_loss: bool, expected: tuple[Any, ...]) -> None:
    found = predictions_of(outputs, (), with_loss=with_loss)

    assert len(found) == len(expected)
    assert all(one is other for one, other in zip(found, expected, strict=True))


def test_ignored_names_are_left_out() -> None:
    outputs = {"loss": LOSS, "logits": LOGITS, "past_key_values": HIDDEN}

    assert predictions_of(outputs, ["past_key_values"], with_loss=True) == (LOGITS,)
    assert predictions_of(SimpleNamespace(**outputs), ["past_key_values"], with_loss=True) == (LOGITS,)
    assert predictions_of(42, (), with_loss=False) == (42,)
