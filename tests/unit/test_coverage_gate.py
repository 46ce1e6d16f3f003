"""The gate of coverage adds up right and fails where it should."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from tests import coverage_gate
from tests.coverage_gate import TESTS, Count, Pauses, by_package, shortfalls, table


def file(statements: int, lines: int, branches: int, ways: int) -> dict[str, Any]:
    summary = {"num_statements": statements, "covered_lines": lines, "num_branches": branches, "covered_branches": ways}
    return {"summary": summary}


FILES = {
    "src/surestep/training/loop.py": file(60, 60, 20, 20),
    "src/surestep/training/run.py": file(40, 36, 20, 18),
    "/elsewhere/surestep/config/topics/best.py": file(10, 10, 0, 0),
    "src/surestep/errors.py": file(5, 5, 0, 0),
}


def test_files_are_added_up_by_package() -> None:
    counts = by_package(FILES)

    assert set(counts) == {"training", "config", "errors.py", "all"}
    assert (counts["training"].lines, counts["training"].ways) == (96.0, 95.0)
    assert counts["all"].statements == 115
    assert Count().lines == Count().ways == 100.0


def test_a_package_below_the_mark_or_not_measured_is_named() -> None:
    counts = by_package(FILES)
    assert [line.split(":")[0] for line in shortfalls(counts)] == ["surestep/checkpoint"]

    counts["checkpoint"] = Count(100, 100, 100, 94)
    (line,) = shortfalls(counts)
    assert line == "surestep/checkpoint: 94.0% of its lines or branches are covered by TESTS; it must be 95%."
    counts["checkpoint"] = Count(100, 94, 100, 100)
    assert len(list(shortfalls(counts))) == 1


def test_the_table_ends_with_the_sum() -> None:
    assert table(by_package(FILES)).splitlines()[-1].split() == ["all", "96.5", "95.0"]


def test_nothing_is_measured_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "of children")
    outer, inner = (Coverage(data_file=None, config_file=False) for _ in range(2))
    outer.start()
    inner.start()
    pauses = Pauses()
    pauses.pause()
    try:
        assert (Coverage.current(), sys.gettrace()) == (None, None)
        assert "COVERAGE_PROCESS_CONFIG" not in os.environ
    finally:
        pauses.go_on()
        measuring = Coverage.current(), sys.gettrace() is not None
        inner.stop()
        outer.stop()
    assert measuring == (inner, True)
    assert os.environ["COVERAGE_PROCESS_CONFIG"] == "of children"


def test_the_tests_that_are_measured_are_there() -> None:
    root = Path(coverage_gate.__file__).parents[1]
    for name in TESTS:
        assert list(root.glob(f"{name}*")), name


@pytest.mark.parametrize(("ways", "code"), [(20, 0), (10, 1)])
def test_the_exit_code(monkeypatch: pytest.MonkeyPatch, ways: int, code: int) -> None:
    files = {f"src/surestep/{name}/a.py": file(20, 20, 20, ways) for name in coverage_gate.REQUIRED}
    monkeypatch.setattr(coverage_gate, "measured", lambda: files)

    assert coverage_gate.main() == code
