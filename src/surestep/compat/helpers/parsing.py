"""Reading texts, under the original's names."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any

from surestep.config.options import truth
from surestep.config.topics.logging import LOG_LEVELS
from surestep.errors import ArgumentError

# For annotations only, as in the original.
DataClass = Any
DataClassType = Any

trainer_log_levels = {**LOG_LEVELS, "passive": -1}
log_levels = {name: level for name, level in trainer_log_levels.items() if name != "passive"}

_ON = {"on": True, "off": False}


def string_to_bool(v: bool | str) -> bool:
    """Read a truth value such as "yes" or "0"; raises what argparse shows."""
    return v if isinstance(v, bool) else truth(v)


def str_to_bool(value: str, to_bool: bool = True) -> bool | int:
    """Read a truth value such as "yes", "off" or "0", as a number unless `to_bool`."""
    text = value.lower()
    try:
        read = _ON[text] if text in _ON else truth(text)
    except ArgumentTypeError:
        known = "yes, true, t, y, on, 1, no, false, f, n, off, 0"
        raise ArgumentError(f"{value!r} is no truth value: write one of {known}.") from None
    return read if to_bool else int(read)


def make_choice_type_function(choices: Sequence[Any]) -> Callable[[str], Any]:
    """Return a function that turns the text of a choice into the choice, and leaves any other text as it is."""
    known = {str(choice): choice for choice in choices}
    return lambda text: known.get(text, text)
