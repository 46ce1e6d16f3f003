"""Signals that ask a process to end or to save, noted while there is work that can stop at a good moment.

Owns the handlers of the process and what came. A handler notes the signal and returns; whoever works looks at
`SIGNALS.asked` where stopping is safe. Handlers are installed while somebody listens, and those of before put back: a
handler of the user's own is called as well, and a signal that the process ignores stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from surestep.errors import interruption
from surestep.logs import get_logger, warn_once

logger = get_logger(__name__)

_DOES = {
    "save_and_stop": "finishing this {unit}, then saving and stopping",
    "save": "finishing this {unit}, then saving and going on",
    "stop": "finishing this {unit}, then stopping without a checkpoint",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A signal that came: its number, what it asks for, and when, on the monotonic clock."""

    number: int
    action: str
    at: float

    @property
    def stops(self) -> bool:
        """Whether the work is to end."""
        return self.action != "save"

    @property
    def saves(self) -> bool:
        """Whether what was done is to be saved."""
        return self.action != "stop"

    @property
    def name(self) -> str:
        """The name of the signal."""
        return signal.Signals(self.number).name


class Signals:
    """The signals of this process. `asked` is what is to be done, None while nothing is."""

    def __init__(self) -> None:
        self.asked: Request | None = None
        self._actions: dict[int, str] = {}
        self._unit = "step"
        self._before: dict[int, Any] = {}
        self._listeners = 0
        self._process = 0
        # Hears which signals are served from now on.
        self.tell: Callable[[Collection[int]], Any] = frozenset

    @property
    def served(self) -> Collection[int]:
        """The numbers of the signals that are served now."""
        return frozenset(self._before) if self._listeners else frozenset()

    @contextmanager
    def listening(self, actions: Mapping[str, str], unit: str) -> Iterator[None]:
        """Note signals while the body runs, each for its action; `unit` is what is finished first, in words.

        Inside another such block, whose actions hold, nothing changes. A request to stop that came too late for the
        body to see it ends the process once the body is done.

        Raises:
            Interrupted: a signal came, and the body has ended by itself.
        """
        if self._listeners and self._process == os.getpid():
            self._listeners += 1
            try:
                yield
            finally:
                self._listeners -= 1
            return
        self._take(actions, unit)
        try:
            yield
        finally:
            self._give_back()
        late = self.asked
        if late is not None and late.stops:
            raise interruption(late.number)

    def settle(self, place: int) -> Request | None:
        """Return what this process is to do at a place where it can stop; alone, it is what was asked."""
        del place
        return self.asked

    def done(self, request: Request) -> None:
        """Forget a request that was answered."""
        if self.asked is not None and (request.stops or not self.asked.stops):
            self.asked = None

    def stopping(self) -> int:
        """Return the number of the signal that asks to stop, 0 while none does."""
        return self.asked.number if self.asked is not None and self.asked.stops else 0

    def action(self, number: int) -> str:
        """Return what a signal asks for."""
        return self._actions.get(number, "save_and_stop")

    def _take(self, actions: Mapping[str, str], unit: str) -> None:
        self.asked, self._unit, self._process, self._listeners = None, unit, os.getpid(), 1
        self._actions = _numbers(actions)
        self._before = {}
        if not self._actions:
            return
        if threading.current_thread() is not threading.main_thread():
            warn_once(
                logger,
                "Signals are not served: only the main thread of a process can take "
                "signals, and this is another one. Train in the main thread, or save and stop from a callback.",
            )
            return
        for number in self._actions:
            before = signal.getsignal(number)
            # None was not installed from Python, and could not be put back.
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._notice)
        self.tell(self._before)

    def _give_back(self) -> None:
        self._listeners = 0
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.tell(())

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked child: the process that listens decides for both.
            return
        known = self.asked
        if known is not None and known.stops and number == signal.SIGINT:
            raise KeyboardInterrupt
        request = Request(number, self.action(number), time.monotonic())
        if known is None or (request.stops and not known.stops):
            self.asked = request
            self._say(request)
        before = self._before.get(number)
        if callable(before) and before is not signal.default_int_handler and before != self._notice:
            before(number, frame)

    def _say(self, request: Request) -> None:
        again = " Interrupt again to stop at once." if request.number == signal.SIGINT and request.stops else ""
        what = _DOES[request.action].format(unit=self._unit)
        try:
            logger.warning("%s: %s.%s", request.name, what, again)
        except RuntimeError:
            # The signal came while the stream was being written to, which cannot be done twice at a time.
            os.write(2, f"{request.name}: {what}.{again}\n".encode())


def _numbers(actions: Mapping[str, str]) -> dict[int, str]:
    """Return the actions by number; a signal that this system lacks, or that is left alone, is not among them."""
    known = {name: getattr(signal, name, None) for name in actions}
    lacking = [name for name, number in known.items() if number is None and actions[name] != "leave"]
    if lacking:
        warn_once(logger, f"This system has no {' and no '.join(lacking)}: the other signals are served.")
    return {int(n): actions[name] for name, n in known.items() if n is not None and actions[name] != "leave"}


SIGNALS = Signals()
