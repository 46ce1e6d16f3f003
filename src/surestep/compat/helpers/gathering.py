"""Tensors and turns among the processes of a run, under the original's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from surestep.config.enums import ParallelMode
from surestep.errors import NotServedError
from surestep.runtime.nested import map_structure
from surestep.runtime.world import World


def distributed_concat(tensor: Any, num_total_examples: int | None = None) -> Any:
    """Return every leaf joined over the processes, in the order of their ranks; at most `num_total_examples` long."""
    return map_structure(lambda leaf: _gathered(leaf)[:num_total_examples], tensor)


def distributed_broadcast_scalars(
    scalars: Sequence[float],
    num_total_examples: int | None = None,
    device: torch.device | str | None = "cuda",
) -> torch.Tensor:
    """Return the numbers of every process in one vector on `device`, at most `num_total_examples` of them."""
    return _gathered(torch.tensor(scalars, device=device))[:num_total_examples]


def nested_gather(tensors: Any, parallel_mode: ParallelMode, name: str | None = None) -> Any:  # noqa: ARG001 (XLA's)
    """Return a structure joined over the processes where `parallel_mode` is distributed, else as it is."""
    if tensors is None or getattr(parallel_mode, "value", parallel_mode) != ParallelMode.DISTRIBUTED.value:
        return tensors
    return distributed_concat(tensors)


def _gathered(tensor: torch.Tensor) -> torch.Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        raise NotServedError(
            "There is nothing to gather from: torch.distributed is not initialised. Start the script with torchrun."
        )
    mine = (tensor.reshape(1) if tensor.ndim == 0 else tensor).contiguous()
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts)


@contextmanager
def torch_distributed_zero_first(local_rank: int) -> Iterator[None]:
    """Let the process with `local_rank` 0 run the body before the others; -1 stands for a process alone."""
    alone = local_rank == -1
    with World(size=1 if alone else dist.get_world_size(), local_rank=max(local_rank, 0)).main_first():
        yield


def is_main_process(local_rank: int) -> bool:
    """Say whether `local_rank` is that of the process that speaks for its machine."""
    return local_rank in (-1, 0)


def total_processes_number(local_rank: int) -> int:
    """Return how many processes the run has; `local_rank` -1 stands for one alone."""
    return 1 if local_rank == -1 else dist.get_world_size()
