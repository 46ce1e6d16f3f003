"""Adapters of PEFT in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surestep.checkpoint import layout
from surestep.checkpoint.files import remove
from surestep.checkpoint.names import name_list
from surestep.checkpoint.tensors import read_tensors, write_tensors
from surestep.errors import CheckpointError
from surestep.optional import require

# The adapter that PEFT stores in the folder itself, and what it puts before the names of a model with adapters.
_MAIN = "default"
_ADAPTED = "base_model.model."


def adapters_in(folder: Path) -> dict[str, Path]:
    """Return the folders that hold adapters: `folder` itself under the empty name, others under their own."""
    places = {"": folder} | {path.name: path for path in sorted(folder.glob("*")) if path.is_dir()}
    weights = (layout.ADAPTER_WEIGHTS, layout.PICKLED_ADAPTER_WEIGHTS)
    return {name: path for name, path in places.items() if any((path / file).is_file() for file in weights)}


def save_prompt_encoders(module: nn.Module, folder: Path) -> None:
    """Write the encoders of virtual tokens that have more weights than the tokens that they compute.

    PEFT stores the computed tokens alone (p-tuning, prefixes with a projection), from which training cannot go on.
    """
    encoders = getattr(module, "prompt_encoder", None)
    path = folder / layout.PROMPT_ENCODERS
    if not isinstance(encoders, nn.ModuleDict) or _is_only_tokens(encoders):
        remove(path)
        return
    write_tensors(path, encoders.state_dict())


def _is_only_tokens(encoders: nn.ModuleDict) -> bool:
    return all(set(encoder.state_dict()) <= {"embedding.weight"} for encoder in encoders.values())


def load_prompt_encoders(module: nn.Module, folder: Path) -> tuple[list[str], list[str]] | None:
    """Read what `save_prompt_encoders` wrote, and return the names missing and unexpected; None where it wrote nothing.

    Raises:
        CheckpointError: a shape differs, or the file is damaged.
    """
    path, encoders = folder / layout.PROMPT_ENCODERS, getattr(module, "prompt_encoder", None)
    if not path.is_file() or not isinstance(encoders, nn.ModuleDict):
        return None
    try:
        result = encoders.load_state_dict(read_tensors(path), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model. {error}") from error
    return result.missing_keys, result.unexpected_keys


def _read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / layout.ADAPTER_WEIGHTS
    if path.is_file():
        return read_tensors(path)
    from surestep.checkpoint.foreign.weights import read_state_dict

    return read_state_dict(folder / layout.PICKLED_ADAPTER_WEIGHTS)


def load_adapters(module: nn.Module, adapters: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Read each adapter by PEFT's own functions and return the names missing and unexpected.

    Raises:
        CheckpointError: the model has no adapter of that name, or a file is damaged.
    """
    peft = require("peft", "Loading adapters")
    with_adapters: Any = module
    configured: Mapping[str, Any] = with_adapters.peft_config
    missing: list[str] = []
    unexpected: list[str] = []
    for name, path in adapters.items():
        adapter = name or (_MAIN if _MAIN in configured else next(iter(configured)))
        if adapter not in configured:
            raise CheckpointError(
                f"{path} holds the adapter '{adapter}', and the model has {name_list(configured)}. Add it to the model "
                "before loading."
            )
        tensors = _read_adapter(path)
        if not any(parameter.startswith(_ADAPTED) for parameter, _ in module.named_parameters()):
            tensors = {key.removeprefix(_ADAPTED): value for key, value in tensors.items()}
        expected = peft.get_peft_model_state_dict(module, adapter_name=adapter, save_embedding_layers=False)
        peft.set_peft_model_state_dict(module, dict(tensors), adapter_name=adapter)
        missing.extend(key for key in expected if key not in tensors)
        unexpected.extend(key for key in tensors if key not in expected)
    absent = set(configured) - {name or _MAIN for name in adapters}
    if len(configured) > 1:
        missing.extend(f"adapter {name}" for name in sorted(absent))
    return missing, unexpected
