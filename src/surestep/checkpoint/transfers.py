"""How far a transfer of a checkpoint has come, where it takes a time worth showing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from surestep.checkpoint.space import human
from surestep.runtime.progress import showing

_SMALL = 64 * 2**20


def transferring(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show how far the body has come, which calls what this gives with the bytes that have arrived since."""
    return nullcontext(_unheard) if total < _SMALL else showing(what, total, human)


def _unheard(more: int) -> None:
    del more
