"""The original's state of an optimizer and a schedule, which knows parameters by their place only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from surestep.checkpoint.names import name_list
from surestep.checkpoint.optimizer_state import Names, decode_optimizer, inner_optimizer
from surestep.errors import CheckpointError
from surestep.logs import get_logger

_logger = get_logger(__name__)
# Settings that torch adds to a group of an older version by itself, and those that a schedule or a name adds.
_LATER = {"amsgrad", "maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}
_ASIDE = {"params", "param_names", "initial_lr"}
# The original's own AdamW of the 4.x years had it; torch's always corrects.
_GONE = {"correct_bias"}
# State that has its parameter's shape, in every optimizer that has it.
_SHAPED = ("exp_avg", "exp_avg_sq", "momentum_buffer")
# What tells the kinds of schedules apart.
_MARKS = ("lr_lambdas", "best", "T_max", "milestones", "_schedulers")


def load_optimizer_state(optimizer: Optimizer, names: Names, content: Any, path: Path) -> None:
    """Load what `path` holds into `optimizer`.

    The state is numbered in the order of the groups and of the parameters within them. An optimizer that was made as
    the original made it (decayed parameters, then the others; or by the same code of the user's) has the same order.

    Raises:
        CheckpointError: the state is of another optimizer, or of other parameters; the message says which.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no state of an optimizer, but a {type(content).__name__}.")
    saved, live = content.get("param_groups"), inner_optimizer(optimizer)
    if isinstance(saved, list) and isinstance(content.get("state"), Mapping):
        _check_sizes(path, saved, live)
        _check_settings(path, saved, live)
        _check_shapes(path, content, live, names)
        content = content | {"param_groups": _completed(saved, live)}
    try:
        decode_optimizer(optimizer, names, {"as_is": content})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _check_sizes(path: Path, saved: list[Any], live: Optimizer) -> None:
    try:
        sizes = [len(group["params"]) for group in saved]
    except (TypeError, LookupError) as error:
        raise CheckpointError(f"{path} is damaged: its groups have no list of parameters ({error!r}).") from error
    here = [len(group["params"]) for group in live.param_groups]
    if sizes != here:
        raise CheckpointError(
            f"{path} was written for groups of {sizes} parameters, and this run's optimizer has groups of {here}. "
            "Train the same parameters, in the same groups, as the run did that wrote it (weight decay, frozen layers, "
            f"adapters); or delete {path.name}, and the optimizer starts anew."
        )


def _check_settings(path: Path, saved: list[Any], live: Optimizer) -> None:
    """Tell another optimizer by the settings of its groups: the file does not say its class."""
    known = {key for group in live.param_groups for key in group} | set(live.defaults)
    stored = {key for group in saved for key in group} - _ASIDE
    unknown, missing = stored - known - _LATER, set(live.defaults) - stored - _LATER
    if unknown == _GONE and not missing:
        _logger.warning(
            "%s is of the AdamW of an older transformers. Its moments are taken over; %s computes a little otherwise.",
            path,
            type(live).__name__,
        )
    elif unknown or missing:
        raise CheckpointError(
            f"{path} is of another optimizer than {type(live).__name__}: its groups have {name_list(sorted(unknown))}"
            f"{' and lack ' if missing else ''}{name_list(sorted(missing))}. Set optim to what the run was started "
            f"with; or delete {path.name}, and the optimizer starts anew."
        )


def _completed(saved: list[dict[str, Any]], live: Optimizer) -> list[dict[str, Any]]:
    """Return the saved groups, with what an older torch did not have as this run's optimizer has it."""
    return [
        {key: value for key, value in own.items() if key in _LATER} | group
        for group, own in zip(saved, live.param_groups, strict=True)
    ]


def _check_shapes(path: Path, content: Mapping[str, Any], live: Optimizer, names: Names) -> None:
    parameters = (parameter for group in live.param_groups for parameter in group["params"])
    numbers = (number for group in content["param_groups"] for number in group["params"])
    projected = any("rank" in group for group in live.param_groups)
    changed = []
    for number, parameter in zip(numbers, parameters, strict=True):
        state = content["state"].get(number, {})
        shape = tuple(parameter.shape)
        shapes = [tuple(state[key].shape) for key in _SHAPED if isinstance(state.get(key), torch.Tensor)]
        other = next((found for found in shapes if found != shape), None)
        if other is not None and not projected:
            changed.append(f"{names.get(id(parameter), number)} (saved {other}, now {shape})")
    if changed:
        raise CheckpointError(
            f"{path} was written for parameters of other shapes: {name_list(changed)}. Resume with the model that the "
            f"run had; or delete {path.name}, and the optimizer starts anew."
        )


def load_schedule_state(schedule: Any, content: Any, path: Path) -> None:
    """Load what `path` holds into `schedule`.

    Raises:
        CheckpointError: it is the state of another kind of schedule, or for another number of groups.
    """
    here = schedule.state_dict()
    same_kind = isinstance(content, dict) and all((mark in content) == (mark in here) for mark in _MARKS)
    same_size = same_kind and len(content.get("base_lrs", ())) == len(here.get("base_lrs", ()))
    if not same_size:
        raise CheckpointError(
            f"{path} is not of a {type(schedule).__name__} like this run's. Set lr_scheduler_type to what the run was "
            f"started with; or delete {path.name}, and the schedule starts anew."
        )
    schedule.load_state_dict(content)
