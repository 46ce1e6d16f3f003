"""The original's record of the random generators."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surestep.checkpoint.foreign import files
from surestep.checkpoint.foreign.pickles import read_pickle
from surestep.errors import CheckpointError

# Each is tried on a generator that nobody uses.
_GENERATORS: dict[str, Callable[[Any], Any]] = {
    "python": lambda state: random.Random().setstate(state),
    "numpy": lambda state: np.random.RandomState().set_state(state),
    "cpu": lambda state: torch.Generator().set_state(state),
}
_DEVICES = {"cuda", "xpu", "mps"}


def random_file(folder: Path, rank: int) -> Path | None:
    """Return the file with the generators of the process `rank`, of one process or of several; None without one."""
    # A generator that one process had is no other's: two ranks would drop out the same units.
    names = (files.random_of(rank),) if rank else (files.RANDOM, files.random_of(0))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def ranks_of(folder: Path) -> int | None:
    """Return how many processes wrote their generators into a folder; None where none did."""
    if (folder / files.RANDOM).is_file():
        return 1
    return next(rank for rank in count() if not (folder / files.random_of(rank)).is_file()) or None


def read_random_state(folder: Path, rank: int) -> tuple[dict[str, Any], list[str]]:
    """Return the generators of a process for `runtime.random`, and a sentence for each that cannot be put back.

    Raises:
        CheckpointError: there is no such file, it asks for code, or is no record of generators.
    """
    path = random_file(folder, rank)
    if path is None:
        raise CheckpointError(f"{folder} holds no record of the random generators ({files.RANDOM}).")
    content = read_pickle(path)
    try:
        for name, take in _GENERATORS.items():
            take(content[name])
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} holds no states of the generators of Python, NumPy and torch ({type(error).__name__}: {error}). "
            "Delete it, and they start anew."
        ) from error
    problems = [f"generators of {name} are not known here" for name in content.keys() - _GENERATORS.keys() - _DEVICES]
    if (folder / files.random_of(rank + 1)).is_file() and not (folder / files.RANDOM).exists() and rank == 0:
        problems.append("several processes wrote the checkpoint; the generators are those of the first of them")
    return {key: content[key] for key in (*_GENERATORS, *_DEVICES) if key in content}, sorted(problems)
