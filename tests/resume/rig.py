"""A run that is never interrupted, and the same run resumed from each of its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import surestep
from tests.parity.compare import CLOCK, Seen, assert_close
from tests.parity.harness import run

# Longer than any run here: a resumed run saves at its end only.
_NEVER = 1000


@dataclass(frozen=True)
class Row:
    """A configuration. `shows` must hold for the uninterrupted run, so that a row cannot pass without its subject."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    shows: Callable[[Seen], bool] = lambda seen: seen.state.global_step == 20


def straight(folder: Path, row: Row) -> Seen:
    """Train without interruption, saving at every step (or as the row says)."""
    arguments = {"save_strategy": "steps", "save_steps": 1, **row.arguments}
    return run(surestep, arguments, folder=str(folder), **row.options)


def resumed(folder: Path, row: Row, checkpoint: Path | bool, **changes: Any) -> Seen:
    """Go on from a checkpoint in a new trainer."""
    arguments = {"save_strategy": "steps", **row.arguments, "save_steps": _NEVER, **changes}
    options = {**row.options, "drive": lambda trainer: trainer.train(resume_from_checkpoint=checkpoint)}
    return run(surestep, arguments, folder=str(folder), **options)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the earliest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def assert_goes_on(whole: Seen, part: Seen, what: str) -> None:
    """Compare a resumed run with the uninterrupted one: the rest of what it saw, and all of what it came to."""
    assert part.losses == whole.losses[len(whole.losses) - len(part.losses) :], f"{what}: losses"
    assert part.numbers == whole.numbers[len(whole.numbers) - len(part.numbers) :], f"{what}: order of samples"
    assert_close(whole.weights, part.weights, 0.0, f"{what}: weights")
    assert_close(whole.optimizer, part.optimizer, 0.0, f"{what}: optimizer")
    assert part.rates == whole.rates, f"{what}: learning rates"
    assert _timeless(part.logs) == _timeless(whole.logs), f"{what}: log history"
    for name in ("global_step", "epoch", "max_steps", "best_metric", "best_global_step", "total_flos"):
        assert getattr(part.state, name) == getattr(whole.state, name), f"{what}: state.{name}"
    assert part.trainer.engine.precision.state_dict() == whole.trainer.engine.precision.state_dict()


def _timeless(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if not name.endswith(CLOCK)} for entry in logs]
