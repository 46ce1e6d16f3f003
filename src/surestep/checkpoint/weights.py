"""The weights of any model in safetensors files, as other libraries write and read them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from surestep.checkpoint import layout
from surestep.checkpoint.names import name_list, plain_name, unwrap
from surestep.checkpoint.sharing import extent, overlapping, same_view
from surestep.checkpoint.weight_files import read_weights, write_weights
from surestep.errors import ArgumentError, CheckpointError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.runtime.disk import disk, disk_error, make_folders

_logger = get_logger(__name__)
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# What data parallelism puts before the names of the module it wraps.
_PARALLEL = "module."


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What did not fit: names that the model has and the files lack, and the reverse; shapes always fit."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def save_weights(
    model: nn.Module,
    folder: Path,
    *,
    state_dict: Mapping[str, Any] | None = None,
    max_shard_size: int | str = "50GB",
    original_format: bool = True,
) -> None:
    """Write the weights of a model into `folder`, for `load_weights` and for whatever reads safetensors.

    A model with a method `save_pretrained` (transformers, PEFT, diffusers, the hub's mixin) saves itself with it.
    Of any other the state dict is written, under the names that the user's own module gives: tensors that share memory
    once, with the other names in the file's metadata, and what is no tensor as a tree beside it.

    Args:
        model: any module, also compiled or wrapped for data parallelism.
        folder: made where it does not exist; weights of an earlier save in it are replaced.
        state_dict: what to write instead of the model's own state, such as a gathered one.
        max_shard_size: bytes, or a text such as "5GB"; more weights than that are spread over several files.
        original_format: for transformers, whether models whose weights are stored in another form than they compute in
            are converted back for storing. Without, they are read back to the last bit without conversion.

    Raises:
        ArgumentError: `max_shard_size` is no size.
        CheckpointError: an entry of the state cannot be stored; the message names it.
        OSError: the disk is full, or cannot be written to.
    """
    module = unwrap(model)
    limit = _bytes(max_shard_size)
    make_folders(folder)
    if hasattr(module, "save_pretrained"):
        options = {
            "max_shard_size": max_shard_size,
            "save_original_format": original_format,
            "safe_serialization": True,
        }
        with _disk_errors():
            _save_pretrained(module, folder, state_dict, options)
        _adapters().save_prompt_encoders(module, folder)
        _open_to_readers(folder)
    else:
        write_weights(state_dict if state_dict is not None else module.state_dict(), folder, limit)


def load_weights(model: nn.Module, folder: Path, *, strict: bool = True) -> LoadReport:
    """Read the weights in `folder` into `model`, in place; its parameters stay the objects that they are.

    Reads one file or several with an index, written by `save_weights`, by a model's `save_pretrained` or by the
    safetensors library. A name that a file lacks is not missing where the model ties it to one that is there. A model
    with adapters of PEFT gets those from the folder.

    Raises:
        CheckpointError: there are no weights that can be read, a file is damaged, a shape differs, or (when `strict`) a
            name is missing or unexpected. The model may hold some of the new weights then.
    """
    module = unwrap(model)
    found = _adapters().adapters_in(folder) if getattr(module, "peft_config", None) else {}
    if found:
        loaded = _adapters().load_prompt_encoders(module, folder) or _adapters().load_adapters(module, found)
        report = LoadReport(*loaded)
    else:
        report = _load_state(module, folder)
    if report.missing or report.unexpected:
        problem = _misfit(folder, report)
        if strict:
            raise CheckpointError(problem)
        _logger.warning(problem)
    return report


def is_stored_otherwise(model: nn.Module) -> bool:
    """Say whether a model of transformers converts its weights when it stores them for others.

    Those of a checkpoint are then not in the form that other programs read: see `original_format` of `save_weights`.
    """
    module = unwrap(model)
    known = getattr(module, "_weight_conversions", None)
    if known is None and type(module).__module__.startswith("transformers."):
        mapping: Any = require("transformers.conversion_mapping", "Saving a model of transformers")
        known = mapping.get_model_conversion_mapping(module, add_legacy=False)
    return bool(known)


def _adapters() -> ModuleType:
    """Return the module that knows PEFT, which few models need."""
    from surestep.checkpoint import adapters

    return adapters


def _save_pretrained(
    module: nn.Module, folder: Path, state_dict: Mapping[str, Any] | None, options: dict[str, Any]
) -> None:
    """Call the model's own method with those of our options that it knows."""
    method: Any = module.save_pretrained
    parameters = inspect.signature(method).parameters
    known = {name: value for name, value in options.items() if name in parameters}
    if state_dict is None and any(plain_name(name) != name for name, _ in module.named_modules()):
        state_dict = module.state_dict()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if state_dict is not None and ("state_dict" in parameters or takes_any):
        known["state_dict"] = {plain_name(name): value for name, value in state_dict.items()}
    method(str(folder), **known)


def _open_to_readers(folder: Path) -> None:
    """Give files that the safetensors library wrote for their owner alone the permissions of any other new file."""
    probe = folder / ".permissions"
    disk().write(probe, [])
    mode = probe.stat().st_mode
    disk().remove_file(probe)
    for path in [*folder.glob("*.safetensors"), *folder.glob(f"*/{layout.ADAPTER_WEIGHTS}")]:
        disk().set_mode(path, mode)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise what the safetensors library says of the operating system as the `OSError` that it is."""
    try:
        yield
    except SafetensorError as error:
        of_disk = disk_error(error)
        if of_disk is None:
            raise
        raise of_disk from error


def _bytes(size: int | str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", str(size).upper()) if isinstance(size, str) else None
    number = float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else size
    if isinstance(number, str) or number <= 0:
        raise ArgumentError(f"max_shard_size={size!r} is no size. Write a number of bytes, or a text such as '5GB'.")
    return int(number)


def _load_state(module: nn.Module, folder: Path) -> LoadReport:
    current = module.state_dict()
    absent = [name for name, value in _tensors(current).items() if value.device.type == "meta"]
    if absent:
        raise CheckpointError(
            f"The model has weights without memory (on the meta device): {name_list(absent)}. Give it memory with "
            "model.to_empty(device=...) before loading."
        )
    actual = {plain_name(name): name for name in current}
    state = _fitted(read_weights(folder), actual)
    if hasattr(module, "from_pretrained") and set(state) - set(actual) and set(actual) - set(state):
        state = _converted(module, folder, state)
    return _assign(module, folder, {actual.get(name, name): value for name, value in state.items()}, current)


def _fitted(state: dict[str, Any], actual: Mapping[str, str]) -> dict[str, Any]:
    """Return stored weights under plain names, without the marks that wrappers left when something else saved them."""
    named = {name if name in actual else plain_name(name): value for name, value in state.items()}
    wrapped = all(name.startswith(_PARALLEL) for name in named) and not any(name in actual for name in named)
    return {name.removeprefix(_PARALLEL): value for name, value in named.items()} if wrapped else named


def _converted(module: nn.Module, folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Let a model's class read weights that are stored in another form than it computes in; it knows how to convert."""
    reader: Any = type(module)
    other, report = reader.from_pretrained(str(folder), config=module.config, output_loading_info=True)
    fits = not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return {plain_name(name): value for name, value in other.state_dict().items()} if fits else state


def _assign(module: nn.Module, folder: Path, state: dict[str, Any], current: dict[str, Any]) -> LoadReport:
    """Copy stored weights into the module by torch's own method, which honours the hooks of its parts."""
    _tell_conversions(folder, state, current)
    try:
        result = module.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        raise CheckpointError(f"The weights in {folder} do not fit the model. {error}") from error
    tied = _tied(set(result.missing_keys), _tensors(current))
    return LoadReport(
        without_declared(
            module, ("_on_save", "_on_load_missing"), [name for name in result.missing_keys if name not in tied]
        ),
        without_declared(module, ("_on_load_unexpected",), result.unexpected_keys),
    )


def _tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def without_declared(module: nn.Module, endings: Iterable[str], names: Iterable[str]) -> list[str]:
    """Drop the names that a model of transformers declares as not worth storing or reading."""
    patterns = [pattern for ending in endings for pattern in getattr(module, f"_keys_to_ignore{ending}", None) or ()]
    return [plain_name(name) for name in names if not any(re.search(pattern, name) for pattern in patterns)]


def _tied(missing: set[str], tensors: dict[str, torch.Tensor]) -> set[str]:
    """Return those of the missing names whose memory was filled under other names."""
    found: set[str] = set()
    for group in overlapping(tensors):
        given = [tensors[name] for name in group if name not in missing]
        found |= {name for name in group if name in missing and _filled(tensors[name], given)}
    return found


def _filled(tensor: torch.Tensor, given: list[torch.Tensor]) -> bool:
    """Say whether tensors without gaps, or the same view, reach every byte of a tensor on their storage."""
    if any(same_view(tensor, other) for other in given):
        return True
    start, end = extent(tensor)
    for first, last in sorted(extent(other) for other in given if other.is_contiguous()):
        if first <= start:
            start = max(start, last)
    return bool(given) and start >= end


def _tell_conversions(folder: Path, state: dict[str, Any], current: dict[str, Any]) -> None:
    """Say where the model's dtype differs from the stored one, because the values may then differ too."""
    kinds = {
        f"{value.dtype} into {current[name].dtype}"
        for name, value in _tensors(state).items()
        if isinstance(current.get(name), torch.Tensor) and value.dtype != current[name].dtype
    }
    for kind in sorted(kinds):
        _logger.warning("Weights in %s are converted from %s.", folder, kind.replace("torch.", ""))


def _misfit(folder: Path, report: LoadReport) -> str:
    parts = [f"The weights in {folder} do not fit the model."]
    if report.missing:
        parts.append(f"They lack {name_list(report.missing, report.unexpected)}.")
    if report.unexpected:
        parts.append(f"The model has no {name_list(report.unexpected, report.missing)}.")
    return " ".join(parts)
