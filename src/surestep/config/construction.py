"""How arguments are made and changed: older names become today's, and a name that nothing has is answered.

Real libraries subclass the arguments with `@dataclass`, which writes every class an `__init__` of its own. The
metaclass therefore wraps each `__init__` as it is set, so that signatures stay as they are and `super().__init__` in
a class with its own `__init__` takes older names as well.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from surestep.config.aliases import ALIASES, GUESSES, NEVER, NOTHING, Alias, Renamed, old_value
from surestep.config.messages import shown
from surestep.config.nearest import nearest
from surestep.config.topics.memory import MIRRORS
from surestep.errors import ArgumentError, UnknownArgumentError

_TWINS = MIRRORS | {new: old for old, new in MIRRORS.items()}


def alias_of(name: str, known: Iterable[str]) -> Alias | None:
    """Return what becomes of an old name, for a class with these fields; None where it is no old name there."""
    alias = ALIASES.get(name)
    return None if isinstance(alias, Renamed) and alias.to not in known else alias


def unknown_name(owner: str, name: str, known: Iterable[str]) -> str:
    """Return the message about a name that nothing has."""
    known = list(known)
    today = GUESSES.get(name)
    if today is None and (close := nearest(name, [*known, *ALIASES])):
        alias = alias_of(close, known)
        today = alias.to if isinstance(alias, Renamed) and close not in known else close
    return f"{owner} has no setting {name!r}." + (f" Did you mean {today}?" if today else "")


@dataclass
class Translation:
    """Given settings under today's names: `values` to construct with, the `old` ones apart, `notes` for a warning."""

    known: Mapping[str, object]
    complete: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    old: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def take(self, given: Mapping[str, Any]) -> None:
        """Sort the given settings into today's, older and unknown ones."""
        for name, value in given.items():
            if self._is_todays(name, value):
                self._take_today(name, value)
        for name, value in given.items():
            if self._is_todays(name, value):
                continue
            alias = alias_of(name, self.known)
            if alias is None:
                self.unknown.append(name)
            else:
                self._take_old(name, value, alias)

    def _is_todays(self, name: str, value: Any) -> bool:
        # Whoever gives every field repeats what another object held, mirrors included.
        return name in self.known and (name not in MIRRORS or self.complete or value is None)

    def _take_today(self, name: str, value: Any) -> None:
        if name in NEVER and value == -1:
            self.values[NEVER[name]] = "no"
            self.notes.append(f'{name}=-1: write {NEVER[name]}="no"')
            return
        if name in NEVER.values() and self.values.get(name) == "no":
            return
        new = old_value(name, value)
        if new is not NOTHING:
            self.notes.append(f"{name}={value!r}: write {name}={new!r}")
            value = new
        self.values[name] = value

    def _take_old(self, name: str, value: Any, alias: Alias) -> None:
        for today, new in alias.take(name, value).items():
            self.values[today] = self._merge(name, value, today, new)
        self.old[name] = value
        self.notes.append(f"{name}: {alias.advice(name, value)}")

    def _merge(self, name: str, value: Any, today: str, new: Any) -> Any:
        """Return the new value of a setting that may be given already; dictionaries join."""
        present, alias = self.values.get(today), ALIASES[name]
        if present is None or (isinstance(alias, Renamed) and present in alias.over):
            return new
        if isinstance(present, dict) and isinstance(new, dict) and present | new == new | present:
            return present | new
        if present != new:
            both = f"{shown(name, value)} and {shown(today, present)}"
            raise ArgumentError(f"{both} say different things. Write {today} alone.")
        return present


