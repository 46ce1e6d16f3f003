"""What the tests of all trackers share: runs that are killed and resumed, and what their log should be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.jsonl import read_log

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = Path(__file__).with_name("program.py")
KILLED = -9
# Figures that do not depend on the clock.
EXACT = {"loss", "grad_norm", "learning_rate", "epoch", "eval_loss", "train_loss"}

Curves = dict[str, list[tuple[int, float]]]


def run(folder: Path, tracker: str, *, expect: int = 0, env: dict[str, str] | None = None, **settings: Any) -> str:
    """Train in a process of its own in `folder`, and return what it printed."""
    given = {"output_dir": str(folder / "out"), "report_to": tracker, "max_steps": 12, "save_steps": 5, **settings}
    # Away from the repository, which some clients would look through.
    program = shutil.copy(PROGRAM, folder)
    return _python(folder, [str(program), json.dumps(given)], expect, env)


def script(folder: Path, text: str, *, expect: int = 0, env: dict[str, str] | None = None) -> str:
    """Run a script in `folder`, with `train(**settings)` at hand as in `program.py`, and return what it printed."""
    shutil.copy(PROGRAM, folder)
    given = """
import program
def train(**settings):
    return program.train({"output_dir": "out", "save_steps": 5, "max_steps": 8, **settings})
"""
    return _python(folder, ["-c", given + textwrap.dedent(text)], expect, env)


def _python(folder: Path, arguments: list[str], expect: int, env: dict[str, str] | None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=500,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == expect, printed
    return printed


def expected(folder: Path, rename: Callable[[str], str] = str) -> Curves:
    """Return the curves that the log of the finished run holds."""
    curves: Curves = {}
    for entry in read_log(folder / "out" / "train_log.jsonl"):
        if entry["event"] not in {"log", "evaluate"}:
            continue
        for name, value in entry.items():
            if name not in {"event", "step", "time"}:
                curves.setdefault(rename(name), []).append((entry["step"], value))
    return curves


def curves_of(points: Iterable[tuple[str, int, float]]) -> Curves:
    """Return the curves of points given as name, step and value, in the order in which they are given."""
    curves: Curves = {}
    for name, step, value in points:
        curves.setdefault(name, []).append((step, float(value)))
    return curves


def assert_once(found: Curves, wanted: Curves, *, exact: Callable[[str], str] = str) -> None:
    """Assert that every step of every curve is there exactly once, in order, with its value where it is certain."""
    assert set(found) == set(wanted)
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
    for name in map(exact, EXACT):
        if name in wanted:
            values = [value for _, value in wanted[name]]
            assert [value for _, value in found[name]] == [_near(value) for value in values], name


def _near(value: float) -> Any:
    import pytest

    return pytest.approx(value, rel=1e-6)


def assert_no_network(folder: Path, *, but: str = "nobody") -> None:
    """Assert that nothing tried to reach another machine, `but` excepted."""
    noted = folder / "network.txt"
    tried = noted.read_text().splitlines() if noted.exists() else []
    assert [address for address in tried if but not in address] == []
