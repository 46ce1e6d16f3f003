"""What a preflight found: its stages, their times and figures, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from surestep.errors import PreflightError
from surestep.runtime.together import Talks
from surestep.trainer.preflight.hints import Explain


@dataclass
class Stage:
    """One thing that was tried. `figures` says what it came to; `problems` what is wrong, and what to write instead."""

    name: str
    seconds: float = 0.0
    figures: str = ""
    problems: list[str] = field(default_factory=list)
    skipped: bool = False

    @property
    def verdict(self) -> str:
        """Whether all is well, nothing was tried, or something is wrong."""
        return "skipped" if self.skipped else "wrong" if self.problems else "well"


@dataclass
class PreflightReport:
    """The stages in their order. Several ranks share what they find: the report is the same on all of them."""

    ranks: Talks = field(repr=False, compare=False)
    stages: list[Stage] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence or two each."""
        return [problem for stage in self.stages for problem in stage.problems]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @contextmanager
    def stage(self, name: str, explain: Explain) -> Iterator[Stage]:
        """Try something in the body. An error becomes a problem, and the stages after it are skipped.

        An error on one rank must be one on all before the body ends (`runtime.together`).
        """
        stage = Stage(name, skipped=not self.ok)
        self.stages.append(stage)
        start = time.perf_counter()
        try:
            yield stage
        except Exception as error:
            stage.problems.append(explain(error))
        if self.ranks.world.size > 1:
            stage.problems = _of_all(self.ranks.gather_objects(stage.problems))
        stage.seconds = time.perf_counter() - start

    def raise_for_problems(self) -> None:
        """Raise `PreflightError` with everything that is wrong."""
        if not self.ok:
            lines = "\n".join(f"- {problem}" for problem in self.problems)
            raise PreflightError(f"The preflight found what would spoil this run:\n{lines}")

    def show(self) -> None:
        """Print the stages as a table, and what is wrong below it."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title="Preflight", title_justify="left")
        table.add_column("stage")
        table.add_column("seconds", justify="right")
        table.add_column("figures", overflow="fold")
        table.add_column("verdict")
        colours = {"well": "green", "wrong": "bold red", "skipped": "dim"}
        for stage in self.stages:
            shown = f"[{colours[stage.verdict]}]{stage.verdict}[/]"
            table.add_row(stage.name, f"{stage.seconds:.2f}", stage.figures, shown)
        console = Console()
        console.print(table)
        for problem in self.problems:
            console.print(f"- {problem}", style="red", markup=False, highlight=False)


def _of_all(problems: list[list[str]]) -> list[str]:
    """Return the problems of all ranks, each once; those that only some have, with the first of these."""
    found: dict[str, list[int]] = {}
    for rank, own in enumerate(problems):
        for problem in own:
            found.setdefault(problem, []).append(rank)
    return [
        problem if len(ranks) == len(problems) else f"On rank {ranks[0]}: {problem}" for problem, ranks in found.items()
    ]
