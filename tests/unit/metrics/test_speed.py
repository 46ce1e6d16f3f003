"""Speeds, with a clock that stands where it is put."""

from __future__ import annotations

import time
from typing import Any

import pytest
from transformers import trainer_utils

from surestep.metrics.speed import speed_metrics


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"num_samples": 100},
        {"num_steps": 7},
        {"num_tokens": 12345},
        {"num_samples": 3, "num_steps": 2, "num_tokens": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("seconds", [0.25, 7.123456, 5000.0])
def test_figures_are_those_of_the_original(monkeypatch: pytest.MonkeyPatch, counts: Any, seconds: float) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0 + seconds)

    assert speed_metrics("eval", 1000.0, **counts) == trainer_utils.speed_metrics("eval", 1000.0, **counts)


def test_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 14.0)

    assert speed_metrics("train", 10.0, num_samples=10, num_steps=3, num_tokens=0) == {
        "train_runtime": 4.0,
        "train_samples_per_second": 2.5,
        "train_steps_per_second": 0.75,
        "train_tokens_per_second": 0.0,
    }


def test_no_time_gives_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 10.0)

    assert speed_metrics("train", 10.0, num_samples=10) == {"train_runtime": 0.0}
