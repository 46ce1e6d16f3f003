"""The original's `trainer_state.json`, of all its versions."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from surestep.checkpoint import layout
from surestep.errors import CheckpointError
from surestep.logs import get_logger
from surestep.training.state import TrainerState

_logger = get_logger(__name__)
# From here on the order of an epoch is a function of the seed by default.
_SEEDED_SINCE = (4, 38)
# What an older version left out, or wrote as null.
_CONTAINERS = {"log_history": list, "stateful_callbacks": dict}


def read_trainer_state(folder: Path) -> TrainerState:
    """Return the state in a folder of the original's; a warning names the keys that nothing here knows.

    A best checkpoint that lies in the folder no longer where it was, but beside this one, is found there.

    Raises:
        CheckpointError: the file is no state, or does not say how far the run came.
    """
    path = folder / layout.TRAINER_STATE
    content = _read(path)
    known = {field.name for field in fields(TrainerState)}
    unknown = sorted(content.keys() - known)
    if unknown:
        _logger.warning("%s has %s, which nothing here knows: left out.", path, ", ".join(unknown))
    left_out = {name for name, kind in _CONTAINERS.items() if not isinstance(content.get(name), kind)}
    state = TrainerState(**{key: value for key, value in content.items() if key in known - left_out})
    best = None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint)
    if best is not None:
        beside = folder.parent / best.name
        state.best_model_checkpoint = str(best if best.is_dir() or not beside.is_dir() else beside)
        state.best_global_step = state.best_global_step or layout.step_of(best)
    return state


def had_another_order(folder: Path) -> str | None:
    """Return the version of transformers that wrote `folder` if it may have shuffled with torch's global generator.

    Its order cannot be had again. A model that is none of transformers' says no version.
    """
    try:
        version = json.loads((folder / "config.json").read_bytes())["transformers_version"]
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return version if numbers < _SEEDED_SINCE else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' does not hold a trainer state ({error}).") from error
    step = content.get("global_step") if isinstance(content, dict) else None
    if type(step) is not int or step < 0:
        raise CheckpointError(f"'{path}' does not hold a trainer state: global_step is {step!r}, no number of steps.")
    return dict(content)
