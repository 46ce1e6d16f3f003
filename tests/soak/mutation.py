"""Break the code in small ways and count what the tests notice: `python -m tests.soak.mutation`.

cosmic-ray finds the places and makes the mutants. A mutant is tested in a child of this process, which has loaded
torch, transformers and pytest already but nothing of surestep, so each costs seconds. All happens in a copy of the
repository. The sample is a function of the code and the seed.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import difflib
import importlib
import os
import py_compile
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cosmic_ray.plugins
import pytest
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code

from tests.soak.equivalent import SINGLETONS, reason

ROOT = Path(__file__).resolve().parents[2]
# The tests of each package. The next ones run only for mutants that the ones before did not notice.
TESTS = {"training": ["tests/unit/training", "tests/parity/test_length.py"], "config": ["tests/unit/config"]}
REQUIRED = 0.85
MEMORY = 24 * 2**30
LOADED = ("torch", "numpy", "hypothesis", "pandas", "sklearn", "transformers.trainer", "transformers.hf_argparser")
# Test files and the seconds that they may take.
Limits = list[tuple[str, float]]


@dataclass(frozen=True)
class Mutant:
    """One small change of one file."""

    path: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str:
        """Return the file with the change."""
        changed: str | None = mutate_code(source, cosmic_ray.plugins.get_operator(self.operator)(), self.occurrence)
        assert changed is not None
        return changed

    def compiles(self) -> bool:
        """Say whether the changed file is Python: what is not would be killed by any test."""
        with warnings.catch_warnings(action="ignore"):
            try:
                compile(self.code(Path(self.path).read_text("utf-8")), self.path, "exec")
            except SyntaxError:
                return False
        return True


@dataclass
class Result:
    """What became of a package's mutants."""

    killed: list[Mutant]
    survived: list[tuple[Mutant, str]]
    equivalent: list[tuple[Mutant, str]]

    @property
    def share(self) -> float:
        """The share that was killed of those that a test could have noticed."""
        return len(self.killed) / max(1, len(self.killed) + len(self.survived))


def never_run(tree: ast.AST) -> set[tuple[int, int]]:
    """Return every place within type annotations: they are never run."""
    notes = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    parts = [part for note in notes if isinstance(note, ast.expr) for part in ast.walk(note)]
    return {place for part in parts if isinstance(part, ast.expr) for place in _places(part)}


def _places(part: ast.expr) -> Iterator[tuple[int, int]]:
    end = part.end_col_offset or part.col_offset
    return ((part.lineno, column) for column in range(part.col_offset, end + 1))


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield every change of a file, but those of annotations and those that put `==` for `is`."""
    tree, notes = get_ast_from_path(path), never_run(ast.parse(path.read_text("utf-8")))
    for name in sorted(cosmic_ray.plugins.operator_names()):
        kind = cosmic_ray.plugins.get_operator(name)
        if kind.arguments() or name.endswith(SINGLETONS):
            continue
        operator = kind()
        places = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, place in enumerate(places):
            if place not in notes:
                yield Mutant(str(path), place[0], name, occurrence)


def sample(package: str, size: int, seed: int) -> tuple[list[Mutant], int]:
    """Return `size` mutants of a package, drawn with `seed`, and how many there are to draw from."""
    files = sorted(Path("src/surestep", package).rglob("*.py"))
    found = [mutant for file in files for mutant in mutants_of(file)]
    random.Random(seed).shuffle(found)
    drawn: list[Mutant] = []
    for mutant in found:
        if len(drawn) == size:
            break
        if mutant.compiles():
            drawn.append(mutant)
    return sorted(drawn, key=lambda mutant: (mutant.path, mutant.line, mutant.operator, mutant.occurrence)), len(found)


def _test(tests: str) -> int:
    """Run tests in silence and return pytest's exit status; the first failure ends them."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    options = ["-x", "-q", "-m", "not gpu and not soak", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options += [word for plugin in ("randomly", "xdist", "cov") for word in ("-p", f"no:{plugin}")]
    return int(pytest.main([*options, tests]))


