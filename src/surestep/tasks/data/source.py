"""Open whatever a job names as its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from surestep.errors import DataError
from surestep.tasks.data.files import read_file
from surestep.tasks.data.named import read_hub, read_sklearn
from surestep.tasks.data.table import Table
from surestep.tasks.nearest import nearest

_SPLIT = "split:"
_CHUNK = 1 << 20


def open_source(source: str, base: Path) -> Table:
    """Return the table that `source` names: a path relative to `base`, `sklearn:name` or `hf:name[:config]`."""
    if is_path(source):
        return read_file(base / Path(source).expanduser())
    scheme, _, name = source.partition(":")
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


def is_path(source: str) -> bool:
    """Say whether a source is a path; one letter before a colon is a drive of Windows."""
    scheme, colon, _ = source.partition(":")
    return not colon or len(scheme) == 1


def fingerprint(sources: Iterable[str], base: Path) -> str:
    """Return a digest of the local files among `sources`, which changes with their content.

    Of a folder of pictures the names and sizes are taken, not every byte.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = base / Path(source).expanduser()
        if not is_path(source) or not path.exists():
            continue
        if path.is_dir():
            entries = sorted(
                (str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*") if file.is_file()
            )
            digest.update(repr(entries).encode())
            continue
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
