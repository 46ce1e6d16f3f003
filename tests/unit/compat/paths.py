"""The modules of `compat/paths`, and `compat/names.py`, written from the table: `python -m tests.unit.compat.paths`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import surestep
from surestep.compat.homes import HOMES, offered

FOLDER = Path(surestep.__file__).parent / "compat" / "paths"
# A module here -> the original's modules whose names it has, where their last names differ.
_JOINED = {"integrations": ("transformers.integrations.integration_utils", "transformers.integrations.neftune")}
# `surestep.trainer` is a package.
_ELSEWHERE = {"transformers.trainer"}
_LINE = 120
COMMAND = "python -m tests.unit.compat.paths"


def modules() -> dict[str, tuple[str, ...]]:
    """Return each module of the folder, with the original's modules that it stands for."""
    joined = {module for several in _JOINED.values() for module in several}
    alone = [module for module in HOMES if module not in joined | _ELSEWHERE]
    return {module.rpartition(".")[2]: (module,) for module in alone} | _JOINED


def text(originals: Iterable[str]) -> str:
    """Return the source of a module: its names, imported from their homes."""
    title = " and of ".join(f"`{module.rpartition('.')[2]}`" for module in originals)
    homes = {name: home for module in originals for name, home in HOMES[module].items()}
    return _source(f"The names of the original's {title}.", homes)


def everything() -> str:
    """Return the source of the module that tells type checkers what `surestep` itself offers."""
    return _source("Every name of the original's that is offered here, for type checkers.", offered())


def files() -> dict[Path, str]:
    """Return the text of every file that is written from the table."""
    init = '"""The original\'s module paths: `surestep/__init__.py` puts this folder on the path of the package."""\n'
    paths = {FOLDER / f"{name}.py": text(originals) for name, originals in modules().items()}
    return {**paths, FOLDER / "__init__.py": init, FOLDER.parent / "names.py": everything()}


def _source(title: str, homes: Mapping[str, str]) -> str:
    pairs = sorted(homes.items(), key=lambda pair: (pair[1], _order(pair[0])))
    head = f'"""{title} Written from `compat/homes.py`, not by hand."""'
    return "\n".join([head, "", *(_import(home, name) for name, home in pairs), ""])


def _order(name: str) -> tuple[int, str]:
    """Put constants before classes before functions, as the linter does."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


def _import(home: str, name: str) -> str:
    line = f"from {home} import {name} as {name}"
    return line if len(line) <= _LINE else f"from {home} import (\n    {name} as {name},\n)"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for known in FOLDER.glob("*.py"):
        known.unlink()
    for path, source in files().items():
        path.write_text(source, encoding="utf-8")
    print(f"wrote {len(files())} files at {FOLDER.parent}")
