"""A process that has everything imported and forks, for each request on its input, the processes of a run.

Starting Python and torch takes longer than these runs do. A request is a line of JSON; the answer is the exit codes.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Stage:
    """The other end: starts the process and asks it for runs."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__], stdin=-1, stdout=-1, text=True, env=environment, cwd=ROOT
        )

    def run(self, folder: Path, ranks: int = 1, **case: Any) -> list[int]:
        """Train in a folder on so many ranks and return their exit codes; negative ones are signals."""
        folder.mkdir(parents=True, exist_ok=True)
        for left in [*folder.glob("stopped-*"), folder / "saved.txt", folder / "began", folder / "end.json"]:
            left.unlink(missing_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "ranks": ranks, **case}) + "\n")
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def close(self) -> None:
        """End the process; closing its input would not, where workers forked since then hold it open as well."""
        self._process.kill()
        self._process.communicate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _serve() -> None:
    from tests.faults.program import run

    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # Whatever is imported late is imported now, once for all.
        run(Path(folder), {})
    for line in sys.stdin:
        case = json.loads(line)
        answers.write(json.dumps(_run(Path(case["folder"]), case)) + "\n")
        answers.flush()


def _run(folder: Path, case: dict[str, Any]) -> list[int]:
    port, ranks = _free_port(), case["ranks"]
    processes = []
    for rank in range(ranks):
        process = os.fork()
        if process == 0:
            _child(folder, case, rank, port)
        processes.append(process)
    if "after" in case:
        _signal(folder, case, processes)
    return [_code(process, time.monotonic() + case.get("seconds", 60)) for process in processes]


def _signal(folder: Path, case: dict[str, Any], processes: list[int]) -> None:
    """Send signals from outside, some time after the runs began."""
    until = time.monotonic() + 30
    while not (folder / "began").exists() and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(case["after"])
    for rank in case.get("ranks_signalled", [0]):
        # A run that has ended by then is not reaped yet.
        os.kill(processes[rank], getattr(signal, case.get("signals", ["SIGTERM"])[0]))


def _code(process: int, until: float) -> int:
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 999


def _child(folder: Path, case: dict[str, Any], rank: int, port: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(folder / f"said-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if case["ranks"] > 1:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": case["ranks"], "RANK": rank}
            place = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": case["ranks"]}
            os.environ |= {name: str(value) for name, value in (where | place).items()}
        from tests.faults.program import run

        run(folder, case.get("case", {}))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
