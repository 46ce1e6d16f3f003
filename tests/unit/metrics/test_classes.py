"""Metrics of classes against scikit-learn and torchmetrics, for every batch size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from tests.unit.metrics.batches import measure, numbers
from torchmetrics import functional

from surestep.errors import DataError
from surestep.losses.shift import Shift

IGNORED = -100
SIZES = [1, 4, 37]


def several(classes: int, samples: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(0, classes, (samples,), generator=numbers(1))
    logits = torch.randn(samples, classes, generator=numbers(2)) + torch.nn.functional.one_hot(labels, classes)
    return logits, labels


def wanted(chosen: Any, actual: Any, average: str) -> dict[str, float]:
    named = {"average": average, "zero_division": 0.0}
    return {
        "accuracy": sk.accuracy_score(actual, chosen),
        "f1": sk.f1_score(actual, chosen, **named),
        "precision": sk.precision_score(actual, chosen, **named),
        "recall": sk.recall_score(actual, chosen, **named),
        "mcc": sk.matthews_corrcoef(actual, chosen),
        "iou": sk.jaccard_score(actual, chosen, average="macro", zero_division=0.0),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [2, 3, 11])
def test_as_scikit_learn_has_it(classes: int, size: int) -> None:
    logits, labels = several(classes)
    expected = wanted(logits.argmax(1), labels, "binary" if classes == 2 else "macro")

    assert measure(list(expected), logits, labels, size) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
@pytest.mark.parametrize("classes", [2, 5])
def test_averages_by_name(name: str, average: str, classes: int) -> None:
    logits, labels = several(classes)
    expected = getattr(sk, f"{name}_score")(labels, logits.argmax(1), average=average, zero_division=0.0)

    assert measure(f"{name}_{average}", logits, labels) == {f"{name}_{average}": pytest.approx(expected, rel=1e-12)}


def test_classes_that_never_occur_do_not_count() -> None:
    logits, labels = several(11, samples=9)
    expected = wanted(logits.argmax(1), labels, "macro")

    assert len(set(labels.tolist()) | set(logits.argmax(1).tolist())) < 11
    assert measure(list(expected), logits, labels) == pytest.approx(expected, rel=1e-12)


def test_one_logit_is_a_binary_task() -> None:
    logits, labels = torch.randn(37, 1, generator=numbers()), torch.randint(0, 2, (37,), generator=numbers(1))
    expected = wanted((logits[:, 0] > 0).long(), labels, "binary")

    assert measure(list(expected), logits, labels) == pytest.approx(expected, rel=1e-12)
    assert measure(list(expected), logits[:, 0], labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", ["last", "second", "numbers"])
def test_positions_and_labels_that_do_not_count(layout: str, size: int) -> None:
    labels = torch.randint(0, 4, (37, 5), generator=numbers(1))
    logits = torch.randn(37, 5, 4, generator=numbers(2))
    labels[torch.rand(37, 5, generator=numbers(3)) < 0.4] = IGNORED
    # A sample without any label.
    labels[6] = IGNORED
    kept = labels != IGNORED
    expected = wanted(logits.argmax(-1)[kept], labels[kept], "macro")
    forms = {"last": logits, "second": logits.movedim(-1, 1), "numbers": logits.argmax(-1)}
    config = SimpleNamespace(num_labels=4)

    figures = measure(list(expected), forms[layout], labels, size, config=config)

    assert figures == pytest.approx(expected, rel=1e-12)


def test_next_tokens_are_compared_with_the_labels_after_them() -> None:
    logits, labels = torch.randn(9, 6, 5, generator=numbers()), torch.randint(0, 5, (9, 6), generator=numbers(1))
    right = (logits[:, :-1].argmax(-1) == labels[:, 1:]).double().mean()

    assert measure("accuracy", logits, labels, shift=Shift(True)) == {"accuracy": pytest.approx(float(right))}
    named = measure("accuracy", logits.argmax(-1), labels, shift=Shift(True), config=SimpleNamespace(num_labels=5))
    assert named == {"accuracy": pytest.approx(float(right))}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_several_labels_a_sample(kind: torch.dtype, size: int) -> None:
    logits, labels = torch.randn(37, 4, generator=numbers()), torch.randint(0, 2, (37, 4), generator=numbers(1))
    chosen = (logits > 0).long()
    named = {"average": "macro", "zero_division": 0.0}
    expected = {
        "accuracy": float((chosen == labels).double().mean()),
        "f1": sk.f1_score(labels, chosen, **named),
        "precision": sk.precision_score(labels, chosen, **named),
        "recall_micro": sk.recall_score(labels, chosen, average="micro"),
        "iou": sk.jaccard_score(labels, chosen, **named),
        "mcc": sk.matthews_corrcoef(labels.flatten(), chosen.flatten()),
    }

    assert measure(list(expected), logits, labels.to(kind), size) == pytest.approx(expected, rel=1e-12)


def test_torchmetrics_agrees() -> None:
    logits, labels = several(6)
    figures = measure(["f1", "mcc", "iou"], logits, labels)

    assert figures["f1"] == pytest.approx(
        float(functional.f1_score(logits, labels, "multiclass", num_classes=6, average="macro"))
    )
    assert figures["mcc"] == pytest.approx(
        float(functional.matthews_corrcoef(logits, labels, "multiclass", num_classes=6))
    )
    assert figures["iou"] == pytest.approx(float(functional.jaccard_index(logits, labels, "multiclass", num_classes=6)))


def test_counts_grow_with_the_classes_and_not_with_their_square() -> None:
    from surestep.metrics.classes import ClassCounts, f1
    from surestep.metrics.task import PredictionBatch, Reading

    logits, labels = torch.randn(4, 8000, generator=numbers()), torch.arange(4)
    metric = ClassCounts(f1, reading := Reading(quiet=True), name="f1")
    for _ in range(3):
        metric.update(PredictionBatch(logits, labels, reading))

    assert metric.sums.shape == (3 * 8000 + 1,)


def test_a_coefficient_of_one_class_is_nothing() -> None:
    logits, labels = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 0, 0, 0])

    assert measure(["mcc", "f1"], logits, labels) == {"mcc": 0.0, "f1": 0.0}


@pytest.mark.parametrize("name", ["accuracy", "f1", "mcc", "iou", "auroc"])
def test_amounts_have_no_classes(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' needs classes.*'mse'"):
        measure(name, torch.randn(4, 1), torch.randn(4, 1))


def test_shapes_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(DataError, match=r"shape \(4, 3, 8, 8\) with labels of shape \(4, 16, 16\).*resized"):
        measure("iou", torch.randn(4, 3, 8, 8), torch.zeros(4, 16, 16, dtype=torch.long))
    with pytest.raises(DataError, match=r"numbers of classes.*Set config\.num_labels"):
        measure("f1", torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    config = SimpleNamespace(num_labels=4)
    with pytest.raises(DataError, match=r"cannot compare.*\(4, 3\).*\(4, 5\)"):
        measure("f1", torch.zeros(4, 3).long(), torch.zeros(4, 5).long(), config=config)
    with pytest.raises(DataError, match=r"compare predictions with one tensor of labels, and there are 2 of them"):
        measure("f1", torch.randn(4, 3), (torch.zeros(4).long(), torch.zeros(4).long()))


def test_of_several_outputs_the_first_is_measured() -> None:
    logits, labels = several(3)

    assert measure("accuracy", (logits, logits * 0), labels) == measure("accuracy", logits, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    logits, labels = several(3)
    chosen = logits.to(dtype).argmax(1)

    assert measure("accuracy", logits.to(dtype), labels)["accuracy"] == pytest.approx(
        float(np.mean((chosen == labels).numpy()))
    )
