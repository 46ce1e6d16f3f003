"""Put this library in the place of the original's training modules, and take it out again.

This module owns what is replaced in the running process (`_Current`) and in the environment of its children. Under
`surestep exec` it is imported with the original: what only `install` and `uninstall` need is imported there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from surestep.compat.stand_in import PACKAGE, Finder

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from surestep.compat.replacing import Replaced

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib would be loaded by every child)
_STARTUP = os.path.join(_HERE, "startup")  # noqa: PTH118
_ROOT = os.path.dirname(os.path.dirname(_HERE))  # noqa: PTH120
_PATH = "PYTHONPATH"


class _Current:
    """What is in place now; `replaced` only where modules of the original were loaded before."""

    finder: Finder | None = None
    replaced: Replaced | None = None


def put_in_place() -> bool:
    """Answer for the original's modules from the next import on; say whether that is news to this process."""
    awaited = _stop_waiting()
    if _Current.finder is not None:
        return False
    _Current.finder = Finder()
    sys.meta_path.insert(0, _Current.finder)
    return not awaited


def _stop_waiting() -> bool:
    """Take away what waits for the original since the start of this Python under `exec`; say whether something did."""
    waiting = [finder for finder in sys.meta_path if getattr(finder, "awaits_the_original", False)]
    for finder in waiting:
        sys.meta_path.remove(finder)
    return bool(waiting)


def install() -> None:
    """Serve the names of the original's training modules from here on, in this process and in those that it starts.

    What the original's own package holds already is replaced as well. What other modules imported before stays what it
    is, and a warning names it. Calling this again does nothing.
    """
    from surestep.compat.replacing import Replaced
    from surestep.logs import announce, get_logger

    said = greeting()
    if put_in_place():
        _Current.replaced = Replaced.in_loaded_modules()
        announce(get_logger(__name__), said)
    extend(os.environ)


def uninstall() -> None:
    """Put the original's package back as it is without `install`, in this process and for those that it starts.

    Objects and classes made meanwhile stay what they are. Calling this where nothing is installed does nothing.
    """
    _stop_waiting()
    if _Current.finder is not None:
        from surestep.compat.replacing import Replaced

        sys.meta_path.remove(_Current.finder)
        (_Current.replaced or Replaced()).put_back()
        _Current.finder = _Current.replaced = None
    withdraw(os.environ)


def greeting() -> str:
    """Return the line that says who serves; raise where the original is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    import surestep
    from surestep.errors import MissingPackageError

    try:
        return f"surestep {surestep.__version__} serves the Trainer of {PACKAGE} {version(PACKAGE)} here."
    except PackageNotFoundError:
        raise MissingPackageError(
            f"There is nothing to serve in the place of: {PACKAGE} is not installed. Import from surestep instead."
        ) from None


def extend(environment: MutableMapping[str, str]) -> None:
    """Have every Python that is started with `environment` begin with the finder in place."""
    entries = _entries(environment)
    if _STARTUP in entries:
        return
    # A child does not search the folder that this process was started in.
    found = _ROOT in map(os.path.abspath, sys.path[1:])
    environment[_PATH] = os.pathsep.join([*([] if found else [_ROOT]), _STARTUP, *entries])


def withdraw(environment: MutableMapping[str, str]) -> None:
    """Undo what `extend` did to `environment`."""
    entries = _entries(environment)
    if _STARTUP not in entries:
        return
    ours = entries.index(_STARTUP)
    rest = entries[:ours] + entries[ours + 1 :]
    # What stands before our folder is ours as well: `extend` puts both in front.
    if ours and rest[ours - 1] == _ROOT:
        del rest[ours - 1]
    if rest:
        environment[_PATH] = os.pathsep.join(rest)
    else:
        del environment[_PATH]


def _entries(environment: Mapping[str, str]) -> list[str]:
    """Return the folders of the search path; an empty one is the current folder, an empty path is none."""
    path = environment.get(_PATH)
    return path.split(os.pathsep) if path else []
