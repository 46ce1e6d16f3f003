"""The default collator: stack the values that the samples name, without padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from surestep.data.collators.base import DataCollatorMixin, check_kind
from surestep.errors import DataError


def default_data_collator(features: Sequence[Any], return_tensors: str = "pt") -> dict[str, Any]:
    """Return a batch of the stacked values of `features`, by name.

    A sample is a mapping, or an object with attributes. The first one says which names the batch has: strings and
    None are left out; `label` (one number a sample) or else `label_ids` (several) becomes `labels`, whole numbers as
    integers and others as floats. Samples that cannot be stacked raise `DataError`.
    """
    stack_labels, stack = _KINDS[check_kind(return_tensors)]
    if type(features[0]) is not dict:
        features = _named(features)
    first = features[0]
    batch = {}
    name = ""
    # Python calls are counted here: this runs for every batch.
    try:
        for name in _LABELS:
            if first.get(name) is not None:
                batch["labels"] = stack_labels[name]([*map(itemgetter(name), features)])
                break
        for name, value in first.items():
            if value is not None and name not in _LABELS and not isinstance(value, str):
                batch[name] = stack([*map(itemgetter(name), features)])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _explained(error, name, features) from error
    return batch


@dataclass
class DefaultDataCollator(DataCollatorMixin):
    """`default_data_collator` as an object that remembers its `return_tensors`."""

    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> dict[str, Any]:
        """Return the batch of `default_data_collator`."""
        return default_data_collator(features, self.return_tensors if return_tensors is None else return_tensors)


def _named(features: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    """Return the samples as mappings."""
    first = features[0]
    if isinstance(first, Mapping):
        return features
    if isinstance(first, torch.Tensor) or not getattr(first, "__dict__", None):
        values = f" of {len(first)} values" if isinstance(first, tuple | list) else ""
        raise DataError(
            f"a sample is a {type(first).__name__}{values}, and the model takes its inputs by name. Let the dataset "
            "return a dictionary such as {'x': x, 'labels': y}, named as the model's forward names them, or give a "
            "data_collator that does."
        )
    return [vars(feature) for feature in features]


def _explained(error: Exception, name: str, features: Sequence[Mapping[str, Any]]) -> DataError:
    """Say which values make no batch, and why."""
    lacking = [place for place, feature in enumerate(features) if feature.get(name) is None]
    if lacking:
        found = "None for" if name in features[lacking[0]] else "no"
        return DataError(
            f"sample {lacking[0]} of a batch has {found} {name!r}, which the first one has; every sample of a batch "
            "must have the same names, and a value for each"
        )
    if any(isinstance(feature[name], str) for feature in features):
        return DataError(f"the values of {name!r} in a batch are text; number them, or leave the column out")
    return DataError(
        f"the values of {name!r} in a batch cannot be stacked ({error}). If they differ in length, pad them: give the "
        "tokenizer as processing_class, or a data_collator that pads; else leave the column out."
    )


def _torch_label(column: list[Any]) -> torch.Tensor:
    first = column[0].item() if isinstance(column[0], torch.Tensor) else column[0]
    return torch.tensor(column, dtype=torch.long if isinstance(first, int | np.integer) else torch.float)


def _torch_label_ids(column: list[Any]) -> torch.Tensor:
    if isinstance(column[0], torch.Tensor):
        return torch.stack(column)
    values = np.stack(column) if isinstance(column[0], np.ndarray) else column
    return torch.tensor(values, dtype=torch.long if isinstance(column[0][0], int | np.integer) else torch.float)


def _torch_stack(column: list[Any]) -> torch.Tensor:
    first = column[0]
    if isinstance(first, torch.Tensor):
        return torch.stack(column)
    if isinstance(first, np.ndarray):
        return torch.from_numpy(np.stack(column))
    if isinstance(first, list):
        # Numpy reads lists five times faster; only whole numbers are sure to come out the same.
        with suppress(ValueError):
            array = np.array(column)
            if array.dtype == np.int64:
                return torch.from_numpy(array)
    return torch.tensor(column)


def _numpy_label(column: list[Any]) -> Any:
    first = column[0].item() if isinstance(column[0], np.ndarray) else column[0]
    return np.array(column, dtype=np.int64 if isinstance(first, int | np.integer) else np.float32)


def _numpy_label_ids(column: list[Any]) -> Any:
    if isinstance(column[0], np.ndarray):
        return np.stack(column)
    return np.array(column, dtype=np.int64 if isinstance(column[0][0], int | np.integer) else np.float32)


def _numpy_stack(column: list[Any]) -> Any:
    return np.stack(column) if isinstance(column[0], np.ndarray) else np.array(column)


_LABELS = ("label", "label_ids")
_Stack = Callable[[list[Any]], Any]
# How labels, by their name, and how all other values are stacked.
_KINDS: dict[str, tuple[dict[str, _Stack], _Stack]] = {
    "pt": ({"label": _torch_label, "label_ids": _torch_label_ids}, _torch_stack),
    "np": ({"label": _numpy_label, "label_ids": _numpy_label_ids}, _numpy_stack),
}
