"""Answer a name that does not exist with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the rest of an error message: the nearest of the `known` names, or all of them where none is near."""
    names = sorted(known)
    folded = {other.lower().replace("-", "_"): other for other in names}
    close = get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    return f"it can be {', '.join(repr(other) for other in names)}." if names else "there is none."
