"""What a setting may hold. A rule takes a value, returns it in its plain form, or says what to write instead."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from surestep.config.enums import ExplicitEnum
from surestep.config.messages import refuse, shown
from surestep.config.nearest import did_you_mean
from surestep.errors import ArgumentError

# Called with the setting's name and its value; returns the value to keep.
Rule = Callable[[str, Any], Any]


def plain(value: Any) -> Any:
    """Return numpy's numbers as Python's own, which JSON knows; anything else as it is."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Flag:
    """True or False; None as well where `optional`."""

    optional: bool = False

    def __call__(self, name: str, value: Any) -> Any:
        """Take the value, or raise."""
        value = plain(value)
        if isinstance(value, bool) or (self.optional and value is None):
            return value
        wants = "True, False or None" if self.optional else "True or False"
        word = str(value).strip().lower()
        if word in {"true", "yes", "on", "1", "1.0"}:
            raise refuse(name, value, wants, f"Write {name}=True.")
        if word in {"false", "no", "off", "0", "0.0"}:
            raise refuse(name, value, wants, f"Write {name}=False.")
        raise refuse(name, value, wants)


@dataclass(frozen=True)
class Number:
    """A number within bounds. NaN is never within them; infinity is where `infinite`."""

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False
    whole: bool = False
    optional: bool = False
    infinite: bool = False
    instead: str = ""

    def __call__(self, name: str, value: Any) -> Any:
        """Take the value, or raise."""
        value = plain(value)
        if value is None and self.optional:
            return None
        if isinstance(value, str) and _reads_as_number(value):
            raise refuse(name, value, self.wants, f"It is a string: write {name}={value.strip()} without quotes.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(name, value, self.wants, self.instead)
        if self.whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not self._holds(value):
            raise refuse(name, value, self.wants, self.instead)
        return value

    @property
    def wants(self) -> str:
        """What the number must be, in words."""
        words = ["a whole number" if self.whole else "a number"]
        if self.low != -math.inf:
            words.append(f"{'above' if self.above_low else 'of at least'} {self.low:g}")
        if self.high != math.inf:
            words.append(f"{'below' if self.below_high else 'at most'} {self.high:g}")
        return " ".join(words[:2]) + "".join(f" and {word}" for word in words[2:]) + (" or None" * self.optional)

    def _holds(self, value: float) -> bool:
        if (math.isinf(value) and not self.infinite) or (self.whole and isinstance(value, float)):
            return False
        # No comparison with NaN holds.
        above = value > self.low if self.above_low else value >= self.low
        below = value < self.high if self.below_high else value <= self.high
        return above and below


def whole(
    at_least: int | None = None, at_most: int | None = None, *, optional: bool = False, instead: str = ""
) -> Rule:
    """Return the rule of a whole number; 8.0 is taken as 8."""
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    return Number(low, high, whole=True, optional=optional, instead=instead)


@dataclass(frozen=True)
class Text:
    """A string; a path is taken as its string. None as well where `optional`."""

    optional: bool = False

    def __call__(self, name: str, value: Any) -> Any:
        """Take the value, or raise."""
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, str) or (self.optional and value is None):
            return value
        raise refuse(name, value, "a string" + " or None" * self.optional, f"Write {shown(name, str(value))}.")


def without_secret(name: str, value: Any) -> Any:
    """Take what may be a URL, unless it has a password in it."""
    if isinstance(value, str) and "://" in value:
        from surestep.runtime.remote_folder import without_password

        if without_password(value) != value:
            raise refuse(
                name,
                without_password(value),
                "a URL without a password, which would get into logs",
                "Give that to the client: its environment variables, its file of credentials, or fsspec's.",
            )
    return value


