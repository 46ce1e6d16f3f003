"""Names of parameters, the same whether or not a model is compiled or wrapped for several processes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from torch import nn

# What torch.compile puts before the names of the module it wraps, at any depth.
_COMPILED = "_orig_mod"
_SHOWN = 8


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module that the user wrote, without what compilation and data parallelism put around it."""
    while True:
        if _COMPILED in dict(model.named_children()):
            model = model.get_submodule(_COMPILED)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def plain_name(name: str) -> str:
    """Return a name of a parameter without the marks of compiled submodules."""
    return name.replace(f"{_COMPILED}.", "")


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Return the name of each parameter of a model by the `id` of the parameter; a tied one has its first name."""
    return {id(parameter): plain_name(name) for name, parameter in unwrap(model).named_parameters()}


def name_list(names: Iterable[str], offered: Iterable[str] = ()) -> str:
    """Return names as text for a message: the first few, each with the most similar one of those `offered`."""
    listed, candidates = list(names), list(offered)
    shown = [f"'{name}'{_nearest(name, candidates)}" for name in listed[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")


def _nearest(name: str, candidates: list[str]) -> str:
    near = get_close_matches(name, candidates, n=1)
    return f" (nearest: '{near[0]}')" if near else ""
