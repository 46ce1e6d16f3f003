"""How much room a checkpoint will take, told before one was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from surestep.checkpoint.names import plain_name, unwrap
from surestep.checkpoint.optimizer_state import Names, encode_optimizer
from surestep.checkpoint.optimizer_trial import after_one_step
from surestep.checkpoint.space import Size
from surestep.checkpoint.weight_files import without_aliases
from surestep.checkpoint.weights import without_declared
from surestep.optional import require

# What a file of tensors says of each besides its name.
_ENTRY: Final = 60
# Arguments, the trainer's state, the manifest and the like; and the generators and the position of each process.
_REST, _PER_PROCESS = 24 * 2**10, 18 * 2**10


def checkpoint_size(model: nn.Module, optimizer: Optimizer | None, names: Names, processes: int = 1) -> Size | None:
    """Return about how much a checkpoint takes; None where the optimizer's state is not known before its first step.

    Files of a tokenizer and those that callbacks add are not counted. Without an `optimizer`, the model alone.
    """
    weights = weights_size(model)
    if optimizer is None:
        return Size(weights + _REST, weights)
    state = optimizer_size(optimizer, names)
    if state is None:
        return None
    return Size(weights + state + _REST + processes * _PER_PROCESS, max(weights, state))


def weights_size(model: nn.Module) -> int:
    """Return the bytes of a model's weights as they are stored: tied ones once, of adapters those alone."""
    module = unwrap(model)
    adapters: Any = getattr(module, "peft_config", None)
    if adapters and hasattr(module, "save_pretrained"):
        return sum(_in_file(_adapter(module, name)) for name in adapters)
    state = {plain_name(name): value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    kept = without_declared(module, ("_on_save",), state)
    return _in_file(without_aliases({name: state[name] for name in kept})[0])


def _adapter(module: Any, name: str) -> dict[str, torch.Tensor]:
    peft = require("peft", "Saving adapters")
    found: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(
        module, adapter_name=name, save_embedding_layers=False
    )
    return found


def optimizer_size(optimizer: Optimizer, names: Names) -> int | None:
    """Return the bytes of an optimizer's state: what it has, or before its first step what that will make.

    A copy whose parameters have shapes and no memory takes the step. None where it cannot, because the step asks for
    values, or for a certain device: ask again after the first step.
    """
    tree = encode_optimizer(optimizer, names)
    if not tree.get("state") and "as_is" not in tree:
        copied = after_one_step(optimizer, names, _without_memory)
        if copied is None:
            return None
        tree = encode_optimizer(*copied)
    tensors = dict(_tensors(tree))
    # Each tensor is named in the text as well, and so is each parameter.
    return 2 * _in_file(tensors) - sum(tensor.nbytes for tensor in tensors.values())


def _tensors(tree: object, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a tree by the path that the file names each by."""
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _tensors(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from _tensors(value, f"{path}/{number}")


def _without_memory(parameter: torch.Tensor) -> torch.nn.Parameter:
    there = torch.nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    if parameter.requires_grad:
        there.grad = torch.empty_like(there)
    return there


def _in_file(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(len(name) + _ENTRY + tensor.nbytes for name, tensor in tensors.items())
