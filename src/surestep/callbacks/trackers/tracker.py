"""Base of the trackers: one run, its entries in order, each exactly once, also over restarts.

`Tracker` owns what all have in common; a tracker fills in how its client opens a run, takes an entry and ends. What was
sent is written down (record.py), what is on its way is kept (outbox.py).
"""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from surestep.callbacks.trackers.describe import checkpoint_folder, run_folder
from surestep.callbacks.trackers.entries import Entry, history
from surestep.callbacks.trackers.outbox import Outbox
from surestep.callbacks.trackers.record import Known, Record, Sent, read_record
from surestep.callbacks.trackers.reporter import Reporter
from surestep.errors import TrackerError
from surestep.logs import get_logger, warn_once
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)
# How long the end of a training waits for a thread to send what is left.
_LAST_WAIT = 60.0


class Tracker(Reporter):
    """Base of trackers that keep a run with curves.

    The main process alone reports. The run is opened before the first step, and what keeps it from being opened stops
    the training there. Each trial of a search has a run of its own.

    A resumed training goes on in the run that its checkpoint names, unless `run_name` is another one by now. Entries
    which that run has are not sent again, and those of the log up to the restored step that it lacks are sent first.
    Where the run cannot be opened then, training goes on and the tracker is tried again.
    """

    # Whether the run is left open after a training, for what the script adds to it; the client ends it at exit.
    stays_open: ClassVar[bool] = False
    # Whether a thread sends, because the client waits for its server.
    in_background: ClassVar[bool] = False
    # Whether the figures of `predict` are sent; the original sends them to some.
    takes_predictions: ClassVar[bool] = False
    # What to do where no run can be opened.
    hint: ClassVar[str] = ""

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.run_id: str | None = None
        self._initialized = False
        self._is_training = self._has_trained = False
        self._folder: Path | None = None
        self._resumed: Record | None = None
        self._record: Record | None = None
        self._known: Known | None = None
        self._outbox = Outbox(self._deliver, self._fails, background=self.in_background and not strict)
        self._reopen: partial[None] | None = None

    # What a tracker fills in

    @abstractmethod
    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open a run, or go on in `self.run_id` if that is set; set `self.run_id`; tell arguments and model."""

    @abstractmethod
    def send(self, entry: Entry) -> None:
        """Send an entry, or raise."""

    def end_run(self, *, failed: bool) -> None:
        """End the run; it may be opened again."""

    def known(self, record: Record) -> Known:
        """Return what knows the entries that the continued run has."""
        return Sent(record)

    def send_checkpoint(self, folder: Path, args: Any, state: TrainerState) -> None:
        """Send the files of a checkpoint, if that is asked for."""

    def send_model(self, args: Any, state: TrainerState, model: Any, processing_class: Any) -> None:
        """Send the model at the end, if that is asked for."""

    # Events

    def setup(self, args: Any, state: TrainerState, model: Any, **kwargs: Any) -> None:
        """Open the run, or go on in the one that is resumed. Override to add to it."""
        if not state.is_world_process_zero or self._initialized:
            return
        self._folder = run_folder(args, state)
        earlier = self._earlier(args)
        self.run_id = self.run_id if earlier is None else earlier.run
        with _own_random():
            self.open_run(args, state, model)
        if earlier is not None and earlier.run == self.run_id:
            self._record, self._known = earlier, self.known(earlier)
        elif self._record is None or self._record.run != self.run_id:
            self._record, self._known = Record(str(self.run_id), args.run_name), None
        self._initialized, self._resumed = True, None

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Open the run; first send what of the log of a resumed training it lacks."""
        if not state.is_world_process_zero:
            return
        if self._initialized and (state.is_hyper_param_search or (self._has_trained and not self.stays_open)):
            self._end(failed=False)
        if self._resumed is not None:
            self._initialized = False
        elif not self._initialized:
            self.run_id = None
        self._known = None
        self._is_training = self._has_trained = True
        self._set_reopen(args, state, model)
        self._open(must=self._resumed is None or self.strict)
        if state.global_step:
            for entry in history(state.log_history):
                self._outbox.put(entry)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Send an entry; also of an evaluation before or after a training."""
        if state.is_world_process_zero:
            self._take(Entry(state.global_step, dict(logs or {}), state.epoch), args, state, model)

    def on_predict(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Send the figures of a prediction."""
        if state.is_world_process_zero and self.takes_predictions:
            self._take(Entry(state.global_step, dict(metrics or {}), state.epoch), args, state, model)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Send the files of a checkpoint, if that is asked for."""
        if self._initialized and state.is_world_process_zero:
            folder = checkpoint_folder(args, state)
            self._guarded(f"the files of {folder.name}", partial(self.send_checkpoint, folder, args, state))

    def on_train_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Send what is left, say what could not be sent, and end the run."""
        if not self._is_training:
            return
        if self._initialized:
            self._guarded("the model", partial(self.send_model, args, state, model, processing_class))
        self._settle(failed=False)

    def close(self) -> None:
        """End a run that is open because its training, or what followed it, broke off; else do nothing."""
        if self._is_training or (self._initialized and not self.stays_open):
            self._settle(failed=self._is_training)

    def leave_run(self) -> None:
        """Let go of a run that somebody else ends, such as the agent of a sweep."""
        self._initialized = False

    def save_to(self, folder: Path) -> None:
        """Write into a checkpoint which run this is, and how far it was sent."""
        if self._record is not None:
            self._record.write(folder, self.name)

    def load_from(self, folder: Path) -> None:
        """Note the run that a checkpoint names."""
        self._resumed = read_record(folder, self.name)

    # How it is done

    def _earlier(self, args: Any) -> Record | None:
        """Return how far the run to go on in has come; None for a run of its own."""
        record = self._resumed
        if record is None:
            return None
        if record.run_name != args.run_name:
            _logger.warning(
                "%s: run_name is %r and was %r in the checkpoint: this begins a run of its own.",
                self.name,
                args.run_name,
                record.run_name,
            )
            return None
        latest = None if self._folder is None else read_record(self._folder, self.name)
        return latest if latest is not None and latest.run == record.run else record

    def _set_reopen(self, args: Any, state: TrainerState, model: Any) -> None:
        self._reopen = partial(self.setup, args, state, model)

    def _open(self, *, must: bool) -> None:
        """Open the run; a failure is an error where it `must` be open, else the next entry tries again."""
        assert self._reopen is not None
        try:
            self._reopen()
        except Exception as error:
            if not must:
                self._fails(error)
                return
            told = f"{self.name}: no run can be opened. {type(error).__name__}: {error}"
            raise TrackerError(f"{told.rstrip('.')}. {self.hint}".strip()) from error

    def _take(self, entry: Entry, args: Any, state: TrainerState, model: Any) -> None:
        if not self._is_training and not self._initialized:
            self._set_reopen(args, state, model)
            self._open(must=self._record is None)
        self._outbox.put(entry)

    def _deliver(self, entry: Entry) -> None:
        """Send an entry that the run does not have, and write down that it has it now."""
        if not self._initialized:
            assert self._reopen is not None
            self._reopen()
        lacking = self._lacking(entry)
        if lacking is None:
            return
        self.send(lacking)
        if self._record is not None and self._folder is not None:
            self._record = self._record.after(entry)
            self._write(self._record, self._folder)

    def _lacking(self, entry: Entry) -> Entry | None:
        """Return what of an entry the run does not have."""
        if self._known is not None:
            return self._known.lacking(entry)
        return None if entry.replayed else entry

    def _write(self, record: Record, folder: Path) -> None:
        try:
            record.write(folder, self.name)
        except OSError as error:
            # A full disk is no reason to send the entry a second time.
            warn_once(_logger, f"'{folder}' cannot be written ({error}): {self.name} may repeat steps after a restart.")

    def _settle(self, *, failed: bool) -> None:
        self._is_training = False
        self._outbox.flush(_LAST_WAIT)
        unsent = self._outbox.unsent
        if unsent:
            steps = sorted({entry.step for entry in unsent})
            self._not_sent.append(f"{len(unsent)} entries of the log, of steps {steps[0]} to {steps[-1]}")
        self._outbox.clear()
        if self._initialized and not self.stays_open:
            self._end(failed=failed)
        self._tell_what_was_not_sent()

    def _end(self, *, failed: bool) -> None:
        self._initialized = False
        self._guarded("the end of the run", partial(self.end_run, failed=failed))


@contextmanager
def _own_random() -> Iterator[None]:
    """Let a client make names of its own: seeded as the training is, those of two runs would be the same."""
    if threading.current_thread() is not threading.main_thread():
        # The generator belongs to the training; only its own thread may put it back.
        yield
        return
    before = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(before)
