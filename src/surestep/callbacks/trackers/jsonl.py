"""The record of a run that is always kept: one JSON object a line, in the output folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surestep.logs import get_logger, warn_once
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)
LOG_NAME = "train_log.jsonl"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonlCallback(TrainerCallback):
    """Writes `<output_dir>/train_log.jsonl` from the beginning of a training on.

    Each line has `event` ("begin", "log", "evaluate", "save" or "end"), `step` and `time` (seconds since 1970), then
    the entry of the log as it is; an entry's own `event`, `step` or `time` is called `log_event` and so on. An entry is
    an "evaluate" if it has a name that starts with "eval_" or "test_". Numbers that JSON does not know are the texts
    "NaN", "Infinity" and "-Infinity"; `read_log` gives numbers again.

    A resumed run goes on in the same file: lines of steps after the one it resumes from are taken out, the others keep
    every byte. A run from step 0 keeps an older file as `train_log.<n>.jsonl` and starts a new one.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._torn = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the file, or go back in it to the step of `state`."""
        if not state.is_world_process_zero:
            return
        # Each trial of a search has a folder of its own.
        self._path = Path(args.output_dir) / (state.trial_name or "") / LOG_NAME
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if state.global_step:
            _rewind(self._path, state.global_step)
        else:
            _set_aside(self._path)
        self._write("begin", state, {"max_steps": state.max_steps, "num_train_epochs": state.num_train_epochs})

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
        self._write("evaluate" if any(name.startswith(("eval_", "test_")) for name in logs) else "log", state, logs)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write that a checkpoint is complete."""
        self._write("save", state, {})

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write that the training came to its end, with the best metric if there is one."""
        best = {"best_metric": state.best_metric, "best_global_step": state.best_global_step}
        self._write("end", state, {} if state.best_metric is None else best)

    def _write(self, event: str, state: TrainerState, figures: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        entry: dict[str, Any] = {"event": event, "step": state.global_step, "time": round(time.time(), 3)}
        entry |= {f"log_{name}" if name in entry else name: _plain(value) for name, value in figures.items()}
        line = json.dumps(entry, allow_nan=False, ensure_ascii=False) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._torn else line)
            self._torn = False
        except OSError as error:
            # A full disk is no reason to lose the run.
            self._torn = True
            warn_once(_logger, f"'{self._path}' cannot be written ({error}): the log of this run will have gaps.")


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


def _rewind(path: Path, step: int) -> None:
    """Take out the lines of later steps and a line that was never finished; replace the file in one stroke."""
    before = path.read_bytes() if path.exists() else b""
    lines = before.splitlines(keepends=True)
    after = b"".join(line for line in lines if line.endswith(b"\n") and _step(line) <= step)
    if after != before:
        beside = path.with_suffix(".part")
        beside.write_bytes(after)
        beside.replace(path)


def _step(line: bytes) -> int:
    """Return the step of a line; a line that nobody can read is kept."""
    step = (_entry(line) or {}).get("step")
    return step if isinstance(step, int) else 0


def _set_aside(path: Path) -> None:
    """Keep an older file under the next free number."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
