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


def test_lines_come_now_and_then_with_an_estimate(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with showing("Reading", 10_000) as advance:
        for _ in range(7):
            now += 10.0
            advance(1_000)
    # The first after 30 seconds, at 100 a second; the next 30 seconds later.
    assert caplog.messages == [
        "Reading: 3,000 of 10,000, about 70 s left.",
        "Reading: 6,000 of 10,000, about 40 s left.",
    ]


def test_nothing_done_yet_and_more_than_all_have_an_estimate_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with showing("Reading", 10) as advance:
        for more in (0, 12):
            now += 30.0
            advance(more)
    assert caplog.messages == ["Reading: 0 of 10, about 300 s left.", "Reading: 12 of 10, about 0 s left."]


def test_a_terminal_has_a_bar(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.progress.Progress.advance", lambda bar, task, more: drawn.append((task, more)))
    with showing("Reading", 6) as advance:
        advance(4)
        advance(1)
    assert drawn == [(0, 4), (0, 1)]
    assert caplog.messages == []
