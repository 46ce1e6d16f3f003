"""What may be given as a dataset, and turning it into what a loader reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, IterableDataset

from surestep.errors import DataError


class FrameDataset(Dataset[dict[str, Any]]):
    """The rows of a pandas frame as dictionaries of plain Python values."""

    def __init__(self, frame: Any) -> None:
        names = list(frame.columns)
        for name in names:
            if not isinstance(name, str):
                raise DataError(f"a column of the frame is called {name!r}; name it by a string (frame.rename)")
        if len(set(names)) < len(names):
            raise DataError(f"columns of the frame share a name: {', '.join(names)}; give each its own")
        self.column_names: list[str] = names
        self._frame = frame
        self._columns = {name: frame[name].to_numpy() for name in names}

    def __len__(self) -> int:
        return len(self._frame)

    def __getitem__(self, index: int | str) -> Any:
        """Return a row as a dictionary, or a column, by its name, as a list."""
        if isinstance(index, str):
            return [_plain(value) for value in self._columns[index]]
        return {name: _plain(values[index]) for name, values in self._columns.items()}

    def remove_columns(self, names: Sequence[str]) -> FrameDataset:
        """Return the dataset without the columns `names`."""
        return FrameDataset(self._frame.drop(columns=list(names)))


class StreamDataset(IterableDataset[Any]):
    """Any iterable that starts anew with each `iter`, as the stream that torch's loader wants."""

    def __init__(self, source: Iterable[Any]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to a source that asks for it."""
        if hasattr(self.source, "set_epoch"):
            self.source.set_epoch(epoch)


def as_dataset(source: Any, name: str = "train_dataset") -> Any:
    """Return `source` as something a loader reads, or raise `DataError` and say what to give instead.

    Taken as they are: map-style datasets (`__getitem__` and `__len__`; lists too) and torch's iterable ones. A pandas
    frame becomes a `FrameDataset`, another iterable a `StreamDataset`. `name` is the setting to speak of in errors.
    """
    if isinstance(source, IterableDataset | FrameDataset):
        return source
    complaint = _complaint(source)
    if complaint is not None:
        raise DataError(f"{name} is {complaint}")
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns"):
        return FrameDataset(source)
    if not hasattr(source, "__getitem__"):
        return StreamDataset(source)
    return source


def _complaint(source: Any) -> str | None:
    """Say what is wrong with `source` and what to give instead, or nothing."""
    if isinstance(source, str | Path):
        return f"the path {str(source)!r}; read it first, for example with datasets.load_dataset or pandas.read_csv"
    if isinstance(source, Mapping):
        return (
            f"a dictionary with the keys {', '.join(map(str, source))}; give one of its datasets, or rows made of its "
            "columns (datasets.Dataset.from_dict)"
        )
    if isinstance(source, DataLoader):
        return (
            "a DataLoader; give its dataset, and its batch size as per_device_train_batch_size (or override "
            "get_train_dataloader)"
        )
    if isinstance(source, Iterator):
        return (
            f"a {type(source).__name__}, which can be read only once; give a list, "
            "or an object whose __iter__ starts anew"
        )
    if hasattr(source, "__getitem__"):
        return None if hasattr(source, "__len__") else f"a {type(source).__name__} without __len__; add the method"
    if hasattr(source, "__iter__"):
        return None
    return (
        f"a {type(source).__name__}, with neither __getitem__ nor __iter__; give a dataset: "
        "a torch or `datasets` one, a pandas frame or a list of dictionaries"
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
