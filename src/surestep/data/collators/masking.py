"""Random draws for masking, alike for tensors and arrays, and the words that tokens belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class TorchDraws:
    """Draws tensors, from `generator` or else torch's global one."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = generator

    def coins(self, chances: Any) -> torch.Tensor:
        """Toss a coin for each chance of an array."""
        return torch.bernoulli(torch.as_tensor(chances, dtype=torch.float32), generator=self._generator).bool()

    def tokens(self, size: int, where: torch.Tensor) -> torch.Tensor:
        """Draw token ids below `size` for the places of `where`."""
        return torch.randint(size, where.shape, dtype=torch.long, generator=self._generator)[where]


class NumpyDraws:
    """Draws arrays, from `generator` or else numpy's global one."""

    def __init__(self, generator: np.random.Generator | None) -> None:
        self._generator = generator

    def coins(self, chances: Any) -> Any:
        """Toss a coin for each chance of an array."""
        source: Any = np.random if self._generator is None else self._generator
        return source.binomial(1, chances).astype(bool)

    def tokens(self, size: int, where: Any) -> Any:
        """Draw token ids below `size` for the places of `where`."""
        count = np.count_nonzero(where)
        if self._generator is None:
            return np.random.randint(0, size, size=count, dtype=np.int64)
        return self._generator.integers(0, size, size=count, dtype=np.int64)


def word_numbers(offsets: Any, special: Any) -> tuple[Any, Any]:
    """Number the words of each row by the tokens' `offsets` (rows x tokens x start and end).

    Returns the number of each token's word, -1 for `special` tokens, and where a word begins: at a token that does
    not start where the one before ended, or that follows a special one.
    """
    starts, ends = offsets[:, :, 0], offsets[:, :, 1]
    special = special.astype(bool)
    begins = np.ones(special.shape, dtype=bool)
    begins[:, 1:] = (starts[:, 1:] != ends[:, :-1]) | special[:, :-1]
    begins &= ~special
    return np.where(special, -1, np.cumsum(begins, axis=1)), begins


def spread_over_words(mask: Any, words: Any) -> Any:
    """Extend `mask` to every token of a word that has a masked token."""
    rows, places = np.nonzero(mask & (words >= 0))
    hit = np.zeros((len(words), words.max(initial=0) + 2), dtype=bool)
    hit[rows, words[rows, places]] = True
    # Word -1 is the last column, which nothing hits.
    return np.take_along_axis(hit, words % hit.shape[1], axis=1)
