"""Scalars for TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from surestep.callbacks.trackers.entries import Entry, rewrite_logs
from surestep.callbacks.trackers.record import Known, Record, Sent, everything_up_to
from surestep.callbacks.trackers.tracker import Tracker
from surestep.config.folders import dated_folder
from surestep.logs import get_logger, warn_once
from surestep.optional import installed, require
from surestep.training.state import TrainerState

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_logger = get_logger(__name__)


class TensorBoardCallback(Tracker):
    """Writes the log, the arguments and the model's configuration for TensorBoard, under the names of the original.

    The folder is `args.tensorboard_dir`, else `$TENSORBOARD_LOGGING_DIR`, else `<output_dir>/runs/<date>_<host>`, with
    the trial's name below it in a search. A resumed run goes on in the folder of its checkpoint, or in the one written
    last, and what was logged after the step it resumes from is hidden. `tb_writer` is a writer of your own to use
    instead.
    """

    name = "tensorboard"
    package = "tensorboard"

    def __init__(self, tb_writer: SummaryWriter | None = None, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR")
        self._asked = None if folder is None else Path(folder).expanduser()
        self._restored = 0
        self.tb_writer: Any = tb_writer
        self.logging_dir: str | None = None if self._asked is None else str(self._asked)

    def _import(self) -> ModuleType | None:
        if installed("tensorboardX") and not installed("tensorboard"):
            return require("tensorboardX", "TensorBoardCallback")
        return super()._import()

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open the writer; at the beginning of a training, write down the arguments and the configuration."""
        self._restored = state.global_step
        if self.tb_writer is None:
            continued = self.run_id is not None and Path(self.run_id).is_dir() and self._asked_in(args, state) is None
            self.logging_dir = self.run_id if continued else str(self._folder_for(args, state))
            hidden_from = state.global_step + 1 if self._is_training and state.global_step else None
            self.tb_writer = self._new_writer(str(self.logging_dir), hidden_from)
        self.run_id = str(self.logging_dir or getattr(self.tb_writer, "log_dir", "own"))
        if self._is_training:
            self.tb_writer.add_text("args", args.to_json_string())
            to_json = getattr(getattr(model, "config", None), "to_json_string", None)
            if to_json is not None:
                self.tb_writer.add_text("model_config", to_json())

    def known(self, record: Record) -> Known:
        """Return what the folder has: all that was written up to the restored step, and nothing that shows after it."""
        return Sent(everything_up_to(record, self._restored) if record.step > self._restored else record)

    def send(self, entry: Entry) -> None:
        """Write numbers as scalars and text as text, at once."""
        for name, value in rewrite_logs(entry.values).items():
            if isinstance(value, int | float):
                self.tb_writer.add_scalar(name, value, entry.step)
            elif isinstance(value, str):
                self.tb_writer.add_text(name, value, entry.step)
            else:
                kind = type(value).__name__
                warn_once(_logger, f"TensorBoard takes numbers and text, and '{name}' is a {kind}: it is left out.")
        self.tb_writer.flush()

    def end_run(self, *, failed: bool) -> None:
        """Close the writer; a later entry opens it again."""
        writer, self.tb_writer = self.tb_writer, None
        writer.close()

    def _new_writer(self, folder: str, purge_step: int | None) -> Any:
        if self._library.__name__ == "tensorboardX":
            return self._library.SummaryWriter(folder, purge_step=purge_step)
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(folder, purge_step=purge_step)

    def _asked_in(self, args: Any, state: TrainerState) -> Path | None:
        """Return the folder that was asked for, None for one of ours, such as that of a trial."""
        if state.is_hyper_param_search and state.trial_name:
            return None
        return self._asked if args.tensorboard_dir is None else Path(args.tensorboard_dir).expanduser()

    def _folder_for(self, args: Any, state: TrainerState) -> Path:
        asked = self._asked_in(args, state)
        if asked is not None:
            return asked
        runs, below = Path(args.output_dir) / "runs", (state.is_hyper_param_search and state.trial_name) or ""
        new = dated_folder(args.output_dir) / below
        return (_written_last(runs, below) if state.global_step else None) or new


def _written_last(runs: Path, below: str) -> Path | None:
    """Return the folder of the run whose events are the latest, None where there are none."""
    written = [
        (events.stat().st_mtime, folder / below)
        for folder in runs.glob("*")
        for events in (folder / below).glob("events.out.tfevents.*")
    ]
    return max(written)[1] if written else None
