"""Entries on their way to a tracker: in order, kept while it cannot be reached, and never at the cost of the run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from surestep.callbacks.trackers.entries import Entry
from surestep.logs import get_logger

_logger = get_logger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
# How often an entry is tried before the next one is, to tell a bad entry from a tracker that is away.
_PATIENCE = 3
# How many seconds a thread waits for another entry before it ends.
_IDLE = 5.0


class Outbox:
    """Sends entries in their order.

    An entry that cannot be sent waits, with all that follow, and is tried again after pauses that grow from 5 seconds
    to 5 minutes. One that fails again and again while the next one goes through is given up.

    With `background` a thread sends, so that training does not wait for a server. It owns the head of the queue: only
    one thread ever sends.

    Args:
        send: what sends one entry, or raises.
        failed: told of the first failure of an entry.
        background: whether a thread sends.
    """

    def __init__(
        self, send: Callable[[Entry], None], failed: Callable[[Exception], None], *, background: bool = False
    ) -> None:
        self._send, self._failed = send, failed
        self._waiting: deque[Entry] = deque()
        self._attempts = 0
        self._pause, self._next_try = _FIRST_PAUSE, 0.0
        self._background = background
        self._changed = threading.Condition()
        self._delivering = threading.Lock()
        self._worker: threading.Thread | None = None
        self.given_up: list[Entry] = []

    @property
    def unsent(self) -> list[Entry]:
        """The entries that were not sent, those given up first."""
        return [*self.given_up, *self._waiting]

    def put(self, entry: Entry) -> None:
        """Take an entry and send it, now or as soon as its turn comes."""
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify_all()
            if self._background and self._worker is None:
                self._worker = threading.Thread(target=self._work, name="surestep-outbox", daemon=True)
                self._worker.start()
        if not self._background:
            self.deliver()

    def flush(self, seconds: float) -> None:
        """Try to send all that waits; give it up to `seconds` where a thread does it."""
        self._next_try = 0.0
        if self._worker is None:
            self.deliver()
            return
        deadline = time.monotonic() + seconds
        with self._changed:
            self._changed.notify_all()
            while self._waiting and self._next_try == 0.0 and time.monotonic() < deadline:
                self._changed.wait(timeout=0.1)

    def clear(self) -> None:
        """Forget what was not sent."""
        with self._changed:
            self._waiting.clear()
            self.given_up.clear()
            self._attempts, self._next_try = 0, 0.0

    def deliver(self) -> None:
        """Send what waits, in order, until one fails; do nothing in the pause after a failure."""
        with self._delivering:
            while self._waiting and time.monotonic() >= self._next_try:
                head, *following = list(self._waiting)[:2]
                if self._sends(head):
                    self._take_out(head)
                    continue
                self._attempts += 1
                if self._attempts >= _PATIENCE and following and self._sends(following[0]):
                    self.given_up.append(head)
                    self._take_out(head, following[0])
                else:
                    self._pause = _FIRST_PAUSE if self._attempts == 1 else min(2 * self._pause, _LONGEST_PAUSE)
                    self._next_try = time.monotonic() + self._pause

    def _sends(self, entry: Entry) -> bool:
        try:
            self._send(entry)
        except Exception as error:
            # Whatever a client raises: what the run has learned is worth more than its curve.
            self._failed(error)
            return False
        return True

    def _take_out(self, *entries: Entry) -> None:
        """Remove entries from the head of the queue, unless the queue was cleared meanwhile."""
        with self._changed:
            for entry in entries:
                if self._waiting and self._waiting[0] is entry:
                    self._waiting.popleft()
            self._attempts = 0
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._changed.wait_for(lambda: self._waiting, timeout=_IDLE):
                    self._worker = None
                    return
                pause = self._next_try - time.monotonic()
                if pause > 0:
                    self._changed.wait(timeout=min(pause, 1.0))
                    continue
            self.deliver()
