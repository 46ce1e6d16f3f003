"""What a resumed run took up, from where, and what is not as it was: `trainer.resume_report`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.checkpoint.origin import Origin
from surestep.config.verdicts import Difference, Effect
from surestep.logs import announce, get_logger

if TYPE_CHECKING:
    from surestep.training.run import Run
    from surestep.training.state import TrainerState

_logger = get_logger(__name__)
RESTORED, MISSING, LEFT_OUT, ANEW = "restored", "missing", "left out", "begins anew"
_COLOURS = {
    Effect.HARMLESS: "dim",
    Effect.NONE: "yellow",
    Effect.MATHEMATICS: "bold yellow",
    Effect.REFUSED: "bold red",
}


@dataclass(frozen=True)
class Part:
    """A part of the state. `outcome` is "restored", "missing", "left out" or "begins anew"."""

    name: str
    outcome: str = RESTORED
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclass
class ResumeReport:
    """What became of a checkpoint that a run was resumed from.

    `step`, `epoch` and `samples` (of that epoch, over all ranks) say where the run goes on; `complete` says that
    nothing is left to train, and `looked_for` that the checkpoint was not named. `origin` is None where the checkpoint
    does not tell who wrote it, and `arguments_known` is false where it does not hold the settings of its training.
    """

    checkpoint: Path
    origin: Origin | None = None
    parts: list[Part] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    arguments_known: bool = True
    step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    samples: int = 0
    complete: bool = False
    looked_for: bool = False

    def settle(self, state: TrainerState, run: Run) -> None:
        """Note where the run stands, once everything is restored."""
        self.step, self.max_steps = state.global_step, state.max_steps
        self.epoch, self.samples = float(state.epoch or 0), run.position.samples
        self.complete = run.finished

    def named(self, *outcomes: str) -> list[Part]:
        """Return the parts with one of these outcomes."""
        return [part for part in self.parts if part.outcome in outcomes]

    def begins_anew(self, part: str, checkpoint: str | Path) -> bool:
        """Say whether a part of the checkpoint resumed from is not to be taken up from it."""
        return Path(checkpoint) == self.checkpoint and any(one.name == part for one in self.named(ANEW))

    @property
    def exact(self) -> bool:
        """Whether the run goes on as if it had never stopped."""
        harmless = all(one.verdict.effect is Effect.HARMLESS for one in self.differences)
        return harmless and self.arguments_known and not self.named(MISSING, ANEW)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, ready for JSON."""
        return {
            "checkpoint": str(self.checkpoint),
            "origin": None if self.origin is None else asdict(self.origin),
            "step": self.step,
            "max_steps": self.max_steps,
            "epoch": self.epoch,
            "samples": self.samples,
            "complete": self.complete,
            "exact": self.exact,
            "parts": [asdict(part) for part in self.parts],
            "arguments_known": self.arguments_known,
            "differences": [
                {
                    "name": one.name,
                    "then": one.then,
                    "now": one.now,
                    "effect": one.verdict.effect.value,
                    "why": one.verdict.why,
                    "allowed": one.allowed,
                }
                for one in self.differences
            ],
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what there is to say but the differences, as pairs of a name and a text."""
        if self.origin is not None:
            yield "written", f"{self.origin.written} by surestep {self.origin.surestep}, run {self.origin.run}"
        yield "stands at", f"step {self.step} of {self.max_steps}, epoch {self.epoch:.4g}, sample {self.samples} of it"
        for outcome in (RESTORED, ANEW, MISSING, LEFT_OUT):
            if parts := self.named(outcome):
                yield outcome, ", ".join(map(str, parts))
        if not self.arguments_known:
            yield "arguments", "not known: the checkpoint does not hold those that it was trained with"
        elif not self.differences:
            yield "arguments", "the same"

    def as_text(self) -> str:
        """Return the report as plain lines."""
        lines = [self._title(), *(f"  {name:<12} {text}" for name, text in self.lines())]
        width = max((len(one.name) for one in self.differences), default=0)
        for one in self.differences:
            why = f" ({one.verdict.why})" if one.verdict.why else ""
            lines.append(f"  {one.name:<{width}}  {one.then!r} -> {one.now!r}: {_effect(one)}{why}")
        return "\n".join(lines)

    def tell(self) -> None:
        """Show the report: a table on a terminal, else lines in the log; a warning where the run is not the same."""
        if sys.stderr.isatty() and _logger.isEnabledFor(30):
            self.show()
        elif self.exact:
            announce(_logger, self.as_text())
        else:
            _logger.warning(self.as_text())

    def show(self, file: Any = None) -> None:
        """Print the report as tables to `file`, else to standard error."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=file or sys.stderr, highlight=False)
        table = Table(title=Text(self._title()), title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, text in self.lines():
            table.add_row(name, Text(text, "yellow" if name in {MISSING, ANEW} else ""))
        console.print(table)
        if not self.differences:
            return
        table = Table(title="Arguments that differ", title_justify="left")
        for name in ("argument", "then", "now", "verdict", "why"):
            table.add_column(name, overflow="fold")
        for one in self.differences:
            effect = Text(_effect(one), _COLOURS[one.verdict.effect])
            table.add_row(one.name, Text(repr(one.then)), Text(repr(one.now)), effect, one.verdict.why)
        console.print(table)

    def _title(self) -> str:
        if self.complete:
            return f"'{self.checkpoint}' is of a run that is complete: no step is left."
        return f"Resuming from '{self.checkpoint}'"


def _effect(one: Difference) -> str:
    """Return the verdict in words; what is refused was allowed, or nothing would be shown."""
    return "allowed" if one.verdict.effect is Effect.REFUSED else one.verdict.effect.value
