"""Weights of samples: from a column, or such that every class comes as often."""

from __future__ import annotations

from typing import Any

import datasets
import pandas as pd
import pytest
import torch

from surestep.data.weights import balanced, sampling_weights
from surestep.errors import DataError

LABELS = [0, 0, 0, 1, 2, 2]
ROWS = [{"x": index, "label": label, "weight": index / 2} for index, label in enumerate(LABELS)]
TENSORS = [{"x": index, "label": torch.tensor(label)} for index, label in enumerate(LABELS)]


@pytest.mark.parametrize("dataset", [ROWS, TENSORS, datasets.Dataset.from_list(ROWS), pd.DataFrame(ROWS)])
def test_every_class_gets_the_same_weight_in_all(dataset: Any) -> None:
    weights = sampling_weights(dataset, "balanced", ["labels", "label"])

    totals = torch.zeros(3, dtype=torch.float64).index_add_(0, torch.tensor(LABELS), weights)
    torch.testing.assert_close(totals, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("dataset", [ROWS, datasets.Dataset.from_list(ROWS), pd.DataFrame(ROWS)])
def test_weights_of_a_column(dataset: Any) -> None:
    assert sampling_weights(dataset, "weight", ["label"]).tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_classes_may_be_words() -> None:
    assert balanced(["spam", "ham", "ham", "ham"]).tolist() == [1, 1 / 3, 1 / 3, 1 / 3]


@pytest.mark.parametrize(
    ("dataset", "rule", "message"),
    [
        (ROWS, "weights", r"sampling_weights='weights' reads 'weights', and the samples have 'x', 'label', 'weight'"),
        ([(1, 2)], "balanced", r"reads 'label', and the samples have no names.*_get_train_sampler"),
        (
            [{"label": [0, 1]}],
            "balanced",
            r"one class a sample, and a label is of type list.*sampling_weights='weight'",
        ),
        ([{"label": torch.ones(2)}], "balanced", r"a label is of type Tensor"),
    ],
)
def test_what_cannot_be_weighed_is_refused(dataset: Any, rule: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sampling_weights(dataset, rule, ["label"])
