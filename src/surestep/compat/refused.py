"""What is found under a name that nothing serves: it can be imported, as libraries do in passing, and not be used."""

from __future__ import annotations

from typing import Any, NoReturn

from surestep.errors import NotServedError


class RefusedName:
    """Stands for a class or function of the original. Calling it or deriving from it raises and says why."""

    def __init__(self, name: str, why: str) -> None:
        self._text = f"{name} is not served: {why}."

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Raise."""
        raise NotServedError(self._text)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise NotServedError(self._text)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"It has no {name!r}: {self._text}")

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    def __subclasscheck__(self, kind: type) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self._text}>"
