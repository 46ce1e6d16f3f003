"""The gate of coverage adds up right and fails where it should."""

from __future__ import annotations

from typing import Any

import pytest
from tests import coverage_gate
from tests.coverage_gate import Count, by_package, shortfalls, table


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
    assert line == "surestep/checkpoint: 94.0% of its lines or branches are covered; it must be 95%."
    counts["checkpoint"] = Count(100, 94, 100, 100)
    assert len(list(shortfalls(counts))) == 1


def test_the_table_ends_with_the_sum() -> None:
    assert table(by_package(FILES)).splitlines()[-1].split() == ["all", "96.5", "95.0"]


@pytest.mark.parametrize(("ways", "code"), [(20, 0), (10, 1)])
def test_the_exit_code(monkeypatch: pytest.MonkeyPatch, ways: int, code: int) -> None:
    files = {f"src/surestep/{name}/a.py": file(20, 20, 20, ways) for name in coverage_gate.REQUIRED}
    monkeypatch.setattr(coverage_gate, "measured", lambda: files)

    assert coverage_gate.main() == code
