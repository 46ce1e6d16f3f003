"""Names that older years of the original had at its top, and today's have no more: `from transformers import AdamW`.

The top is a lazy module, made anew now and then, so the names are offered on its class. They are found as any other
name of a replaced module is.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

TOP = "transformers"
# The module that defines the class of lazy modules, and the name of that class.
LAZY, _CLASS = f"{TOP}.utils.import_utils", "_LazyModule"
# A name -> the original's module that held it.
ONCE_AT_THE_TOP = {
    "AdamW": f"{TOP}.optimization",
    "DataCollatorForWholeWordMask": f"{TOP}.data.data_collator",
    "EvaluationStrategy": f"{TOP}.trainer_utils",
}


class _Once:
    """An attribute that the top has and no other lazy module."""

    def __init__(self, name: str, module: str) -> None:
        self._name = name
        self._module = module

    def __get__(self, instance: ModuleType | None, owner: type | None = None) -> Any:
        if instance is None or instance.__name__ != TOP:
            raise AttributeError(self._name)
        return getattr(importlib.import_module(self._module), self._name)


class _ThenOffer:
    """Loads a module as `loader` does, then offers the names."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module."""
        self._loader.exec_module(module)
        offer()


def offering(spec: ModuleSpec) -> ModuleSpec:
    """Return the spec of the module that defines lazy modules, so that loading it offers the names."""
    if spec.loader is not None:
        spec.loader = cast("Loader", _ThenOffer(spec.loader))
    return spec


def offer() -> None:
    """Offer the names, where the class of lazy modules is loaded."""
    kind = _lazy_class()
    for name, module in ONCE_AT_THE_TOP.items() if kind is not None else ():
        setattr(kind, name, _Once(name, module))


def take_back() -> None:
    """Offer them no more."""
    kind = _lazy_class()
    for name in ONCE_AT_THE_TOP:
        if kind is not None and name in vars(kind):
            delattr(kind, name)


def _lazy_class() -> type | None:
    return getattr(sys.modules.get(LAZY), _CLASS, None)
