"""One job at a time beside the main thread: waited for, told of, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from surestep.runtime.background import Background


class Gate:
    """A job that waits until it is let through."""

    def __init__(self, result: str = "through") -> None:
        self.result = result
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(60)
        return self.result


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "surestep-test"]


def test_a_result_is_taken_once() -> None:
    background = Background[str]("surestep-test")
    gate = Gate()
    background.start(gate, "opening")
    assert gate.begun.wait(60)
    assert not background.finished
    assert background.in_flight == "opening"
    assert threads() == ["surestep-test"]
    gate.open.set()
    assert background.wait()
    assert background.finished
    assert background.in_flight == "opening"
    assert background.take() == "through"
    assert background.in_flight is None
    assert not background.finished
    assert threads() == []
    with pytest.raises(LookupError, match="No job"):
        background.take()


def test_waiting_has_an_end() -> None:
    background, gate = Background[str]("surestep-test"), Gate()
    assert background.wait(0.001)
    background.start(gate, "opening")
    assert not background.wait(0.001)
    gate.open.set()
    assert background.wait()


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, SystemExit])
def test_whoever_takes_is_told_of_anything(kind: type[BaseException]) -> None:
    def fails() -> None:
        raise kind("no room")

    background = Background[None]("surestep-test")
    background.start(fails, "writing")
    background.wait()
    with pytest.raises(kind, match="no room") as caught:
        background.take()
    # Where it was raised is still told.
    assert caught.traceback[-1].name == "fails"
    assert background.in_flight is None


def test_jobs_never_overlap() -> None:
    running, most, order = 0, 0, []
    lock = threading.Lock()

    def job(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        order.append(number)
        with lock:
            running -= 1
        return number

    background = Background[int]("surestep-test")
    for number in range(20):
        background.start(lambda number=number: job(number), f"job {number}")
    assert background.take() == 19
    assert order == list(range(20))
    assert most == 1


def test_a_job_waits_for_the_one_before() -> None:
    background, first, second = Background[str]("surestep-test"), Gate(), Gate("second")
    second.open.set()
    background.start(first, "first")
    threading.Timer(0.05, first.open.set).start()
    background.start(second, "second")
    assert first.open.is_set()
    assert background.in_flight == "second"
    assert background.take() == "second"


def test_a_failure_that_nobody_took_is_raised_before_another_job_begins() -> None:
    background, gate = Background[object]("surestep-test"), Gate()
    background.start(lambda: 1 / 0, "dividing")
    with pytest.raises(ZeroDivisionError):
        background.start(gate, "opening")
    assert not gate.begun.is_set()
    gate.open.set()
    background.start(gate, "opening")
    assert background.take() == "through"


def test_closing_tells_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    background = Background[object]("surestep-test")
    background.close()
    background.start(lambda: 1 / 0, "dividing")
    background.close()
    assert "dividing failed: ZeroDivisionError: division by zero" in caplog.text
    assert threads() == []
    background.start(lambda: 2, "adding")
    assert background.take() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_thread_that_it_lacks() -> None:
    background, gate = Background[str]("surestep-test"), Gate()
    background.start(gate, "opening")
    assert gate.begun.wait(60)
    child = os.fork()
    if child == 0:
        try:
            background.take()
        except LookupError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    gate.open.set()
    assert background.take() == "through"


ENDS = """
import sys, time
from pathlib import Path
from surestep.runtime.background import Background

def job():
    begun.touch()
    time.sleep(0.3)
    Path(sys.argv[1]).write_text("whole")

begun = Path(sys.argv[1] + ".begun")
Background("surestep-test").start(job, "writing")
while not begun.exists():
    time.sleep(0.001)
{end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise ValueError('an error')", 1), ("sys.exit(3)", 3)])
def test_the_end_of_the_process_waits_for_the_job(tmp_path: Path, end: str, code: int) -> None:
    target = tmp_path / "written"
    ended = subprocess.run([sys.executable, "-c", ENDS.format(end=end), str(target)], capture_output=True, check=False)
    assert ended.returncode == code
    assert target.read_text() == "whole"


WAITS = """
import os, signal, threading, time
from surestep.runtime.background import Background

gate = threading.Event()
background = Background("surestep-test")
background.start(gate.wait, "waiting")
threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    background.wait()
except KeyboardInterrupt:
    print("interrupted", background.in_flight)
gate.set()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="no such signal")
def test_waiting_can_be_interrupted() -> None:
    ended = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["interrupted", "waiting"]
    assert ended.returncode == 0
