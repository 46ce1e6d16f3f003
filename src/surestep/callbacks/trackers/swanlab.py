"""SwanLab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.describe import num_parameters, run_config
from surestep.callbacks.trackers.entries import Entry
from surestep.callbacks.trackers.record import Known, Record, Sent
from surestep.callbacks.trackers.recordlog import record_log
from surestep.callbacks.trackers.tracker import Tracker
from surestep.logs import get_logger
from surestep.optional import require
from surestep.training.state import TrainerState

_logger = get_logger(__name__)
_STEP = "train/global_step"


class SwanLabCallback(Tracker):
    """Reports to SwanLab: the log over steps, the arguments, the model's configuration.

    A run that the script has opened is used; else one is opened in project `SWANLAB_PROJECT`, named `args.run_name`,
    and left open for what the script adds. `SWANLAB_MODE` is "cloud" (an account is needed), "local", "offline" or
    "disabled"; `SWANLAB_RUN_ID` and `SWANLAB_RESUME` name a run to go on in. The client reads the other `SWANLAB_*`.
    """

    name = "swanlab"
    package = "swanlab"
    stays_open = True
    takes_predictions = True
    hint = "Log in with `swanlab login` or SWANLAB_API_KEY, or write to disk only with SWANLAB_MODE=offline."

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self._swanlab = self._library
        self._was_open = False
        self._given: set[tuple[int, str]] = set()
        if os.environ.get("SWANLAB_LOG_MODEL") is not None:
            _logger.warning("SWANLAB_LOG_MODEL is set, but SwanLab does not take models yet: none is sent.")

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open a run or use the open one; write down the arguments and the model."""
        swanlab = self._swanlab
        self._was_open = swanlab.has_run()
        if not self._was_open:
            swanlab.init(**self._settings(args, state))
        run = swanlab.get_run()
        self.run_id, self._given = run.id, set()
        run.config.update(run_config(args, model))
        count = num_parameters(model)
        if count is not None:
            run.config.update({"model_num_parameters": count})
        trainable = getattr(model, "get_nb_trainable_parameters", None)
        if callable(trainable):
            trained, total = trainable()
            run.config.update({"peft_model_trainable_params": trained, "peft_model_all_param": total})

    def _settings(self, args: Any, state: TrainerState) -> dict[str, Any]:
        trial = state.trial_name if state.is_hyper_param_search else None
        name = "-".join(part for part in (args.run_name, trial) if part)
        asked = {"project": os.environ.get("SWANLAB_PROJECT"), "name": name or None}
        run_id = os.environ.get("SWANLAB_RUN_ID") or self.run_id
        resume = os.environ.get("SWANLAB_RESUME") or ("allow" if run_id else None)
        return {name: value for name, value in {**asked, "id": run_id, "resume": resume}.items() if value is not None}

    def known(self, record: Record) -> Known:
        """Return what the run has: read from its files on this machine, in the cloud what was sent."""
        run = self._swanlab.get_run()
        if self._was_open or run.mode == "online":
            return Sent(record)
        part = Path(run.dir)
        files = [file for file in part.parent.glob(f"run-*-{run.id}/run-{run.id}.swanlab") if file.parent != part]
        self._given = {point for file in files for point in _points(file)}
        return _Given(self)

    def lacks(self, entry: Entry) -> dict[str, Any]:
        """Return the values of an entry that the run does not have; what a killed client wrote in part is completed.

        There is one value for each name and step: the epoch comes with the loss and again with an evaluation. Figures
        of the whole training are under `single_value/`.
        """
        single = {f"single_value/{name}": value for name, value in entry.summary().items()}
        values = {**entry.series(), **single, _STEP: entry.step}
        return {name: value for name, value in values.items() if (entry.step, name) not in self._given}

    def send(self, entry: Entry) -> None:
        """Log what the run does not have of an entry."""
        new = self.lacks(entry)
        if new:
            self._swanlab.get_run().log(new, step=entry.step)
        self._given = {point for point in self._given if point[0] >= entry.step} | {(entry.step, name) for name in new}

    def end_run(self, *, failed: bool) -> None:
        """Finish the run."""
        self._swanlab.finish()


class _Given:
    """Knows which values a run was given, each by itself."""

    def __init__(self, tracker: SwanLabCallback) -> None:
        self._tracker = tracker

    def lacking(self, entry: Entry) -> Entry | None:
        """Return `entry` unless every value of it is there; `send` leaves out those that are."""
        return entry if self._tracker.lacks(entry) else None


def _points(file: Path) -> Iterator[tuple[int, str]]:
    """Yield step and name of the values that a file of an offline run holds."""
    messages = require("swanlab.proto.swanlab.record.v1.record_pb2", "SwanLabCallback")
    if file.stat().st_size == 0:
        return
    for content in record_log(file):
        message = messages.Record.FromString(content)
        if message.HasField("scalar"):
            yield message.scalar.step, message.scalar.key
