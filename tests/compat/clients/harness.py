"""A user's script, unchanged, on the original and on ours: each in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from surestep.optional import installed
from tests.warm import Process, libraries

SCRIPTS = Path(__file__).parent / "scripts"
ROOT = Path(__file__).parents[3]
# What a clock says.
_CLOCK = ("runtime", "per_second")
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def needs(*modules: str) -> None:
    """Skip a module of tests where a library is not installed."""
    for module in modules:
        if not installed(module):
            pytest.skip(f"{module} is not installed (pip install -e .[dev])", allow_module_level=True)


@dataclass(frozen=True)
class Sides:
    """The folder that each side wrote into, and what its script noted of the run."""

    folders: dict[str, Path]
    stock: Any
    ours: Any


def run_both(script: str, root: Path) -> Sides:
    """Run `scripts/<script>.py` on both sides at once; each gets a folder, and writes `seen.json` there."""
    path = str(SCRIPTS / f"{script}.py")
    commands = {"stock": [path], "ours": ["-m", "surestep.compat", path]}
    folders = {side: root / side for side in commands}
    with ExitStack() as stack:
        runs = {side: stack.enter_context(_started(command, folders[side])) for side, command in commands.items()}
        seen = {side: _finished(run, folders[side]) for side, run in runs.items()}
    return Sides(folders, **seen)


@contextmanager
def _started(words: list[str], folder: Path) -> Iterator[Process]:
    folder.mkdir()
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": path}
    run = libraries().start([*words, str(folder)], env=environment, cwd=folder, merged=True)
    try:
        yield run
    finally:
        run.kill()


def _finished(run: Process, folder: Path) -> Any:
    said, _ = run.communicate(timeout=240)
    assert run.returncode == 0, said[-4000:]
    return json.loads((folder / "seen.json").read_text(encoding="utf-8"))


def assert_same(one: Any, other: Any, *leave: str) -> None:
    """Assert that what two runs noted is equal, but for clocks and for the names in `leave`.

    Losses of evaluations may differ in the last digits: ours are added up in float64 (row L3).
    """
    found = list(_differences(one, other, leave))
    assert not found, "\n".join(found)


def _differences(one: Any, other: Any, leave: tuple[str, ...], at: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            if name in leave or any(word in name for word in _CLOCK):
                continue
            if name in one and name in other:
                yield from _differences(one[name], other[name], leave, f"{at}.{name}")
            else:
                yield f"{at}.{name} is on one side only"
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differences(first, second, leave, f"{at}[{number}]")
    elif not _close(one, other, at):
        yield f"{at}: {one!r} and {other!r}"


def _close(one: Any, other: Any, at: str) -> bool:
    name = at.rpartition(".")[2]
    if name.startswith("eval_") and name.endswith("loss"):
        return bool(one == pytest.approx(other, rel=1e-6))
    return bool(one == other)
