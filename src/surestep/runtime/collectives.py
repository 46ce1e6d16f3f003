"""What the processes of a run tell each other: the group, and the few exchanges that others build on.

Numbers of the host travel through host memory (gloo), so that agreeing on one never waits for a device.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from surestep.errors import ArgumentError
from surestep.runtime.nested import leaves, map_structure
from surestep.runtime.world import World

# What a tensor of another rank is filled up with where its second dimension is the shorter one, as in the original.
PADDING = -100
_DEFAULT_BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "cpu": "gloo"}
T = TypeVar("T")


class _Host:
    """The group for what lies in host memory; None is the default group, where that takes it."""

    group: dist.ProcessGroup | None = None


_HOST = _Host()


def join_group(world: World, device: torch.device, *, backend: str | None = None, seconds: int = 1800) -> None:
    """Join the processes of the run, once; a group that other code formed is taken as it is.

    `backend` is torch's name; by default NCCL between CUDA devices and gloo elsewhere. `seconds` is how long a process
    waits for the others before it gives up.
    """
    if dist.is_initialized():
        if _HOST.group is None and dist.get_backend() not in ("gloo", "mpi"):
            _HOST.group = dist.new_group(backend="gloo")
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ArgumentError(
            f"WORLD_SIZE={world.size} asks for {world.size} processes, but {' and '.join(missing)} are not set, so "
            f"they cannot find each other. Start the script with: torchrun --nproc-per-node {world.size} script.py"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    chosen = backend or _DEFAULT_BACKENDS.get(device.type, "gloo")
    dist.init_process_group(chosen, timeout=timedelta(seconds=seconds))
    atexit.register(_leave_group)


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def exchanges_begun() -> list[int] | None:
    """Return how many exchanges this process has begun, group by group; None where a backend does not count them.

    Where all processes have begun as many, none of them is in one that another does not know of.
    """
    groups: list[Any] = [group for group in (dist.group.WORLD, _HOST.group) if group is not None]
    backends = [group._get_backend(device) for group in groups for device in group._device_types]
    try:
        return [backend._get_sequence_number_for_group() for backend in backends]
    except RuntimeError:
        return None


def agree(numbers: list[int]) -> list[list[int]]:
    """Return the numbers of every rank, by rank; each rank gives as many."""
    own = torch.tensor(numbers, dtype=torch.int64)
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own, group=_HOST.group)
    return [one.tolist() for one in everyone]


def from_main(value: Any) -> Any:
    """Return the main process's value, which may be any object that pickles (it does not leave the group)."""
    return from_rank(value, 0)


def from_rank(value: Any, rank: int) -> Any:
    """Return the value that the process of `rank` holds."""
    box = [value]
    dist.broadcast_object_list(box, src=rank, group=_HOST.group)
    return box[0]


def on_main(world: World, work: Callable[[], T]) -> T:
    """Do `work` on the main process alone and return its result everywhere; an error is raised everywhere."""
    if world.size == 1:
        return work()
    result: tuple[T | None, BaseException | None] = (None, None)
    if world.is_main:
        try:
            result = (work(), None)
        except Exception as error:
            result = (None, error)
    value, failure = from_main(result)
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]


def gather_objects(value: Any) -> list[Any]:
    """Return the object of every rank, by rank."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value, group=_HOST.group)
    return everyone


def gather_samples(value: Any, *, padding: int = PADDING) -> Any:
    """Return a nested structure of tensors with the samples of all ranks, one rank after the other.

    The first dimension may differ between ranks, down to a rank that has none of it and gives None; so may the second:
    shorter tensors are filled up on the right with `padding`. A tensor without dimensions counts as one sample. What is
    no tensor stays each rank's own.
    """
    present = [has for (has,) in agree([int(value is not None)])]
    if not any(present):
        return None
    if not all(present):
        value = _like_the_others(value, present.index(1))
    gathered = iter(_gather_tensors([_rows(leaf) for leaf in leaves(value) if isinstance(leaf, Tensor)], padding))
    return map_structure(lambda leaf: next(gathered) if isinstance(leaf, Tensor) else leaf, value)


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(1) if tensor.ndim == 0 else tensor


@dataclass(frozen=True, slots=True)
class _Form:
    """What a tensor is but for its samples, so that a rank without any can make one that has none."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    on_device: bool

    @classmethod
    def of(cls, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        rows = _rows(leaf)
        return cls(tuple(rows.shape[1:]), rows.dtype, rows.device.type != "cpu")

    def empty(self) -> Tensor:
        device = torch.accelerator.current_accelerator() if self.on_device else None
        return torch.empty((0, *self.shape), dtype=self.dtype, device=device or "cpu")


def _like_the_others(value: Any, giver: int) -> Any:
    """Give a rank without a batch the structure that the rank `giver` has, with no samples in it."""
    form = from_rank(map_structure(_Form.of, value) if dist.get_rank() == giver else None, giver)
    if value is not None:
        return value
    return map_structure(lambda leaf: leaf.empty() if isinstance(leaf, _Form) else leaf, form)


def _gather_tensors(tensors: list[Tensor], padding: int) -> list[Tensor]:
    """Gather tensors of different first and second dimensions: shapes first, all in one exchange."""
    if not tensors:
        return []
    shapes = agree([size for tensor in tensors for size in (tensor.shape[0], _width(tensor))])
    gathered: list[Tensor] = []
    for place, tensor in enumerate(tensors):
        rows = [shape[2 * place] for shape in shapes]
        width = max((shape[2 * place + 1] for shape in shapes if shape[2 * place]), default=0)
        gathered.append(_gather_tensor(tensor.contiguous(), rows, width, padding))
    return gathered


def _width(tensor: Tensor) -> int:
    return tensor.shape[1] if tensor.ndim > 1 else 0


def _gather_tensor(tensor: Tensor, rows: list[int], width: int, padding: int) -> Tensor:
    shape = (max(rows), width, *tensor.shape[2:]) if tensor.ndim > 1 else (max(rows),)
    own = tensor
    if tuple(tensor.shape) != shape:
        # Neither of the two can hold -100.
        fill = 0 if padding < 0 and tensor.dtype in (torch.bool, torch.uint8) else padding
        own = tensor.new_full(shape, fill)
        if tensor.ndim > 1:
            own[: tensor.shape[0], : tensor.shape[1]] = tensor
        else:
            own[: tensor.shape[0]] = tensor
    everyone = own.new_empty((len(rows) * shape[0], *shape[1:]))
    dist.all_gather_single(everyone, own)
    parts = torch.split(everyone, shape[0]) if shape[0] else [everyone] * len(rows)
    return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])
