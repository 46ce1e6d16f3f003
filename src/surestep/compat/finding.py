"""One thing that a script takes of the original, and what becomes of it here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What becomes of a name, in the words of the table."""

    SERVED = "served"
    DIFFERENTLY = "served differently"
    ORIGINAL = "the original's own"
    REFUSED = "refused"


@dataclass(frozen=True)
class Finding:
    """A name or setting that a script takes, what becomes of it, why, and where it stands."""

    what: str
    verdict: Verdict
    why: str
    place: str
