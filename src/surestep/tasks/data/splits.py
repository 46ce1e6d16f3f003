"""Cut data into train, validation and test: the same cut every time, each class in its proportion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surestep.errors import DataError
from surestep.tasks.data.source import open_other, open_source
from surestep.tasks.data.table import Table
from surestep.tasks.labels import IntArray, LabelSet, infer_labels
from surestep.tasks.settings import DataSettings


@dataclass(frozen=True)
class Split:
    """One part of the data: its rows, and the ids of their classes."""

    table: Table
    label_ids: IntArray

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Splits:
    """The parts of the data by name (`train`, `validation`, `test`; the last two may be absent), and its classes."""

    parts: Mapping[str, Split]
    labels: LabelSet
    warnings: tuple[str, ...] = ()

    @property
    def train(self) -> Split:
        """The part that is trained on."""
        return self.parts["train"]

    def sizes(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {name: len(part) for name, part in self.parts.items()}


def open_splits(data: DataSettings, input_column: str, base: Path) -> Splits:
    """Read, check and cut the declared data; `input_column` holds what the model sees. Paths are relative to `base`."""
    with _setting("data.source"):
        main = open_source(data.source, base)
    main.column(input_column, "data")
    place = f"data.label='{data.label}' in {main.origin}"
    written = main.column(data.label, "data.label")
    labels = infer_labels(written, place, main.class_names.get(data.label), data.label_names)
    main_ids = labels.encode(written, place)

    declared = {"validation": data.validation, "test": data.test}
    fractions = {name: value for name, value in declared.items() if isinstance(value, float)}
    parts = {}
    for name, rows in stratified(main_ids, fractions, data.split_seed).items():
        if not rows:
            raise DataError(
                f"data.{name}={declared.get(name)}: no row of the {len(main)} of {main.origin} is left for it."
            )
        parts[name] = Split(main.rows(rows), main_ids[rows])
    for name, source in declared.items():
        if isinstance(source, str):
            with _setting(f"data.{name}"):
                other = open_other(source, data.source, base)
            other.column(input_column, f"data.{name}")
            column = other.column(data.label, f"data.{name}")
            parts[name] = Split(other, labels.encode(column, f"data.label='{data.label}' in {other.origin}"))
    ordered: dict[str, Split] = {name: parts[name] for name in ("train", "validation", "test") if name in parts}
    warnings = [*_repeated_rows(ordered, input_column), *_absent_classes(ordered, labels)]
    return Splits(ordered, labels, tuple(warnings))


@contextmanager
def _setting(name: str) -> Iterator[None]:
    """Name the setting in the errors of the data that it names."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def stratified(ids: IntArray, fractions: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Cut rows with classes `ids` into `train` and the parts named in `fractions`; return sorted row numbers.

    The rows of each class are shuffled and dealt out like cards, each to the part that lacks most; what a part lacks
    is carried from class to class, so that both classes and totals keep their proportion. The first row of a class
    goes to `train`, which thus knows every class.
    """
    rest = 1.0 - sum(fractions.values())
    if rest <= 0:
        raise DataError(f"the fractions {dict(fractions)} leave nothing to train on; their sum must be below 1.")
    names = ["train", *fractions]
    shares = np.array([rest, *fractions.values()])
    lacking = np.zeros(len(names))
    dealt: dict[str, list[int]] = {name: [] for name in names}
    for label in np.unique(ids):
        rows = np.flatnonzero(ids == label)
        for count, row in enumerate(np.random.default_rng((seed, int(label))).permutation(rows)):
            lacking += shares
            turn = int(lacking.argmax()) if count else 0
            lacking[turn] -= 1
            dealt[names[turn]].append(int(row))
    return {name: sorted(rows) for name, rows in dealt.items()}


def _repeated_rows(parts: Mapping[str, Split], column: str) -> list[str]:
    """Warn of rows to be tested on that are also trained on."""
    if len(parts) == 1:
        return []
    digests = {name: part.table.row_digests([column]) for name, part in parts.items()}
    trained = set(digests.pop("train"))
    warnings = []
    for name, rows in digests.items():
        repeated = [i for i, digest in enumerate(rows) if digest in trained]
        if repeated:
            example: Any = parts[name].table.columns[column][repeated[0]]
            shown = f", for example {example!r:.60}" if isinstance(example, str) else ""
            warnings.append(
                f"{len(repeated)} of {len(rows)} {name} rows are also in the training data{shown}: "
                f"the {name} scores flatter the model. Remove the copies."
            )
    return warnings


def _absent_classes(parts: Mapping[str, Split], labels: LabelSet) -> list[str]:
    """Warn of classes that a part has no row of."""
    warnings = []
    for name, part in parts.items():
        absent = _names(labels, sorted(set(range(len(labels))) - set(part.label_ids.tolist())))
        if absent:
            warnings.append(f"the {name} data has no row of {absent}.")
    return warnings


def _names(labels: LabelSet, ids: Sequence[int]) -> str:
    return ", ".join(f"'{labels.names[i]}'" for i in ids[:5]) + (", ..." if len(ids) > 5 else "")
