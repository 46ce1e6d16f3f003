"""Everything that a live trainer holds, leaf by leaf, so that two can be compared.

`leaves` walks from a trainer through every attribute of every object of this library (and of the tests' own callbacks),
through containers, closures, optimizers, schedules, loaders and samplers. What is not taken apart is named in a table;
an object of a kind that nobody has thought of is an error, so that nothing is passed over in silence.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import random
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import is_dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import partial
from operator import itemgetter
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from surestep.runtime.random import capture_random_state

OWN = ("surestep.", "tests.")
# Constants, and what has no state that a run changes.
_SIMPLE = (bool, int, float, complex, str, bytes, type(None), PurePath, torch.dtype, torch.device, Enum, range, slice)
_KEYS = (bool, int, float, str, PurePath, Enum, torch.dtype, torch.device)
# Clients, threads and files of the system: what they stand for is state of others.
_OPAQUE: tuple[type, ...] = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Thread,
    threading.Event,
    threading.Condition,
    torch.utils.hooks.RemovableHandle,
    torch.Event,
    ExitStack,
    itemgetter,
    type(hashlib.blake2b()),
)
# Foreign objects whose attributes are walked as those of our own are.
_TAKEN_APART = (LRScheduler, DataLoader, Sampler, BatchSampler, types.SimpleNamespace)


class Walk:
    """A walk over a live trainer."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self._seen: dict[int, Any] = {}

    def visit(self, path: str, value: Any) -> None:
        """Note a leaf, or go on to what it holds; what was met before is not taken apart again."""
        if isinstance(value, _SIMPLE):
            self.found[path] = value
        elif isinstance(value, tuple):
            # What is constant may be one object in many places, or as many as there are places.
            self._take_apart(path, value)
        elif id(value) not in self._seen:
            # Kept, so that no number is given to another object meanwhile.
            self._seen[id(value)] = value
            self._take_apart(path, value)

    def _take_apart(self, path: str, value: Any) -> None:
        for kinds, take in _WAYS:
            if isinstance(value, kinds):
                take(self, path, value)
                return
        kind = type(value)
        if isinstance(value, Dataset) and not kind.__module__.startswith("surestep."):
            return
        if isinstance(value, _TAKEN_APART) or kind.__module__.startswith(OWN) or is_dataclass(value):
            self.attributes(path, value)
        else:
            raise AssertionError(f"{path} is a {kind.__module__}.{kind.__qualname__}: say how it is compared")

    def attributes(self, path: str, value: Any) -> None:
        """Go through the attributes of an object, also those in slots, and those that still are what its class says."""
        names = set(getattr(value, "__dict__", {}))
        for kind in type(value).__mro__:
            if kind.__module__.startswith(OWN) or kind is type(value):
                names.update(_names(kind.__dict__.get("__slots__", ())), inspect.get_annotations(kind))
        for name in sorted(names):
            if hasattr(value, name) and not name.startswith("__"):
                self.visit(f"{path}.{name}", getattr(value, name))

    def mapping(self, path: str, value: Mapping[Any, Any]) -> None:
        """Go through a mapping; keys of no simple kind, such as parameters, are told by their place."""
        self.found[f"{path}#"] = len(value)
        for place, (key, one) in enumerate(value.items()):
            self.visit(f"{path}.{key if isinstance(key, _KEYS) else place}", one)

    def sequence(self, path: str, value: Iterable[Any]) -> None:
        """Go through a sequence."""
        values = list(value)
        self.found[f"{path}#"] = len(values)
        for place, one in enumerate(values):
            self.visit(f"{path}.{place}", one)

    def members(self, path: str, value: Iterable[Any]) -> None:
        """Note a set by what is in it."""
        self.found[path] = sorted(map(repr, value))

    def function(self, path: str, value: Any) -> None:
        """Go through what a function of ours has closed over."""
        if not value.__module__.startswith(OWN):
            return
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                self.visit(f"{path}<{name}>", cell.cell_contents)
            except ValueError:
                continue

    def bound(self, path: str, value: types.MethodType) -> None:
        """Go on to the object of a bound method."""
        self.visit(f"{path}.__self__", value.__self__)

    def applied(self, path: str, value: partial[Any]) -> None:
        """Go through what a partial call holds."""
        self.visit(f"{path}.func", value.func)
        self.sequence(f"{path}.args", value.args)
        self.mapping(f"{path}.keywords", value.keywords)

    def module(self, path: str, value: nn.Module) -> None:
        """Note weights, buffers and modes of a model, and whether gradients are there."""
        for name, one in value.state_dict(keep_vars=True).items():
            self.visit(f"{path}:{name}", one)
        self.found[f"{path}:training"] = [module.training for module in value.modules()]
        self.found[f"{path}:trained"] = [parameter.requires_grad for parameter in value.parameters()]
        self.found[f"{path}:gradients"] = [parameter.grad is not None for parameter in value.parameters()]

    def optimizer(self, path: str, value: Optimizer) -> None:
        """Go through the state of an optimizer, by the places of the parameters."""
        places = {id(one): place for place, one in enumerate(p for g in value.param_groups for p in g["params"])}
        for parameter, state in value.state.items():
            self.visit(f"{path}.state.{places[id(parameter)]}", dict(state))
        for place, group in enumerate(value.param_groups):
            self.visit(f"{path}.groups.{place}", {name: one for name, one in group.items() if name != "params"})

    def tensor(self, path: str, value: Tensor) -> None:
        """Note the numbers of a tensor."""
        self.found[path] = value.detach().cpu().clone()

    def array(self, path: str, value: np.ndarray[Any, Any]) -> None:
        """Note the numbers of an array."""
        self.found[path] = torch.from_numpy(value.copy())

    def generator(self, path: str, value: torch.Generator) -> None:
        """Note where a generator stands."""
        self.found[path] = value.get_state()

    def other_generator(self, path: str, value: random.Random) -> None:
        """Note where one of Python's stands."""
        self.found[path] = value.getstate()

    def nothing(self, path: str, value: Any) -> None:
        """Take nothing apart."""


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


