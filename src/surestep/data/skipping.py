"""Telling of what is read again, up to where a resumed run goes on: how far, how long, and what would spare it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from surestep.logs import get_logger

logger = get_logger(__name__)
# Seconds between two lines, where there is no terminal to draw a bar on.
_INTERVAL = 30.0


@contextmanager
def skipping(samples: int, batches: int, reason: str | None) -> Iterator[Callable[[int], None]]:
    """Show how far the body has come, which calls what this gives with the samples, then the batches, it has read.

    A bar on a terminal, else a line now and then, each with an estimate of the time left. `reason` says why the data
    cannot be entered in its middle.
    """
    total = samples + batches
    what = " and ".join(_counted(samples, "sample", "samples") + _counted(batches, "batch", "batches"))
    because = f", since {reason}" if reason else "; a map-style dataset, or one that tells its position, is not"
    logger.warning("The training data is read again from its beginning: %s%s.", what, because)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Reading up to the position", total=total)
            yield lambda more: bar.advance(task, more)
        return
    yield _Lines(total).skipped


def _counted(number: int, one: str, many: str) -> list[str]:
    return [f"{number:,} {one if number == 1 else many}"] if number else []


class _Lines:
    """A line in the log now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._read = 0
        self._began = self._told = time.monotonic()

    def skipped(self, more: int) -> None:
        """Count what was read, and tell if it is time."""
        self._read += more
        now = time.monotonic()
        if now - self._told < _INTERVAL:
            return
        self._told = now
        left = (now - self._began) / self._read * (self._total - self._read)
        logger.info(
            "Read %s of %s up to the position, about %.0f seconds left.", f"{self._read:,}", f"{self._total:,}", left
        )
