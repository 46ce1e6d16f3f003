"""What the original's package holds already when it is replaced, and what it has taken up when it is put back.

`Replaced` owns the modules and values that gave way. It works on loaded modules only and imports a name's home
where somebody holds that name; a lazy package, as the original's top is, forgets the name instead.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, NoneType
from typing import Any, NamedTuple

from surestep.compat.homes import HOMES, REFUSED
from surestep.compat.older_top import offer, take_back
from surestep.compat.stand_in import PACKAGE, StandIn, original_name
from surestep.logs import get_logger

_logger = get_logger(__name__)


class Place(NamedTuple):
    """Where the package offers an object. Holding `value` keeps its id from being given to another object."""

    module: str
    name: str
    value: Any


Places = dict[int, Place]  # by the id of the value
_PLAIN = (NoneType, bool, int, float, str, bytes, tuple)


@dataclass
class Replaced:
    """The original's modules that gave way to stand-ins, and the values in others that gave way to ours."""

    modules: dict[str, ModuleType] = field(default_factory=dict)
    values: list[tuple[ModuleType, str, Any]] = field(default_factory=list)

    @classmethod
    def in_loaded_modules(cls) -> Replaced:
        """Replace what is loaded already, and warn of what others hold."""
        replaced = cls()
        replaced.modules = {name: _take_out(name) for name in HOMES if name in sys.modules}
        places = _names_that_change(replaced.modules)
        _warn_of_holders(places)
        replaced.values = [(module, name, vars(module)[name]) for module, name in _held(places)]
        for module, name, value in replaced.values:
            _renew(module, name, places[id(value)])
        offer()
        return replaced

    def put_back(self) -> None:
        """Restore the modules and values; what was loaded meanwhile and holds names of ours gets the original's."""
        take_back()
        places = _taken_up()
        for name in [name for name in HOMES if isinstance(sys.modules.get(name), StandIn)]:
            _take_out(name)
            sys.modules.pop(original_name(name), None)
        for name, module in self.modules.items():
            _put_in(name, module)
        for module, name, value in self.values:
            vars(module)[name] = value
        while built := _built_on(places):
            places |= _forget(built)
        for module, name in list(_held(places)):
            _renew(module, name, places[id(vars(module)[name])])


def _loaded() -> Iterator[ModuleType]:
    """Yield the modules of the original's package, but for stand-ins.

    The package makes its top module twice: the first, which a script may hold, is no longer among the loaded ones.
    """
    top = sys.modules.get(PACKAGE)
    unlisted = gc.get_referrers(type(top)) if top is not None and type(top) is not ModuleType else []
    found = {id(module): module for module in (*sys.modules.values(), *unlisted) if isinstance(module, ModuleType)}
    for module in found.values():
        own = module.__name__ == PACKAGE or module.__name__.startswith(f"{PACKAGE}.")
        if own and not isinstance(module, StandIn):
            yield module


def _held(places: Places) -> Iterator[tuple[ModuleType, str]]:
    """Yield where the package's modules hold one of the objects of `places`."""
    for module in _loaded():
        for name, value in list(vars(module).items()):
            if id(value) in places:
                yield module, name


def _renew(module: ModuleType, name: str, place: Place) -> None:
    """Have `module` hold under `name` what the package offers now."""
    if hasattr(module, "_class_to_module"):
        # A lazy module looks its names up again when they are asked for.
        del vars(module)[name]
    else:
        vars(module)[name] = getattr(importlib.import_module(place.module), place.name)


def _take_out(name: str) -> ModuleType:
    """Forget a loaded module, so that its next import finds it anew."""
    module = sys.modules.pop(name)
    siblings, last = _siblings(name)
    if siblings.get(last) is module:
        del siblings[last]
    return module


def _put_in(name: str, module: ModuleType) -> None:
    sys.modules[name] = module
    siblings, last = _siblings(name)
    siblings[last] = module


def _siblings(name: str) -> tuple[dict[str, Any], str]:
    """Return what the package of a module holds, and the module's name in it."""
    parent, _, last = name.rpartition(".")
    return vars(sys.modules[parent]) if parent in sys.modules else {}, last


def _names_that_change(originals: dict[str, ModuleType]) -> Places:
    """Return the original's objects that are served or refused here, and the modules that offer them."""
    names = [
        Place(place, name, vars(module).get(name))
        for place, module in originals.items()
        for name in (*HOMES[place], *REFUSED.get(place, ()))
    ]
    return _places([*names, *map(_place_of, originals.values())])


def _taken_up() -> Places:
    """Return the stand-ins, and the objects that they have handed out and the original does not know."""
    stand_ins = [module for name in HOMES if isinstance(module := sys.modules.get(name), StandIn)]
    names = [
        Place(module.__name__, name, value)
        for module in stand_ins
        for name, value in vars(module).items()
        if _is_ours(module.__name__, name) or getattr(value, "__module__", None) == module.__name__
    ]
    return _places([*names, *map(_place_of, stand_ins)])


def _is_ours(module: str, name: str) -> bool:
    return name in HOMES[module] or name in REFUSED.get(module, ())


def _place_of(module: ModuleType) -> Place:
    package, _, last = module.__name__.rpartition(".")
    return Place(package, last, module)


def _places(found: Iterable[Place]) -> Places:
    """Index what is the package's own: modules, classes, functions, tables, but not numbers, texts or `typing.Any`."""
    return {
        id(place.value): place
        for place in found
        if not isinstance(place.value, _PLAIN) and not _is_foreign(place.value)
    }


def _is_foreign(value: Any) -> bool:
    """Say whether a value is another library's, which the package offers under a name of its own."""
    home, name = getattr(value, "__module__", None) or "", getattr(value, "__name__", None) or ""
    elsewhere = home.partition(".")[0] not in {PACKAGE, "surestep", "__main__"}
    return elsewhere and name != "" and getattr(sys.modules.get(home), name, None) is value


def _built_on(places: Places) -> list[ModuleType]:
    """Return the modules of the package that define classes upon the objects of `places`."""
    return [
        module
        for module in _loaded()
        if any(
            value.__module__ == module.__name__ and any(id(base) in places for base in value.__mro__)
            for value in vars(module).values()
            if isinstance(value, type)
        )
    ]


def _forget(modules: list[ModuleType]) -> Places:
    """Take the modules out, and return them with what they defined."""
    for module in modules:
        _take_out(module.__name__)
    names = [
        Place(module.__name__, name, value)
        for module in modules
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    ]
    return _places([*names, *map(_place_of, modules)])


def _warn_of_holders(places: Places) -> None:
    """Name what was imported from the original before, where nobody but its owner can replace it."""
    modules: list[Any] = list(sys.modules.values())
    held = {
        f"{name} in {module.__name__}": None
        for module in modules
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] not in {PACKAGE, "surestep"}
        for name, value in list(vars(module).items())
        if id(value) in places and not isinstance(value, ModuleType)
    }
    if held:
        more = f" and {len(held) - 5} more" if len(held) > 5 else ""
        _logger.warning(
            "Imported before install(), and still the original's: %s%s. Call install() before they are imported.",
            ", ".join([*held][:5]),
            more,
        )
