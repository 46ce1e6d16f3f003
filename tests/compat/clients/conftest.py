"""What the tests of client libraries share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.compat.clients.harness import Sides, run_both


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sides]:
    """Run a script on both sides, once for all tests of a module."""
    done: dict[str, Sides] = {}

    def run(script: str) -> Sides:
        if script not in done:
            done[script] = run_both(script, tmp_path_factory.mktemp(script))
        return done[script]

    return run
