"""What tests of faults find: a place in memory for many small folders, the log, and a stage for real processes."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stage import Stage

Reference = Callable[..., dict[str, Any]]
_MEMORY = Path("/dev/shm")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Give a folder in memory where the system has such a place: nothing there waits for a disk."""
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="surestep-", dir=place) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="surestep")


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Give a process that forks those of a run."""
    one = Stage()
    yield one
    one.close()


@pytest.fixture(scope="session")
def reference(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Return what a run comes to that nothing interrupts, trained once for each number of ranks and case."""
    known: dict[str, dict[str, Any]] = {}

    def of(ranks: int = 1, **case: Any) -> dict[str, Any]:
        key = json.dumps([ranks, case], sort_keys=True)
        if key not in known:
            folder: Path = tmp_path_factory.mktemp("reference")
            assert stage.run(folder, ranks, case=case) == [0] * ranks
            known[key] = json.loads((folder / "end.json").read_text())
        return known[key]

    return of
