"""Work beside the main thread: one job at a time, each in a thread that lives as long as the job.

A `Background` owns the thread, and what became of a job until somebody takes it. What a job works on belongs to the job
from `start` until its result is taken: whoever starts it changes nothing of that meanwhile. The thread is no daemon: a
process that comes to its end waits for it, and without a job there is none to be left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from surestep.logs import get_logger

_logger = get_logger(__name__)
T = TypeVar("T")


@dataclass
class _Job(Generic[T]):
    """A job that was started: what it is called, and its outcome once it is `done`."""

    label: str
    work: Callable[[], T]
    result: T | None = None
    failure: BaseException | None = None
    done: bool = False
    thread: threading.Thread = field(init=False)

    def run(self) -> None:
        try:
            self.result = self.work()
        # Whoever takes the result is told of anything.
        except BaseException as error:
            self.failure = error
        finally:
            self.done = True


class Background(Generic[T]):
    """Runs jobs beside the thread that starts them, at most one at a time. All of it is for that one thread to call.

    `name` is the name of the threads, for whoever looks at the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._job: _Job[T] | None = None

    @property
    def in_flight(self) -> str | None:
        """What the job is called whose result nobody has taken yet; None where there is none."""
        return None if self._job is None else self._job.label

    @property
    def finished(self) -> bool:
        """Whether a job is done and its result can be taken at once."""
        return self._job is not None and self._job.done

    def start(self, work: Callable[[], T], label: str) -> None:
        """Begin a job, called `label`, once the one before is done.

        Raises:
            BaseException: what the one before raised, where nobody has taken it; nothing is begun then.
        """
        if self._job is not None:
            self.take()
        job = _Job(label, work)
        job.thread = threading.Thread(target=job.run, name=self._name, daemon=False)
        job.thread.start()
        self._job = job

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the job is done, at most so many seconds, and say whether it is; nothing to wait for is done."""
        if self._job is None:
            return True
        self._job.thread.join(seconds)
        # A forked child has the job and not its thread: there it is over, and not done.
        return not self._job.thread.is_alive()

    def take(self) -> T:
        """Wait for the job, return its result or raise what it raised, and forget it.

        Raises:
            LookupError: no job was started, or it was started in another process.
        """
        self.wait()
        job, self._job = self._job, None
        if job is None or not job.done:
            what = "No job was started." if job is None else f"'{job.label}' was started in another process."
            raise LookupError(what)
        if job.failure is not None:
            raise job.failure
        return cast("T", job.result)

    def close(self) -> None:
        """Wait for the job and forget it; a failure that nobody has taken is told in the log. Others may follow."""
        if self._job is None:
            return
        label = self._job.label
        try:
            self.take()
        except Exception as error:
            _logger.error("%s failed: %s: %s", label, type(error).__name__, error)
