"""Confidence intervals: the same figures over repetitions in which samples count more or less often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from surestep.errors import ArgumentError

Array = np.ndarray[Any, Any]
# Poisson with mean 1: how often a sample counts at most 0, 1, 2 ... times.
_AT_MOST = np.cumsum([math.exp(-1) / math.factorial(times) for times in range(20)])[:-1]
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Repetitions of an evaluation in which each sample counts 0, 1, 2 ... times (Poisson with mean 1).

    How often a sample counts follows from the seed and its number in the dataset, so that an interval depends neither
    on the batch size nor on the number of ranks. What is kept are the sums of all repetitions, not samples.
    """

    confidence: float
    seed: int = 0
    repetitions: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ArgumentError(f"metrics_confidence={self.confidence}; write a share between 0 and 1, such as 0.95.")

    def weights(self, positions: Any, repetitions: range | None = None) -> Array:
        """Return how often each sample counts in (some of) the repetitions: (repetitions, samples), float64."""
        chosen = range(self.repetitions) if repetitions is None else repetitions
        numbers = np.asarray(positions, np.uint64) * np.uint64(self.repetitions)
        numbers = numbers[None, :] + np.arange(chosen.start, chosen.stop, dtype=np.uint64)[:, None]
        return np.searchsorted(_AT_MOST, _uniform(numbers, self.seed), side="right").astype(np.float64)

    def interval(self, figures: Any) -> tuple[float, float]:
        """Return the bounds from the figures of the repetitions; those that have none (NaN) are left out."""
        known = np.asarray(figures, dtype=np.float64)
        known = known[~np.isnan(known)]
        if not len(known):
            return math.nan, math.nan
        low, high = np.quantile(known, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


def _uniform(numbers: Array, seed: int) -> Array:
    """Return a number in [0, 1) for each of `numbers`, as drawn by SplitMix64 at that place of its stream."""
    drawn = (numbers + np.uint64(seed * _GOLDEN % 2**64)) * np.uint64(_GOLDEN) + np.uint64(_GOLDEN)
    for shift, factor in _MIX:
        drawn = (drawn ^ (drawn >> np.uint64(shift))) * np.uint64(factor)
    drawn ^= drawn >> np.uint64(31)
    return (drawn >> np.uint64(11)) * 2.0**-53
