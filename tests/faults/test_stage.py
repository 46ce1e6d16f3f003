"""The stage of these tests leaves nobody behind: not when it is closed, and not when whoever started it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stage import LATE, ROOT, Stage

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")
STARTER = """
import os, sys
from pathlib import Path
from tests.faults.stage import Stage
from tests.faults.test_stage import begun, children

stage = Stage(cold=True)
stage.ask(Path(sys.argv[1]), ranks=2, program="test_stage")
begun(Path(sys.argv[1]))
print(stage.number, *children(stage.number), flush=True)
os._exit(0)
"""


def run(folder: Path, case: dict[str, Any]) -> None:
    """Have a child of its own, as a run with workers has, and do not end."""
    child = os.fork()
    if child:
        (folder / "child").write_text(str(child))
        (folder / "child").rename(folder / "began")
    time.sleep(1000)


def children(number: int) -> list[int]:
    """Return the processes that one has begun, and those that these have begun."""
    found = [int(one) for one in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return [*found, *(further for one in found for further in children(one))]


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(numbers: list[int]) -> bool:
    """Wait until none of them is there any more."""
    until = time.monotonic() + 20
    while any(map(alive, numbers)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(alive, numbers))


def begun(folder: Path) -> None:
    while not (folder / "began").exists():
        time.sleep(0.01)


def test_closing_it_in_the_middle_of_a_run_ends_all_of_it(tmp_path: Path) -> None:
    one = Stage(cold=True)
    one.ask(tmp_path, ranks=2, program="test_stage")
    begun(tmp_path)
    there = [one.number, *children(one.number)]
    one.close()
    assert len(there) >= 4
    assert gone(there)


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    starter = subprocess.run(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert gone([int(one) for one in starter.stdout.split()])


def test_a_run_that_does_not_end_is_ended(tmp_path: Path) -> None:
    one = Stage(cold=True)
    assert one.run(tmp_path, program="test_stage", seconds=2) == [LATE]
    assert children(one.number) == []
    assert gone([int((tmp_path / "began").read_text())])
    one.close()
