"""Find out before the first step whether an optimizer's state can be saved."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch.optim import Optimizer

from surestep.checkpoint.optimizer_state import Names, encode_optimizer, inner_optimizer
from surestep.checkpoint.tree import check_tree
from surestep.runtime.random import preserved_random_state

Like = Callable[[torch.Tensor], torch.nn.Parameter]
_ROOT = "optimizer"
# Settings of torch's optimizers: how a step is computed, not what it comes to.
_FAST = ("foreach", "fused", "capturable")
_CODE = (FunctionType, BuiltinFunctionType, MethodType)


def try_codec(optimizer: Optimizer, names: Names) -> bool:
    """Check that the state of `optimizer` can be stored; say whether its later state is known too.

    Most optimizers make their state in the first step. So a copy of this one, with parameters of two elements a
    dimension, takes a step, and the state that it makes is checked; neither the optimizer nor any random generator
    notices. Where the copy cannot step (it needs the true shapes, or holds code that might reach the original) the
    answer is False: ask again after the first step.

    Raises:
        CheckpointError: the state holds a value that a checkpoint cannot; the message names its place and type.
    """
    tree = encode_optimizer(optimizer, names)
    check_tree(tree, _ROOT)
    if tree.get("state") or "as_is" in tree:
        return True
    copied = after_one_step(optimizer, names, _small)
    if copied is None:
        return False
    check_tree(encode_optimizer(*copied), _ROOT)
    return True


def after_one_step(optimizer: Optimizer, names: Names, like: Like) -> tuple[Optimizer, Names] | None:
    """Return a copy of an optimizer that has taken one step, with the names of its parameters; None where it could not.

    Its parameters are what `like` makes of the true ones. Neither the optimizer nor any random generator notices.
    """
    inner = inner_optimizer(optimizer)
    try:
        with preserved_random_state():
            copied = _copied(inner, like)
            if copied is None:
                return None
            # The class's own step: schedulers put a function of the original in its place.
            type(copied).step(copied, lambda: 0.0)
    except Exception:
        # Whatever code this is, it may ask for anything that the copy lacks.
        return None
    pairs = zip(_parameters(copied), _parameters(inner), strict=True)
    return copied, {id(one): names[id(other)] for one, other in pairs if id(other) in names}


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copied(optimizer: Optimizer, like: Like) -> Optimizer | None:
    """Copy everything but the state, the hooks and a replaced `step`; None where it holds code or cannot be copied."""
    parameters = _parameters(optimizer)
    if not all(type(parameter) in {torch.Tensor, torch.nn.Parameter} for parameter in parameters):
        return None
    memo: dict[int, Any] = {id(parameter): like(parameter) for parameter in parameters}
    copied = object.__new__(type(optimizer))
    memo[id(optimizer)] = copied
    own = {key: value for key, value in vars(optimizer).items() if key not in {"state", "step"}}
    own = {key: {} if key.endswith("_hooks") else value for key, value in own.items()}
    if any(isinstance(value, _CODE) for value in own.values()):
        return None
    vars(copied).update(copy.deepcopy(own, memo))
    vars(copied)["state"] = defaultdict(dict)
    if any(parameter.is_meta for parameter in _parameters(copied)):
        _step_plainly(copied)
    return copied


def _step_plainly(optimizer: Optimizer) -> None:
    """Have an optimizer step parameter by parameter, as those without memory must; its state is the same."""
    for group in optimizer.param_groups:
        group.update({name: False for name in _FAST if group.get(name)})


def _small(parameter: torch.Tensor) -> torch.nn.Parameter:
    shape = [min(size, 2) for size in parameter.shape]
    small = torch.nn.Parameter(
        torch.full(shape, 0.5, dtype=parameter.dtype, device=parameter.device), parameter.requires_grad
    )
    if parameter.requires_grad:
        small.grad = torch.full_like(small, 0.25)
    return small
