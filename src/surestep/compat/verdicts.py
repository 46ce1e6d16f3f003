"""What becomes of the names that a script takes: served here, run from the original's own source, or refused."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator
from functools import cache

from surestep.compat.finding import Finding, Verdict
from surestep.compat.homes import HOMES, KEPT, MOVED, REFUSED
from surestep.compat.older_top import ONCE_AT_THE_TOP
from surestep.compat.reading import Reading, Taken, file_of_module
from surestep.compat.stand_in import PACKAGE


def names_refused(reading: Reading) -> list[Finding]:
    """Return the names that nobody serves, as far as tables and sources tell; nothing is imported."""
    return [finding for finding in _names(reading.taken) if finding.verdict is Verdict.REFUSED]


def all_findings(reading: Reading) -> list[Finding]:
    """Return what becomes of everything that a script takes. Imports the original's top and our trainer."""
    from surestep.compat.settings import overrides_uncalled, settings_refused

    offered = set(dir(importlib.import_module(PACKAGE)))
    found = [*_names(reading.taken, offered), *settings_refused(reading), *overrides_uncalled(reading)]
    return [*_together(found)]


def _together(found: Iterable[Finding]) -> Iterator[Finding]:
    """Join findings that differ in their place alone: a file is named once, with its lines."""
    places: dict[tuple[str, Verdict, str], dict[str, list[str]]] = {}
    for finding in found:
        file, _, line = finding.place.rpartition(":")
        lines = places.setdefault((finding.what, finding.verdict, finding.why), {}).setdefault(file, [])
        if line not in lines:
            lines.append(line)
    for key, files in places.items():
        yield Finding(*key, "; ".join(f"{file}:{', '.join(lines)}" for file, lines in files.items()))


def _names(taken: Iterable[Taken], offered: set[str] | None = None) -> Iterator[Finding]:
    """Yield what becomes of names. `offered` are those of the original's top module; None leaves unknown ones alone."""
    for one in taken:
        top = one.module == PACKAGE
        owner = _owner(one.name, offered) if top else _owner_below(one.module, one.name)
        what = f"{one.module}.{one.name}".removeprefix(f"{PACKAGE}.")
        if owner is not None:
            yield Finding(what, *_of_owner(owner, one.name), one.place)
        elif top and offered is not None and one.name not in offered and one.name != "*":
            yield Finding(what, Verdict.REFUSED, f"{_version()} has no {one.name}", one.place)


def _owner(name: str, offered: set[str] | None) -> str | None:
    """Return the replaced module from which the original's top offers a name; look into sources where `offered` is."""
    if name in ONCE_AT_THE_TOP:
        return ONCE_AT_THE_TOP[name]
    if offered is not None and name not in offered:
        return None
    for module in HOMES:
        if name in HOMES[module] or name in REFUSED.get(module, ()):
            return module
    return next((module for module in HOMES if offered is not None and name in _source(module).defined), None)


def _owner_below(module: str, name: str) -> str | None:
    """Return the replaced module that is named, or one of a package that hands its names on, as `integrations` does."""
    if module in HOMES:
        return module
    below = (one for one in HOMES if one.startswith(f"{module}."))
    return next((one for one in below if name in HOMES[one] or name in REFUSED.get(one, ())), None)


def _of_owner(module: str, name: str) -> tuple[Verdict, str]:
    if name in HOMES[module]:
        return Verdict.SERVED, HOMES[module][name]
    if name in REFUSED.get(module, ()):
        return Verdict.REFUSED, REFUSED[module][name]
    if name in MOVED.get(module, ()):
        home = MOVED[module][name]
        return (Verdict.ORIGINAL, f"it is in {home} today") if home.startswith(PACKAGE) else (Verdict.SERVED, home)
    source = _source(module)
    if name == "*" or name in source.defined | source.imported:
        return Verdict.ORIGINAL, KEPT.get(module, {}).get(name, "runs from the original's source")
    return Verdict.REFUSED, f"{module} of {_version()} has no {name}"


class _Source:
    """The names that a module binds at its top: those that it defines, and those that it imports."""

    def __init__(self, body: Iterable[ast.stmt]) -> None:
        self.defined: set[str] = set()
        self.imported: set[str] = set()
        self._read(body)

    def _read(self, body: Iterable[ast.stmt]) -> None:
        for line in body:
            if isinstance(line, ast.FunctionDef | ast.ClassDef):
                self.defined.add(line.name)
            elif isinstance(line, ast.Import | ast.ImportFrom):
                self.imported |= {(alias.asname or alias.name).partition(".")[0] for alias in line.names}
            else:
                names = [node for node in ast.walk(line) if isinstance(node, ast.Name)]
                self.defined |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
                self._read(node for node in ast.iter_child_nodes(line) if isinstance(node, ast.stmt))


@cache
def _source(module: str) -> _Source:
    """Read a module of the original, without importing it."""
    file = file_of_module(module)
    return _Source([] if file is None else ast.parse(file.read_bytes()).body)


@cache
def _version() -> str:
    from importlib.metadata import version

    return f"{PACKAGE} {version(PACKAGE)}"
