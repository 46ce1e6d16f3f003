"""What a job watches while it trains: where it begins, and whether it is interrupted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from surestep import TrainerCallback, TrainerControl, TrainerState

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class NoteBeginning(TrainerCallback):
    """Notes the step at which training begins, and says when that is not the first."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.step = 0
        self._say = say

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the step that was reached before."""
        del args, control, kwargs
        self.step = state.global_step
        if self.step:
            self._say(f"Going on from step {self.step:,} of {state.max_steps:,}.")


class StopWhenInterrupted(TrainerCallback):
    """Saves and stops after the step during which a signal came; a second signal stops at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signal_number: int | None = None
        self._say = say
        self._process = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the body runs, and give them back to whoever had them before."""
        # Python lets only the main thread take signals.
        taken = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self._notice) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask to save and to stop. The last step of an epoch leaves both to the end of the epoch."""
        del kwargs
        if self.signal_number is None:
            return
        control.should_training_stop = True
        control.should_save = control.should_save or not _epoch_is_whole(state) or args.save_strategy != "epoch"

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep an epoch that was cut short from being judged as if it were whole."""
        del args, kwargs
        if self.signal_number is not None and not _epoch_is_whole(state):
            control.should_evaluate = False
            control.should_save = False

    def _notice(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._process:
            # A forked worker of the data loader: Ctrl-C reaches it as well, and the main process decides for both.
            return
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = number
        self._say("Interrupted: finishing this step, then saving. Interrupt again to stop at once.")


def _epoch_is_whole(state: TrainerState) -> bool:
    return state.epoch is not None and float(state.epoch).is_integer()
