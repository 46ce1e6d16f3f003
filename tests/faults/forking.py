"""A process that begins trainings in children of its own and kills them: `python -m tests.faults.forking`.

It has imported everything a training needs and computed nothing, so that a child costs a fork and not an interpreter.
Orders come as lines of JSON, and each is answered by one.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SAID = "said.txt"


@dataclass(frozen=True)
class Ended:
    """How a child ended: whether it was killed, else its exit code."""

    killed: bool
    code: int = 0


class Server:
    """The process, seen from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forking"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, row: str, folder: Path, kill_after: float | None = None) -> Ended:
        """Train in a child, to its end or until it is killed after so many seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"row": row, "folder": str(folder), "kill_after": kill_after}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> None:
    """Answer orders until there are no more."""
    _load_all()
    for line in sys.stdin:
        order = json.loads(line)
        ended = _run(order["row"], Path(order["folder"]), order["kill_after"])
        print(json.dumps(vars(ended)), flush=True)


def _load_all() -> None:
    """Import what a training imports on its way: a first child finds out, so that nothing is computed here."""
    from tests.faults.runs import ROWS, train

    with tempfile.TemporaryDirectory() as scratch:
        for row in ROWS:
            names = Path(scratch) / "names.json"
            before = set(sys.modules)
            child = _fork(lambda row=row, names=names, before=before: _note_modules(train, row, names, before))
            os.waitpid(child, 0)
            for name in json.loads(names.read_text()):
                importlib.import_module(name)


def _note_modules(train: Callable[..., Any], row: str, names: Path, before: set[str]) -> None:
    train(row, names.parent / row)
    later = [name for name in sys.modules if name not in before and not name.startswith("__")]
    names.write_text(json.dumps([name for name in later if sys.modules[name].__spec__ is not None]))


def _run(row: str, folder: Path, kill_after: float | None) -> Ended:
    from tests.faults.runs import train

    folder.mkdir(parents=True, exist_ok=True)
    child = _fork(lambda: train(row, folder), folder / SAID)
    if kill_after is None:
        return Ended(False, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    time.sleep(kill_after)
    # Not waited for yet, the child keeps its number also where it has ended.
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(True) if code == -signal.SIGKILL else Ended(False, code)


def _fork(work: Callable[[], Any], said: Path | None = None) -> int:
    """Do `work` in a child, and return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (said or Path(os.devnull)).open("a") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
