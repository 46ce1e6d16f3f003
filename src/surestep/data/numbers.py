"""Which samples a batch of an epoch holds, by their numbers in the dataset, found without reading one of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler

from surestep.data.ranks import RankBatches
from surestep.data.samplers import Epochs, SequentialSampler

# Columns that name a sample, in the order in which they are looked for.
_ID_COLUMNS = ("id", "ids", "idx", "sample_id", "example_id", "guid", "uid", "number")


def sample_numbers(loader: Any, epoch: int, samples: int, count: int) -> list[list[int]] | None:
    """Return the numbers of the samples in `count` batches of an epoch, from behind its first `samples` samples on.

    None where the order does not follow from seed and epoch: a sampler that is not ours, or a stream.
    """
    batches: Any = getattr(loader, "batch_sampler", None)
    order = getattr(batches, "sampler", None)
    # The run goes on with its own.
    twin: Any = copy.copy(batches)
    if isinstance(batches, Epochs):
        _begin(twin, epoch, samples)
    elif isinstance(order, Epochs | SequentialSampler) and (
        isinstance(batches, RankBatches) or type(batches) is BatchSampler
    ):
        twin.sampler = _begin(copy.copy(order), epoch, samples)
    else:
        return None
    return [list(batch) for batch in islice(iter(twin), count)]


def _begin(order: Any, epoch: int, samples: int) -> Any:
    """Have an order begin behind the first samples of an epoch."""
    if isinstance(order, Epochs):
        order.set_epoch(epoch)
    order.seek(samples)
    return order


def named_samples(batch: Any) -> tuple[str, list[Any]] | None:
    """Return the column of a batch that names its samples, and what it holds; None where there is none."""
    for name in _ID_COLUMNS if isinstance(batch, Mapping) else ():
        values = batch.get(name)
        if isinstance(values, Tensor) and values.ndim == 1:
            return name, values.tolist()
        if isinstance(values, list | tuple):
            return name, list(values)
    return None
