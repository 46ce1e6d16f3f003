"""A topic: some fields, what each may hold, and what must hold between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from surestep.config.rules import BY_TYPE, Rule
from surestep.config.verdicts import Judge


def _nothing(_: Any) -> None:
    """Leave the values as they are."""


def _no_problem(_: Any) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Topic:
    """One topic of the arguments. It knows its own fields only; what crosses topics stands in `config.checks`.

    `rules` are by field name; a field without one has its type's. `normalise` puts values into their one form and
    `check` yields what cannot be right between them, a message each. `resumed` judges, for every field, a run that is
    resumed with another value.
    """

    fields: type
    rules: Mapping[str, Rule] = field(default_factory=dict)
    normalise: Callable[[Any], None] = _nothing
    check: Callable[[Any], Iterable[str]] = _no_problem
    resumed: Mapping[str, Judge] = field(default_factory=dict)

    def all_rules(self) -> dict[str, Rule]:
        """Return the rule of every field."""
        return {name: self.rules.get(name) or BY_TYPE[hint] for name, hint in self.fields.__annotations__.items()}
