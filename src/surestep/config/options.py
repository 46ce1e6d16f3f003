"""From a dataclass field to a command-line option."""

from __future__ import annotations

import argparse
import json
import types
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, Field
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from surestep.config.aliases import OLD_VALUES
from surestep.config.nearest import did_you_mean

_TRUE = ("yes", "true", "t", "y", "1")
_FALSE = ("no", "false", "f", "n", "0")


def truth(text: str) -> bool:
    """Read a truth value; raises what argparse shows."""
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is no truth value: write one of {', '.join(_TRUE + _FALSE)}")


def names_of(field: Field[Any], prefix: str = "--") -> list[str]:
    """Return the spellings of an option: with underscores, and with hyphens where that differs."""
    dashed = f"{prefix}{field.name.replace('_', '-')}".replace("--no_", "--no-")
    return list(dict.fromkeys([f"{prefix}{field.name}", dashed]))


def add_option(parser: Any, field: Field[Any], hint: Any) -> None:
    """Add a field to a parser or to a group of one. A truth value that is True gets a `--no_` option beside its own."""
    metadata = dict(field.metadata)
    aliases = metadata.pop("aliases", [])
    names = [*names_of(field), *([aliases] if isinstance(aliases, str) else aliases)]
    parser.add_argument(*names, **metadata | _shape(field, _members(hint)))
    if field.default is True and bool in _members(hint):
        parser.add_argument(
            *names_of(field, "--no_"), action="store_false", dest=field.name, **metadata | {"default": False}
        )


def _members(hint: Any) -> list[Any]:
    """Return the types that a hint allows; NoneType last where it allows None."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    members = list(get_args(hint)) if get_origin(hint) in {Union, types.UnionType} else [hint]
    return sorted(members, key=lambda member: member is types.NoneType)


def _shape(field: Field[Any], members: list[Any]) -> dict[str, Any]:
    """Return what argparse needs to know of a field that allows these types."""
    default = _default(field)
    optional, members = members[-1] is types.NoneType, [one for one in members if one is not types.NoneType]
    if members == [bool]:
        return _flag_shape(field, optional=optional)
    closed = [one for one in members if _is_enum(one) or (_is_literal(one) and str not in members)]
    if closed:
        choices = _choices(field.name, closed[0])
        return {"choices": choices, "type": choices.read, **default}
    lists = [one for one in members if _is_list(one)]
    if lists:
        others = [one for one in members if one not in lists]
        action = {"action": _OneOrMany} if others else {}
        return {"type": _reader([*get_args(lists[0])[:1], *others]), "nargs": "+", **action, **default}
    return {"type": _reader(members), **default}


def _default(field: Field[Any]) -> dict[str, Any]:
    if field.default is not MISSING:
        return {"default": field.default}
    return {"default": field.default_factory()} if field.default_factory is not MISSING else {"required": True}


def _flag_shape(field: Field[Any], *, optional: bool) -> dict[str, Any]:
    """Return the shape of a truth value: the bare option means True, also of one that is None unless given."""
    if optional and field.default in {None, MISSING}:
        return {"type": truth, "default": None, "nargs": "?", "const": True}
    default = False if field.default is MISSING else field.default
    return {"type": truth, "default": default, "nargs": "?", "const": True}


class _Choices(list[Any]):
    """The values that an option chooses from. Older words pass too, for the dataclass to translate."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        super().__init__(values)
        self._older = [word for (setting, word) in OLD_VALUES if setting == name]

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) or value in self._older

    def read(self, text: str) -> Any:
        """Return the value whose text this is."""
        found = {str(value): value for value in self}.get(text, text)
        if found not in self:
            words = ", ".join(map(str, self))
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of {words}.{did_you_mean(text, [str(one) for one in self])}"
            )
        return found


def _is_enum(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, Enum)


def _is_literal(member: Any) -> bool:
    return get_origin(member) is Literal


def _choices(name: str, member: Any) -> _Choices:
    values: Collection[Any] = get_args(member) or [one.value for one in member]
    return _Choices(name, list(values))


def _is_list(member: Any) -> bool:
    origin = get_origin(member) or member
    return isinstance(origin, type) and issubclass(origin, list | tuple)


class _OneOrMany(argparse.Action):
    """Keeps a single value as it is and several as a list."""

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _option: str | None = None
    ) -> None:
        """Set the value."""
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


# A string means itself, so it is tried last; a truth value would take "1" and goes after numbers.
_ORDER = {int: 0, float: 1, bool: 2, str: 9}


def _reader(members: list[Any]) -> Callable[[str], Any]:
    """Return what reads a value of one of these types: the first that takes it."""
    readers = [_reader_of(one) for one in sorted(members or [str], key=lambda one: _ORDER.get(one, 3))]
    if len(readers) == 1:
        return readers[0]
    if str in members and dict in [get_origin(one) or one for one in members]:
        return str

    def read(text: str) -> Any:
        for reader in readers:
            try:
                return reader(text)
            except (ValueError, TypeError, argparse.ArgumentTypeError):
                continue
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(str(one) for one in members)}")

    return read


def _reader_of(member: Any) -> Callable[[str], Any]:
    if member is bool:
        return truth
    if (get_origin(member) or member) is dict:
        return _json_object
    if _is_enum(member) or _is_literal(member):
        return _choices("", member).read
    reader: Callable[[str], Any] = str if member is Any else member
    return reader


def _json_object(text: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is JSON, but no object")
    return value
