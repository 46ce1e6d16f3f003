"""The values of a trial become arguments: checked as at construction, and taken back afterwards."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from surestep.config.arguments import TrainingArguments
from surestep.config.construction import alias_of, unknown_name
from surestep.config.rules import Number, plain
from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_once

_logger = get_logger(__name__)


class Original:
    """What arguments hold at one moment, to be put back into the same object."""

    def __init__(self, args: TrainingArguments) -> None:
        self._args = args
        self._values = _copied(vars(args))

    def put_back(self) -> None:
        """Make the arguments what they were."""
        held = vars(self._args)
        held.clear()
        held.update(_copied(self._values))


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(one) if isinstance(one, dict | list) else one for name, one in values.items()}


def set_arguments(args: TrainingArguments, values: Any, *, others_are_read: bool) -> None:
    """Set the values of a trial and check all arguments.

    A name that the arguments do not have is an error, or a warning where `others_are_read`: a `model_init` that takes
    the trial finds the model's own settings there.
    """
    if not isinstance(values, Mapping):
        raise ArgumentError(
            f"hp_space returned {values!r}. Return a dict of arguments, such as "
            '{"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)}.'
        )
    for name, value in values.items():
        if is_setting(args, name):
            setattr(args, name, _as_the_rule_wants(args, name, value))
        else:
            _answer_unknown(args, name, others_are_read=others_are_read)
    args.validate_parameters()


def is_setting(args: TrainingArguments, name: str) -> bool:
    """Say whether arguments have a setting of this name, or had one under it."""
    fields = type(args).__dataclass_fields__
    attached = name in vars(args) and not name.startswith("_")
    return name in fields or attached or alias_of(name, fields) is not None


def _answer_unknown(args: TrainingArguments, name: str, *, others_are_read: bool) -> None:
    message = unknown_name(type(args).__name__, name, type(args).__dataclass_fields__)
    if not others_are_read:
        raise ArgumentError(
            f"The space of the search names {name!r}: {message} A setting of the model is read by model_init, which "
            "has to take the trial: def model_init(trial)."
        )
    warn_once(_logger, f"The space of the search names {name!r}, which only model_init reads: {message}")


def _as_the_rule_wants(args: TrainingArguments, name: str, value: Any) -> Any:
    """Return a number where one is wanted: from text as YAML gives it, and whole where it has to be, with a warning."""
    rule, value = args._argument_rules.get(name), plain(value)
    if not isinstance(rule, Number):
        return value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if rule.whole and isinstance(value, float) and value.is_integer() is False and abs(value) < 2**63:
        warn_once(_logger, f"The space of the search gives {name} fractions: each is cut to a whole number.")
        return int(value)
    return value
