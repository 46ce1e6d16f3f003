"""The parts of a checkpoint that the original wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from surestep.checkpoint import layout
from surestep.checkpoint.foreign import files
from surestep.checkpoint.foreign.optimizer import load_optimizer_state, load_schedule_state
from surestep.checkpoint.foreign.pickles import read_pickle
from surestep.checkpoint.foreign.random import random_file, read_random_state
from surestep.checkpoint.optimizer_state import Names
from surestep.errors import CheckpointError

_FILES = {
    layout.OPTIMIZER: files.OPTIMIZER,
    layout.SCHEDULER: files.SCHEDULER,
    layout.SCALER: files.SCALER,
}


class StoredPickles:
    """The parts in the original's form: pickles, read as data and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, part: str) -> bool:
        """Say whether a part is there."""
        return (self._folder / _FILES[part]).is_file()

    def has_random(self, rank: int) -> bool:
        """Say whether the random generators of a process are there."""
        return random_file(self._folder, rank) is not None

    def other_writer(self) -> str | None:
        """Return what kept such state in files of its own, as DeepSpeed does; None where nothing did."""
        return files.other_writer(self._folder)

    def load_optimizer(self, optimizer: Optimizer, names: Names) -> None:
        """Put the optimizer's state back, each parameter's by its place in the groups."""
        path = self._folder / files.OPTIMIZER
        load_optimizer_state(optimizer, names, read_pickle(path), path)

    def load_schedule(self, schedule: Any) -> None:
        """Put the schedule's state back."""
        path = self._folder / files.SCHEDULER
        load_schedule_state(schedule, read_pickle(path), path)

    def scaler(self) -> dict[str, Any]:
        """Return the state of the loss scale."""
        path = self._folder / files.SCALER
        content = read_pickle(path)
        if not isinstance(content, dict) or "scale" not in content:
            raise CheckpointError(f"{path} holds no loss scale. Delete it, and the loss scale starts anew.")
        return content

    def random(self, rank: int) -> tuple[dict[str, Any], list[str]]:
        """Return the random generators of a process, and a sentence for each that cannot be put back."""
        return read_random_state(self._folder, rank)
