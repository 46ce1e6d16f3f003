"""Names of the files that the original writes into a checkpoint, and whether they are whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Final

from surestep.checkpoint import layout
from surestep.checkpoint.foreign_names import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINING_ARGS_NAME
from surestep.checkpoint.tensors import read_metadata
from surestep.errors import CheckpointError

OPTIMIZER: Final = OPTIMIZER_NAME
SCHEDULER: Final = SCHEDULER_NAME
SCALER: Final = SCALER_NAME
RANDOM: Final = "rng_state.pth"
# The original leaves this in a folder while it saves on a signal.
_INCOMPLETE = "checkpoint-is-incomplete.txt"
_PICKLED = ("*.pt", "*.pth", "*.bin")
# Never read: it is nothing but code and what that code needs.
_UNREAD = TRAINING_ARGS_NAME
_ZIP_MAGIC = b"PK\x03\x04"
# What wrote the state where it is not in the files above, by a pattern of what it leaves.
_OTHER_WRITERS = {
    "global_step*": "DeepSpeed",
    "pytorch_model_fsdp*": "FSDP",
    "optimizer_[0-9]*": "FSDP",
    "optimizer.bin": "FSDP",
    "rank*-of-*-optimizer.pt": "FSDP on XLA",
}


def random_of(rank: int) -> str:
    """Return the name of the file with the random generators of one of several processes."""
    return f"rng_state_{rank}.pth"


def other_writer(folder: Path) -> str | None:
    """Return what wrote the state in `folder` in files of its own, which are not read here; None where nothing did."""
    return next((name for pattern, name in _OTHER_WRITERS.items() if any(folder.glob(pattern))), None)


def problems_in(folder: Path, *, deep: bool) -> dict[str, str]:
    """Return what is wrong with a folder of the original's: a sentence for each file that is not as it should be.

    It has no checksums of its own. The state must be there, which the original writes last, and each file as long as
    it says; with `deep` the checksums that are inside torch's archives are compared as well.
    """
    if (folder / _INCOMPLETE).exists():
        return {_INCOMPLETE: f"{_INCOMPLETE} says that its save was not completed"}
    try:
        json.loads((folder / layout.TRAINER_STATE).read_bytes())
    except FileNotFoundError:
        return {layout.TRAINER_STATE: f"neither {layout.MANIFEST} nor {layout.TRAINER_STATE} is there"}
    except (OSError, ValueError, RecursionError) as error:
        return {layout.TRAINER_STATE: f"{layout.TRAINER_STATE} is damaged: {error}"}
    archives = {path for pattern in _PICKLED for path in folder.glob(pattern) if path.name != _UNREAD}
    found = {path.name: _archive_problem(path, deep=deep) for path in sorted(archives)}
    found |= {path.name: _tensors_problem(path) for path in sorted(folder.glob("*.safetensors"))}
    return {name: problem for name, problem in found.items() if problem}


def _archive_problem(path: Path, *, deep: bool) -> str | None:
    """Return what is wrong with a file of torch's; one in the form that it had before archives cannot be checked."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP_MAGIC))
        if start != _ZIP_MAGIC:
            return None if start else f"{path.name} is empty"
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() if deep else None
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        return f"{path.name} is damaged: {error}"
    return f"{path.name} is damaged: the checksum of {damaged} in it differs" if damaged else None


def _tensors_problem(path: Path) -> str | None:
    try:
        read_metadata(path)
    except (CheckpointError, OSError) as error:
        return f"{path.name} is damaged: {error.__cause__ or error}"
    return None
