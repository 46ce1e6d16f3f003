"""What the accelerate package knows of this process, kept in step with the run.

Accelerate keeps one state for the whole process and makes it when it is first asked, with a process group where the
launcher's environment speaks of one. Libraries that were written for the original expect the state to be there (their
loggers refuse to speak without it). Here it is bound to what the run has: its device, and its process group if there is
one. None is ever made on the way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from surestep.errors import NotServedError
from surestep.optional import require
from surestep.runtime.world import current_world

if TYPE_CHECKING:
    import torch

_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def process_state(device: torch.device, purpose: str) -> Any:
    """Return accelerate's `PartialState` for this process on `device`; the one that is there already, if it fits.

    `purpose` says in errors what accelerate is needed for.
    """
    state: Any = require("accelerate.state", purpose)
    if not _has_group() and current_world().size > 1:
        raise NotServedError(
            f"{purpose} asks accelerate about {current_world().size} processes before their process group is made. "
            "Call torch.distributed.init_process_group first."
        )
    on_cpu = device.type == "cpu"
    if state.PartialState._shared_state and _is_on_cpu(state.PartialState()) != on_cpu:
        state.AcceleratorState._reset_state(reset_partial_state=True)
    with _group_of_the_run():
        return state.PartialState(cpu=on_cpu)


def tell_accelerate(device: torch.device) -> None:
    """Make accelerate's state of the process, unless several processes have yet to make their group."""
    if _has_group() or current_world().size == 1:
        process_state(device, "accelerate")


def _is_on_cpu(state: Any) -> bool:
    return bool(state.device.type == "cpu")


def _has_group() -> bool:
    distributed: Any = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


@contextmanager
def _group_of_the_run() -> Iterator[None]:
    """Hide the launcher's environment where the run has no process group, so that accelerate makes none either."""
    hidden = {} if _has_group() else {name: os.environ.pop(name) for name in _LAUNCHER if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
