"""Which way is better: by name, by what a metric says of itself, or unknown."""

from __future__ import annotations

from typing import Any

import pytest
import torchmetrics

from surestep.metrics.direction import direction_among, direction_of


@pytest.mark.parametrize(
    ("name", "greater"),
    [
        ("accuracy", True),
        ("eval_accuracy", True),
        ("eval_easy_accuracy", True),
        ("f1", True),
        ("eval_f1_macro", True),
        ("macro_f1", True),
        ("precision", True),
        ("recall_micro", True),
        ("auroc", True),
        ("mcc", True),
        ("eval_rougeLsum", True),
        ("bleu", True),
        ("iou", True),
        ("exact_match", True),
        ("eval_accuracy_low", True),
        ("f1_macro_high", True),
        ("loss", False),
        ("eval_loss", False),
        # The original's rule: a suffix, with or without a line before it.
        ("eval_myloss", False),
        ("mse", False),
        ("perplexity", False),
        ("eval_perplexity_high", False),
        ("accuracy_loss", False),
        ("figure", None),
        ("f1_threshold", None),
        ("inaccuracy", None),
        ("", None),
    ],
)
def test_a_name_says_which_way_is_better_or_nothing(name: str, greater: bool | None) -> None:
    assert direction_of(name) is greater


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        (torchmetrics.classification.MulticlassAccuracy(3), True),
        (torchmetrics.MeanSquaredError(), False),
        (torchmetrics.MeanMetric(), None),
        (torchmetrics.MetricCollection([torchmetrics.classification.BinaryF1Score()]), True),
        (
            torchmetrics.MetricCollection([torchmetrics.MeanSquaredError(), torchmetrics.R2Score()]),
            None,
        ),
        (object(), None),
    ],
    ids=["rising", "falling", "unknown", "agreeing", "disagreeing", "no metric"],
)
def test_a_metric_says_it_of_itself(metric: Any, greater: bool | None) -> None:
    assert direction_of(metric) is greater


class Says:
    def __init__(self, higher_is_better: bool | None) -> None:
        self.higher_is_better = higher_is_better


@pytest.mark.parametrize(
    ("figure", "greater"),
    [
        ("score", True),
        ("eval_score", True),
        ("eval_german_score_low", True),
        ("score_gap", False),
        ("eval_score_gap", False),
        ("scores", None),
        ("underscore", None),
        ("silent", None),
    ],
)
def test_a_figure_has_the_direction_of_the_metric_that_gives_it(figure: str, greater: bool | None) -> None:
    metrics = {"score": Says(True), "score_gap": Says(False), "silent": Says(None)}
    assert direction_among(figure, metrics) is greater
