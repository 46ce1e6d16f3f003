"""Objects of torchmetrics: fed rightly, in exact sums, merged over ranks that have seen nothing."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from tests.unit.metrics.batches import Words, batches, measure, numbers
from tests.unit.metrics.test_classes import several
from tests.unit.metrics.test_text import SAID, WANTED, texts
from tests.unit.metrics.world import together
from torchmetrics import classification, regression, text

from surestep.errors import ArgumentError, DataError
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.named import make_metrics
from surestep.metrics.task import Reading

SIZES = [1, 4, 37]
NUMBERS = {"config": SimpleNamespace(num_labels=5)}
CLASSES = [
    (classification.MulticlassAccuracy(5), 5),
    (classification.MulticlassConfusionMatrix(5), None),
    (classification.MulticlassF1Score(5, average="weighted"), 5),
    (classification.MulticlassCalibrationError(5), 5),
    (classification.BinaryAUROC(), 2),
    (classification.BinaryAUROC(thresholds=50), 2),
    (classification.BinaryCalibrationError(), 2),
    (classification.MulticlassAUROC(2), 2),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("metric", "classes"), [pair for pair in CLASSES if pair[1]], ids=lambda one: type(one).__name__
)
def test_classes_are_those_of_one_update_with_probabilities(metric: Any, classes: int, size: int) -> None:
    logits, labels = several(classes)
    # Of a batch in which all lie between 0 and 1, torchmetrics would take them as they are.
    logits[5] = torch.linspace(0.1, 0.4, classes)
    shares = logits.double().softmax(1)
    alone = metric.clone()
    alone.update(shares[:, 1] if type(metric).__name__.startswith("Binary") else shares, labels)

    assert measure({"it": metric}, logits, labels, size) == {"it": pytest.approx(alone.compute().item(), rel=1e-5)}
    # The user's own has seen nothing.
    assert metric.update_count == 0


def test_positions_without_a_label_are_left_out() -> None:
    logits, labels = torch.randn(9, 4, 5, generator=numbers()), torch.randint(0, 5, (9, 4), generator=numbers(1))
    labels[torch.rand(9, 4, generator=numbers(2)) < 0.5] = -100
    kept = labels != -100
    right = float((logits.argmax(-1) == labels)[kept].double().mean())

    metric = classification.MulticlassAccuracy(5, average="micro")
    assert measure({"it": metric}, logits, labels) == {"it": pytest.approx(right, rel=1e-6)}
    assert measure({"it": metric}, logits.argmax(-1), labels, **NUMBERS) == {"it": pytest.approx(right, rel=1e-6)}


def test_batches_in_which_nothing_counts_change_nothing() -> None:
    logits, labels = several(5)
    some = torch.cat([torch.full((3,), -100), labels])
    given = torch.cat([torch.randn(3, 5), logits])
    metrics = [classification.MulticlassF1Score(5), "perplexity"]

    assert measure(metrics, given, some, 1) == pytest.approx(measure(metrics, logits, labels, 37), rel=1e-6)
    nothing = measure(metrics[:1], given[:3], some[:3], 1)
    assert nothing == {}


@pytest.mark.parametrize("size", SIZES)
def test_amounts(size: int) -> None:
    predictions, labels = (torch.randn(37, 1, generator=numbers(seed)) for seed in (0, 1))
    found = measure([regression.R2Score(), regression.PearsonCorrCoef()], predictions, labels, size)

    assert found["r2_score"] == pytest.approx(regression.R2Score()(predictions[:, 0], labels[:, 0]).item(), rel=1e-5)
    expected = float(np.corrcoef(predictions[:, 0].numpy(), labels[:, 0].numpy())[0, 1])
    assert found["pearson_corr_coef"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_texts(size: int) -> None:
    metrics = [text.WordErrorRate(), text.CHRFScore(), text.Perplexity()]
    found = measure(metrics[:2], SAID, WANTED, size, processing_class=Words())

    assert found["word_error_rate"] == pytest.approx(text.WordErrorRate()(texts(SAID), texts(WANTED)).item())
    references = [[one] for one in texts(WANTED)]
    assert found["chrfscore"] == pytest.approx(text.CHRFScore()(texts(SAID), references).item(), rel=1e-5)
    logits = torch.randn(3, 7, 11, generator=numbers())
    both = measure(["perplexity", {"theirs": metrics[2]}], logits, WANTED, size)
    assert both["theirs"] == pytest.approx(both["perplexity"], rel=1e-5)


def test_several_figures_are_named() -> None:
    logits, labels = several(5)
    collection = torchmetrics.MetricCollection(
        {"f1": classification.MulticlassF1Score(5), "each": classification.MulticlassRecall(5, average=None)},
        prefix="my_",
    )
    found = measure(collection, logits, labels)
    wrapped = measure(torchmetrics.ClasswiseWrapper(classification.MulticlassF1Score(5, average=None)), logits, labels)

    assert list(found) == ["my_each_0", "my_each_1", "my_each_2", "my_each_3", "my_each_4", "my_f1"]
    assert sum(wrapped.values()) / 5 == pytest.approx(found["my_f1"])
    assert found["my_f1"] == pytest.approx(measure("f1", logits, labels)["f1"], rel=1e-6)


def test_a_metric_that_takes_no_such_predictions_is_told() -> None:
    with pytest.raises(DataError, match=r"MulticlassAccuracy cannot take predictions of shape \(7, 5\).*int64"):
        measure(classification.MulticlassAccuracy(3), *several(5))
    with pytest.raises(ArgumentError, match=r"computes shape \(5, 5\).*no figure"):
        measure(CLASSES[1][0], *several(5))


def test_sums_are_exact() -> None:
    # In float32, 1 is lost beside 2**25.
    predictions = torch.tensor([[2.0**13], *[[1.0]] * 600])
    found = measure(regression.MeanSquaredError(), predictions, torch.zeros(601, 1), 1)

    assert found["mean_squared_error"] == pytest.approx((2.0**26 + 600) / 601, rel=1e-12)


def test_what_keeps_every_prediction_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "surestep"):
        make_metrics(classification.BinaryPrecisionRecallCurve(), Reading(quiet=True))

    assert "BinaryPrecisionRecallCurve keeps every prediction in memory" in caplog.text


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(
    "metric",
    [
        classification.MulticlassF1Score(5),
        classification.MulticlassAUROC(5),
        torchmetrics.MetricCollection([classification.MulticlassF1Score(5), classification.MulticlassAUROC(5)]),
        classification.MulticlassAUROC(5, thresholds=20),
        torchmetrics.ClasswiseWrapper(classification.MulticlassF1Score(5, average=None)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_ranks_are_merged_though_one_has_nothing(metric: Any, ranks: int) -> None:
    logits, labels = several(5)
    shares = list(batches(logits, labels, 20))
    figures = together(metric, [shares[:1], shares[1:], []][:ranks])

    assert figures == [pytest.approx(measure(metric, logits, labels), rel=1e-6)] * ranks


def test_states_that_are_no_sums_are_merged_as_the_metric_says() -> None:
    predictions, labels = (torch.randn(37, 1, generator=numbers(seed)) for seed in (0, 1))
    shares = list(batches(predictions, labels, 20))
    with pytest.warns(UserWarning, match="save all targets"):
        metrics = [regression.PearsonCorrCoef(), regression.SpearmanCorrCoef()]

    assert (
        together(metrics, [shares[:1], shares[1:], []])
        == [pytest.approx(measure(metrics, predictions, labels), rel=1e-5)] * 3
    )


# Intervals


@pytest.mark.parametrize("size", SIZES)
def test_an_interval_repeats_samples(size: int) -> None:
    logits, labels = several(5)
    bootstrap = Bootstrap(0.8, seed=1, repetitions=40)
    theirs = measure({"it": classification.MulticlassF1Score(5)}, logits, labels, size, bootstrap=bootstrap)
    ours = measure({"it": "f1"}, logits, labels, size, bootstrap=bootstrap)

    assert theirs == pytest.approx(ours, rel=1e-6)


def test_an_interval_needs_sums() -> None:
    with pytest.raises(ArgumentError, match=r"needs metrics whose states are sums, and BinaryAUROC has others"):
        measure(classification.BinaryAUROC(), *several(2), bootstrap=Bootstrap(0.9))
