"""What a checkpoint holds besides the weights, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch.optim import Optimizer

from surestep.checkpoint.layout import OPTIMIZER, SCALER, SCHEDULER, random_name
from surestep.checkpoint.manifest import is_foreign
from surestep.checkpoint.optimizer_state import Names, decode_optimizer
from surestep.checkpoint.tree import read_tree, tree_exists


class Stored(Protocol):
    """The parts of a checkpoint. Ask `has` first; what is not there raises `CheckpointError`."""

    def has(self, part: str) -> bool:
        """Say whether a part is there: `OPTIMIZER`, `SCHEDULER` or `SCALER` of the layout."""

    def has_random(self, rank: int) -> bool:
        """Say whether the random generators of a process are there."""

    def other_writer(self) -> str | None:
        """Return what kept such state in files of its own, which are not read here; None where nothing did."""

    def load_optimizer(self, optimizer: Optimizer, names: Names) -> None:
        """Put the optimizer's state back; `names` as for `encode_optimizer`."""

    def load_schedule(self, schedule: Any) -> None:
        """Put the schedule's state back."""

    def scaler(self) -> dict[str, Any]:
        """Return the state of the loss scale."""

    def random(self, rank: int) -> tuple[dict[str, Any], list[str]]:
        """Return the random generators of a process, and a sentence for each that cannot be put back."""


class StoredTrees:
    """The parts in our own form: trees, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, part: str) -> bool:
        """Say whether a part is there."""
        return tree_exists(self._folder, part)

    def has_random(self, rank: int) -> bool:
        """Say whether the random generators of a process are there."""
        return tree_exists(self._folder, random_name(rank))

    def other_writer(self) -> str | None:
        """Return None: all that a checkpoint of ours holds is read here."""
        return None

    def load_optimizer(self, optimizer: Optimizer, names: Names) -> None:
        """Put the optimizer's state back, each parameter's by its name."""
        decode_optimizer(optimizer, names, read_tree(self._folder, OPTIMIZER))

    def load_schedule(self, schedule: Any) -> None:
        """Put the schedule's state back."""
        schedule.load_state_dict(read_tree(self._folder, SCHEDULER))

    def scaler(self) -> dict[str, Any]:
        """Return the state of the loss scale."""
        return dict(read_tree(self._folder, SCALER))

    def random(self, rank: int) -> tuple[dict[str, Any], list[str]]:
        """Return the random generators of a process."""
        return read_tree(self._folder, random_name(rank)), []


def stored(folder: Path) -> Stored:
    """Return the parts of a checkpoint of ours or of the original's."""
    from surestep.checkpoint.foreign.parts import StoredPickles

    return StoredPickles(folder) if is_foreign(folder) else StoredTrees(folder)
