"""Several processes that do something after the same step though each learns of it at another moment.

Owns keys in the store that the processes found each other through. No collective is made, and nobody waits:

- Whoever knows of it says from which place on it asks before going further: it is *attending*. Places are numbered as
  all processes come by them.
- The first one to come to a place settles, for all, whether they do it there: they do where everybody attended by then.
  The store takes the first answer, so all read the same, however far one is ahead.

Signals need one thing more: who is asked writes that down, and the others look every half second, between two steps.
Processes that fail tell each other where in the same way. There they wait, for a while: who fails does nothing else.
"""

from __future__ import annotations

import time
from itertools import count

from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from surestep.runtime.signals import SIGNALS, Request, Signals
from surestep.runtime.world import World

_LOOK_EVERY = 0.5
_LOOK_FOR_FAILURES_EVERY = 0.02
# One for each run of the process; the processes begin their runs together, so that the numbers are the same.
_RUNS = count()


def shared_store(purpose: str) -> Store:
    """Return keys of the group's store for a purpose; all processes ask for those of the same number together."""
    return PrefixStore(f"surestep/{purpose}", _get_default_store())


class Meeting:
    """The search for the first place at which every process knows of something; each `name` is used for one search."""

    def __init__(self, store: Store, world: World, name: str) -> None:
        self._store = store
        self._world = world
        self._name = name
        self.attending = False

    def attend(self, place: int) -> bool:
        """Come to a place, knowing of it, and say whether all do."""
        if not self.attending:
            self.attending = True
            self._store.set(self._key(f"from/{self._world.rank}"), str(place))
            self._store.add(self._key("attending"), 1)
        answer = "all" if self._all_attend(place) else "some"
        return bool(self._store.compare_set(self._key(f"at/{place}"), "", answer) == b"all")

    def _all_attend(self, place: int) -> bool:
        if self._store.add(self._key("attending"), 0) < self._world.size:
            return False
        return max(int(self._store.get(self._key(f"from/{rank}"))) for rank in range(self._world.size)) <= place

    def _key(self, name: str) -> str:
        return f"{self._name}/{name}"


class Agreement:
    """What the processes of one run agree through about the signals that came."""

    def __init__(self, world: World, signals: Signals = SIGNALS) -> None:
        self._world = world
        self._signals = signals
        self._store = shared_store(f"signals/{next(_RUNS)}")
        self._round = 0
        self._meeting = Meeting(self._store, world, "0")
        self._heard = 0.0
        self._look_at = 0.0
        self._failures = 0

    @property
    def asked(self) -> bool:
        """Whether somebody was asked; looked up now and then only, unless it was this process."""
        if self._meeting.attending or self._signals.asked is not None:
            return True
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_EVERY
        return self._store.check([self._key("asked")])

    def settle(self, place: int) -> Request | None:
        """Return what all processes do at this place; None where they go on to the next one."""
        own = self._signals.asked
        if own is not None:
            self._store.compare_set(self._key("asked"), "", f"{own.number} {own.action}")
        if not self._meeting.attending:
            self._heard = time.monotonic()
        if not self._meeting.attend(place):
            return None
        number, action = self._store.get(self._key("asked")).decode().split()
        return Request(int(number), action, self._heard if own is None else own.at)

    def done(self, request: Request) -> None:
        """Begin anew once a request was answered; all processes do, at the same place."""
        self._round += 1
        self._meeting = Meeting(self._store, self._world, str(self._round))
        self._signals.done(request)

    def told_failures(self, own: str, *, wait: float) -> dict[int, str]:
        """Tell the others how this process has failed, and return what each has told, by rank.

        It is given so many seconds for all to do so. Where the store is gone with a process, nobody has told anything.
        """
        keys = [f"failed/{self._failures}/{rank}" for rank in range(self._world.size)]
        self._failures += 1
        until = time.monotonic() + wait
        try:
            self._store.set(keys[self._world.rank], own)
            while not self._store.check(keys) and time.monotonic() < until:
                time.sleep(_LOOK_FOR_FAILURES_EVERY)
            return {rank: self._store.get(key).decode() for rank, key in enumerate(keys) if self._store.check([key])}
        except RuntimeError:
            return {self._world.rank: own}

    def _key(self, name: str) -> str:
        return f"{self._round}/{name}"
