"""How far a tracker's run has come: written down after every entry, and what of it is there after a restart."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from surestep.callbacks.trackers.entries import Entry
from surestep.logs import get_logger

_logger = get_logger(__name__)


@dataclass(frozen=True)
class Record:
    """A run of a tracker and the last entry it was given: the `count`-th one of `step`.

    It is kept in `tracker_<name>.json`, in the output folder and in every checkpoint.
    """

    run: str
    run_name: str | None = None
    step: int = 0
    count: int = 0

    def after(self, entry: Entry) -> Record:
        """Return the record once `entry` was sent."""
        return replace(self, step=entry.step, count=self.count + 1 if entry.step == self.step else 1)

    def write(self, folder: Path, tracker: str) -> None:
        """Write the record into `folder`, in the place of an older one, in one stroke."""
        folder.mkdir(parents=True, exist_ok=True)
        path = record_path(folder, tracker)
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        beside.replace(path)


def read_record(folder: Path, tracker: str) -> Record | None:
    """Return the record in `folder`, None where there is none that can be read."""
    path = record_path(folder, tracker)
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _logger.warning("'%s' cannot be read (%s): the tracker begins a run of its own.", path, error)
        return None


def record_path(folder: Path, tracker: str) -> Path:
    """Return where the record of a tracker is."""
    return folder / f"tracker_{tracker}.json"


def everything_up_to(record: Record, step: int) -> Record:
    """Return the record of a run that has every entry up to `step`, and none after it."""
    return replace(record, step=step, count=sys.maxsize)


class Known(Protocol):
    """Says what a continued run lacks. Asked about every entry once, in their order."""

    def lacking(self, entry: Entry) -> Entry | None:
        """Return what of `entry` is to be sent; None where the run has all of it."""


class Sent:
    """Knows what was sent: everything up to a record. For clients that keep, or pass on, whatever they are given."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._seen = 0

    def lacking(self, entry: Entry) -> Entry | None:
        """Return `entry` if it was not sent before."""
        if entry.step != self._record.step:
            return entry if entry.step > self._record.step else None
        self._seen += 1
        return entry if self._seen > self._record.count else None


class Stored:
    """Knows what was read back from where the client keeps it: the names that have a value at each step.

    A client that is killed may lose what it was given last. Entries that hold no name but figures of the whole
    training (and the epoch, which every entry has) are judged by what was sent.

    Args:
        points: step and name of every value that the run has.
        record: what was sent.
        names: the names under which the client has the values of an entry.
    """

    def __init__(
        self,
        points: Iterable[tuple[int, str]],
        record: Record,
        names: Callable[[Entry], Iterable[str]] = Entry.series,
    ) -> None:
        self._names: dict[int, set[str]] = {}
        for step, name in points:
            self._names.setdefault(step, set()).add(name)
        self._sent = Sent(record)
        self._names_of = names

    def lacking(self, entry: Entry) -> Entry | None:
        """Return `entry` unless every value of it is there."""
        unsent = self._sent.lacking(entry)
        wanted = set(self._names_of(entry)) - {"epoch", "train/epoch"}
        if not wanted:
            return unsent
        return None if wanted <= self._names.get(entry.step, set()) else entry


class Values:
    """Knows the values that were read back, each by itself: for clients that write an entry value by value.

    A client that is killed has written a part of its last entry, and only the rest is lacking. What several entries of
    a step have, such as the epoch, is there as often as it was written.

    Args:
        points: step and name of every value that the run has.
        names: the values of an entry that the client takes: their names in the entry, and those it has for them.
    """

    def __init__(self, points: Iterable[tuple[int, str]], names: Callable[[Entry], Mapping[str, str]]) -> None:
        self._left = Counter(points)
        self._names_of = names

    def lacking(self, entry: Entry) -> Entry | None:
        """Return the part of `entry` that is not there."""
        names = self._names_of(entry)
        lacking = {name: entry.values[name] for name, given in names.items() if not self._takes(entry.step, given)}
        return replace(entry, values=lacking) if lacking else None

    def _takes(self, step: int, name: str) -> bool:
        self._left[step, name] -= 1
        return self._left[step, name] >= 0
