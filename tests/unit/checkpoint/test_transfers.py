"""What is told while a checkpoint comes over the network."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import pytest

from surestep.checkpoint.transfers import transferring

MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="surestep")


def test_lines_come_now_and_then_with_an_estimate(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with transferring("Fetching 'checkpoint-3'", 100 * MEBIBYTE) as arrived:
        for _ in range(7):
            now += 10.0
            arrived(10 * MEBIBYTE)
    # The first after 30 seconds, at a mebibyte a second; the next 30 seconds later.
    assert caplog.messages == [
        "Fetching 'checkpoint-3': 30.0 MiB of 100.0 MiB, about 70 s left.",
        "Fetching 'checkpoint-3': 60.0 MiB of 100.0 MiB, about 40 s left.",
    ]


def test_nothing_is_told_of_what_is_small(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with transferring("Fetching", 63 * MEBIBYTE) as arrived:
        now += 60.0
        arrived(MEBIBYTE)
    assert caplog.messages == []


def test_a_terminal_has_a_bar(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.progress.Progress.advance", lambda bar, task, more: drawn.append((task, more)))
    with transferring("Fetching", 64 * MEBIBYTE) as arrived:
        arrived(4)
        arrived(1)
    assert drawn == [(0, 4), (0, 1)]
    assert caplog.messages == []
