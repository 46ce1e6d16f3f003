"""Predictions with labels, cut into batches, and a world of ranks in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from surestep.engine.strategies.single import SingleDevice
from surestep.metrics.named import make_metrics
from surestep.metrics.task import Reading
from surestep.runtime.nested import map_structure
from surestep.runtime.world import World

ALONE = SingleDevice(World(), torch.device("cpu"))


def cut(value: Any, start: int, end: int) -> Any:
    return map_structure(lambda leaf: leaf[start:end], value)


def batches(predictions: Any, labels: Any, size: int) -> Iterator[tuple[Any, Any, Any]]:
    count = len(labels[0] if isinstance(labels, tuple) else labels)
    for start in range(0, count, size):
        end = min(start + size, count)
        yield cut(predictions, start, end), cut(labels, start, end), np.arange(start, end)


def measure(asked: Any, predictions: Any, labels: Any, size: int = 7, **settings: Any) -> dict[str, float]:
    """Return the figures of predictions that come in batches of `size`."""
    bootstrap = settings.pop("bootstrap", None)
    inputs = settings.pop("inputs", None)
    with make_metrics(asked, Reading(quiet=True, **settings), bootstrap) as metrics:
        for given, wanted, positions in batches(predictions, labels, size):
            metrics.update(given, wanted, cut(inputs, positions[0], positions[-1] + 1) if inputs else None, positions)
        return metrics.compute(ALONE)


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Words:
    """A tokenizer whose tokens are the words of a list; token 0 is special."""

    words = ("<pad>", "the", "cat", "sat", "on", "a", "mat", ".", "dog", "red", "big")

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        return [" ".join(self.words[token] for token in row if token or not skip_special_tokens) for row in rows]
