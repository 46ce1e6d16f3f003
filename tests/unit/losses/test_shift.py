"""Whether a loss shifts its labels: declared, known of the class, told by a loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.parity import tiny
from torch import Tensor, nn
from transformers import BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification, BertLMHeadModel

from surestep.losses.shift import Shift, shift_of

SHIFTS = Shift(True, guessed=True)
STAYS = Shift(False, guessed=True)


def renamed(model: Any) -> Any:
    return type("Renamed", (type(model),), {})(model.config)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (tiny.llama, SHIFTS),
        # Its class names no kind of loss.
        (tiny.gpt2, SHIFTS),
        (lambda: tiny.bert(BertLMHeadModel, is_decoder=True), SHIFTS),
        # A class of the user's, whose name tells nothing.
        (lambda: renamed(tiny.llama()), SHIFTS),
        (lambda: tiny.bert(BertForMaskedLM), STAYS),
        (lambda: tiny.bert(BertForTokenClassification), STAYS),
        (lambda: tiny.bert(BertForSequenceClassification), STAYS),
        (lambda: nn.Linear(1, 1), Shift(False, guessed=True, blind=True)),
        # Labels of a decoder beside an encoder are aligned with what it predicts.
        (tiny.t5, Shift(False)),
        (tiny.bart, Shift(False)),
    ],
    ids=["llama", "gpt2", "bert-lm", "renamed", "masked", "tags", "classes", "own", "t5", "bart"],
)
def test_what_is_known_of_a_class(make: Any, known: Shift) -> None:
    assert Shift.of(make()) == known


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("make", [tiny.llama, tiny.t5, lambda: nn.Linear(1, 1)], ids=["llama", "t5", "own"])
def test_a_declaration_goes_before_what_is_known(make: Any, declared: bool) -> None:
    model = make()
    model.shifts_labels = declared

    assert Shift.of(model) == Shift(declared)


def a_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 6, 9, generator=generator), torch.randint(0, 9, (3, 6), generator=generator)
    labels[0, 2:] = -100
    return logits, labels


def loss_over(logits: Tensor, labels: Tensor, *, shifted: bool, how: str = "mean") -> Tensor:
    scores, wanted = (logits[:, :-1], labels[:, 1:]) if shifted else (logits, labels)
    return nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction=how)


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("expected", [True, False])
def test_the_size_of_a_loss_tells(shifted: bool, expected: bool) -> None:
    logits, labels = a_batch()
    loss = loss_over(logits, labels, shifted=shifted)

    assert shift_of(logits, labels, loss, expected=expected) is shifted
    summed = loss_over(logits, labels, shifted=shifted, how="sum") / 40
    assert shift_of(logits, labels, summed, expected=expected, items=torch.tensor(40)) is shifted
    # A loss of another kind, other labels, or no sequence tell nothing.
    assert shift_of(logits, labels, 3 * loss, expected=expected) is expected
    assert shift_of(logits, labels.float(), loss, expected=expected) is expected
    assert shift_of(logits[:, 0], labels[:, 0], loss, expected=expected) is expected


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("expected", [True, False])
def test_a_model_that_knows_nothing_yet_tells_all_the_same(shifted: bool, expected: bool) -> None:
    """Where all classes are almost alike the two losses differ by less than half precision rounds."""
    logits, labels = a_batch()
    logits = logits * 1e-2
    loss = loss_over(logits, labels, shifted=shifted)

    assert float(loss) == pytest.approx(float(loss_over(logits, labels, shifted=not shifted)), rel=5e-3)
    assert shift_of(logits, labels, loss, expected=expected) is shifted
    # Rounded, it fits both.
    assert shift_of(logits, labels, loss.bfloat16(), expected=expected) is expected


def test_the_first_finite_loss_decides() -> None:
    logits, labels = a_batch()
    loss = loss_over(logits, labels, shifted=True)
    shift = Shift(False, guessed=True)

    shift.learn(logits, labels, loss * torch.nan)
    shift.learn(None, labels, loss)
    shift.learn(logits, labels, (loss, 3))
    assert shift == STAYS
    shift.learn((logits, logits), labels, loss)
    assert shift == Shift(True)
    shift.learn(logits, labels, loss_over(logits, labels, shifted=False))
    assert shift == Shift(True)


@pytest.mark.parametrize("declared", [True, False])
def test_what_is_declared_is_not_asked_again(declared: bool) -> None:
    logits, labels = a_batch()
    shift = Shift.of(SimpleNamespace(shifts_labels=declared))
    shift.learn(logits, labels, loss_over(logits, labels, shifted=not declared))

    assert shift == Shift(declared)
