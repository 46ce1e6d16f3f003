"""A process that has everything imported and forks, for each request on its input, the processes of a run.

Starting Python and torch takes longer than these runs do. It computes nothing itself: what a training imports on its
way a first child finds out. A request is a line of JSON; the answer is the exit codes, negative ones being signals.

It owns the processes that it forks, each with a process group of its own. When it is told to end, or whoever started it
is gone, it kills them first.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
SAID = "said-{}.txt"
# What stands for the code of a process that did not end in time.
LATE = 999


class Stage:
    """The other end: starts the process and asks it for runs. One that is `cold` leaves every import to them."""

    def __init__(self, *, cold: bool = False) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-W", "ignore", "-m", __name__, *["cold"] * cold]
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment, cwd=ROOT)
        self.number = self._process.pid

    def run(self, folder: Path, ranks: int = 1, **case: Any) -> list[int]:
        """Train `program` in a folder on so many ranks and return their exit codes."""
        folder.mkdir(parents=True, exist_ok=True)
        for left in [*folder.glob("stopped-*"), folder / "saved.txt", folder / "began", folder / "end.json"]:
            left.unlink(missing_ok=True)
        self.ask(folder, ranks=ranks, **case)
        return self.answer()

    def train(self, row: str, folder: Path, kill_after: float | None = None) -> int:
        """Train a row of `runs` to its end, or until it is killed after so many seconds; return the exit code."""
        folder.mkdir(parents=True, exist_ok=True)
        self.ask(folder, program="runs", case={"row": row}, kill_after=kill_after)
        return self.answer()[0]

    def ask(self, folder: Path, **case: Any) -> None:
        """Send a request: which `program` of these tests is to run, for what `case`, and what is done to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), **case}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> list[int]:
        """Wait for the answer to a request."""
        assert self._process.stdout is not None
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def close(self) -> None:
        """End the process and what it has forked.

        Closing its input would not: workers that were forked here since then hold it open as well.
        """
        self._process.terminate()
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Forked:
    """The processes of the run at hand, seen from the one that forks them."""

    def __init__(self) -> None:
        self._starter = os.getppid()
        self._there: list[int] = []

    def fork(self, folder: Path, case: dict[str, Any], rank: int, port: int) -> int:
        """Begin a process of a run and return its number."""
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _child(folder, case, rank, port)
        # The child does the same: whoever comes first.
        os.setpgid(process, process)
        self._there.append(process)
        return process

    def code(self, process: int, until: float) -> int:
        """Wait for the end of a process, kill what is left of its group, and return the exit code."""
        late = False
        while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > until:
                os.kill(process, signal.SIGKILL)
                late, until = True, float("inf")
            self.look_for_starter()
            time.sleep(0.003)
        code = self._reap(process)
        return LATE if late else code

    def look_for_starter(self) -> None:
        """End where nobody is left to ask."""
        if os.getppid() != self._starter:
            self.end()

    def end(self, *_: Any) -> NoReturn:
        """Kill what is there, and end."""
        # A second signal would come in between.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for process in list(self._there):
            self._reap(process)
        os._exit(0)

    def _reap(self, process: int) -> int:
        # Not waited for yet, the process keeps its number, and so does its group.
        with suppress(PermissionError):
            os.killpg(process, signal.SIGKILL)
        self._there.remove(process)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _serve() -> None:
    forked = Forked()
    signal.signal(signal.SIGTERM, forked.end)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if "cold" not in sys.argv:
        _import_all(forked)
    for line in _requests(forked):
        case = json.loads(line)
        answers.write(json.dumps(_run(forked, Path(case["folder"]), case)) + "\n")
        answers.flush()
    forked.end()


def _requests(forked: Forked) -> Iterator[bytes]:
    """Yield what comes on the input, to its end or until nobody is left to write there."""
    content = b""
    while True:
        if not select.select([0], [], [], 0.5)[0]:
            forked.look_for_starter()
            continue
        more = os.read(0, 1 << 16)
        if not more:
            return
        *lines, content = (content + more).split(b"\n")
        yield from lines


def _import_all(forked: Forked) -> None:
    """Import what runs import late, at their beginning and when they go on."""
    from tests.faults import runs

    with tempfile.TemporaryDirectory() as scratch:
        for name, case in {**{row: {"program": "runs"} for row in runs.ROWS}, "ranks": {"ranks": 2}}.items():
            folder = Path(scratch) / name
            folder.mkdir()
            for steps in (3, 4):
                request = {**case, "case": {"row": name, "steps": steps}, "modules": sorted(sys.modules)}
                if any(_run(forked, folder, request)):
                    sys.stderr.write((folder / SAID.format(0)).read_text())
            for module in json.loads((folder / "modules.json").read_text()):
                importlib.import_module(module)


def _run(forked: Forked, folder: Path, case: dict[str, Any]) -> list[int]:
    port = _free_port()
    case.setdefault("ranks", 1)
    processes = [forked.fork(folder, case, rank, port) for rank in range(case["ranks"])]
    if case.get("kill_after") is not None:
        time.sleep(case["kill_after"])
        os.kill(processes[0], signal.SIGKILL)
    if "after" in case:
        _signal(folder, case, processes)
    return [forked.code(process, time.monotonic() + case.get("seconds", 60)) for process in processes]


def _signal(folder: Path, case: dict[str, Any], processes: list[int]) -> None:
    """Send signals from outside, some time after the runs began."""
    until = time.monotonic() + 30
    while not (folder / "began").exists() and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(case["after"])
    for rank in case.get("ranks_signalled", [0]):
        # A run that has ended by then is not reaped yet.
        os.kill(processes[rank], getattr(signal, case.get("signals", ["SIGTERM"])[0]))


def _child(folder: Path, case: dict[str, Any], rank: int, port: int) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(folder / SAID.format(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if case["ranks"] > 1:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": case["ranks"], "RANK": rank}
            place = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": case["ranks"]}
            os.environ |= {name: str(value) for name, value in (where | place).items()}
        program = importlib.import_module(f"tests.faults.{case.get('program', 'program')}")
        program.run(folder, case.get("case", {}))
        code = 0
        if "modules" in case and rank == 0:
            later = [name for name in sys.modules if name not in case["modules"] and not name.startswith("__")]
            known = [name for name in later if sys.modules[name].__spec__ is not None]
            (folder / "modules.json").write_text(json.dumps(known))
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
