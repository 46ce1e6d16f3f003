"""What is told while data is read again up to a position."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import pytest

from surestep.data.skipping import skipping


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="surestep")


@pytest.mark.parametrize(
    ("samples", "batches", "what"),
    [
        (0, 1, "1 batch:"),
        (1, 0, "1 sample:"),
        (1, 2, "1 sample and 2 batches:"),
        (12_000, 1_000, "12,000 samples and 1,000 batches:"),
    ],
)
def test_how_much_and_why(samples: int, batches: int, what: str, caplog: pytest.LogCaptureFixture) -> None:
    because = "shuffling by a buffer loses its place"
    with skipping(samples, batches, because):
        pass
    said = caplog.messages[0].replace(", since", ":")
    assert said == f"The training data is read again from its beginning: {what} {because}."


def test_without_a_reason_it_says_what_is_not_read_again(caplog: pytest.LogCaptureFixture) -> None:
    with skipping(0, 3, None):
        pass
    assert "3 batches; a map-style dataset, or one that tells its position, is not." in caplog.text


def test_lines_come_now_and_then_with_an_estimate(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with skipping(10_000, 0, None) as skipped:
        for _ in range(7):
            now += 10.0
            skipped(1_000)
    # The first after 30 seconds, at 100 samples a second; the next 30 seconds later.
    assert caplog.messages[1:] == [
        "Read 3,000 of 10,000 up to the position, about 70 seconds left.",
        "Read 6,000 of 10,000 up to the position, about 40 seconds left.",
    ]


def test_a_terminal_has_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.progress.Progress.advance", lambda bar, task, more: drawn.append((task, more)))
    with skipping(4, 2, None) as skipped:
        skipped(4)
        skipped(1)
    assert drawn == [(0, 4), (0, 1)]
