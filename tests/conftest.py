"""Where the scratch folders of all tests lie, and what of them coverage measures.

A save waits for the disk at each of its files, and the tests save many thousand times: where the system has a place in
memory with room, folders for scratch are made there. `TMPDIR` says another place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.coverage_gate import Pauses

_MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Say it in the environment, which the workers of pytest-xdist and the processes of the tests inherit."""
    if config.getoption("numprocesses", None) is None:
        config.pluginmanager.register(Pauses())
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ROOM:
        return
    scratch = tempfile.mkdtemp(prefix="surestep-tests-", dir=_MEMORY)
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    # Pytest's own folders outlive the session where a test fails.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
