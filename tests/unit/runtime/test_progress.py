"""What is told of something that takes long: a bar on a terminal, else lines."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import pytest

from surestep.runtime.progress import showing


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="surestep")


@pytest.mark.parametrize(
    ("total", "done", "told"),
    [
        # The first after 30 seconds, at 100 a second; the next 30 seconds later.
        (10_000, [1_000] * 7, ["3,000 of 10,000, about 70 s left.", "6,000 of 10,000, about 40 s left."]),
        (10, [0, 0, 0, 4, 4, 4], ["0 of 10, about 300 s left.", "12 of 10, about 0 s left."]),
    ],
    ids=["some", "nothing yet, then more than all"],
)
def test_lines_come_now_and_then_with_an_estimate(
    total: int, done: list[int], told: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with showing("Reading", total) as advance:
        for more in done:
            now += 10.0
            advance(more)
    assert caplog.messages == [f"Reading: {line}" for line in told]


def test_a_terminal_has_a_bar(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.progress.Progress.advance", lambda bar, task, more: drawn.append((task, more)))
    with showing("Reading", 6) as advance:
        advance(4)
        advance(1)
    assert drawn == [(0, 4), (0, 1)]
    assert caplog.messages == []
