"""What may be written as `metrics=`, and what is answered to anything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchmetrics
from tests.unit.metrics.batches import ALONE, Words, measure
from tests.unit.metrics.test_classes import several

from surestep.errors import ArgumentError
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.direction import direction_of
from surestep.metrics.named import NAMES, check_metrics, make_metrics
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch, Reading

WRITTEN = [
    "accuracy", "f1", "precision", "recall", "auroc", "mcc", "mse", "perplexity", "rouge", "bleu", "seqeval", "iou",
    "squad",
]  # fmt: skip


def test_the_names() -> None:
    averaged = {f"{name}_{how}" for name in ("f1", "precision", "recall") for how in ("macro", "micro", "weighted")}

    assert set(NAMES) == {*WRITTEN, *averaged}


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_a_direction_and_the_metric_the_same(name: str) -> None:
    made = make_metrics(name, Reading()).metrics[name]
    figure = {"seqeval": "seqeval_f1", "squad": "squad_f1", "rouge": "rouge1"}.get(name, name)

    assert direction_of(figure) is direction_of(made) is (name not in {"mse", "perplexity"})


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("accuracy", ["accuracy"]),
        (["accuracy", "f1"], ["accuracy", "f1"]),
        ({"acc": "accuracy", "other": torchmetrics.MeanSquaredError()}, ["acc", "other"]),
        (torchmetrics.classification.MulticlassF1Score(3), ["multiclass_f1_score"]),
        (("f1", torchmetrics.classification.MulticlassAccuracy(3)), ["f1", "multiclass_accuracy"]),
        (torchmetrics.MetricCollection([torchmetrics.MeanSquaredError()], prefix="a_"), ["a_MeanSquaredError"]),
        ({"x": torchmetrics.MetricCollection({"b": torchmetrics.MeanSquaredError()})}, ["b"]),
    ],
    ids=["name", "list", "dict", "object", "both", "collection", "collection in a dict"],
)
def test_forms(asked: Any, names: list[str]) -> None:
    assert list(make_metrics(asked, Reading()).metrics) == names


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "acuracy",
            r"metrics has 'acuracy', which is no name of a metric. Did you mean 'accuracy'\? Write one of accur",
        ),
        (["f1", "f1"], r"metrics has 'f1' twice. Name the metrics in a dict"),
        (len, "metrics has <built-in function len>, which is no metric"),
        ([3], "metrics has 3, which is no metric"),
        (torchmetrics.MeanSquaredError, "which is no metric"),
    ],
)
def test_what_is_no_metric(asked: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_metrics(asked)


def test_two_metrics_may_not_give_one_figure() -> None:
    ones = torch.ones(2, 3).long()
    with pytest.raises(ArgumentError, match="Two metrics give 'rouge1'"):
        measure({"rouge": "rouge", "rouge1": Count()}, ones, ones, processing_class=Words())


class Count(SummedMetric):
    """A metric of one's own: the samples."""

    higher_is_better = None

    def terms(self, batch: PredictionBatch) -> torch.Tensor:
        return torch.ones(batch.size, 1)

    def figures(self, sums: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"": sums[..., 0]}


class Widest:
    """One that is no sum."""

    higher_is_better = None

    def reset(self) -> None:
        self.width = 0

    def update(self, batch: PredictionBatch) -> None:
        self.width = max(self.width, batch.predictions.shape[1])

    def merge(self, ranks: Any) -> None:
        self.width = max(ranks.agree(self.width))

    def compute(self) -> dict[str, float]:
        return {"": self.width, "_twice": 2 * self.width}


def test_metrics_of_ones_own() -> None:
    found = measure([Count(), {"wide": Widest()}["wide"]], *several(3), 5)

    assert found == {"count": 37.0, "widest": 3.0, "widest_twice": 6.0}


def test_an_interval_of_a_metric_of_ones_own() -> None:
    found = measure(Count(), *several(3), bootstrap=Bootstrap(0.9))

    assert found["count_low"] < 37 < found["count_high"]
    with pytest.raises(ArgumentError, match="needs a metric of sums, and Widest is none"):
        measure(Widest(), *several(3), bootstrap=Bootstrap(0.9))


def test_a_batch_without_labels_is_no_batch() -> None:
    metrics = make_metrics("accuracy", Reading(quiet=True))
    metrics.update(torch.ones(2, 2), None)
    metrics.update(None, torch.ones(2))

    assert metrics.compute(ALONE) == {}