class _Signature:
    """The settings that an `__init__` takes."""

    def __init__(self, init: Callable[..., None]) -> None:
        self._init = init

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Its parameters by name, without `self`."""
        return dict(list(inspect.signature(self._init).parameters.items())[1:])

    @cached_property
    def _ordinary(self) -> set[str]:
        return {name for name, one in self.parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD}

    def is_complete(self, given: Mapping[str, Any]) -> bool:
        """Say whether every field of the original is given by name: this copies an object, or comes from a parser."""
        return bool(self._ordinary) and self._ordinary <= given.keys()

    @cached_property
    def takes_any(self) -> bool:
        """Whether it takes names besides its own."""
        return any(one.kind is one.VAR_KEYWORD for one in self.parameters.values())

    def written(self, args: tuple[Any, ...], values: Mapping[str, Any], *, complete: bool) -> frozenset[str]:
        """Return the names that the user wrote. Of a complete set these are the ones that differ from their default."""
        names = [*list(self.parameters)[: len(args)], *values]
        if not complete:
            return frozenset(names)
        return frozenset(name for name in names if values.get(name, NOTHING) != self.parameters[name].default)


def _taking_older_names(init: Callable[..., None]) -> Callable[..., None]:
    """Return an `__init__` that takes older names too and remembers which names were written."""
    signature = _Signature(init)

    @wraps(init)
    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807  (it becomes one)
        complete = signature.is_complete(given)
        translation = Translation(signature.parameters, complete)
        translation.take(given)
        owner = type(self).__name__
        if translation.unknown and not signature.takes_any:
            known = signature.parameters
            raise UnknownArgumentError("\n".join(unknown_name(owner, name, known) for name in translation.unknown))
        if translation.notes:
            lines = "".join(f"\n  {note}" for note in translation.notes)
            warnings.warn(f"{owner} was given older names:{lines}", FutureWarning, stacklevel=2)
        others = {name: given[name] for name in translation.unknown}
        self.__dict__["_given"] = signature.written(args, translation.values, complete=complete)
        self.__dict__["_old"] = translation.old
        init(self, *args, **translation.values, **others)

    return __init__


class ArgumentsType(ABCMeta):
    """The type of argument classes. It comes from ABCMeta, so that they mix with abstract bases."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, _taking_older_names(value) if name == "__init__" else value)


class OldNames(metaclass=ArgumentsType):
    """Reading and setting attributes under their older names, and stopping misspelt ones."""

    _given: frozenset[str]

    if not TYPE_CHECKING:  # A type checker is to miss attributes that are not there.

        def __getattr__(self, name: str) -> Any:
            alias = None if name.startswith("_") else alias_of(name, type(self).__dataclass_fields__)
            if alias is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            if isinstance(alias, Renamed):
                warnings.warn(f"{name} is an older name; read {alias.to}.", FutureWarning, stacklevel=2)
                return alias.read(self)
            warnings.warn(f"{name} is gone and has no effect.", FutureWarning, stacklevel=2)
            return self.__dict__.get("_old", {}).get(name, alias.default)

        def __setattr__(self, name: str, value: Any) -> None:
            if name in type(self).__dataclass_fields__:
                self._set_field(name, value)
            elif alias := alias_of(name, type(self).__dataclass_fields__):
                warnings.warn(f"{name}: {alias.advice(name, value)}.", FutureWarning, stacklevel=2)
                for today, new in alias.take(name, value).items():
                    present = getattr(self, today)
                    self._set_field(today, present | new if isinstance(present, dict) else new)
                self.__dict__.setdefault("_old", {})[name] = value
            else:
                self._stop_misspelt(name)
                object.__setattr__(self, name, value)

    def _set_field(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self.__dict__.get("_settled"):
            if name in _TWINS:
                object.__setattr__(self, _TWINS[name], value)
            self.__dict__["_given"] = self._given | {name}

    def _stop_misspelt(self, name: str) -> None:
        """Raise for a new attribute that is probably a setting misspelt. Others may be attached."""
        if (
            name.startswith("_")
            or not self.__dict__.get("_settled")
            or name in self.__dict__
            or hasattr(type(self), name)
        ):
            return
        close = nearest(name, type(self).__dataclass_fields__, cutoff=0.88)  # type: ignore[attr-defined]
        if close is not None:
            raise UnknownArgumentError(
                f"{type(self).__name__} has no setting {name!r}. Did you mean {close!r}? "
                "Attach a value of your own under a name that is no setting's neighbour."
            )
