"""What becomes of settings that are written together: the tables of older names, asked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from surestep.config.aliases import ALIASES, NEVER, NOTHING, NoEffect, Renamed, old_value
from surestep.config.messages import shown
from surestep.config.topics.memory import MIRRORS
from surestep.errors import ArgumentError


class _Unknown:
    """The value of an expression, which only a run would tell."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Fate:
    """What becomes of a setting: written as `name` with `value`, left out (no name), or left as it is (`problem`).

    `value` is NOTHING where it is written as it was.
    """

    name: str = ""
    value: Any = NOTHING
    reason: str = ""
    problem: str = ""


@cache
def todays_names() -> frozenset[str]:
    """Return the names of every setting of today."""
    from surestep.config.arguments import Seq2SeqTrainingArguments

    return frozenset(one.name for one in dataclasses.fields(Seq2SeqTrainingArguments))


def looks_like_settings(names: Sequence[str]) -> bool:
    """Say whether a mapping with these keys holds training arguments."""
    return sum(name in todays_names() or name in ALIASES for name in names) >= 2


def is_old(name: str) -> bool:
    """Say whether a name is an older spelling."""
    return name in ALIASES


def fates(items: Sequence[tuple[str, Any]]) -> list[Fate | None]:
    """Return what becomes of each of the settings that one call or one mapping has; None for those of today."""
    alone = [_fate(name, value) for name, value in items]
    present = {name: index for index, (name, _) in enumerate(items) if alone[index] is None}
    for index, fate in enumerate(alone):
        if fate is None or not fate.name:
            continue
        if fate.name not in present or present[fate.name] == index:
            present[fate.name] = index
            continue
        _join(alone, items, index, present[fate.name])
    return alone


def _fate(name: str, value: Any) -> Fate | None:
    if name in NEVER and value == -1:
        return Fate(NEVER[name], "no", f'-1 meant never, which is {NEVER[name]}="no"')
    alias = ALIASES.get(name)
    if alias is None:
        new = NOTHING if value is UNKNOWN else old_value(name, value)
        return None if new is NOTHING else Fate(name, new, f"{name}={value!r} is called {new!r}")
    if name in MIRRORS and value is None:
        return None
    if isinstance(alias, NoEffect):
        return Fate(reason=f"{name} is left out: it has no effect, since {alias.why}")
    if value is UNKNOWN:
        if isinstance(alias, Renamed) and alias.keeps_value:
            return Fate(alias.to, reason=f"{name} is called {alias.to}")
        to = f"it is a matter of {alias.to} today" if isinstance(alias, Renamed) else "it is gone"
        return Fate(name, problem=f"{name}: its value is not written out, and {to}")
    return _known(name, value)


def _known(name: str, value: Any) -> Fate:
    alias = ALIASES[name]
    try:
        settings = alias.take(name, value)
    except ArgumentError as error:
        return Fate(name, problem=str(error))
    if not settings:
        return Fate(reason=f"{shown(name, value)} is left out: it asks for nothing")
    ((to, new),) = settings.items()
    today = old_value(to, new)
    new = new if today is NOTHING else today
    kept = isinstance(alias, Renamed) and alias.keeps_value and new == value
    return Fate(to, NOTHING if kept else new, f"{name} is called {to}" if kept else f"{name} is {shown(to, new)}")


def _join(alone: list[Fate | None], items: Sequence[tuple[str, Any]], index: int, other: int) -> None:
    """Bring an older setting together with one that says something of the same setting of today."""
    fate, name, value = alone[index], *items[index]
    assert fate is not None
    there = alone[other]
    present = items[other][1] if there is None or there.value is NOTHING else there.value
    new = value if fate.value is NOTHING else fate.value
    alias = ALIASES.get(name)
    if isinstance(alias, Renamed) and there is None and present in alias.over and present is not UNKNOWN:
        alone[other] = Fate(reason=f"{items[other][0]}={present!r} is left out: {name} says more")
    elif UNKNOWN not in (new, present) and new == present:
        alone[index] = Fate(reason=f"{name} is left out: {fate.name} says the same")
    elif there is not None and isinstance(present, dict) and isinstance(new, dict):
        alone[other] = dataclasses.replace(there, value=present | new)
        alone[index] = Fate(reason=f"{name} is a part of {fate.name}")
    else:
        alone[index] = Fate(name, problem=f"{name} and {fate.name} are both given. Write {fate.name} alone")
