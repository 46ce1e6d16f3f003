"""Telling of what is read again, up to where a resumed run goes on: how far, how long, and what would spare it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from surestep.logs import get_logger
from surestep.runtime.progress import showing

logger = get_logger(__name__)


def skipping(samples: int, batches: int, reason: str | None) -> AbstractContextManager[Callable[[int], None]]:
    """Show how far the body has come, which calls what this gives with the samples, then the batches, it has read.

    A bar on a terminal, else a line now and then, each with an estimate of the time left. `reason` says why the data
    cannot be entered in its middle.
    """
    what = " and ".join(_counted(samples, "sample", "samples") + _counted(batches, "batch", "batches"))
    because = f", since {reason}" if reason else "; a map-style dataset, or one that tells its position, is not"
    logger.warning("The training data is read again from its beginning: %s%s.", what, because)
    return showing("Reading up to the position", samples + batches)


def _counted(number: int, one: str, many: str) -> list[str]:
    return [f"{number:,} {one if number == 1 else many}"] if number else []
