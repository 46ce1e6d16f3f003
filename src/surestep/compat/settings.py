"""What becomes of the settings and overrides of a script: those that are refused, or mean something else today.

Nothing is decided here: settings are given to the arguments themselves, one by one, and what these answer is written
down; overrides and older forms are looked up in the tables of the trainer.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from surestep.compat.finding import Finding, Verdict
from surestep.compat.homes import HOMES
from surestep.compat.reading import Called, Reading
from surestep.config.aliases import Refused, Renamed
from surestep.config.arguments import TrainingArguments
from surestep.config.construction import alias_of, unknown_name
from surestep.config.nearest import did_you_mean
from surestep.errors import NotServedError, SurestepError, UnknownArgumentError
from surestep.trainer.older_names import GONE_METHODS, OLD_ARGUMENTS, UNCALLED
from surestep.trainer.trainer import Trainer


def overrides_uncalled(reading: Reading) -> Iterator[Finding]:
    """Yield the methods of a trainer that a script overrides and nothing here calls."""
    for one in reading.derived:
        kind = _served(one.base)
        for method in one.methods if kind is not None and issubclass(kind, Trainer) else ():
            for table, verdict in ((UNCALLED, Verdict.REFUSED), (GONE_METHODS, Verdict.DIFFERENTLY)):
                if method in table:
                    why = f"nothing calls it in this trainer; in its place: {table[method]}"
                    yield Finding(f"{one.name}.{method}", verdict, why, one.place)


def settings_refused(reading: Reading) -> Iterator[Finding]:
    """Yield the settings of calls that are not served as they are written."""
    for call in reading.called:
        kind = _served(call.name)
        if kind is not None and issubclass(kind, TrainingArguments):
            yield from _Arguments(call, kind).findings()
        elif kind is not None and issubclass(kind, Trainer) and not call.own:
            yield from _of_trainer(call, kind)


@cache
def _served(name: str) -> type | None:
    """Return the class of ours that serves a name of the original."""
    home = next((names[name] for names in HOMES.values() if name in names), None)
    value = None if home is None else getattr(importlib.import_module(home), name)
    return value if isinstance(value, type) else None


class _Arguments:
    """A call of a class of arguments, tried setting by setting."""

    def __init__(self, call: Called, kind: type[TrainingArguments]) -> None:
        self._call = call
        self._kind = kind
        self._fields = kind.__dataclass_fields__

    def findings(self) -> Iterator[Finding]:
        """Yield the settings that are refused or have another name today."""
        given = {name: value for name, value in self._call.settings if self._is_ours(name)}
        found = [finding for name, value in given.items() for finding in self._try(name, value)]
        found += [finding for name in self._call.others if self._is_ours(name) for finding in self._by_name(name)]
        yield from found
        # Settings may be fine each, and contradict one another; that shows only where all of them are known.
        if not self._call.others and not any(finding.verdict is Verdict.REFUSED for finding in found):
            try:
                self._make(given)
            except SurestepError as error:
                yield self._finding(", ".join(given), Verdict.REFUSED, str(error))

    def _is_ours(self, name: str) -> bool:
        """Say whether the setting is not one that a subclass adds."""
        return not self._call.own or name in self._fields or alias_of(name, self._fields) is not None

    def _try(self, name: str, value: object) -> Iterator[Finding]:
        alias = alias_of(name, self._fields)
        try:
            self._make({name: value})
        except (NotServedError, UnknownArgumentError) as error:
            yield self._finding(name, Verdict.REFUSED, str(error))
        except SurestepError as error:
            # Another setting may be wanting here; of an older name the answer is about the name.
            if alias is not None:
                yield self._finding(name, Verdict.REFUSED, str(error))
        else:
            if alias is not None:
                yield self._finding(name, Verdict.DIFFERENTLY, alias.advice(name, value))

    def _by_name(self, name: str) -> Iterator[Finding]:
        """Yield what is known of a setting whose value is worked out as the script runs."""
        alias = alias_of(name, self._fields)
        if isinstance(alias, Renamed):
            yield self._finding(name, Verdict.DIFFERENTLY, f"write {alias.to}")
        elif isinstance(alias, Refused):
            yield self._finding(name, Verdict.REFUSED, alias.instead)
        elif alias is not None:
            yield self._finding(name, Verdict.DIFFERENTLY, "leave it out; it has no effect")
        elif name not in self._fields:
            yield self._finding(name, Verdict.REFUSED, unknown_name(self._kind.__name__, name, self._fields))

    def _make(self, settings: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._kind(**{"output_dir": "unused", **settings})

    def _finding(self, name: str, verdict: Verdict, why: str) -> Finding:
        return Finding(f"{self._kind.__name__}({name})", verdict, why, self._call.place)


def _of_trainer(call: Called, kind: type[Trainer]) -> Iterator[Finding]:
    """Yield the arguments of a trainer that are older or never were any."""
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    for name in [*dict(call.settings), *call.others]:
        what = f"{call.name}({name})"
        if name in OLD_ARGUMENTS:
            yield Finding(what, Verdict.DIFFERENTLY, f"write {OLD_ARGUMENTS[name]}", call.place)
        elif name not in known:
            why = f"{call.name} takes no argument '{name}'.{did_you_mean(name, known)}"
            yield Finding(what, Verdict.REFUSED, why, call.place)
