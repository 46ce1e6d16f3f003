"""Run `surestep migrate` within this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from surestep.cli import console
from surestep.cli.main import main


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("COLUMNS", "400")
    console.output.cache_clear()
    console.messages.cache_clear()

    def run(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["migrate", *map(str, arguments)])
        return int(ended.value.code or 0)

    return run
