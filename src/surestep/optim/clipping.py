"""Gradient clipping: by norm, by value, by unit. Nothing here reads a number on the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

_PLAIN = {nn.Parameter, Tensor}


class Clipper(Protocol):
    """Changes the gradients of `parameters` in place; may return their norm from before, a scalar on the device."""

    def __call__(self, parameters: list[nn.Parameter]) -> Tensor | None:
        """Clip, at the end of a group of micro-batches and before the optimizer's step."""
        ...


def gradient_norm(parameters: list[nn.Parameter], norm_type: float = 2.0) -> Tensor:
    """Return the norm of all gradients as one vector, a scalar on the device, and change nothing."""
    meshes = _by_mesh(parameters)
    if len(meshes) < 2:
        return _norm_of(parameters, norm_type)
    norms = [_whole(_norm_of(group, norm_type)) for group in meshes]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms), norm_type)
    return total


def no_gradients(parameters: list[nn.Parameter]) -> None:
    """Return no norm: the optimizer has used every gradient up during backward."""
    del parameters


def clip_by_value(parameters: list[nn.Parameter], max_value: float) -> None:
    """Clamp every element of every gradient to [-max_value, max_value]."""
    if with_gradient := [parameter for parameter in parameters if parameter.grad is not None]:
        torch.nn.utils.clip_grad_value_(with_gradient, max_value)


@torch.no_grad()
def adaptive_clip(parameters: Iterable[nn.Parameter], ratio: float = 0.01, eps: float = 1e-3) -> None:
    """Limit the norm of each unit's gradient to `ratio` times the norm of the unit's weights (at least `eps`).

    A unit is one output of a layer: a row of a matrix, a filter of a convolution; vectors and scalars are one unit as a
    whole. Adaptive gradient clipping of Brock et al. 2021 (arXiv 2102.06171), who leave out the last linear layer: so
    should `parameters`.
    """
    for parameter in parameters:
        if parameter.grad is None:
            continue
        limit = _unit_norm(parameter).clamp(min=eps).mul_(ratio)
        # A gradient of zero gives an infinite share, and stays.
        parameter.grad.mul_((limit / _unit_norm(parameter.grad)).clamp(max=1.0))


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the linear layer that is defined last, which adaptive clipping leaves out.

    A model that trains nothing else has no head: the list is then empty, so that something is clipped.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = list(linear[-1].parameters()) if linear else []
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return head if trained - {id(parameter) for parameter in head} else []


def _unit_norm(tensor: Tensor) -> Tensor:
    within = tuple(range(1, tensor.ndim)) or None
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=within, keepdim=True)
    return norm


@dataclass(frozen=True)
class ByNorm:
    """Scale the gradients down to a common norm of at most `max_norm`.

    Bit-equal to `torch.nn.utils.clip_grad_norm_`. Parameters on several device meshes, which torch cannot clip
    together, are clipped by their common norm, mesh by mesh.
    """

    max_norm: float
    norm_type: float = 2.0

    def __call__(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip and return the norm from before."""
        if _PLAIN.issuperset(map(type, parameters)) or len(meshes := _by_mesh(parameters)) < 2:
            return torch.nn.utils.clip_grad_norm_(parameters, self.max_norm, self.norm_type)
        total = gradient_norm(parameters, self.norm_type)
        for group in meshes:
            torch.nn.utils.clip_grads_with_norm_(group, self.max_norm, total)
        return total


@dataclass(frozen=True)
class ByValue:
    """Clip each element."""

    max_value: float

    def __call__(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip and return the norm from before."""
        norm = gradient_norm(parameters)
        clip_by_value(parameters, self.max_value)
        return norm


@dataclass(frozen=True)
class Adaptive:
    """Clip each unit against its weights, all but the parameters in `skip`."""

    ratio: float = 0.01
    eps: float = 1e-3
    skip: Sequence[nn.Parameter] = field(default=(), repr=False)

    def __call__(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip and return the norm from before."""
        norm = gradient_norm(parameters)
        skipped = {id(parameter) for parameter in self.skip}
        adaptive_clip([parameter for parameter in parameters if id(parameter) not in skipped], self.ratio, self.eps)
        return norm


def _norm_of(parameters: Sequence[nn.Parameter], norm_type: float) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], norm_type)


def _by_mesh(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return the parameters by device mesh (equal meshes are one); plain tensors are one group."""
    # Asked of the few types, not of each parameter: this runs at every step.
    kinds = set(map(type, parameters))
    if kinds <= _PLAIN or not [kind for kind in kinds if hasattr(kind, "device_mesh")]:
        return [parameters]
    meshes: dict[object, list[nn.Parameter]] = {}
    for parameter in parameters:
        meshes.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    return list(meshes.values())


def _whole(norm: Tensor) -> Tensor:
    """Return a norm that is sharded over ranks as a plain tensor."""
    full = getattr(norm, "full_tensor", None)
    return norm if full is None else full()