def passes(tests: str, seconds: float) -> bool:
    """Say whether tests pass, in a child; one that takes too long or too much memory does not."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = _test(tests)
        finally:
            os._exit(status)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def limits(package: str) -> Limits:
    """Return the tests of a package with the time that they may take: several times what they take unchanged."""
    found = []
    for tests in TESTS[package]:
        begin = time.monotonic()
        assert passes(tests, seconds=600), f"{tests} fails without any change"
        found.append((tests, 10 + 3 * (time.monotonic() - begin)))
    return found


def surviving(mutant: Mutant, tests: Limits) -> str | None:
    """Return the changed lines if no test notices, else None."""
    path = Path(mutant.path)
    source = path.read_text("utf-8")
    changed = mutant.code(source)
    path.write_text(changed, "utf-8")
    try:
        alive = all(passes(selection, seconds) for selection, seconds in tests)
    finally:
        path.write_text(source, "utf-8")
    return difference(source, changed) if alive else None


def difference(source: str, changed: str) -> str:
    """Return the lines that differ, with - and +."""
    lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if line[:1] in "-+" and line[:3] not in ("---", "+++"))


def examine(drawn: list[Mutant], tests: Limits) -> Result:
    """Test mutants and print those that survive."""
    result = Result([], [], [])
    for mutant in drawn:
        change = surviving(mutant, tests)
        if change is None:
            result.killed.append(mutant)
            continue
        why = reason(mutant.path, change)
        (result.equivalent if why else result.survived).append((mutant, change))
        what = f"left out ({why})" if why else "survived"
        print(f"{what}: {mutant.path}:{mutant.line} {mutant.operator.removeprefix('core/')}\n{change}", flush=True)
    return result


def table(result: Result) -> str:
    """Return the counts by module as text, the sum last."""
    counts = [
        Counter(mutant.path for mutant in result.killed),
        Counter(mutant.path for mutant, _ in result.survived),
        Counter(mutant.path for mutant, _ in result.equivalent),
    ]
    rows = [(path, *(count[path] for count in counts)) for path in sorted(set().union(*counts))]
    rows.append(("together", *(count.total() for count in counts)))
    title = f"{'module':50}{'killed':>8}{'survived':>10}{'left out':>10}"
    return "\n".join([title, *(f"{path:50}{killed:8}{alive:10}{out:10}" for path, killed, alive, out in rows)])


def report(package: str, size: int, seed: int) -> float:
    """Test a sample of a package's mutants, print what became of them, and return the share killed."""
    drawn, total = sample(package, size, seed)
    print(f"{package}: {len(drawn)} of {total} mutants, drawn with seed {seed}", flush=True)
    result = examine(drawn, limits(package))
    print(f"\n{table(result)}\n{result.share:.1%} killed\n", flush=True)
    return result.share


def prepare(copy: Path) -> None:
    """Copy the repository, go there, and load what no mutant changes."""
    ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__", "runs", ".*_cache", ".hypothesis", ".coverage*")
    shutil.copytree(ROOT, copy, ignore=ignored)
    os.chdir(copy)
    # Compiled files that go by the content of their source: a changed file is compiled anew, the others are not.
    compileall.compile_dir("src", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    sys.dont_write_bytecode = True
    os.environ.update({"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"})
    sys.path[:0] = [str(copy / "src"), str(copy)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    for name in LOADED:
        importlib.import_module(name)


def main() -> int:
    """Print the report of each package; return 1 where too few mutants are killed."""
    parser = argparse.ArgumentParser(description="Mutation testing.")
    parser.add_argument("packages", nargs="*", default=list(TESTS))
    parser.add_argument("--size", type=int, default=150, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{time.strftime('%Y-%m-%d')}, commit {git.stdout.strip()}, cosmic-ray {version('cosmic-ray')}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        prepare(Path(scratch) / "repository")
        shares = [report(package, asked.size, asked.seed) for package in asked.packages]
        os.chdir(ROOT)
    return int(min(shares) < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
