"""Read a table by its name in a library: `sklearn:digits`, `hf:name[:config]`."""

from __future__ import annotations

import numpy as np

from surestep.errors import DataError, NotServedError
from surestep.optional import require
from surestep.tasks.data.table import Table
from surestep.tasks.nearest import nearest

# Sets of scikit-learn that are tables of measurements: the task they are for is not served yet.
_SKLEARN_TABULAR = ("iris", "wine", "breast_cancer")


def read_sklearn(name: str) -> Table:
    """Return a data set that scikit-learn carries within itself; needs no network."""
    if name in _SKLEARN_TABULAR:
        raise NotServedError(
            f"data.source='sklearn:{name}' is a table of measurements, and the tabular task is not served "
            "yet. Served: sklearn:digits."
        )
    if name != "digits":
        raise DataError(f"data.source='sklearn:{name}' is unknown: {nearest(name, ('digits',))}")
    datasets = require("sklearn.datasets", "data.source='sklearn:digits'")
    digits = datasets.load_digits()
    # The pictures have 17 grey levels, 0 to 16; stretched over a byte like any other picture.
    images = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)
    names = {"label": [str(name) for name in digits.target_names]}
    return Table({"image": list(images), "label": digits.target.tolist()}, "sklearn:digits", names)


def read_hub(name: str, split: str = "train") -> Table:
    """Return a split of `name[:config]` through the datasets library, from its cache where it is there."""
    library = require("datasets", f"data.source='hf:{name}'")
    path, _, config = name.partition(":")
    try:
        dataset = library.load_dataset(path, config or None, split=split)
    except (ConnectionError, OSError, ValueError) as error:
        raise DataError(_explain_hub(name, split, error)) from error
    names: dict[str, list[str]] = {}
    for column, feature in dataset.features.items():
        if isinstance(feature, library.Image):
            dataset = dataset.cast_column(column, library.Image(decode=False))
        if isinstance(feature, library.ClassLabel):
            names[column] = list(feature.names)
    if not len(dataset):
        raise DataError(f"hf:{name}, split '{split}', has no rows.")
    return Table({column: list(dataset[column]) for column in dataset.column_names}, f"hf:{name}", names)


def _explain_hub(name: str, split: str, error: Exception) -> str:
    """Say what failed and what to do; without network that is to fetch the set first, or to use a file."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, ValueError) and "split" in first_line.lower():
        return f"hf:{name} has no split '{split}': {first_line}"
    return (
        f"hf:{name} could not be loaded ({type(error).__name__}: {first_line}). Check the name; on a machine without "
        f"network, load it once where there is one (datasets.load_dataset), copy that machine's cache and set "
        f"HF_DATASETS_CACHE and HF_HUB_OFFLINE=1, or write the path of a local file as data.source."
    )
