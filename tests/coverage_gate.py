"""Combine what the tests measured, print it by package, and fail where the heart is not covered.

Run after `pytest --cov`; subprocesses have left data files of their own. `make test` does both. Only the tests that are
named here are measured.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# What these packages must have, in percent: of their lines and of their branches.
REQUIRED = {"training": 95.0, "config": 95.0, "checkpoint": 95.0}
# The tests that cover them: what traces a process slows it down by a third, so that it waits while others run.
TESTS = (
    "tests/cli/test_checkpoints.py",
    "tests/cli/test_remote.py",
    "tests/contract/",
    "tests/faults/test_async_saves.py",
    "tests/resume/test_foreign",
    "tests/resume/test_to_the_original.py",
    *(f"tests/unit/{package}/" for package in (*REQUIRED, "trainer")),
)


class Pauses:
    """A plugin that measures the import of those packages, and then what their tests run."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._environment: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Import what is measured, before anything else does."""
        from coverage import Coverage

        if Coverage.current() is not None:
            for package in REQUIRED:
                found = importlib.import_module(f"surestep.{package}")
                for module in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
                    importlib.import_module(module.name)
        self.pause()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """Go on for a test that is to be measured."""
        if not item.nodeid.startswith(TESTS):
            return (yield)
        self.go_on()
        try:
            return (yield)
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop what measures this process, and have its children not measured."""
        from coverage import Coverage

        while (one := Coverage.current()) is not None:
            one.stop()
            self._waiting.append(one)
        self._environment = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE_")}

    def go_on(self) -> None:
        """Start again what was stopped."""
        os.environ |= self._environment
        while self._waiting:
            self._waiting.pop().start()


@dataclass
class Count:
    """Lines and branches of a package, and how many of them ran."""

    statements: int = 0
    covered_statements: int = 0
    branches: int = 0
    covered_branches: int = 0

    def add(self, summary: Mapping[str, int]) -> None:
        """Add a file."""
        self.statements += summary["num_statements"]
        self.covered_statements += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.covered_branches += summary["covered_branches"]

    @property
    def lines(self) -> float:
        """Percent of the lines that ran."""
        return 100.0 * self.covered_statements / self.statements if self.statements else 100.0

    @property
    def ways(self) -> float:
        """Percent of the branches that were taken."""
        return 100.0 * self.covered_branches / self.branches if self.branches else 100.0


def package_of(path: str) -> str:
    """Return the package below surestep that a file belongs to; its name for a file of the root."""
    parts = Path(path).parts
    inner = parts[len(parts) - parts[::-1].index("surestep") :]
    return inner[0]


def by_package(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Count]:
    """Add the files of coverage's JSON report up by package."""
    counts: dict[str, Count] = defaultdict(Count)
    for path, file in files.items():
        counts[package_of(path)].add(file["summary"])
        counts["all"].add(file["summary"])
    return dict(counts)


def table(counts: Mapping[str, Count]) -> str:
    """Return the counts as text, the sum last."""
    names = [*sorted(name for name in counts if name != "all"), "all"]
    rows = [f"{name:16}{counts[name].lines:8.1f}{counts[name].ways:10.1f}" for name in names if name in counts]
    return "\n".join([f"{'package':16}{'lines':>8}{'branches':>10}", *rows])


def shortfalls(counts: Mapping[str, Count]) -> Iterable[str]:
    """Yield what is below the mark, or was not measured at all."""
    for name, least in REQUIRED.items():
        count = counts.get(name)
        found = 0.0 if count is None else min(count.lines, count.ways)
        if found < least:
            told = f"surestep/{name}: {found:.1f}% of its lines or branches are covered by TESTS"
            yield f"{told}; it must be {least:.0f}%."


def measured() -> Mapping[str, Mapping[str, Any]]:
    """Combine the data files of this folder and return coverage's report of each file."""
    from coverage import Coverage

    coverage = Coverage()
    # What pytest-cov has combined already is loaded, what subprocesses left since is added.
    coverage.load()
    coverage.combine()
    coverage.save()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        coverage.json_report(outfile=str(report))
        files: Mapping[str, Mapping[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["files"]
    return files


def main() -> int:
    """Print the table; return 1 where something is below the mark."""
    counts = by_package(measured())
    print(table(counts))
    missing = list(shortfalls(counts))
    print("\n".join(missing), end="\n" if missing else "", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
