"""Answer a name that does not exist with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from surestep.config.nearest import nearest as near


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the rest of an error message: the nearest of the `known` names, or all of them where none is near."""
    names = sorted(known)
    close = near(name, names)
    if close is not None:
        return f"did you mean '{close}'?"
    return f"it can be {', '.join(repr(other) for other in names)}." if names else "there is none."
