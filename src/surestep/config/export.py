"""Arguments as data: dictionaries, JSON, text. Secrets are masked in each."""

from __future__ import annotations

import dataclasses
import json
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from surestep.config.messages import is_secret, mask
from surestep.errors import ArgumentError
from surestep.runtime.disk import replace_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, as far as that is known."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list) and value and isinstance(value[0], Enum):
        return [item.value for item in value]
    for method in ("to_dict", "to_json"):
        if hasattr(value, method) and not isinstance(value, type):
            return getattr(value, method)()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return _plain_dict(value) if isinstance(value, dict) else value


def _plain_dict(values: dict[str, Any]) -> dict[str, Any]:
    """Return a dictionary whose configurations are dictionaries and whose `dtype` is a word, at every depth."""
    plain = {key: _plain(value) for key, value in values.items()}
    if plain.get("dtype") is not None and not isinstance(plain["dtype"], str):
        plain["dtype"] = str(plain["dtype"]).removeprefix("torch.")
    return plain


class Export:
    """What a dataclass of arguments needs to be written, read and shown."""

    def _values(self) -> dict[str, Any]:
        """Return the fields that construction takes, by name."""
        fields = dataclasses.fields(cast("DataclassInstance", self))
        return {field.name: getattr(self, field.name) for field in fields if field.init}

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments by name: enums as their values, configurations as dictionaries, secrets masked."""
        values = {name: mask(name) if is_secret(name) else value for name, value in self._values().items()}
        return _plain_dict(values)

    def to_json_string(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return `to_dict` and the batch sizes for trackers: truth values, numbers, strings and tensors, else text."""
        values = self.to_dict()
        for name in ("train_batch_size", "eval_batch_size"):
            values[name] = getattr(self, name)
        return {name: value if _is_scalar(value) else str(value) for name, value in values.items()}

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write the arguments as JSON. Secrets are left out: they are None when read."""
        values = {name: None if is_secret(name) else value for name, value in self.to_dict().items()}
        replace_text(Path(path), json.dumps(values, indent=2) + "\n")

    @classmethod
    def load_json(cls, path: str | os.PathLike[str]) -> Self:
        """Return the arguments that `save_json` wrote. Older spellings are taken, unknown names are an error."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ArgumentError(f"{os.fspath(path)!r} holds no arguments: {error}.") from None
        if not isinstance(values, dict):
            raise ArgumentError(f"{os.fspath(path)!r} holds no arguments: it is JSON, but no object.")
        return cls(**values)

    def __str__(self) -> str:
        values = {name: mask(name) if is_secret(name) else _shown(value) for name, value in self._values().items()}
        lines = "".join(f"{name}={value},\n" for name, value in sorted(values.items()))
        return f"{type(self).__name__}(\n{lines})"

    __repr__ = __str__


def _shown(value: Any) -> Any:
    """Return a configuration as its dictionary, which is how the original shows it."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    return kind in {bool, int, float, str} or (kind.__module__, kind.__name__) == ("torch", "Tensor")
