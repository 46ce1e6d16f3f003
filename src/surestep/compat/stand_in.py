"""Modules that stand in for the original's: a served name is found at its home here, another in the original's source.

`Finder` owns which modules are replaced; each `StandInLoader` owns the two tables of its module. A name is looked up
when it is asked for, so a stand-in imports nothing by itself: neither the original's module nor ours.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

PACKAGE = "transformers"


def original_name(name: str) -> str:
    """Return the name under which `sys.modules` keeps a replaced module itself, where a name had to be found in it."""
    return f"_the_original_{name.replace('.', '_')}"


class StandIn(ModuleType):
    """A module of the original as `Finder` provides it."""

    __spec__: ModuleSpec

    def __getattr__(self, name: str) -> Any:
        loader: StandInLoader = vars(self)["__spec__"].loader
        value = loader.look_up(name)
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            from surestep.logs import get_logger, warn_once

            warn_once(
                get_logger(__name__),
                f"{self.__name__}.{name} is set from outside. surestep does not read it there: only what imports the "
                "name from now on sees it.",
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        loader: StandInLoader = vars(self)["__spec__"].loader
        return sorted({*vars(self), *loader.names()})


class StandInLoader:
    """Makes the stand-in of one module, and finds its names.

    `spec` is that of the original's module. `homes` says which module serves a name, `refused` why nothing does.
    """

    def __init__(self, spec: ModuleSpec, homes: Mapping[str, str], refused: Mapping[str, str]) -> None:
        self.spec = spec
        self._homes = homes
        self._refused = refused

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the empty stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: names are found when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        """Answer as the original's loader what is asked about source and files."""
        return getattr(self.spec.loader, name)

    def look_up(self, name: str) -> Any:
        """Return what the module holds under `name`, importing its home; raise AttributeError as a module does."""
        if name in self._homes:
            return getattr(importlib.import_module(self._homes[name]), name)
        if name in self._refused:
            from surestep.compat.refused import RefusedName

            return RefusedName(f"{self.spec.name}.{name}", self._refused[name])
        if name == "__all__":
            return self.names()
        # Tools ask every module for names of this kind: none of these is worth running the original for.
        if name.startswith("__"):
            raise AttributeError(f"module {self.spec.name!r} has no attribute {name!r}")
        return getattr(self.original(), name)

    def names(self) -> list[str]:
        """Return the public names: those of the original's module that are not refused, and those served beyond it."""
        theirs = vars(self.original())
        public = theirs.get("__all__", [name for name in theirs if not name.startswith("_")])
        return sorted({*public, *self._homes} - self._refused.keys())

    def original(self) -> ModuleType:
        """Return the original's own module, run when it is first asked for; what it imports is replaced in its turn."""
        return importlib.import_module(original_name(self.spec.name))


class OriginalLoader:
    """Runs the source of a replaced module as the module that it is, beside the stand-in that has its name."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the source under its own name."""
        loader: Any = self._spec.loader
        module.__name__, module.__package__ = self._spec.name, self._spec.parent
        module.__spec__, module.__loader__, module.__file__ = self._spec, loader, self._spec.origin
        loader.exec_module(module)


class Finder:
    """Stands first on `sys.meta_path` and answers for the replaced modules of the original, and for nothing else."""

    def __init__(self) -> None:
        self._originals: dict[str, ModuleSpec] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a stand-in where `name` is a replaced module, or of the original's behind a stand-in."""
        if name in self._originals:
            return ModuleSpec(name, cast("Loader", OriginalLoader(self._originals[name])))
        if not name.startswith(PACKAGE):
            return None
        from surestep.compat.homes import HOMES, MOVED, REFUSED
        from surestep.compat.older_top import LAZY, offering

        if name == LAZY and (found := self._find_behind(name, path, target)) is not None:
            return offering(found)
        if name not in HOMES:
            return None
        # Asked twice: one spec becomes the stand-in's, the other stays the original's.
        spec, theirs = (self._find_behind(name, path, target) for _ in range(2))
        if spec is None or theirs is None:
            return None
        self._originals[original_name(name)] = theirs
        homes = {**HOMES[name], **MOVED.get(name, {})}
        spec.loader = cast("Loader", StandInLoader(theirs, homes, REFUSED.get(name, {})))
        return spec

    def _find_behind(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None
