"""How often samples count, and the intervals that come of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.unit.metrics.batches import batches, measure, numbers
from tests.unit.metrics.test_classes import several
from tests.unit.metrics.world import together

from surestep.errors import ArgumentError
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.classes import ClassCounts, f1
from surestep.metrics.named import make_metrics
from surestep.metrics.task import PredictionBatch, Reading


def test_weights_are_poisson_and_apart() -> None:
    weights = Bootstrap(0.95, seed=7, repetitions=500).weights(np.arange(400))
    observed = np.bincount(weights.astype(int).ravel(), minlength=8)[:8]
    expected = stats.poisson(1).pmf(np.arange(8)) * weights.size

    assert (np.abs(observed - expected) < 5 * np.sqrt(expected) + 5).all()
    # Neither neighbouring samples nor neighbouring repetitions go together.
    assert abs(np.corrcoef(weights[:-1].ravel(), weights[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(weights[:, :-1].ravel(), weights[:, 1:].ravel())[0, 1]) < 0.01


def test_weights_belong_to_the_sample_and_the_seed() -> None:
    bootstrap = Bootstrap(0.95, seed=1, repetitions=50)
    whole = bootstrap.weights([3, 4, 900_000_000])

    np.testing.assert_array_equal(bootstrap.weights([900_000_000])[:, 0], whole[:, 2])
    np.testing.assert_array_equal(bootstrap.weights([3, 4, 900_000_000], range(20, 30)), whole[20:30])
    assert (Bootstrap(0.95, seed=2, repetitions=50).weights([3, 4, 5]) != bootstrap.weights([3, 4, 5])).any()


def test_the_interval_of_an_accuracy_is_that_of_the_binomial() -> None:
    labels = torch.zeros(400, dtype=torch.long)
    logits = torch.stack([torch.rand(400, generator=numbers()) - 0.3, torch.zeros(400)], dim=1)
    found = measure("accuracy", logits, labels, 50, bootstrap=Bootstrap(0.95))
    share = found["accuracy"]
    spread = 1.96 * math.sqrt(share * (1 - share) / 400)

    assert found["accuracy_low"] == pytest.approx(share - spread, abs=0.01)
    assert found["accuracy_high"] == pytest.approx(share + spread, abs=0.01)


@pytest.mark.parametrize("asked", [["accuracy", "f1", "mcc", "perplexity"], ["auroc"]])
@pytest.mark.parametrize("size", [1, 5, 37])
def test_neither_batches_nor_ranks_change_an_interval(asked: list[str], size: int) -> None:
    logits, labels = several(4)
    bootstrap = Bootstrap(0.9, seed=3, repetitions=60)
    whole = measure(asked, logits, labels, 37, bootstrap=bootstrap)
    parts = list(batches(logits, labels, size))

    assert {f"{name}{end}" for name in asked for end in ("", "_low", "_high")} == set(whole)
    assert measure(asked, logits, labels, size, bootstrap=bootstrap) == pytest.approx(whole, rel=1e-6)
    for found in together(asked, [parts[::2], parts[1::2], []], bootstrap):
        assert found == pytest.approx(whole, rel=1e-6)


def test_memory_does_not_grow_with_samples() -> None:
    logits, labels = several(4)
    metrics = make_metrics("f1", Reading(quiet=True), Bootstrap(0.9, repetitions=30))
    for times in range(3):
        metrics.update(logits, labels, None, np.arange(37) + 37 * times)
    (metric,) = metrics.metrics.values()

    assert metric.repeated.shape == (30, 13)


def test_what_would_take_too_much_is_refused() -> None:
    reading = Reading(quiet=True)
    metric = ClassCounts(f1, reading, name="f1", bootstrap=Bootstrap(0.9, repetitions=10_000))
    batch = PredictionBatch(torch.randn(1, 8000), torch.zeros(1).long(), reading, positions=np.zeros(1, int))
    with pytest.raises(ArgumentError, match=r"metrics_confidence would keep 1\.8 GiB for ClassCounts"):
        metric.update(batch)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ArgumentError, match=r"metrics_confidence=.*such as 0\.95"):
        Bootstrap(confidence)


def test_repetitions_without_a_figure_are_left_out() -> None:
    assert Bootstrap(0.5).interval([1.0, math.nan, 1.0]) == (1.0, 1.0)
    assert all(map(math.isnan, Bootstrap(0.5).interval([math.nan])))


@pytest.mark.parametrize(("confidence", "bounds"), [(0.9, (50, 950)), (0.5, (250, 750)), (0.99, (5, 995))])
def test_the_bounds_leave_as_much_out_above_as_below(confidence: float, bounds: tuple[int, int]) -> None:
    figures = np.random.default_rng(0).permutation(1001)

    assert Bootstrap(confidence).interval(figures) == pytest.approx(bounds)
