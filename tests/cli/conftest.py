"""Run the command: in a process of its own where processes are what is tested, else within this one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.warm import Process, server

from surestep.cli import console
from surestep.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "digits.yaml"
# The demo's job made small: 40 steps an epoch as there, but in a fraction of the time.
SMALL = (
    "model.width=8",
    "model.num_stages=2",
    "model.dropout=0.1",
    "arguments.learning_rate=1e-2",
    "arguments.num_train_epochs=4",
    "arguments.logging_steps=40",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def command(*arguments: str | Path) -> list[str]:
    """Return what Python is to be told for surestep with `arguments`."""
    return ["-c", "from surestep.cli.main import main; main()", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return an environment for one process on a shared machine, with lines wide enough for messages."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def surestep(tmp_path: Path) -> Callable[..., Ended]:
    """Run surestep in a process of its own, in an empty folder, to its end."""

    def run(*arguments: str | Path) -> Ended:
        ended = server().run(command(*arguments), cwd=tmp_path, env=environment())
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., Process]:
    """Begin surestep in a process of its own, and leave it to the test to end it."""

    def run(*arguments: str | Path) -> Process:
        return server().start(command(*arguments), cwd=tmp_path, env=environment(), session=True, merged=True)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run surestep within this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    # A console keeps the width that it found when it was made, perhaps by a test before this one.
    console.output.cache_clear()
    console.messages.cache_clear()

    def run(*arguments: str | Path) -> Ended:
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0
        return Ended(code, *capsys.readouterr())

    return run


def wait_for(path: Path, process: Process) -> None:
    """Wait until `path` is there, as long as the process lives."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def results(folder: Path) -> dict[str, Any]:
    """Return the results of a complete run."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found
