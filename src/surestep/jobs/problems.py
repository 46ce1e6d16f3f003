"""Say what is wrong with a declared job: the place, the value found, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from surestep.tasks.nearest import nearest

# Errors whose message already names the value, or where there is none.
_COMPLETE = {"unknown_key", "metric", "model_of_task", "column_of_task", "heads", "width", "range", "space", "search"}

_REPLACED = {"model_type": "Write keys and values", "dict_type": "Write keys and values"}


def explain(error: ValidationError, declared: Mapping[str, Any]) -> str:
    """Return one line for each problem that pydantic found in `declared`."""
    return "\n".join(_line(problem, declared) for problem in error.errors())


def _line(problem: ErrorDetails, declared: Mapping[str, Any]) -> str:
    place = _place(problem["loc"], declared)
    return f"{place}: {_say(problem)}" if place else _say(problem)


def _say(problem: ErrorDetails) -> str:
    kind, found = problem["type"], problem["input"]
    if kind in _COMPLETE:
        return problem["msg"]
    if kind == "missing":
        return "this must be given."
    if kind == "union_tag_not_found":
        return f"the key 'name' must be given; found {_short(found)}."
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        known = [name.strip(" '") for name in context["expected_tags"].split(",")]
        return f"unknown name '{context['tag']}': {nearest(str(context['tag']), known)}"
    return f"found {_short(found)}. {_REPLACED.get(kind, problem['msg'])}."


def _place(location: tuple[int | str, ...], declared: Any) -> str:
    """Return the dotted place; the names of union members, which pydantic puts between, are no keys and left out."""
    place, current = "", declared
    for i, part in enumerate(location):
        if isinstance(part, int):
            place += f"[{part}]"
            current = current[part] if isinstance(current, list) and part < len(current) else None
        elif part.startswith("<") or (isinstance(current, Mapping) and _names_a_kind(part, current)):
            continue
        else:
            place += f".{part}" if place else part
            current = current.get(part) if isinstance(current, Mapping) else None
            current = {"name": current} if isinstance(current, str) and i < len(location) - 1 else current
    return place


def _names_a_kind(part: str, current: Mapping[str, Any]) -> bool:
    return current.get("name") == part and part not in current


def _short(value: Any) -> str:
    return f"{value!r:.60} ({type(value).__name__})"
