"""Answer a name that nothing has with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of the `known` names that is nearest to `name`, or None where none is near.

    The first that goes on where `name` ends comes before any that looks alike: adamw is adamw_torch, not adam.
    """
    # Imported here because only an error needs it.
    from difflib import get_close_matches

    folded = {other.lower().replace("-", "_"): other for other in known}
    wanted = name.lower().replace("-", "_")
    longer = [other for other in folded if wanted and other.startswith(f"{wanted}_")]
    close = [wanted] if wanted in folded else longer[:1] or get_close_matches(wanted, folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the sentence that offers the nearest of the `known` names; empty where none is near."""
    close = nearest(name, known)
    return f" Did you mean {close!r}?" if close is not None else ""
