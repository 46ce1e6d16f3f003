"""Activation checkpointing: activations of some layers are recomputed in backward and not kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from surestep.errors import ArgumentError, ModelError

# What a model calls the switch: today's name, and the one of before.
_SWITCHES = {
    "activation_checkpointing_enable": "activation_checkpointing_kwargs",
    "gradient_checkpointing_enable": "gradient_checkpointing_kwargs",
}


@dataclass(frozen=True)
class Recompute:
    """Which layers are recomputed, and how.

    Every `every_n_layers`-th layer is; with `offload` what must be kept waits in host memory. `options` go to
    `torch.utils.checkpoint.checkpoint` (`use_reentrant`, False unless given, and others).
    """

    every_n_layers: int = 1
    offload: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> Recompute:
        """Read `activation_checkpointing_kwargs`."""
        options = dict(settings or {})
        every, offload = options.pop("every_n_layers", 1), options.pop("offload", False)
        if not isinstance(every, int) or every < 1:
            raise ArgumentError(
                f"activation_checkpointing_kwargs has every_n_layers={every!r}; write a whole number of 1 or more."
            )
        return cls(every, bool(offload), options)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Have `model` recompute inside the block.

        A model with a switch of its own (`activation_checkpointing_enable`, `gradient_checkpointing_enable`) is asked;
        of any other, the layers of its longest list of equal modules are taken.
        """
        if self._switched_on(model):
            yield
            return
        layers = repeated_layers(model)[:: self.every_n_layers]
        for layer in layers:
            layer.forward = self._recomputing(layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _switched_on(self, model: Any) -> bool:
        if self.offload and not torch.accelerator.is_available():
            # Models pin what they offload, which needs an accelerator.
            return False
        for name, keyword in _SWITCHES.items():
            switch = getattr(model, name, None)
            if switch is None:
                continue
            extras = {"every_n_layers": self.every_n_layers, "offload": self.offload}
            if not set(extras) <= set(inspect.signature(switch).parameters):
                if self != Recompute(options=self.options):
                    return False
                extras = {}
            switch(**{keyword: self.options or None}, **extras)
            return True
        return False

    def _recomputing(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        options = {"use_reentrant": False, **self.options}

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            with self._keeping():
                if options["use_reentrant"] and kwargs:
                    # The reentrant kind takes no keywords.
                    return checkpoint(functools.partial(forward, **kwargs), *args, **options)
                return checkpoint(forward, *args, **kwargs, **options)

        return run

    def _keeping(self) -> AbstractContextManager[Any]:
        if not self.offload:
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=torch.accelerator.is_available())


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model: the longest list (or sequence) of two or more modules of one class in it."""
    longest: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            children = list(module)
            if len({type(child) for child in children}) == 1 and len(children) > max(len(longest), 1):
                longest = children
    if not longest:
        raise ModelError(
            f"activation_checkpointing is True, but {type(model).__name__} has no list of equal layers (nn.ModuleList "
            "or nn.Sequential) and no activation_checkpointing_enable. Define that method, or leave the setting out."
        )
    return longest
