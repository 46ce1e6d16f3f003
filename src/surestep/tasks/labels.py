"""The classes of a data set: their names, their ids, and the ways in which a column of labels can be wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surestep.errors import DataError
from surestep.tasks.nearest import nearest

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelSet:
    """Names of the classes; a class's id is its place. `values` are the same classes as the data writes them."""

    names: tuple[str, ...]
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, labels: Sequence[Any], place: str) -> IntArray:
        """Return the ids of `labels`; `place` names the column for the message about one that cannot be."""
        ids = {value: i for i, value in enumerate(self.values)}
        written = _written(labels, place)
        strange = sorted({label for label in written if label not in ids})
        if strange:
            row = next(i for i, label in enumerate(written) if label == strange[0])
            raise DataError(
                f"{place}: the label '{strange[0]}' (row {row}) is not among the classes of the training data: "
                f"{nearest(strange[0], self.values)}"
            )
        return np.array([ids[label] for label in written], dtype=np.int64)


def infer_labels(
    labels: Sequence[Any], place: str, source_names: Sequence[str] | None = None, declared: Sequence[str] | None = None
) -> LabelSet:
    """Find the classes of a column, in natural order.

    `source_names` are names that the source has for integer labels, `declared` those of the job: they win, and also
    fix the order. Both may name classes that these labels lack.
    """
    found = sorted(set(_written(labels, place)), key=_natural)
    names = list(declared or source_names or found)
    if len(set(names)) != len(names):
        raise DataError(f"{place}: the class names {names} name a class twice.")
    values = _values_of_names(found, names, place)
    if len(values) < 2:
        raise DataError(f"{place}: every label is '{found[0]}'; there is nothing to tell apart with a single class.")
    return LabelSet(tuple(names), tuple(values))


def _values_of_names(found: list[str], names: list[str], place: str) -> list[str]:
    """Match names to what the data writes: the names themselves, or the integers 0, 1, ... in their place."""
    integers = [str(i) for i in range(len(names))]
    for values in (names, integers):
        if set(found) <= set(values):
            return values
    meant = integers if all(value.isdecimal() for value in found) else names
    strange = next(value for value in found if value not in meant)
    raise DataError(
        f"{place}: the label '{strange}' is none of the {len(names)} class names: {nearest(strange, names)}"
    )


def _written(labels: Sequence[Any], place: str) -> list[str]:
    """Return each label as the text that stands for it, or raise and name the rows without a label."""
    written = [_write(label) for label in labels]
    missing = [i for i, label in enumerate(written) if label is None]
    if missing:
        rows = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{place}: {len(missing)} of {len(labels)} rows have no label (rows {rows}). Fill or remove them."
        )
    return [label for label in written if label is not None]


def _write(label: Any) -> str | None:
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip() or None


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Sort 2 before 10, also within names, and numbers before names."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return [(0, float(text), "")]
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
