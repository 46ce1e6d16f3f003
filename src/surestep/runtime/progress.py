"""How far something that takes long has come: a bar on a terminal, else a line now and then, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from surestep.logs import get_logger

_logger = get_logger(__name__)
# Seconds between two lines.
_INTERVAL = 30.0


@contextmanager
def showing(what: str, total: int, words: Callable[[int], str] = "{:,}".format) -> Iterator[Callable[[int], None]]:
    """Show how far the body has come, which calls what this gives with how much it has done since.

    `words` says an amount, of what is done or of all.
    """
    if not sys.stderr.isatty():
        yield _Lines(what, total, words).advance
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{what} ({words(total)})", total=total)
        yield lambda more: bar.advance(task, more)


class _Lines:
    """A line in the log now and then."""

    def __init__(self, what: str, total: int, words: Callable[[int], str]) -> None:
        self._what, self._total, self._words = what, total, words
        self._here = 0
        self._began = self._told = time.monotonic()

    def advance(self, more: int) -> None:
        """Count what was done, and tell if it is time."""
        self._here += more
        now = time.monotonic()
        if now - self._told < _INTERVAL:
            return
        self._told = now
        left = (now - self._began) / max(self._here, 1) * max(self._total - self._here, 0)
        here, total = self._words(self._here), self._words(self._total)
        _logger.info("%s: %s of %s, about %.0f s left.", self._what, here, total, left)
