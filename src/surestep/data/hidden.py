"""Random generators that samplers, datasets and collators hold for themselves: found, read out and put back.

Seeding the default generators does not reach these. Their owners are the user's objects; nothing is kept here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

# The generators behind the functions of these modules are seeded.
_DEFAULTS = (*(cast("Any", draw).__self__ for draw in (random.random, np.random.rand)), torch.default_generator)
_KINDS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
# Where no generator hides, or too much else does.
_LEAVES = (str, bytes, int, float, complex, type(None), type, Tensor, np.ndarray, np.generic)
# A container this long holds samples.
_MANY = 100
_VISITS = 5000


def generators_in(name: str, root: Any) -> dict[str, Any]:
    """Return the generators that are reached from `root` by attributes and small containers, by where they are.

    Functions are looked into as well: what they close over, and the globals that they name. Whatever has a method
    `set_batch_seed` looks after its own.
    """
    found: dict[str, Any] = {}
    seen: set[int] = {id(one) for one in _DEFAULTS}
    waiting = deque([(name, root)])
    while waiting and len(seen) < _VISITS:
        place, one = waiting.popleft()
        if id(one) in seen or isinstance(one, _LEAVES) or hasattr(one, "set_batch_seed"):
            continue
        seen.add(id(one))
        if isinstance(one, _KINDS):
            found[place] = one
        else:
            waiting.extend(_parts(place, one))
    return found


def _parts(place: str, one: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds, with its place."""
    if isinstance(one, FunctionType):
        yield from _named_in(place, one)
    elif isinstance(one, MethodType):
        yield from _parts(place, one.__func__)
        yield place.rpartition(".")[0] or place, one.__self__
    elif isinstance(one, partial):
        yield place, one.func
        yield from ((f"{place}.args[{number}]", value) for number, value in enumerate(one.args))
        yield from ((f"{place}.{name}", value) for name, value in one.keywords.items())
    elif isinstance(one, Mapping):
        if len(one) <= _MANY:
            yield from ((f"{place}[{key!r}]", value) for key, value in one.items())
    elif isinstance(one, list | tuple | set | frozenset):
        if len(one) <= _MANY:
            yield from ((f"{place}[{number}]", value) for number, value in enumerate(one))
    else:
        yield from ((f"{place}.{name}", value) for name, value in _attributes(one).items())
        yield from _methods(place, type(one))


def _attributes(one: Any) -> dict[str, Any]:
    slots = {name: getattr(one, name) for name in getattr(type(one), "__slots__", ()) if hasattr(one, name)}
    return {**slots, **getattr(one, "__dict__", {})}


def _methods(place: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield what is called for a sample or a batch, of classes that are no library's."""
    for name in ("__getitem__", "__getitems__", "__iter__", "__call__", "forward"):
        method = getattr(kind, name, None)
        if isinstance(method, FunctionType) and method.__module__.partition(".")[0] not in ("torch", "datasets"):
            yield f"{place}.{name}", method


def _named_in(place: str, function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function closes over, and of the globals that it names the generators."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{place} -> {name}", cell.cell_contents
        except ValueError:
            continue
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, _KINDS):
            yield f"{place} -> {name}", value


def states_of(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of generators, as plain data and tensors."""
    return {place: _access(one)[0]() for place, one in generators.items()}


def put_back(generators: Mapping[str, Any], states: Mapping[str, Any]) -> list[str]:
    """Give generators the states of those in the same places; return the places in which there is none now."""
    for place, state in states.items():
        if place in generators:
            _access(generators[place])[1](state)
    return [place for place in states if place not in generators]


def moved(generators: Mapping[str, Any], states: Mapping[str, Any]) -> list[str]:
    """Return where generators are that have drawn since their states were taken."""
    return [place for place, state in states_of(generators).items() if not same(state, states[place])]


def _access(one: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Return what reads the state of a generator, and what writes it."""
    if isinstance(one, random.Random):
        return one.getstate, one.setstate
    if isinstance(one, np.random.RandomState):
        return partial(one.get_state, legacy=False), one.set_state
    if isinstance(one, np.random.Generator):
        return lambda: one.bit_generator.state, partial(setattr, one.bit_generator, "state")
    return one.get_state, one.set_state


def same(one: Any, other: Any) -> bool:
    """Say whether two batches, or states, are equal to the last bit; what is not a number is equal to itself."""
    return difference(one, other) is None


def difference(one: Any, other: Any, place: str = "") -> str | None:
    """Return the place at which two batches differ first ("" for the whole), or None where they are equal."""
    if type(one) is not type(other):
        return place
    if isinstance(one, Tensor | np.ndarray):
        return None if one.shape == other.shape and _equal(one, other) else place
    if isinstance(one, Mapping):
        if one.keys() != other.keys():
            return place
        return _first_difference((f"{place}[{key!r}]", value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return place
        pairs = zip(one, other, strict=True)
        return _first_difference((f"{place}[{number}]", *pair) for number, pair in enumerate(pairs))
    return None if _equal(one, other) else place


def _first_difference(parts: Iterable[tuple[str, Any, Any]]) -> str | None:
    found = (difference(one, other, place) for place, one, other in parts)
    return next((place for place in found if place is not None), None)


def _equal(one: Any, other: Any) -> bool:
    equal = (one == other) | ((one != one) & (other != other))  # noqa: PLR0124 (what is not a number differs from itself)
    return bool(equal.all() if isinstance(equal, Tensor | np.ndarray) else equal)
