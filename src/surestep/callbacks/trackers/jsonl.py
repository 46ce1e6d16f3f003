"""The record of a run that is always kept: one JSON object a line, in the output folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.lines import LineLog, Place
from surestep.checkpoint.layout import step_of
from surestep.logs import get_logger, warn_once
from surestep.runtime.disk import write_text
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)
LOG_NAME = "train_log.jsonl"
# In a checkpoint: how far the log was.
PLACE = "train_log.json"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonlCallback(TrainerCallback):
    """Writes `<output_dir>/train_log.jsonl` from the beginning of a training on.

    Each line has `event` ("begin", "log", "evaluate", "save" or "end"), `step` and `time` (seconds since 1970), then
    the entry of the log as it is; an entry's own `event`, `step` or `time` is called `log_event` and so on. An entry is
    an "evaluate" if it has a name that starts with "eval_" or "test_". Numbers that JSON does not know are the texts
    "NaN", "Infinity" and "-Infinity"; `read_log` gives numbers again.

    A resumed run goes on in the same file as if it had never stopped: a checkpoint says how far the file was when it
    was written, and what came after that is taken out. `train_log.undone.jsonl` keeps it, each time after a line with
    the event "resume". A run from step 0 keeps older files as `train_log.<n>.jsonl` and starts new ones.
    """

    def __init__(self) -> None:
        self._log: LineLog | None = None
        self._restored: Place | None = None
        self._training = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the file, or go back in it to where it was at the checkpoint."""
        if not state.is_world_process_zero:
            return
        # Each trial of a search has a folder of its own.
        path = Path(args.output_dir) / (state.trial_name or "") / LOG_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        self._log, self._training = LineLog(path), True
        if not state.global_step:
            self._log.set_aside()
        if self._log.is_empty:
            lengths = {"max_steps": state.max_steps, "num_train_epochs": state.num_train_epochs}
            self._write("begin", state.global_step, lengths)
        else:
            self._go_back(self._log, state.global_step)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the entry."""
        logs = logs or {}
        evaluated = any(name.startswith(("eval_", "test_")) for name in logs)
        self._write("evaluate" if evaluated else "log", state.global_step, logs)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write that a checkpoint is complete."""
        self._write("save", state.global_step, {})

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write that the training came to its end, with the best metric if there is one, and wait for the disk."""
        best = {"best_metric": state.best_metric, "best_global_step": state.best_global_step}
        self._write("end", state.global_step, {} if state.best_metric is None else best)
        self._sync()

    def save_to(self, folder: Path) -> None:
        """Wait until the log is on the disk, and write into a checkpoint how far it is."""
        self._sync()
        place = None if self._log is None else self._log.place()
        if place is not None:
            write_text(folder / PLACE, json.dumps(asdict(place)) + "\n")

    def load_from(self, folder: Path) -> None:
        """Note how far the log was when a checkpoint was written; in the middle of a training, go back to there."""
        try:
            self._restored = Place(**json.loads((folder / PLACE).read_bytes()))
        except (OSError, ValueError, TypeError):
            # An older checkpoint, or one of a run without this log: its step says where to go back to.
            self._restored = None
        step = step_of(folder)
        if self._training and self._log is not None and step is not None:
            self._go_back(self._log, step)

    def place(self) -> Place | None:
        """Return how far the log is."""
        return None if self._log is None else self._log.place()

    def back_to(self, place: Place | None, step: int) -> None:
        """Take out what came since, of an evaluation that was cut off and is to be made again."""
        if self._log is None:
            return
        try:
            cut = self._log.cut(place, keep=lambda line: _step(line) < step, stays=lambda line: not line)
            self._log.go_back(cut, _line("cut off", step, {"lines": cut.count}))
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        """Note that a training is over, however it ended."""
        self._training = False

    def _go_back(self, log: LineLog, step: int) -> None:
        """Take out what came after the checkpoint. Its own "save" stays, or is made up for if a run died before it."""
        try:
            cut = log.cut(
                self._restored, keep=lambda line: _step(line) <= step, stays=lambda line: _is_save(line, step)
            )
            log.go_back(cut, _line("resume", step, {"lines": cut.count}))
        except OSError as error:
            self._tell(error)
            return
        if cut.at_place and not cut.stayed:
            self._write("save", step, {})

    def _write(self, event: str, step: int, figures: Mapping[str, Any]) -> None:
        if self._log is None:
            return
        try:
            self._log.append(_line(event, step, figures))
        except OSError as error:
            self._tell(error)

    def _sync(self) -> None:
        if self._log is None:
            return
        try:
            self._log.sync()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        # A full disk is no reason to lose the run.
        path = None if self._log is None else self._log.path
        warn_once(_logger, f"'{path}' cannot be written ({error}): the log of this run will have gaps.")


def _line(event: str, step: int, figures: Mapping[str, Any]) -> str:
    entry: dict[str, Any] = {"event": event, "step": step, "time": round(time.time(), 3)}
    entry |= {f"log_{name}" if name in entry else name: _plain(value) for name, value in figures.items()}
    return json.dumps(entry, allow_nan=False, ensure_ascii=False)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the entries of a log that `JsonlCallback` wrote; a line that was cut off is left out."""
    entries = (_entry(line) for line in Path(path).read_bytes().splitlines())
    return [{name: _number(value) for name, value in entry.items()} for entry in entries if entry]


def _plain(value: Any) -> Any:
    """Return the value as what strict JSON knows: arrays and tensors as numbers or lists, the unknown as text."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _name_of(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _name_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _number(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line, None where it is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _step(line: bytes) -> int:
    """Return the step of a line; a line that nobody can read is kept."""
    step = (_entry(line) or {}).get("step")
    return step if isinstance(step, int) else 0


def _is_save(line: bytes, step: int) -> bool:
    entry = _entry(line) or {}
    return (entry.get("event"), entry.get("step")) == ("save", step)
