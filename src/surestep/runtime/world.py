"""Who this process is among the processes of the run. Whatever differs by rank asks here, also while there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.lstrip("-").isdigit() else default


@dataclass(frozen=True, slots=True)
class World:
    """The process's place: global rank, number of processes, and the same within its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that speaks and writes for all."""
        return self.rank == 0

    @property
    def is_local_main(self) -> bool:
        """Whether this is the one process that speaks for its machine."""
        return self.local_rank == 0

    def barrier(self) -> None:
        """Wait for every process; with one process there is nothing to wait for."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    @contextmanager
    def main_first(self, *, local: bool = True) -> Iterator[None]:
        """Let the main process (of each machine when `local`) run the body before the others."""
        first = self.is_local_main if local else self.is_main
        if not first:
            self.barrier()
        yield
        if first:
            self.barrier()


def current_world() -> World:
    """Read the world from the launcher's environment (`torchrun`'s names)."""
    return World(
        rank=_number("RANK", 0),
        size=_number("WORLD_SIZE", 1),
        local_rank=max(_number("LOCAL_RANK", 0), 0),
        local_size=_number("LOCAL_WORLD_SIZE", 1),
    )