@dataclass(frozen=True)
class Choice:
    """One of some words; None as well where `optional`."""

    words: Collection[str]
    optional: bool = False

    def __call__(self, name: str, value: Any) -> Any:
        """Take the value, or raise."""
        if (self.optional and value is None) or (isinstance(value, str) and value in self.words):
            return value
        words = [*self.words, "None"] if self.optional else list(self.words)
        raise refuse(name, value, f"one of {', '.join(words)}", did_you_mean(str(value), self.words).strip())


@dataclass(frozen=True)
class Member:
    """A member of an enum, or its string. False stands for "no", since YAML reads a bare `no` as False."""

    enum: type[ExplicitEnum]

    def __call__(self, name: str, value: Any) -> ExplicitEnum:
        """Take the value, or raise."""
        if value is False and "no" in self.enum._value2member_map_:
            return self.enum("no")
        try:
            return self.enum(value)
        except ArgumentError:
            raise ArgumentError(f"{name}={value!r} names nothing. {self.enum.offer(value)}") from None


@dataclass(frozen=True)
class Names:
    """A list of strings, of the `words` where these are given. A tuple is taken as its list."""

    words: Collection[str] = ()
    optional: bool = False
    one: bool = False

    def __call__(self, name: str, value: Any) -> Any:
        """Take the value, or raise."""
        if (value is None and self.optional) or (isinstance(value, str) and self.one):
            return value
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise refuse(
                name, value, "a list of strings", f'Write {name}=["{value}"].' if isinstance(value, str) else ""
            )
        for item in value:
            if self.words and item not in self.words:
                wants = f"a list of {', '.join(self.words)}"
                raise refuse(name, value, wants, did_you_mean(item, self.words).strip())
        return list(value)


@dataclass(frozen=True)
class Settings:
    """A dictionary, or a JSON object as a string; the path of a JSON file as well where `path`."""

    path: bool = False

    def __call__(self, name: str, value: Any) -> Any:
        """Take the value, or raise."""
        if value is None or isinstance(value, dict):
            return value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            return parse_settings(name, value)
        if self.path and isinstance(value, str | os.PathLike):
            return os.fspath(value)
        wants = "a dictionary or a JSON object as a string" + ", or the path of a JSON file" * self.path
        raise refuse(name, value, wants, f"Write for example {name}={{'key': 1}}.")


def parse_settings(name: str, text: str) -> dict[str, Any]:
    """Parse a JSON object. Strings in it that read as truth values or numbers become these, as in the original."""
    try:
        parsed: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise refuse(name, text, "a JSON object", f"It does not parse: {error}.") from None
    return _typed(parsed)


def _typed(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: _typed(value) if isinstance(value, dict) else _typed_value(value) for key, value in settings.items()}


def _typed_value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if value.isdigit():
        return int(value)
    return float(value) if value.replace(".", "", 1).isdigit() else value


_TIME_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\s*")


def _parse_duration(text: str) -> float | None:
    """Return the seconds that "5400", "90m", "2h" or "1h 30m" mean, None where the text means none."""
    text = text.strip().lower()
    parts = _TIME_PART.findall(text)
    if parts and not _TIME_PART.sub("", text):
        return sum(float(number) * _TIME_UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None


_SECONDS = Number(0, above_low=True, instead='Write seconds (5400) or text such as "90m", "2h" or "1h30m".')


def length_of_time(name: str, value: object) -> float | None:
    """Take a length of time as seconds."""
    value = plain(value)
    if value is None:
        return None
    seconds = _parse_duration(value) if isinstance(value, str) else value
    if seconds is None or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise refuse(name, value, "a length of time", _SECONDS.instead)
    return float(_SECONDS(name, seconds))


def anything(_: str, value: Any) -> Any:
    """Take any value; for settings whose own topic looks at them."""
    return value


# The rule of a field whose topic gives it none of its own.
BY_TYPE: dict[object, Rule] = {
    bool: Flag(),
    bool | None: Flag(optional=True),
    int: whole(),
    int | None: whole(optional=True),
    float: Number(),
    float | None: Number(optional=True),
    str: Text(),
    str | None: Text(optional=True),
}
