"""A program that is forked from a Python with imports is what `python` would make of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.warm import libraries, server

SEEN = (
    "import os, sys; print(sys.argv, __name__, sys.path[0], os.getcwd(), os.environ.get('MINE'), sys.stdin.read(), "
    "sys.modules['__main__'].__dict__ is globals()); print('told', file=sys.stderr)"
)
ENDINGS = {
    "nothing": ("", 0),
    "a code": ("raise SystemExit(7)", 7),
    "a message": ("raise SystemExit('gone')", 1),
    "an error": ("1 / 0", 1),
    "a signal": ("import os; os.kill(os.getpid(), 9)", -9),
    "at once": ("import os; os._exit(9)", 9),
}


@pytest.mark.parametrize("kind", ["code", "script", "module"])
def test_it_sees_what_a_program_of_python_sees(kind: str, tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(SEEN)
    words = {"code": ["-c", SEEN], "script": [str(tmp_path / "seen.py")], "module": ["-m", "seen"]}[kind]
    environment = {**os.environ, "MINE": "yes"}
    theirs = subprocess.run(
        [sys.executable, *words, "--one", "x y"],
        input="said",
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = server().run([*words, "--one", "x y"], said="said", env=environment, cwd=tmp_path)

    assert (ours.returncode, ours.stdout, ours.stderr) == (0, theirs.stdout, theirs.stderr)


@pytest.mark.parametrize(("code", "expected"), ENDINGS.values(), ids=ENDINGS.keys())
def test_it_ends_as_a_program_of_python_ends(code: str, expected: int) -> None:
    ended = server().run(["-c", f"import atexit; atexit.register(print, 'bye')\n{code}"])

    assert ended.returncode == expected
    assert ended.stdout == ("bye\n" if expected in (0, 1, 7) else "")
    assert ("gone" in ended.stderr) == ("gone" in code)


def test_it_can_be_signalled_and_waited_for(tmp_path: Path) -> None:
    code = "import pathlib, time; pathlib.Path('there').touch(); time.sleep(60)"
    process = server().start(["-c", code], cwd=tmp_path, session=True)
    while not (tmp_path / "there").exists():
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert os.getsid(process.pid) == process.pid
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(30)

    assert process.returncode not in (0, None)
    assert (out, "KeyboardInterrupt" in errors) == ("", True)
    process.kill()


def test_what_a_training_needs_is_there_already() -> None:
    ended = server().run(
        ["-c", "import sys; print('torch._dynamo' in sys.modules, 'surestep.training.run' in sys.modules)"]
    )

    assert ended.stdout == "True True\n"


def test_libraries_are_there_without_what_they_are_compared_on() -> None:
    code = "import sys; print(*sorted({'torch', 'datasets', 'transformers', 'surestep'} & set(sys.modules)))"

    assert libraries().run(["-c", code]).stdout == "datasets torch\n"
