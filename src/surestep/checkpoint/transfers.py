"""How far a long transfer has come: a bar on a terminal, else a line now and then, each with what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from surestep.checkpoint.space import human
from surestep.logs import get_logger

_logger = get_logger(__name__)
# What takes no time worth showing, and the seconds between two lines.
_SMALL, _INTERVAL = 64 * 2**20, 30.0


@contextmanager
def transferring(what: str, total: int, *, small: int = _SMALL) -> Iterator[Callable[[int], None]]:
    """Show how far the body has come, which calls what this gives with the bytes that have arrived since."""
    if total < small:
        yield lambda _: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
    else:
        yield _Lines(what, total).arrived


class _Lines:
    """A line in the log now and then."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._here = what, total, 0
        self._began = self._told = time.monotonic()

    def arrived(self, more: int) -> None:
        """Count what has arrived, and tell if it is time."""
        self._here += more
        now = time.monotonic()
        if now - self._told < _INTERVAL:
            return
        self._told = now
        left = (now - self._began) / max(self._here, 1) * max(self._total - self._here, 0)
        _logger.info("%s: %s of %s, about %.0f s left.", self._what, human(self._here), human(self._total), left)
