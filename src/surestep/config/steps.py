"""Intervals in steps: a whole number, or a fraction of the run."""

from __future__ import annotations

from collections.abc import Iterator

from surestep.config.messages import refuse


def whole_interval(steps: float) -> float:
    """Return an interval of more than one step as a whole number, where it is one."""
    return int(steps) if steps > 1 and steps == int(steps) else steps


def check_interval(name: str, steps: float, otherwise: str) -> Iterator[str]:
    """Yield what is wrong with an interval that is in use; `otherwise` says how to do without."""
    if steps == 0:
        yield str(refuse(name, steps, "above 0", f"Write the steps between two times, or {otherwise}."))
    elif steps > 1 and steps != int(steps):
        instead = f"Write {int(steps)}, or for example 0.1 for a tenth of the run."
        yield str(refuse(name, steps, "a whole number of steps, or a fraction below 1", instead))
