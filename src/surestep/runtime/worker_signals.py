"""What signals do in the workers of a loader while the main process serves them: nothing.

A launcher or scheduler often signals every process of a job. A worker that died of it would take the batches with it
that the main process still needs for the step that it finishes. So a worker asks a byte that it shares with the main
process: while that serves a signal, the worker passes over it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from surestep.runtime.signals import SIGNALS

_NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait while the body starts workers; each lets go of its own once it is `Spared`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Shared:
    """Which signals the main process serves: a byte for each number, in memory that its workers see."""

    served: Tensor | None = None


_SHARED = _Shared()


def _tell_workers(numbers: Collection[int]) -> None:
    """Let the workers of this process know which signals it serves from now on."""
    assert _SHARED.served is not None
    for number in range(len(_SHARED.served)):
        _SHARED.served[number] = int(number in numbers)


class Spared:
    """A function for the start of a worker, which is spared from then on what the main process serves.

    Made in the main process; `then` is called in the worker with its number, where there is such a function.
    """

    def __init__(self, then: Callable[[int], Any] | None = None) -> None:
        if _SHARED.served is None:
            shared: Any = torch.zeros(signal.NSIG, dtype=torch.uint8)
            _SHARED.served = shared.share_memory_()
            SIGNALS.tell = _tell_workers
            _tell_workers(SIGNALS.served)
            atexit.register(_end_workers, os.getpid())
        self._served = _SHARED.served
        self._then = then

    def __call__(self, worker: int) -> None:
        """Begin a worker."""
        for number in _NUMBERS:
            self._spare(number)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)
        if self._then is not None:
            self._then(worker)

    def _spare(self, number: signal.Signals) -> None:
        main, served = os.getppid(), self._served

        def pass_over(number: int, frame: FrameType | None) -> None:
            del frame
            if served[number] and os.getppid() == main:
                return
            if number == signal.SIGTERM:
                # As torch's own handler: the main process is not to take it for a failure.
                os._exit(0)
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

        signal.signal(number, pass_over)


def _end_workers(process: int) -> None:
    """End, with the process, workers that still run: one that hangs would not get to look at a signal."""
    running = [child for child in multiprocessing.active_children() if child.daemon] if os.getpid() == process else []
    if running and hasattr(signal, "SIGCHLD"):
        # Torch would raise for each of them.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in running:
        if getattr(getattr(child, "_target", None), "__name__", "") == "_worker_loop":
            child.kill()
