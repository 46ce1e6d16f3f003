"""Reading a loader from somewhere in an epoch, as a run does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from surestep.data.reading import DataSeeding, Reader


def skip_batches(loader: Any, batches: int, seeding: DataSeeding = "batch") -> Iterator[Any]:
    """Read what comes after the first `batches` batches."""
    return Reader(loader, seed=0, seeding=seeding).batches(0, done=batches)


def skip_samples(loader: Any, samples: int, seeding: DataSeeding = "batch") -> Iterator[Any]:
    """Read what comes after the first `samples` samples."""
    return Reader(loader, seed=0, seeding=seeding).batches(0, start=samples)
