"""Files and folders: which are read, as what, and how what became of them is written."""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from surestep.compat.migrate.edits import Migration
from surestep.errors import MigrationError

# Larger files of a folder are data, and no settings; notebooks hold pictures, and may be of any size.
_LARGEST = 1_000_000
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "build", "dist"}


def _python(text: str, name: str, imports: bool) -> Migration:
    from surestep.compat.migrate.python import migrate_python

    return migrate_python(text, name, imports=imports)


def _yaml(text: str, name: str, _: bool) -> Migration:
    from surestep.compat.migrate.data import migrate_yaml

    return migrate_yaml(text, name)


def _json(text: str, name: str, _: bool) -> Migration:
    from surestep.compat.migrate.data import migrate_json

    return migrate_json(text, name)


def _notebook(text: str, name: str, imports: bool) -> Migration:
    from surestep.compat.migrate.notebook import migrate_notebook

    return migrate_notebook(text, name, imports=imports)


_READERS: dict[str, Callable[[str, str, bool], Migration]] = {
    ".py": _python,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".ipynb": _notebook,
}


def files_below(path: Path) -> Iterator[Path]:
    """Yield a file, or all of a folder that can be read, but for what is hidden or installed."""
    if not path.exists():
        raise MigrationError(f"'{path}' does not exist. Name a script, a settings file, or a folder of them.")
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise MigrationError(f"'{path}' is neither a file nor a folder.")
    for found in sorted(path.rglob("*")):
        parts = found.relative_to(path).parts
        hidden = any(part.startswith(".") or part in _SKIPPED for part in parts)
        if not hidden and found.suffix in _READERS and found.is_file() and _may_be_read(found):
            yield found


def _may_be_read(path: Path) -> bool:
    return path.suffix == ".ipynb" or path.stat().st_size <= _LARGEST


def migrate_file(path: Path, *, imports: bool = False) -> Migration:
    """Return what becomes of a file; raises `MigrationError` where it cannot be read as what it is called."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise MigrationError(
            f"'{path}' is none of {', '.join(_READERS)}. Name a script, a notebook or a settings file."
        )
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MigrationError(f"'{path}' is no text in UTF-8: {error.reason} at byte {error.start}.") from error
    if "\0" in text:
        raise MigrationError(f"'{path}' is no text: it holds a null byte.")
    return reader(text, str(path), imports)


def difference(path: Path, migration: Migration) -> str:
    """Return the change as a unified diff, which `patch -p1` takes."""
    name = path.as_posix().lstrip("/")
    before, after = (text.splitlines(keepends=True) for text in (migration.before, migration.after))
    lines = difflib.unified_diff(before, after, fromfile=f"a/{name}", tofile=f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def write(path: Path, text: str) -> None:
    """Put `text` in the place of a file at once, with its mode; what a link points to is written, not the link."""
    target = path.resolve()
    mode = stat.S_IMODE(target.stat().st_mode)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
