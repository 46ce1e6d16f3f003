"""What is told while a checkpoint comes over the network."""

from __future__ import annotations

import logging
import time

import pytest

from surestep.checkpoint.transfers import transferring

MEBIBYTE = 2**20


@pytest.mark.parametrize(("size", "told"), [(63, []), (64, ["Fetching: 32.0 MiB of 64.0 MiB, about 60 s left."])])
def test_amounts_are_told_of_what_is_not_small(
    size: int, told: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="surestep")
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with transferring("Fetching", size * MEBIBYTE) as arrived:
        now += 60.0
        arrived(32 * MEBIBYTE)
    assert caplog.messages == told
