"""Open whatever a job names as its data."""

from __future__ import annotations

from pathlib import Path

from surestep.errors import DataError
from surestep.tasks.data.files import read_file
from surestep.tasks.data.named import read_hub, read_sklearn
from surestep.tasks.data.table import Table
from surestep.tasks.nearest import nearest

_SPLIT = "split:"


def open_source(source: str, base: Path) -> Table:
    """Return the table that `source` names: a path relative to `base`, `sklearn:name` or `hf:name[:config]`."""
    scheme, colon, name = source.partition(":")
    # One letter before the colon is a drive of Windows, so a path.
    if not colon or len(scheme) == 1:
        return read_file(base / Path(source).expanduser())
    if scheme == "sklearn":
        return read_sklearn(name)
    if scheme == "hf":
        return read_hub(name)
    raise DataError(f"the data source '{source}' begins with '{scheme}:', {nearest(scheme, ('sklearn', 'hf'))}")


def open_other(source: str, main: str, base: Path) -> Table:
    """Return the table of a second split: `split:name` is another split of the `main` source, else as `open_source`."""
    if not source.startswith(_SPLIT):
        return open_source(source, base)
    scheme, _, name = main.partition(":")
    split = source.removeprefix(_SPLIT)
    if scheme != "hf":
        raise DataError(f"'{source}' asks for a split of '{main}', but only hf: sources have named splits.")
    return read_hub(name, split)
