"""The exact area under the curve against scikit-learn, its scores on disk."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.unit.metrics.batches import measure, numbers

from surestep.errors import DataError
from surestep.metrics.auroc import Auroc, _Ranking
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.task import PredictionBatch, Reading

SIZES = [1, 6, 40]


def rounded(*shape: int, seed: int) -> torch.Tensor:
    """Scores of which many are equal."""
    return (torch.randn(*shape, generator=numbers(seed)) * 2).round() / 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("columns", [0, 1, 2])
def test_two_classes(columns: int, size: int) -> None:
    scores = rounded(40, columns, seed=0) if columns else rounded(40, seed=0)
    labels = torch.randint(0, 2, (40,), generator=numbers(1))
    order = scores[:, 1] - scores[:, 0] if columns == 2 else scores.reshape(-1)

    expected = roc_auc_score(labels, order)
    assert measure("auroc", scores, labels, size) == {"auroc": pytest.approx(expected, rel=1e-12)}


@pytest.mark.parametrize("size", SIZES)
def test_many_classes_one_against_the_rest(size: int) -> None:
    scores, labels = rounded(40, 4, seed=0), torch.randint(0, 4, (40,), generator=numbers(1))

    expected = roc_auc_score(labels, scores.softmax(1), multi_class="ovr", average="macro")
    assert measure("auroc", scores, labels, size) == {"auroc": pytest.approx(expected, rel=1e-12)}


@pytest.mark.parametrize("size", SIZES)
def test_several_labels(size: int) -> None:
    scores, labels = rounded(40, 3, seed=0), torch.randint(0, 2, (40, 3), generator=numbers(1)).float()

    expected = roc_auc_score(labels, scores, average="macro")
    assert measure("auroc", scores, labels, size) == {"auroc": pytest.approx(expected, rel=1e-12)}


def test_positions_without_a_label_do_not_count() -> None:
    scores, labels = rounded(10, 4, 2, seed=0), torch.randint(0, 2, (10, 4), generator=numbers(1))
    labels[torch.rand(10, 4, generator=numbers(2)) < 0.5] = -100
    kept = labels != -100

    expected = roc_auc_score(labels[kept], (scores[..., 1] - scores[..., 0])[kept])
    assert measure("auroc", scores, labels) == {"auroc": pytest.approx(expected, rel=1e-12)}


def test_a_class_that_never_occurs_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    scores, labels = rounded(40, 3, seed=0), torch.randint(0, 2, (40,), generator=numbers(1))
    with caplog.at_level(logging.WARNING, "surestep"):
        figures = measure("auroc", scores, labels)
    shares = scores.softmax(1)

    expected = np.mean([roc_auc_score(labels == place, shares[:, place]) for place in (0, 1)])
    assert figures == {"auroc": pytest.approx(float(expected), rel=1e-12)}
    assert "leaves out 1 of 3 classes" in caplog.text
    assert math.isnan(measure("auroc", scores[:, :2], torch.zeros(40, dtype=torch.long))["auroc"])


def test_scores_are_kept_on_disk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    metric = Auroc(reading := Reading(quiet=True))
    for seed in range(5):
        labels = torch.randint(0, 3, (8,), generator=numbers(seed))
        metric.update(PredictionBatch(rounded(8, 3, seed=seed), labels, reading))
        assert not any(column._parts for column in (metric._scores, metric._targets))
    (folder,) = tmp_path.iterdir()
    metric._scores._file.flush()

    assert max(path.stat().st_size for path in folder.iterdir()) == 5 * 8 * 3 * 4
    metric.reset()
    assert list(tmp_path.iterdir()) == []


def test_an_interval_repeats_the_area_with_weights() -> None:
    scores, labels = rounded(40, seed=0), torch.randint(0, 2, (40,), generator=numbers(1))
    bootstrap = Bootstrap(0.9, seed=3, repetitions=50)
    drawn = bootstrap.weights(np.arange(40))
    areas = [roc_auc_score(labels, scores, sample_weight=weights) for weights in drawn]

    figures = measure("auroc", scores, labels, bootstrap=bootstrap)

    low, high = np.quantile(areas, [0.05, 0.95])
    assert figures["auroc_low"] == pytest.approx(low, rel=1e-9)
    assert figures["auroc_high"] == pytest.approx(high, rel=1e-9)


def test_blocks_of_repetitions_are_those_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = _Ranking(rounded(40, seed=0).numpy(), np.arange(40) % 2)
    whole = ranking.repeated(Bootstrap(0.9), np.arange(40))
    monkeypatch.setattr("surestep.metrics.auroc._BLOCK", 40 * 7)

    np.testing.assert_array_equal(ranking.repeated(Bootstrap(0.9), np.arange(40)), whole)


def test_numbers_of_classes_have_no_scores() -> None:
    from types import SimpleNamespace

    with pytest.raises(DataError, match="'auroc' needs scores"):
        measure("auroc", torch.ones(4).long(), torch.ones(4).long(), config=SimpleNamespace(num_labels=2))