_WAYS: list[tuple[Any, Callable[[Walk, str, Any], None]]] = [
    (_OPAQUE, Walk.nothing),
    (Tensor, Walk.tensor),
    (np.ndarray, Walk.array),
    (np.generic, lambda walk, path, value: walk.visit(path, value.item())),
    (torch.Generator, Walk.generator),
    (random.Random, Walk.other_generator),
    (nn.Module, Walk.module),
    (torch.amp.GradScaler, lambda walk, path, value: walk.visit(path, value.state_dict())),
    (Optimizer, Walk.optimizer),
    (Mapping, Walk.mapping),
    ((set, frozenset), Walk.members),
    (types.FunctionType, Walk.function),
    (types.MethodType, Walk.bound),
    (partial, Walk.applied),
    ((list, tuple, deque), Walk.sequence),
]


def leaves(trainer: Any) -> dict[str, Any]:
    """Return every leaf of a live trainer by its path, and the generators of the process."""
    walk = Walk()
    walk.visit("trainer", trainer)
    walk.visit("generators", capture_random_state())
    return walk.found


def same(one: Any, other: Any) -> bool:
    """Say whether two leaves are equal to the last bit; NaN equals NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    if isinstance(one, Tensor | float) and isinstance(other, Tensor | float):
        # A number of the device that has been read is the same number.
        one, other = float(one), float(other)
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


def differing(one: Mapping[str, Any], other: Mapping[str, Any], exempt: Mapping[str, str]) -> Iterator[str]:
    """Yield the leaves that differ, or that only one has, but for those that a pattern of `exempt` matches."""
    for path in sorted({*one, *other}):
        if any(fnmatchcase(path, pattern) for pattern in exempt):
            continue
        if path not in one or path not in other:
            yield f"{path}: only {'before' if path in one else 'after the resume'}"
        elif not same(one[path], other[path]):
            yield f"{path}: {_short(one[path])} and, after the resume, {_short(other[path])}"


def _short(value: Any) -> str:
    return repr(value)[:120]
