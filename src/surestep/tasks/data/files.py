"""Read a table from local files: CSV, JSON, JSONL, Parquet, or a folder with one sub-folder of pictures per class."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surestep.config.nearest import nearest
from surestep.errors import DataError
from surestep.optional import require
from surestep.tasks.data.table import Table

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


def read_file(path: Path) -> Table:
    """Read the table at `path`, or raise `DataError` and say what is wrong with it and where."""
    if not path.exists():
        raise DataError(missing_file(path))
    if path.is_dir():
        return _check_rows(_read_picture_folder(path), path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: files of type '{path.suffix}' are not read; write one of {', '.join(_READERS)}.")
    try:
        return _check_rows(reader(path), path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error


def missing_file(path: Path) -> str:
    """Return what to say of a path that does not exist: that which is near it, as far as there is any."""
    if not path.parent.is_dir():
        return f"{path} does not exist, nor does its folder."
    # Without the ending, which is often what is wrong, and which strangers have in common.
    beside = {other.stem: other.name for other in sorted(path.parent.iterdir(), reverse=True)}
    close = nearest(path.stem, beside)
    return f"{path} does not exist" + (f"; did you mean '{beside[close]}'?" if close else ".")


def _check_rows(table: Table, path: Path) -> Table:
    if not len(table):
        raise DataError(f"{path} has no rows.")
    return table


def _read_csv(path: Path, delimiter: str = ",") -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            rows = [_check_width(row, header, path, reader.line_num) for row in reader if row]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the header names {', '.join(map(repr, repeated))} more than once.")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return Table(columns, str(path), folder=path.parent)


def _check_width(row: list[str], header: list[str], path: Path, line: int) -> list[str]:
    if len(row) != len(header):
        raise DataError(
            f"{path}, line {line}: {len(row)} cells where the header has {len(header)}; quote cells with commas."
        )
    return row


def _read_tsv(path: Path) -> Table:
    return _read_csv(path, delimiter="\t")


def _read_jsonl(path: Path) -> Table:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_parse_json(line, f"{path}, line {number}"))
    return _from_records(rows, path)


def _read_json(path: Path) -> Table:
    content = _parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    if isinstance(content, dict) and all(isinstance(values, list) for values in content.values()):
        return Table(content, str(path), folder=path.parent)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, or one object of columns (lists of equal length).")
    return _from_records(content, path)


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: this is not JSON ({error.msg} at column {error.colno}).") from error


def _from_records(records: Sequence[Any], path: Path) -> Table:
    """Turn objects into columns; a key that an object lacks is a missing value (None)."""
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}, record {number}: expected an object with the columns as keys, found {record!r:.60}."
            )
    names = dict.fromkeys(name for record in records for name in record)
    return Table({name: [record.get(name) for record in records] for name in names}, str(path), folder=path.parent)


def _read_parquet(path: Path) -> Table:
    parquet = require("pyarrow.parquet", f"reading {path}")
    try:
        columns = parquet.read_table(path).to_pydict()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    return Table(columns, str(path), folder=path.parent)


def _read_picture_folder(path: Path) -> Table:
    """Read the paths of pictures; the sub-folder's name is the label."""
    images: list[Path] = []
    labels: list[str] = []
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(f"{path} has no sub-folders: put the pictures of each class into a folder named after it.")
    for folder in folders:
        pictures = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        if not pictures:
            raise DataError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)}).")
        images += [picture.relative_to(path) for picture in pictures]
        labels += [folder.name] * len(pictures)
    return Table({"image": images, "label": labels}, str(path), folder=path)


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
