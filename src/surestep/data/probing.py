"""Whether what is read follows from the position: one position read twice, and the generators looked at that escape.

A probe reads in this process, whatever the workers, and puts the generators that it knows back. Other state of the
user's objects, such as a counter, moves as with any reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from surestep.data.hidden import difference, moved, put_back, states_of
from surestep.data.reading import Reader


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of draws that nothing seeds.

    `where` names the generators that were drawn from, with their kinds; `differs` is the part of a batch that came out
    otherwise the second time, None where that was not seen or not looked at.
    """

    where: tuple[str, ...] = ()
    differs: str | None = None


def own_draws(reader: Reader) -> tuple[str, ...]:
    """Return which generators of its own a dataset or collator draws from for a sample; at most one is read.

    Nothing is read where there is no generator; streams and foreign loaders are not looked at.
    """
    generators = reader.held.drawing()
    if not generators or reader.tier == "reads":
        return ()
    states = states_of(generators)
    try:
        reader.fetch_one(0)
    except Exception:
        # A dataset may have no sample 0, or a collator fail with one alone. Whatever is wrong, training will say it.
        return ()
    finally:
        used = moved(generators, states)
        put_back(generators, states)
    return _named(generators, used)


def read_twice(reader: Reader) -> Finding | None:
    """Read the first batch of the first epoch twice; return what is wrong where it is not the same, else nothing.

    Where this process reads the training data, the generators that were found go into checkpoints: then they begin
    alike both times.
    """
    held = reader.held
    begun = states_of({**held.ordering(), **held.drawing()})
    fetch, states = reader.first_fetch(), states_of(held.drawing())
    first = fetch()
    generators = held.drawing()
    used = moved(generators, {place: states.get(place) for place in generators})
    if not held.in_workers:
        put_back(generators, states)
    differs = difference(first, fetch())
    put_back({**held.ordering(), **generators}, begun)
    return None if differs is None else Finding(_named(generators, used), differs)


def _named(generators: dict[str, Any], places: list[str]) -> tuple[str, ...]:
    return tuple(
        f"{place} ({type(generators[place]).__module__}.{type(generators[place]).__name__})" for place in places
    )
