"""How often each sample is drawn: weights from a column, or such that every class comes as often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from surestep.data.sources import as_dataset
from surestep.errors import DataError

BALANCED = "balanced"


def sampling_weights(dataset: Any, rule: str, label_columns: Sequence[str]) -> Tensor:
    """Return one weight a sample, float64: the values of the column `rule`, or for "balanced" what evens out classes.

    The class is read from the first of `label_columns` that the samples have. A table gives its column at once; of
    another dataset each sample is read once. Raises `DataError` where there is no such column, or where a label is no
    class.
    """
    names = label_columns if rule == BALANCED else [rule]
    column = _column(dataset, names, f"sampling_weights={rule!r}")
    return balanced(column) if rule == BALANCED else torch.as_tensor([float(weight) for weight in column])


def balanced(labels: Sequence[Any]) -> Tensor:
    """Return the inverse of how often each sample's label occurs: every class is then drawn as often as any other."""
    classes = [_class(label) for label in labels]
    counts = Counter(classes)
    return torch.tensor([1 / counts[one] for one in classes], dtype=torch.float64)


def _class(label: Any) -> Hashable:
    if isinstance(label, Tensor) and label.ndim == 0:
        return label.item()
    if isinstance(label, Hashable) and not isinstance(label, Tensor):
        return label
    raise DataError(
        f"sampling_weights='{BALANCED}' needs one class a sample, and a label is of type {type(label).__name__}. Give "
        "the samples a weight each, in a column, and name it: sampling_weights='weight'."
    )


def _column(dataset: Any, names: Sequence[str], setting: str) -> Sequence[Any]:
    dataset = as_dataset(dataset)
    columns = getattr(dataset, "column_names", None)
    first = {} if columns is not None else dataset[0]
    known = list(columns or (first if isinstance(first, Mapping) else ()))
    name = next((name for name in names if name in known), None)
    if name is None:
        raise DataError(
            f"{setting} reads {' or '.join(map(repr, names)) or 'labels'}, and the samples have "
            f"{', '.join(map(repr, known)) or 'no names'}. Give them such a column, or return a sampler of your own "
            "from _get_train_sampler."
        )
    if columns is not None:
        return list(dataset[name])
    return [dataset[index][name] for index in range(len(dataset))]
