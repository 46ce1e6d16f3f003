"""How messages write a setting and its value, secrets masked."""

from __future__ import annotations

from surestep.errors import ArgumentError


def is_secret(name: str) -> bool:
    """Say whether a field holds a secret: its name ends in `_token`."""
    return name.endswith("_token")


def mask(name: str) -> str:
    """Return what stands for the secret of a field."""
    return f"<{name.upper()}>"


def shown(name: str, value: object) -> str:
    """Return how a message writes a setting and its value."""
    return f"{name}={mask(name) if is_secret(name) else repr(value)}"


def refuse(name: str, value: object, wants: str, instead: str = "") -> ArgumentError:
    """Return the error for a value that cannot be right: it must be `wants`; `instead` says what to write."""
    return ArgumentError(f"{shown(name, value)} cannot be right: it must be {wants}.{' ' + instead if instead else ''}")
