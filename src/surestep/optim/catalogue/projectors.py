"""The projections of GaLore and APOLLO as data, so that a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_KEY = "projector"
# Where each kind of projector is, by package. A checkpoint names a kind; it never names code.
_HOMES: Mapping[str, Mapping[str, str]] = {
    "galore_torch": {"GaLoreProjector": "galore_torch.galore_projector"},
    "apollo_torch": {
        "GaLoreProjector": "apollo_torch.svd_projector",
        "GradientProjector": "apollo_torch.random_projector",
    },
}


def keep_projectors_as_data(optimizer: Optimizer, made_by: type[Optimizer]) -> None:
    """Let `state_dict` hold a projector's attributes in its place, and loading make it again from them."""
    homes = _HOMES.get(made_by.__module__.partition(".")[0])
    if homes is None:
        return

    def as_data(_optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        state = {index: _without_object(values) for index, values in state_dict["state"].items()}
        return {**state_dict, "state": state}

    # Before torch loads, which would take the words among the attributes for tensors.
    def as_objects(loading: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        indices = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in loading.param_groups)
        devices = {index: parameter.device for index, parameter in zip(indices, parameters, strict=False)}
        state = {
            index: _with_object(homes, values, devices.get(index)) for index, values in state_dict["state"].items()
        }
        return {**state_dict, "state": state}

    optimizer.register_state_dict_post_hook(as_data)
    optimizer.register_load_state_dict_pre_hook(as_objects)


def _without_object(values: dict[str, Any]) -> dict[str, Any]:
    projector = values.get(_KEY)
    if projector is None:
        return values
    return {**values, _KEY: {"kind": type(projector).__name__, **vars(projector)}}


def _with_object(homes: Mapping[str, str], values: dict[str, Any], device: torch.device | None) -> dict[str, Any]:
    data = values.get(_KEY)
    if not isinstance(data, dict):
        return values
    kind = getattr(import_module(homes[data["kind"]]), data["kind"])
    projector = kind.__new__(kind)
    vars(projector).update({key: _to(value, device) for key, value in data.items() if key != "kind"})
    return {**values, _KEY: projector}


def _to(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to(entry, device) for entry in value]
    return value.to(device) if isinstance(value, Tensor) and device is not None else value
