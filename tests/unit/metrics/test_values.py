"""The mean squared error and the perplexity, against float64 by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import mean_squared_error
from tests.unit.metrics.batches import measure, numbers
from torch import nn

from surestep.errors import DataError
from surestep.losses.shift import Shift


@pytest.mark.parametrize("size", [1, 4, 23])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_squared_error_is_that_of_scikit_learn(outputs: int, size: int) -> None:
    predictions, labels = (torch.randn(23, outputs, generator=numbers(seed)) for seed in (0, 1))
    expected = mean_squared_error(labels.double(), predictions.double())

    assert measure("mse", predictions, labels, size) == {"mse": pytest.approx(expected, rel=1e-12)}


def test_an_output_of_one_number_may_have_labels_without_a_second_dimension() -> None:
    predictions, labels = torch.randn(23, 1, generator=numbers()), torch.randn(23, generator=numbers(1))
    expected = mean_squared_error(labels.double(), predictions[:, 0].double())

    assert measure("mse", predictions, labels) == {"mse": pytest.approx(expected, rel=1e-12)}


def test_the_configuration_says_that_whole_numbers_are_amounts() -> None:
    predictions, labels = torch.randn(6, 1, generator=numbers()), torch.arange(6)
    config = SimpleNamespace(problem_type="regression")

    expected = mean_squared_error(labels, predictions[:, 0].double())
    assert measure("mse", predictions, labels, config=config) == {"mse": pytest.approx(expected)}


def test_classes_have_no_squared_error() -> None:
    with pytest.raises(DataError, match=r"'mse' needs labels that are amounts, and the task is multiclass.*accuracy"):
        measure("mse", torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("size", [1, 4, 11])
@pytest.mark.parametrize("shifted", [True, False])
def test_the_perplexity_is_that_of_all_positions(shifted: bool, size: int) -> None:
    logits = 30 * torch.randn(11, 7, 9, generator=numbers())
    labels = torch.randint(0, 9, (11, 7), generator=numbers(1))
    labels[torch.rand(11, 7, generator=numbers(2)) < 0.5] = -100
    labels[4] = -100
    scores, wanted = (logits[:, :-1], labels[:, 1:]) if shifted else (logits, labels)
    exact = nn.functional.cross_entropy(scores.double().flatten(0, 1), wanted.flatten()).exp()

    figures = measure("perplexity", logits, labels, size, shift=Shift(shifted))

    # Where a softmax in float32 has no probability left, the logarithm still has one.
    assert figures == {"perplexity": pytest.approx(float(exact), rel=1e-6)}


def test_a_perplexity_needs_logits() -> None:
    with pytest.raises(DataError, match=r"'perplexity' needs logits.*preprocess_logits_for_metrics"):
        measure("perplexity", torch.ones(4, 3).long(), torch.ones(4, 3).long(), config=SimpleNamespace(vocab_size=9))
