"""Failing together: what goes wrong on one rank is an error on all, so that none waits for one that is gone.

A rank that has failed tells the others where these ask. Between two questions nothing may be exchanged: a rank that
waits for something else is not asking.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from surestep.errors import RankError, SurestepError
from surestep.runtime.memory import is_out_of_memory
from surestep.runtime.world import World

_FINE, _FAILED = 0, 1


class Talks(Protocol):
    """What brings the ranks together; strategies do."""

    @property
    def world(self) -> World:
        """This process's place among them."""

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the object of every rank, by rank."""

    def agree(self, number: int) -> list[int]:
        """Return a number from every rank."""


def tell_failure(ranks: Talks, error: Exception) -> None:
    """Tell the ranks that ask what has failed on this one."""
    ranks.agree(_FAILED)
    ranks.gather_objects(_told(error))


def ask_for_failures(ranks: Talks) -> None:
    """Raise what has failed on another rank: an error of ours as it is, of any other kind `RankError`."""
    if _FAILED not in ranks.agree(_FINE):
        return
    everyone = ranks.gather_objects(None)
    rank, error = next((rank, one) for rank, one in enumerate(everyone) if one is not None)
    error.add_note(f"It happened on rank {rank}.")
    raise error


def failing_together(ranks: Talks) -> AbstractContextManager[None]:
    """Raise on every rank what the body raises on one; every rank runs the body, in which they exchange nothing."""
    return nullcontext() if ranks.world.size == 1 else _failing_together(ranks)


@contextmanager
def _failing_together(ranks: Talks) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        tell_failure(ranks, error)
        raise
    ask_for_failures(ranks)


def _told(error: Exception) -> Exception:
    """Return what stands for an error on another rank."""
    # Ours can be sent; of others nobody knows.
    if type(error).__module__ == SurestepError.__module__:
        return error
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return RankError(f"Another rank has failed: {said}", is_out_of_memory(error))
