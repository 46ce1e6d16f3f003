"""Read from released versions of the original what its arguments and methods were called.

Put the wheels into a folder, and write `releases.json` beside this file:

    pip download --no-deps -d WHEELS transformers==3.0.2      # and so on, for each version
    python -m tests.unit.config.releases WHEELS

Names are read from the sources; nothing of them is imported.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("releases.json")
# Where each class is written.
MODULES = {
    "TrainingArguments": "training_args.py",
    "Seq2SeqTrainingArguments": "training_args_seq2seq.py",
    "Trainer": "trainer.py",
    "TrainerState": "trainer_callback.py",
}

Seen = dict[str, list[str]]


def version_of(wheel: Path) -> tuple[int, ...]:
    found = re.search(r"-(\d+)\.(\d+)\.(\d+)-", wheel.name)
    assert found is not None
    return tuple(map(int, found.groups()))


def classes(wheel: Path) -> dict[str, ast.ClassDef]:
    """Return the classes of a release, by name; those that it does not have yet are left out."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, module in MODULES.items():
            path = f"transformers/{module}"
            body = ast.parse(archive.read(path)).body if path in archive.namelist() else []
            found |= {node.name: node for node in body if isinstance(node, ast.ClassDef) and node.name == name}
    return found


def fields(node: ast.ClassDef) -> list[str]:
    """Return the fields of a dataclass that its constructor takes."""
    return [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "init=False" not in ast.unparse(item)
    ]


def methods(node: ast.ClassDef) -> dict[str, str]:
    """Return the parameters of each method, after `self`, as text."""
    return {item.name: parameters(item) for item in node.body if isinstance(item, ast.FunctionDef)}


def arguments(node: ast.ClassDef) -> list[str]:
    """Return the names that the constructor takes."""
    init = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
    return [one.arg for one in init.args.args[1:]]


def parameters(function: ast.FunctionDef) -> str:
    given = function.args
    static = any(ast.unparse(one) == "staticmethod" for one in function.decorator_list)
    names = [one.arg for one in given.args[0 if static else 1 :]]
    defaults = [f"{name}={ast.unparse(value)}" for name, value in zip(names[::-1], given.defaults[::-1], strict=False)]
    written = names[: len(names) - len(defaults)] + defaults[::-1]
    return ", ".join(written + ([f"**{given.kwarg.arg}"] if given.kwarg else []))


def read(folder: Path) -> dict[str, Any]:
    """Return each name with the first and the last version that has it."""
    wheels = sorted(folder.glob("transformers-*.whl"), key=version_of)
    seen: dict[str, Seen] = {name: defaultdict(list) for name in MODULES}
    forms: dict[str, Seen] = defaultdict(lambda: defaultdict(list))
    for wheel in wheels:
        version = ".".join(map(str, version_of(wheel)))
        for name, node in classes(wheel).items():
            if name != "Trainer":
                for field in fields(node):
                    seen[name][field].append(version)
                continue
            every = methods(node)
            every.pop("__init__")
            for argument in arguments(node):
                seen[name][argument].append(version)
            for method, form in every.items():
                forms[method][form].append(version)

    def ends(found: Seen) -> dict[str, str]:
        return {name: f"{versions[0]} to {versions[-1]}" for name, versions in sorted(found.items())}

    return {
        "versions": [".".join(map(str, version_of(wheel))) for wheel in wheels],
        **{name: ends(found) for name, found in seen.items()},
        "methods": {name: ends(found) for name, found in sorted(forms.items())},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(read(Path(sys.argv[1])), indent=1) + "\n")
    print(f"wrote {FILE}")
