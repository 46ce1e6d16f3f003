"""Scalars for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.config.folders import dated_folder
from surestep.logs import get_logger, warn_once
from surestep.optional import require
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_logger = get_logger(__name__)


class TensorBoardCallback(TrainerCallback):
    """Writes the log, the arguments and the model's configuration for TensorBoard, under the names of the original.

    The folder is `args.tensorboard_dir`, else `$TENSORBOARD_LOGGING_DIR`, else `<output_dir>/runs/<date>_<host>`, with
    the trial's name below it in a search. A resumed run goes on in the folder written last, and what was logged after
    the step it resumes from is hidden. `tb_writer` is a writer of your own to use instead.
    """

    def __init__(self, tb_writer: SummaryWriter | None = None) -> None:
        require("tensorboard", 'report_to="tensorboard"')
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR")
        self._asked = None if folder is None else Path(folder).expanduser()
        self.tb_writer = tb_writer
        self.logging_dir: str | None = None if self._asked is None else str(self._asked)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Open the writer; write down the arguments and the model's configuration."""
        if not state.is_world_process_zero:
            return
        if self.tb_writer is None:
            self.logging_dir = str(self._folder(args, state))
            self.tb_writer = _open(self.logging_dir, purge_step=state.global_step + 1 if state.global_step else None)
        writer = self.tb_writer
        writer.add_text("args", args.to_json_string())
        to_json = getattr(getattr(model, "config", None), "to_json_string", None)
        if to_json is not None:
            writer.add_text("model_config", to_json())

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write numbers as scalars and text as text, at once."""
        if not state.is_world_process_zero:
            return
        writer = self._writer(args, state)
        for name, value in rewrite_logs(logs or {}).items():
            if isinstance(value, int | float):
                writer.add_scalar(name, value, state.global_step)
            elif isinstance(value, str):
                writer.add_text(name, value, state.global_step)
            else:
                kind = type(value).__name__
                warn_once(_logger, f"TensorBoard takes numbers and text, and '{name}' is a {kind}: it is left out.")
        writer.flush()

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the writer; a later entry opens it again."""
        self.close()

    def close(self) -> None:
        """Close the writer; closing again does nothing."""
        writer, self.tb_writer = self.tb_writer, None
        if writer is not None:
            writer.close()

    def _writer(self, args: Any, state: TrainerState) -> SummaryWriter:
        """Return the writer, opened where there is none: an evaluation before or after a training is written too."""
        if self.tb_writer is None:
            self.logging_dir = self.logging_dir or str(self._folder(args, state))
            self.tb_writer = _open(self.logging_dir)
        return self.tb_writer

    def _folder(self, args: Any, state: TrainerState) -> Path:
        trial = state.trial_name if state.is_hyper_param_search else None
        asked = self._asked if args.tensorboard_dir is None else Path(args.tensorboard_dir).expanduser()
        if asked is not None and trial is None:
            return asked
        runs, below = Path(args.output_dir) / "runs", trial or ""
        new = dated_folder(args.output_dir) / below
        return (_written_last(runs, below) if state.global_step else None) or new


def _open(folder: str, purge_step: int | None = None) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=purge_step)


def _written_last(runs: Path, below: str) -> Path | None:
    """Return the folder of the run whose events are the latest, None where there are none."""
    written = [
        (events.stat().st_mtime, folder / below)
        for folder in runs.glob("*")
        for events in (folder / below).glob("events.out.tfevents.*")
    ]
    return max(written)[1] if written else None


def rewrite_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry under the names that trackers group by: eval_x is eval/x, test_x is test/x, x is train/x."""
    return {_grouped(name): value for name, value in logs.items()}


def _grouped(name: str) -> str:
    for group in ("eval", "test"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return f"train/{name}"
