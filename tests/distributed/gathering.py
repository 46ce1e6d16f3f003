"""What two ranks gather under the original's names, here and there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import trainer_pt_utils, trainer_utils

import surestep


def work(folder: Path) -> dict[str, Any]:
    """Return what each side's functions give on this rank."""
    dist.init_process_group("gloo")
    try:
        return {
            "ours": gathered(surestep, folder / "ours"),
            "theirs": gathered(trainer_pt_utils, folder / "theirs", trainer_utils),
        }
    finally:
        dist.destroy_process_group()


def gathered(room: Any, folder: Path, utils: Any = None) -> dict[str, Any]:
    rank = dist.get_rank()
    mine = {"a": torch.full((2, 3), float(rank)), "b": [torch.tensor(rank)]}
    mode = surestep.ParallelMode.DISTRIBUTED
    if room is trainer_pt_utils:
        from transformers.training_args import ParallelMode

        mode = ParallelMode.DISTRIBUTED
    folder.mkdir(exist_ok=True)
    with room.torch_distributed_zero_first(rank):
        first = not any(folder.iterdir())
        (folder / str(rank)).touch()
    dist.barrier()
    return {
        "concat": room.distributed_concat(mine),
        "cut": room.distributed_concat(mine["a"], num_total_examples=3),
        "nested": room.nested_gather(mine, mode),
        "scalars": room.distributed_broadcast_scalars([1.0 + rank, 2.0], device="cpu"),
        "first": first,
        "size": (utils or room).total_processes_number(int(os.environ["LOCAL_RANK"])),
    }
