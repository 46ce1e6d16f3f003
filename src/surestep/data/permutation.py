"""A random order of any length that takes no memory and can be entered anywhere."""

from __future__ import annotations

import math
import struct
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import torch

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
_ROUNDS = 10
_MASK = 2**64 - 1


class KeyedPermutation:
    """A permutation of the numbers below `size`, a function of `key` (whole numbers of 64 bits).

    It is the generalised Feistel cipher of Black and Rogaway (Ciphers with Arbitrary Finite Domains, 2002): a number is
    a row and a column of a table a little larger than `size`, each round adds to the one a hash of the other, and what
    comes out past the end goes through again.
    """

    def __init__(self, size: int, *key: int) -> None:
        self.size = size
        rows = math.isqrt(max(size - 1, 0)) + 1
        self._sides = (rows, -(-size // rows))
        self._keys = [_hash_of(*key, number) for number in range(_ROUNDS)]

    def __call__(self, places: Numbers) -> Numbers:
        """Return the numbers at some places, all of them below `size`."""
        numbers = self._encrypt(places.astype(np.uint64))
        while (outside := numbers >= self.size).any():
            numbers[outside] = self._encrypt(numbers[outside])
        return numbers

    def _encrypt(self, numbers: Numbers) -> Numbers:
        rows, columns = (np.uint64(side) for side in self._sides)
        row, column = numbers // columns, numbers % columns
        for number, key in enumerate(self._keys):
            if number % 2:
                column = (column + scrambled(row, key) % columns) % columns
            else:
                row = (row + scrambled(column, key) % rows) % rows
        return row * columns + column


class KeyedOrder:
    """An endless order of the indices below `size`: one permutation after the other, or drawn with `replacement`."""

    def __init__(self, size: int, seed: int, *, replacement: bool = False) -> None:
        self._size = size
        self._seed = seed
        self._replacement = replacement

    def between(self, start: int, end: int) -> torch.Tensor:
        """Return the indices at the places from `start` up to `end`."""
        places = np.arange(start, end, dtype=np.uint64)
        if self._replacement:
            drawn = [scrambled(places, _hash_of(self._seed)) % np.uint64(self._size)]
        else:
            passes = range(start // self._size, (end - 1) // self._size + 1)
            drawn = [self._of_pass(number, places) for number in passes]
        return torch.from_numpy(np.concatenate(drawn).astype(np.int64))

    def _of_pass(self, number: int, places: Numbers) -> Numbers:
        """Return the indices at those of the places that lie in a pass through all indices."""
        first = number * self._size
        inside = places[max(first - int(places[0]), 0) : first + self._size - int(places[0])]
        return KeyedPermutation(self._size, self._seed, number)(inside - np.uint64(first))


def scrambled(numbers: Numbers, key: int) -> Numbers:
    """Return 64 random bits for each number: the finishing step of SplitMix64, over the number and the key."""
    bits = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _hash_of(*numbers: int) -> int:
    packed = struct.pack(f"<{len(numbers)}Q", *(number & _MASK for number in numbers))
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")
