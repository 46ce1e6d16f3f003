"""Where the scratch folders of all tests lie, what of them coverage measures, and what garbage is looked for in.

A save waits for the disk at each of its files, and the tests save many thousand times: where the system has a place in
memory with room, folders for scratch are made there. `TMPDIR` says another place.

A collection of garbage looks at all that lives, and half of the time of a test that asks for one (the original does at
each training) went into the modules of the libraries: these are left out.

A machine that does other things besides is no fault of what hypothesis draws: it counts no seconds.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.coverage_gate import Pauses

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    # The environments of single clients do not have it.
    pass
else:
    settings.register_profile("surestep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("surestep")

_MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Say it in the environment, which the workers of pytest-xdist and the processes of the tests inherit."""
    if config.getoption("numprocesses", None) is None:
        if config.pluginmanager.hasplugin("pytest_cov"):
            config.pluginmanager.register(Pauses())
        gc.disable()
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ROOM:
        return
    scratch = tempfile.mkdtemp(prefix="surestep-tests-", dir=_MEMORY)
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    # Pytest's own folders outlive the session where a test fails.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_collection_finish() -> None:
    """Leave out of all collections what was imported and made until now."""
    _leave_out()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Leave out what the tests of a file imported as well, once what they made is gone."""
    yield
    if nextitem is None or nextitem.path != item.path:
        _leave_out()


def _leave_out() -> None:
    gc.collect()
    gc.freeze()
