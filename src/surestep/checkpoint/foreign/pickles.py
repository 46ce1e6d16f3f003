"""Reads a pickled file of the original as data. Whatever asks for code is refused before anything of it runs."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surestep.errors import CheckpointError

# Builders of NumPy's own values, under the names of NumPy 1 and 2. None calls anything that a file can choose.
_BUILDERS = {"_reconstruct": np._core.multiarray._reconstruct, "scalar": np._core.multiarray.scalar}  # type: ignore[attr-defined]
_HARMLESS: list[Any] = [
    *((maker, f"numpy.{core}.multiarray.{name}") for name, maker in _BUILDERS.items() for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "uint32", "uint64", "float32", "float64")),
]
_ASKED = re.compile(r"GLOBAL ([\w.]+)")


def read_pickle(path: Path) -> Any:
    """Return what a file of the original's holds: tensors, NumPy arrays and scalars, containers, numbers and texts.

    Tensors come back on the CPU; those of an archive are windows on the file.

    Raises:
        CheckpointError: the file asks for anything else, or is damaged; nothing in it has run.
        OSError: the file is not there, or cannot be read.
    """
    archive = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except OSError:
        raise
    # A hostile or damaged file raises whatever it likes.
    except Exception as error:
        refusal = _refusal(path, error)
    # torch's own message recommends to read the file without this guard, so that it is not shown.
    raise CheckpointError(refusal)


def _refusal(path: Path, error: Exception) -> str:
    asked = _ASKED.search(str(error))
    if asked is not None:
        what = f"asks for '{asked[1]}', which is code and no data"
    elif "weights_only" in str(error):
        what = "holds something else than data in torch's format"
    else:
        return f"{path} is damaged and cannot be read: {type(error).__name__}: {error}"
    return (
        f"{path} {what}. It is refused, and nothing in it has been run. Fetch the file anew from where it was made; or "
        "delete it, and what it should hold starts anew."
    )
