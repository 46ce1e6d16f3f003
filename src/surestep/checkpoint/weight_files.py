"""Files of weights: one, or several with an index; memory that tensors share is stored once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from surestep.checkpoint import layout
from surestep.checkpoint.files import remove
from surestep.checkpoint.names import name_list, plain_name
from surestep.checkpoint.sharing import extent, overlapping
from surestep.checkpoint.tensors import read_metadata, read_tensors, write_tensors
from surestep.checkpoint.tree import read_tree, tree_exists, write_tree
from surestep.errors import CheckpointError
from surestep.runtime.disk import write_text

_PICKLED = (layout.PICKLED_WEIGHTS, layout.PICKLED_WEIGHTS_INDEX)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
# Metadata: the tensors that are views of a stored one, and how they lie in it.
_ALIASES = "surestep.aliases"


def write_weights(state: Mapping[str, Any], folder: Path, limit: int) -> None:
    """Write a state dict under plain names, in files of at most `limit` bytes; what is no tensor as a tree beside.

    Raises:
        CheckpointError: an entry cannot be stored; the message names it.
        OSError: the disk is full, or cannot be written to.
    """
    plain = {plain_name(name): value for name, value in state.items()}
    tensors = {name: _dense(name, value) for name, value in plain.items() if isinstance(value, torch.Tensor)}
    extra = {name: value for name, value in plain.items() if name not in tensors}
    stored, aliases = without_aliases(tensors)
    _clear(folder)
    if extra:
        write_tree(folder, layout.WEIGHTS_EXTRA, extra)
    shards = _shards(stored, limit)
    notes = {_ALIASES: json.dumps(aliases)} if aliases else {}
    if len(shards) == 1:
        write_tensors(folder / layout.WEIGHTS, stored, {"format": "pt"} | notes)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(folder / name, {key: stored[key] for key in shard}, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    total = sum(_size(tensor) for tensor in stored.values())
    index = {"metadata": {"total_size": total} | notes, "weight_map": dict(sorted(weight_map.items()))}
    write_text(folder / layout.WEIGHTS_INDEX, json.dumps(index, indent=2))


def read_weights(folder: Path) -> dict[str, Any]:
    """Return the stored state dict, under every name that it was saved with; pickles are read as data only.

    The tensors are windows on the files: copy them before anything happens to those.
    """
    if (folder / layout.WEIGHTS).exists():
        path = folder / layout.WEIGHTS
        tensors, notes = read_tensors(path, mapped=True), read_metadata(path)
    elif (folder / layout.WEIGHTS_INDEX).exists():
        path = folder / layout.WEIGHTS_INDEX
        tensors, notes = _read_shards(path)
    elif any((folder / name).is_file() for name in _PICKLED):
        from surestep.checkpoint.foreign.weights import read_pickled_weights

        return read_pickled_weights(folder)
    else:
        raise CheckpointError(_nothing_to_read(folder))
    state: dict[str, Any] = dict(tensors)
    try:
        for name, alias in json.loads(notes.get(_ALIASES, "{}")).items():
            base = tensors[alias["of"]]
            offset = base.storage_offset() + alias["offset"]
            state[name] = base.as_strided(alias["shape"], alias["stride"], offset)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged: its list of shared tensors does not fit: {error}") from error
    if tree_exists(folder, layout.WEIGHTS_EXTRA):
        state |= read_tree(folder, layout.WEIGHTS_EXTRA)
    return state


def _dense(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return an ordinary tensor; one that only stands for others (sharded, quantized) is refused."""
    if hasattr(tensor, "__tensor_flatten__"):
        raise CheckpointError(
            f"The weight '{name}' is a {type(tensor).__qualname__}, which has no memory of its own to store. Gather or "
            "convert it first and pass the result as state_dict."
        )
    plain = tensor.detach()
    return plain if type(plain) is torch.Tensor else plain.as_subclass(torch.Tensor)


def without_aliases(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split tensors into those to store and those that are views of a stored one, with how they lie in it."""
    stored: dict[str, torch.Tensor] = {}
    aliases: dict[str, Any] = {}
    for names in overlapping(tensors):
        owner = _owner(names, tensors) if len(names) > 1 else None
        for name in names:
            if owner is None or name == owner:
                stored[name] = tensors[name]
                continue
            view, base = tensors[name], tensors[owner]
            lies = {"shape": list(view.shape), "stride": list(view.stride())}
            aliases[name] = {"of": owner, "offset": view.storage_offset() - base.storage_offset()} | lies
    return stored, aliases


def _owner(names: list[str], tensors: dict[str, torch.Tensor]) -> str | None:
    """Return the first of some overlapping tensors that holds all the others, element for element."""
    group = [tensors[name] for name in names]
    if len({tensor.dtype for tensor in group}) > 1 or any(tensor.is_conj() or tensor.is_neg() for tensor in group):
        return None
    whole = min(extent(tensor)[0] for tensor in group), max(extent(tensor)[1] for tensor in group)
    return next((name for name in names if tensors[name].is_contiguous() and extent(tensors[name]) == whole), None)


def _shards(tensors: dict[str, torch.Tensor], limit: int) -> list[list[str]]:
    """Spread tensors over files in their order; one larger than the limit gets a file of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + _size(tensor) > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += _size(tensor)
    return shards


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _clear(folder: Path) -> None:
    """Remove the weights of an earlier save, which would be read beside or instead of the new ones."""
    single = {
        layout.WEIGHTS,
        layout.WEIGHTS_INDEX,
        f"{layout.WEIGHTS_EXTRA}.json",
        f"{layout.WEIGHTS_EXTRA}.safetensors",
    }
    for path in folder.iterdir():
        if path.name in single or _SHARD.fullmatch(path.name):
            remove(path)


def _read_shards(index: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        content = json.loads(index.read_bytes())
        weight_map, notes = dict(content["weight_map"]), dict(content.get("metadata") or {})
        names = set(weight_map.values())
        outside = [name for name in names if Path(name).name != name]
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged: {type(error).__name__}: {error}") from error
    if outside:
        raise CheckpointError(f"{index} is damaged: it refers to {name_list(outside)} outside of its folder")
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(names):
        tensors |= read_tensors(index.parent / name, mapped=True)
    absent = [name for name in weight_map if name not in tensors]
    if absent:
        raise CheckpointError(f"{index} lists {name_list(absent)}, which no file beside it has.")
    return tensors, notes


def _nothing_to_read(folder: Path) -> str:
    from surestep.checkpoint.foreign.files import other_writer

    writer = other_writer(folder)
    if writer is not None:
        return (
            f"{folder} holds its weights in files of {writer}, which are not read here. Merge them with the tool that "
            "came with it: 'accelerate merge-weights' for FSDP, zero_to_fp32.py for DeepSpeed."
        )
    if any((folder / name).exists() for name in (layout.ADAPTER_WEIGHTS, layout.PICKLED_ADAPTER_WEIGHTS)):
        return f"{folder} holds adapters only. Put them on the model first (peft.get_peft_model), then load them."
    return f"{folder} holds no weights: there is neither {layout.WEIGHTS} nor {layout.WEIGHTS_INDEX}."
