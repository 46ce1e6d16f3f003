"""What every test of checkpoints finds: a store of its own, and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.checkpoint.stores import make_store

from surestep.checkpoint.store import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    found = make_store(tmp_path / "run")
    yield found
    found.release()


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="surestep")
