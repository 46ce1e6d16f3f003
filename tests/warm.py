"""A Python that has imported what a training needs, and forks for each program that it is asked to run.

An interpreter takes seconds until it has imported torch, and a program of the tests often less than one. `start` and
`run` do what `python -m module ...`, `python -c code ...` and `python script ...` would, in a process of its own with
an environment, a folder and streams of its own. Where a fresh interpreter is what a test is about, it starts one.

The server owns nothing but its imports: it computes nothing, and ends with the process that began it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
_LARGEST = 2**18
# Programs that come by everything a training, and a command, import on their way.
_TRAINING = """
import tempfile
from tests.small import Points, quick
with tempfile.TemporaryDirectory() as folder:
    trainer = quick(folder, save_strategy="epoch", eval_strategy="epoch", eval_dataset=Points())
    trainer.train()
    trainer.train(resume_from_checkpoint=True)
"""
_COMMAND = """
from surestep.cli.main import main
try:
    main(["run", "examples/digits.yaml", "--dry-run"])
except SystemExit as ended:
    assert not ended.code
"""


class Process:
    """A program that runs in a process of its own; what is here is as in `subprocess.Popen`."""

    def __init__(self, words: Sequence[str | Path], line: socket.socket, told: Sequence[IO[bytes]]) -> None:
        self.args = [sys.executable, *map(str, words)]
        self.pid = int(line.recv(64))
        self.returncode: int | None = None
        self._line, self._files, self._told = line, told, ("", "")

    def poll(self) -> int | None:
        """Return the exit code of a process that has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; a negative one is a signal."""
        if self.returncode is None:
            self._line.settimeout(None if timeout is None else max(timeout, 1e-6))
            try:
                self.returncode = int(self._line.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._line.close()
            out, errors = (os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in self._files)
            self._told = out.decode(), errors.decode()
            for file in self._files:
                file.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process, and wait until it has."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what was written to standard output and to standard error."""
        self.wait(timeout)
        return self._told


class Server:
    """The process that forks, seen from those who ask it; `programs` run once, so that what they import is there."""

    def __init__(self, *programs: str) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What is imported here is measured elsewhere; a program is measured from its own beginning.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno()), *programs],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env=environment
                | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"},
            )
        atexit.register(self.close)

    def start(
        self,
        words: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        said: str = "",
        session: bool = False,
        merged: bool = False,
    ) -> Process:
        """Begin what `python *words` would, with `said` on its standard input.

        It gets a session of its own if told so, and writes its errors to its standard output where they are `merged`.
        """
        order = {
            "words": [str(word) for word in words],
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "session": session,
        }
        # Closed when the process has ended.
        told = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as given:
            given.write(said.encode())
            given.seek(0)
            streams = [given, told[0], told[0] if merged else told[1]]
            socket.send_fds(self._line, [json.dumps(order).encode()], [one.fileno() for one in (theirs, *streams)])
        return Process(words, ours, told)

    def run(self, words: Sequence[str | Path], timeout: float = 240, **given: Any) -> subprocess.CompletedProcess[str]:
        """Run what `python *words` would to its end."""
        process = self.start(words, **given)
        try:
            return subprocess.CompletedProcess(process.args, process.wait(timeout), *process.communicate())
        finally:
            process.kill()

    def close(self) -> None:
        """End the server; what it has begun goes on."""
        self._line.close()
        self._process.wait()


@cache
def server() -> Server:
    """Return the server of this process."""
    return Server(_TRAINING, _COMMAND)


@cache
def libraries() -> Server:
    """Return a server that has imported neither transformers nor what is here, but what they and others import."""
    return Server("import accelerate, datasets, sklearn.metrics, torch._dynamo")


def _serve(line: socket.socket, programs: Sequence[str]) -> dict[str, Any]:
    """Fork for each order; return it in the process that is to carry it out."""
    for program in programs:
        _import_what_is_imported_by(program)
    # Collections in the programs look at what is theirs.
    gc.freeze()
    # Keepers are nobody's business, and an interrupt is that of the programs.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        text, descriptors, _, _ = socket.recv_fds(line, _LARGEST, 4)
        if not text:
            sys.exit()
        assert threading.active_count() == 1, "a thread would not be there after the fork"
        if os.fork() == 0:
            line.close()
            _keep(descriptors)
            return {**json.loads(text), "streams": descriptors[1:]}
        for descriptor in descriptors:
            os.close(descriptor)


def _import_what_is_imported_by(program: str) -> None:
    """Let a child find it out, so that nothing is computed here."""
    with tempfile.NamedTemporaryFile("r+") as names:
        before = set(sys.modules)
        child = os.fork()
        if child == 0:
            status = 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                exec(program, {"__name__": "__main__"})
                found = [
                    name
                    for name, module in sys.modules.items()
                    if name not in before and getattr(module, "__spec__", None) is not None
                ]
                Path(names.name).write_text("\n".join(found))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0, "the program failed"
        for name in names.read().split():
            importlib.import_module(name)


def _keep(descriptors: Sequence[int]) -> None:
    """Fork the worker, in which this returns, and tell its number and its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker = os.fork()
    if worker == 0:
        os.close(descriptors[0])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    line = socket.socket(fileno=descriptors[0])
    try:
        line.send(str(worker).encode())
        line.send(str(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])).encode())
    finally:
        os._exit(0)


def _become(order: dict[str, Any]) -> None:
    """Take over the environment, the folder and the streams of an order."""
    if order["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    for number, descriptor in enumerate(order["streams"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    own = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = [*own, *(one for one in sys.path if one != str(ROOT))]
    tempfile.tempdir = None
    random.seed()
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        importlib.import_module("coverage").process_startup(force=True)


def _carry_out(words: list[str]) -> None:
    """Do what the interpreter does with its words."""
    while words[0] == "-W":
        warnings.simplefilter(words[1])  # type: ignore[arg-type]
        words = words[2:]
    kind, *rest = words
    if kind == "-m":
        sys.argv = rest
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    order = _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    _become(order)
    _carry_out(order["words"])
