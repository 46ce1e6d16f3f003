"""How far a tracker's run has come: written down after every entry, and what of it is there after a restart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
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
    """Says which entries a continued run has already. Asked about every entry once, in their order."""

    def has(self, entry: Entry) -> bool:
        """Say whether the run has `entry`."""


class Sent:
    """Knows what was sent: everything up to a record. For clients that keep, or pass on, whatever they are given."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._seen = 0

    def has(self, entry: Entry) -> bool:
        """Say whether `entry` was sent before."""
        if entry.step != self._record.step:
            return entry.step < self._record.step
        self._seen += 1
        return self._seen <= self._record.count


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

    def has(self, entry: Entry) -> bool:
        """Say whether every value of `entry` is there."""
        sent = self._sent.has(entry)
        wanted = set(self._names_of(entry)) - {"epoch", "train/epoch"}
        return wanted <= self._names.get(entry.step, set()) if wanted else sent
