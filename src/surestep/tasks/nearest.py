"""Answer a name that does not exist with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the `known` names that is nearest to `name`, or None where none is near."""
    folded = {other.lower().replace("-", "_"): other for other in sorted(known)}
    close = get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the rest of an error message: the nearest of the `known` names, or all of them where none is near."""
    names = sorted(known)
    close = near(name, names)
    if close is not None:
        return f"did you mean '{close}'?"
    return f"it can be {', '.join(repr(other) for other in names)}." if names else "there is none."
