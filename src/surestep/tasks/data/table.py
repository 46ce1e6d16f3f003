"""A table of samples: named columns of equal length, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from surestep.errors import DataError
from surestep.tasks.nearest import nearest


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    `class_names` holds the names of a column's integer classes where the source knows them; paths inside the
    columns are relative to `folder`.
    """

    columns: Mapping[str, Sequence[Any]]
    origin: str
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path = Path()

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.origin}: the columns have different lengths: {lengths}.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str, setting: str) -> Sequence[Any]:
        """Return a column; `setting` is where the job names it, for the message when there is no such column."""
        if name not in self.columns:
            raise DataError(f"{setting}: {self.origin} has no column '{name}': {nearest(name, self.columns)}")
        return self.columns[name]

    def rows(self, indices: Sequence[int]) -> Table:
        """Return the table of the rows at `indices`, in their order."""
        picked = {name: [values[i] for i in indices] for name, values in self.columns.items()}
        return replace(self, columns=picked)

    def row_digests(self, names: Sequence[str]) -> list[bytes]:
        """Return one short digest a row over the columns `names`: equal rows have equal digests."""
        digests = []
        for row in zip(*(self.columns[name] for name in names), strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for value in row:
                content = content_bytes(value, self.folder)
                digest.update(len(content).to_bytes(8, "little") + content)
            digests.append(digest.digest())
        return digests


def content_bytes(value: Any, folder: Path) -> bytes:
    """Return the bytes that tell one value from another: pixels, a picture file's content, or the value as text."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray):
        return str(value.shape).encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, Path):
        return (folder / value).read_bytes()
    if isinstance(value, dict) and value.get("bytes"):
        return bytes(value["bytes"])
    return str(value).encode()
