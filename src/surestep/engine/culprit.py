"""Where numbers stop being finite: the first module that gives one that is not, or the weights that get one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surestep.runtime.nested import leaves


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first module whose output was not finite (`inputs_bad`, `weights_bad`: what it had to work with).

    Without a module the loss itself, computed outside the model, was not finite (`loss_bad`), or the gradients of some
    `weights`, by name.
    """

    module: str | None = None
    kind: str = ""
    inputs_bad: bool = False
    weights_bad: tuple[str, ...] = ()
    loss_bad: bool = False
    weights: tuple[str, ...] = ()


def find_culprit(model: nn.Module, compute: Callable[[], Any]) -> Culprit | None:
    """Run `compute`, which calls `model` and returns a loss, and say where it stops being finite; None if nowhere.

    No gradient of the model's is touched, and no hook of its parameters runs.
    """
    with torch.enable_grad(), _watched(model) as found:
        loss = compute()
    if found:
        return found[0]
    if not all_finite(loss):
        return Culprit(loss_bad=True)
    names = _bad_gradients(model, [leaf for leaf in _floats(loss) if leaf.requires_grad])
    return Culprit(weights=names) if names else None


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[Culprit]]:
    """Note every module whose output is not finite, the innermost first."""
    found: list[Culprit] = []

    def look(name: str, module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
        if found or all_finite(output):
            return
        bad = [label for label, weight in module.named_parameters(recurse=False) if not all_finite(weight)]
        found.append(Culprit(name, type(module).__name__, not all_finite([*inputs, *keywords.values()]), tuple(bad)))

    def hook(name: str) -> Callable[..., None]:
        return lambda module, inputs, keywords, output: look(name, module, inputs, keywords, output)

    handles = [
        module.register_forward_hook(hook(name or "the model"), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _bad_gradients(model: nn.Module, outputs: list[Tensor]) -> tuple[str, ...]:
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not outputs:
        return ()
    total = torch.stack([output.sum() for output in outputs]).sum()
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return tuple(name for name, gradient in zip(trained, gradients, strict=True) if not all_finite(gradient))


def all_finite(data: Any) -> bool:
    """Say whether every tensor of floats in a nested structure is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in _floats(data))


def _floats(data: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(data) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
