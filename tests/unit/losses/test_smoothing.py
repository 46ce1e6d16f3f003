"""Label smoothing against the definition in float64 and against the original."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import LabelSmoother as TheirSmoother

from surestep.losses.smoothing import LabelSmoother


def logits_of(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def labels_of(*shape: int, classes: int = 7, ignored: int = 0) -> torch.Tensor:
    labels = torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(2))
    labels.view(-1)[:ignored] = -100
    return labels


def by_hand(logits: torch.Tensor, labels: torch.Tensor, epsilon: float, items: float | None = None) -> float:
    """Cross-entropy with a smoothed target, label by label."""
    total, counted = 0.0, 0
    for row, label in zip(logits.double().flatten(0, -2), labels.flatten(), strict=True):
        if label == -100:
            continue
        target = torch.full_like(row, epsilon / len(row))
        target[label] += 1 - epsilon
        total -= float(target @ torch.log_softmax(row, dim=-1))
        counted += 1
    return total / (counted if items is None else items)


CASES: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
    "classes": (logits_of(5, 7), labels_of(5)),
    "tokens": (logits_of(2, 6, 7), labels_of(2, 6)),
    "ignored": (logits_of(2, 6, 7), labels_of(2, 6, ignored=5)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("items", [None, 20, torch.tensor(20)], ids=["own", "int", "tensor"])
def test_the_definition_and_the_original(case: str, epsilon: float, items: Any) -> None:
    logits, labels = CASES[case]
    ours = LabelSmoother(epsilon)({"logits": logits}, labels, num_items_in_batch=items)
    theirs = TheirSmoother(epsilon)({"logits": logits}, labels.clone(), num_items_in_batch=items)

    assert ours.item() == pytest.approx(by_hand(logits, labels, epsilon, None if items is None else 20), rel=1e-5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_shifted_as_in_the_original() -> None:
    logits, labels = CASES["ignored"]
    ours = LabelSmoother()({"logits": logits}, labels, shift_labels=True)
    theirs = TheirSmoother()({"logits": logits}, labels.clone(), shift_labels=True)

    assert ours.item() == pytest.approx(by_hand(logits[:, :-1], labels[:, 1:], 0.1), rel=1e-5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize(
    "form", [lambda x: {"logits": x}, lambda x: (x, 1), lambda x: SequenceClassifierOutput(logits=x)]
)
def test_the_logits_are_found_in_every_form(form: Any) -> None:
    logits, labels = CASES["classes"]

    assert torch.equal(LabelSmoother()(form(logits), labels), LabelSmoother()({"logits": logits}, labels))


def test_labels_are_not_changed() -> None:
    logits, labels = CASES["ignored"]
    before = labels.clone()
    LabelSmoother()({"logits": logits}, labels)

    assert torch.equal(labels, before)


def test_the_gradient_is_that_of_the_original() -> None:
    logits, labels = CASES["ignored"]
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    LabelSmoother()({"logits": one}, labels).backward()
    TheirSmoother()({"logits": other}, labels.clone()).backward()

    torch.testing.assert_close(one.grad, other.grad)


def test_another_index_may_be_ignored() -> None:
    logits, labels = CASES["classes"]
    kept = labels != 3
    ours = LabelSmoother(ignore_index=3)({"logits": logits}, labels)

    assert 0 < kept.sum() < len(labels)
    assert ours.item() == pytest.approx(by_hand(logits[kept], labels[kept], 0.1), rel=1e-5)


def test_low_precision_is_summed_in_float32() -> None:
    logits, labels = logits_of(4, 5000).bfloat16(), labels_of(4, classes=5000)

    assert LabelSmoother()({"logits": logits}, labels).item() == pytest.approx(by_hand(logits, labels, 0.1), rel=1e-2)
