"""The default generators of python, NumPy and torch, borrowed for a moment: seeded, used, and put back as they were.

This runs for every batch, so it goes past what is slow. `torch.manual_seed` makes hundreds of Python calls, and python
and NumPy give their states and take them again number by number. The state of a Mersenne twister lies in memory in one
piece, and is copied as such where a look shows that it does.
"""

from __future__ import annotations

import _random
import ctypes
import random
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

# A seed for each of the three: from one and the same, NumPy and torch would draw the same numbers.
Seeds: TypeAlias = tuple[int, int, int]

_WORDS = 624
_SIZE = 4 * _WORDS + 4
_pack = struct.Struct("<Q4q").pack
_unpack: Callable[[bytes], Seeds] = struct.Struct("<QIQ").unpack
# The one behind the functions of the module.
_python: Any = cast("Any", random.random).__self__
_seed_python, _python_state, _set_python_state = _random.Random.seed, _random.Random.getstate, _random.Random.setstate
_torch = torch.default_generator


class Draws(IntEnum):
    """What is drawn for; each of these draws other numbers."""

    BATCH = 0
    SAMPLE = 1
    COLLATION = 2
    STREAM = 3
    LOADER = 4
    ORDER = 5


# What the default generators were: python's state, or what its memory holds, and the number that waits in it; the
# memory of NumPy's state and what that holds, and the number that waits there; torch's state. No class, for making an
# object is a call more.
Kept: TypeAlias = tuple[Any, float | None, Any, Any, float | None, torch.Tensor]


def derive(seed: int, *, kind: int = 0, epoch: int = 0, place: int = 0, part: int = 0) -> Seeds:
    """Return the seeds that follow from these numbers; any others give others. `seed` is taken modulo 2**64."""
    packed = _pack(seed & 0xFFFFFFFFFFFFFFFF, kind, epoch, place, part)
    return _unpack(blake2b(packed, digest_size=20).digest())


def seed_defaults(seeds: Seeds) -> None:
    """Seed the default generators."""
    _seed_python(_python, seeds[0])
    _python.gauss_next = None
    np.random.seed(seeds[1])
    # Drops a normal number that waits, which seeding does for a Mersenne twister only.
    set_bit_generator(get_bit_generator())
    _torch.manual_seed(seeds[2])


def keep_defaults() -> Kept:
    """Return what `put_back_defaults` needs to make the generators what they are; they must be seeded or put back."""
    memory, gauss = _state_memory(get_bit_generator()), None
    numpy = np.random.get_state(legacy=False) if memory is None else memory.raw
    if memory is not None:
        # Normal numbers come in pairs, of which one may wait its turn. If a draw moves nothing, it was that one.
        drawn = np.random.standard_normal()
        gauss = drawn if memory.raw == numpy else None
    python = _python_state(_python) if _python_memory is None else _python_memory.raw
    return python, _python.gauss_next, memory, numpy, gauss, _torch.get_state()


def put_back_defaults(kept: Kept) -> None:
    """Make the default generators what they were."""
    python, _python.gauss_next, memory, numpy, gauss, state = kept
    if _python_memory is None:
        _set_python_state(_python, python)
    else:
        _python_memory.raw = python
    if memory is None:
        np.random.set_state(numpy)
    else:
        set_bit_generator(get_bit_generator())
        memory.raw = numpy
        if gauss is not None:
            np.random.set_state({**np.random.get_state(legacy=False), "has_gauss": 1, "gauss": gauss})
    _torch.set_state(state)


@contextmanager
def borrowed_defaults(seeds: Seeds) -> Iterator[None]:
    """Have the body draw from default generators that are seeded for it alone."""
    kept = keep_defaults()
    try:
        seed_defaults(seeds)
        yield
    finally:
        put_back_defaults(kept)


@lru_cache(maxsize=1)
def _state_memory(generator: Any) -> Any:
    """Return the memory in which a generator of NumPy's has its state, or None where that cannot be copied.

    It can with a Mersenne twister whose memory is what its state says: 624 words and a place in them.
    """
    if type(generator) is not np.random.MT19937:
        return None
    memory = _bytes_at(int(generator.ctypes.state_address))
    inside = generator.state["state"]
    expected = inside["key"].astype(np.uint32).tobytes() + struct.pack("=i", inside["pos"])
    return memory if memory.raw == expected else None


def _find_python_memory() -> Any:
    """Return the memory in which python's generator has its state, behind what every object begins with; None if not.

    It is what its state says: a place among 624 words, and these. Nothing is read beyond the object, nor where an
    identity is no address.
    """
    begins = object.__basicsize__
    if sys.implementation.name != "cpython" or _random.Random.__basicsize__ < begins + _SIZE:
        return None
    memory = _bytes_at(id(_python) + begins)
    *words, place = _python_state(_python)
    return memory if memory.raw == struct.pack(f"=i{_WORDS}I", place, *words) else None


def _bytes_at(address: int) -> Any:
    return (ctypes.c_char * _SIZE).from_address(address)


_python_memory = _find_python_memory()
