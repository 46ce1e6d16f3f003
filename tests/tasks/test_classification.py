"""Scores of a classifier, compared with scikit-learn's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as reference

from surestep.errors import DataError
from surestep.jobs.job import METRIC_NAMES
from surestep.tasks.classification import METRICS, ClassificationMetrics, confusion_matrix, precision_recall_f1

REFERENCES = {
    "accuracy": reference.accuracy_score,
    "balanced_accuracy": reference.balanced_accuracy_score,
    "macro_f1": lambda true, guessed: reference.f1_score(true, guessed, average="macro", zero_division=0),
    "weighted_f1": lambda true, guessed: reference.f1_score(true, guessed, average="weighted", zero_division=0),
    "matthews_correlation": reference.matthews_corrcoef,
}


def _draw(seed: int, num_classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    true = generator.integers(0, num_classes, count)
    guessed = np.where(generator.random(count) < 0.6, true, generator.integers(0, num_classes, count))
    return true, guessed


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize(("seed", "num_classes", "count"), [(0, 2, 50), (1, 3, 7), (2, 10, 400), (3, 5, 40)])
def test_metrics_are_those_of_scikit_learn(name: str, seed: int, num_classes: int, count: int) -> None:
    true, guessed = _draw(seed, num_classes, count)
    found = METRICS[name](confusion_matrix(true, guessed, num_classes))
    assert found == pytest.approx(REFERENCES[name](true, guessed), abs=1e-12)


def test_every_metric_has_a_reference_and_is_known_to_job_files() -> None:
    assert set(METRICS) == set(REFERENCES) == set(METRIC_NAMES)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_class_that_is_never_predicted_counts_as_scikit_learn_counts_it(name: str) -> None:
    true, guessed = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1])
    found = METRICS[name](confusion_matrix(true, guessed, 3))
    assert found == pytest.approx(REFERENCES[name](true, guessed), abs=1e-12)


def test_a_class_that_occurs_nowhere_is_left_out_of_the_mean() -> None:
    true, guessed = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
    found = METRICS["macro_f1"](confusion_matrix(true, guessed, 4))
    assert found == pytest.approx(reference.f1_score(true, guessed, average="macro"), abs=1e-12)


def test_matthews_correlation_of_a_constant_guess_is_zero() -> None:
    assert METRICS["matthews_correlation"](confusion_matrix([0, 1, 1], [1, 1, 1], 2)) == 0.0


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_samples_score_zero(name: str) -> None:
    assert METRICS[name](confusion_matrix([], [], 3)) == 0.0


def test_confusion_and_per_class_scores_are_those_of_scikit_learn() -> None:
    true, guessed = _draw(4, 6, 200)
    confusion = confusion_matrix(true, guessed, 6)
    assert np.array_equal(confusion, reference.confusion_matrix(true, guessed, labels=range(6)))
    expected = reference.precision_recall_fscore_support(true, guessed, labels=range(6), zero_division=0)
    for found, wanted in zip(precision_recall_f1(confusion), expected[:3], strict=True):
        assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("true", "guessed"), [([0, 3], [0, 1]), ([0, 1], [0, -1]), ([0], [0, 1])])
def test_what_is_no_class_is_refused(true: list[int], guessed: list[int]) -> None:
    with pytest.raises(DataError):
        confusion_matrix(true, guessed, 3)


def _scores(guessed: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[guessed]


def test_the_metric_function_takes_scores_and_keeps_the_confusion_matrix() -> None:
    true, guessed = _draw(5, 4, 60)
    metrics = ClassificationMetrics(["macro_f1", "accuracy"], 4)
    found = metrics(SimpleNamespace(predictions=(_scores(guessed, 4), "more outputs"), label_ids=true))
    assert list(found) == ["macro_f1", "accuracy"]
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(true, guessed))
    assert np.array_equal(metrics.confusion, reference.confusion_matrix(true, guessed))


def test_batches_add_up_to_the_whole_and_do_not_leak_into_the_next_evaluation() -> None:
    true, guessed = _draw(6, 3, 30)
    metrics = ClassificationMetrics(["accuracy"], 3)
    for _ in range(2):
        results = [
            metrics(SimpleNamespace(predictions=_scores(guessed[part], 3), label_ids=true[part]), compute_result=last)
            for part, last in ((slice(0, 11), False), (slice(11, 25), False), (slice(25, 30), True))
        ]
        assert results[:2] == [{}, {}]
        assert results[2]["accuracy"] == pytest.approx(reference.accuracy_score(true, guessed))
