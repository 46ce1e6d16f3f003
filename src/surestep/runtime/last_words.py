"""What a process that fails by itself leaves for the others, who see no more than a connection that breaks.

Owns one key a run in the store that the processes found each other through. Nothing is exchanged and nobody waits: who
fails in the middle of a step writes down what, and ends. Its connections end with it, which is an error in whatever the
others exchange, and these look here for the reason. What all ranks learn together (`runtime.together`) needs none of
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from surestep.errors import RankError
from surestep.runtime.memory import is_out_of_memory
from surestep.runtime.world import World

_FAILED = "failed"
# What errors of exchanges name: the libraries that carry them.
_OF_EXCHANGES = re.compile(r"gloo|nccl|ProcessGroup|TCPStore")
# One for each run of the process; the processes begin their runs together, so that the numbers are the same.
_RUNS = count()


@contextmanager
def leaving_last_words(world: World) -> Iterator[None]:
    """Leave what fails in the body for the other ranks; where one of them has failed first, raise `RankError`."""
    store = PrefixStore(f"surestep/failures/{next(_RUNS)}", _get_default_store())
    try:
        yield
    except Exception as error:
        if not is_of_an_exchange(error):
            with suppress(RuntimeError):
                store.compare_set(_FAILED, "", _words(world.rank, error))
            raise
        reason = _reason(store, error)
        if reason is None:
            raise
        raise reason from error


def is_of_an_exchange(error: Exception) -> bool:
    """Say whether an error is one of bringing something from rank to rank."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _OF_EXCHANGES.search(str(error)) is not None
    )


def _words(rank: int, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return json.dumps({"rank": rank, "said": said, "out_of_memory": is_out_of_memory(error)})


def _reason(store: PrefixStore, error: Exception) -> RankError | None:
    """Return what another rank has left behind; None where there is nothing, which a note then says."""
    try:
        words = json.loads(store.get(_FAILED)) if store.check([_FAILED]) else None
    except RuntimeError:
        error.add_note("Rank 0, which keeps what ranks leave for each other, has ended: its output says why.")
        return None
    if words is None:
        error.add_note(
            "Another process of the run has ended, or waits elsewhere, and left no word. One that was killed, as a "
            "rule for want of memory, leaves none: look at how each of them ended."
        )
        return None
    return RankError(f"Rank {words['rank']} has failed: {words['said']}", words["out_of_memory"])
