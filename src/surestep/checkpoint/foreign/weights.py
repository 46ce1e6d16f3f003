"""Weights that the original stored as pickles, before it took up safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from surestep.checkpoint import layout
from surestep.checkpoint.foreign.pickles import read_pickle
from surestep.checkpoint.names import name_list
from surestep.errors import CheckpointError


def read_pickled_weights(folder: Path) -> dict[str, Any]:
    """Return a state dict that was stored as a pickle, in one file or several.

    Raises:
        CheckpointError: a file asks for code, is damaged, or is no state dict.
    """
    if (folder / layout.PICKLED_WEIGHTS).is_file():
        return read_state_dict(folder / layout.PICKLED_WEIGHTS)
    index = folder / layout.PICKLED_WEIGHTS_INDEX
    state: dict[str, Any] = {}
    for name in sorted(set(_weight_map(index).values())):
        state |= read_state_dict(folder / name)
    absent = [name for name in _weight_map(index) if name not in state]
    if absent:
        raise CheckpointError(f"{index} lists {name_list(absent)}, which no file beside it has.")
    return state


def read_state_dict(path: Path) -> dict[str, Any]:
    """Return the tensors by name that one pickled file holds."""
    try:
        content = read_pickle(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} holds no state dict: a dict of tensors by name is needed there.")
    return dict(content)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = dict(json.loads(index.read_bytes())["weight_map"])
        outside = [name for name in set(found.values()) if Path(name).name != name]
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged: {type(error).__name__}: {error}") from error
    if outside:
        raise CheckpointError(f"{index} is damaged: it refers to {name_list(outside)} outside of its folder")
    return found
