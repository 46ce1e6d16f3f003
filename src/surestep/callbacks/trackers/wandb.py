"""Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from surestep.callbacks.trackers.describe import model_config, num_parameters, run_config, save_model_files
from surestep.callbacks.trackers.entries import Entry, number
from surestep.callbacks.trackers.record import Known, Record, Sent, Stored, everything_up_to
from surestep.callbacks.trackers.recordlog import record_log
from surestep.callbacks.trackers.tracker import Tracker
from surestep.logs import get_logger
from surestep.optional import require
from surestep.training.state import TrainerState

_logger = get_logger(__name__)
_STEP = "train/global_step"


class WandbCallback(Tracker):
    """Reports to Weights & Biases: the log over `train/global_step`, the arguments, the model's configuration.

    A run that the script has opened is used; else one is opened in project `WANDB_PROJECT`, or `args.project`, named
    `args.run_name`, and left open for what the script adds. `WANDB_LOG_MODEL` is "checkpoint" (the files of each as an
    artifact), "end" (those of the model) or "false"; `WANDB_WATCH` is "gradients", "parameters", "all" or "false".
    The client reads the other `WANDB_*`; `WANDB_MODE=offline` needs neither account nor network.
    """

    name = "wandb"
    package = "wandb"
    quiet = (("WANDB_ERROR_REPORTING", "false"),)
    stays_open = True
    takes_predictions = True
    hint = "Log in with `wandb login` or WANDB_API_KEY, or write to disk only with WANDB_MODE=offline."

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self._wandb = self._library
        self._log_model = os.environ.get("WANDB_LOG_MODEL", "false").lower()
        if self._log_model not in {"checkpoint", "end", "false"}:
            _logger.warning("WANDB_LOG_MODEL=%r is none of checkpoint, end, false: no model is sent.", self._log_model)
        # W&B's own count of a run's entries goes on from here.
        self._next_row = 0
        self._was_open = False

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open a run or use the open one; write down arguments, model and the axis of steps."""
        wandb, searching = self._wandb, state.is_hyper_param_search
        if searching and wandb.run is not None and not wandb.run.sweep_id:
            wandb.finish()
        self._was_open = wandb.run is not None
        if not self._was_open:
            wandb.init(**self._settings(args, state))
        run = wandb.run
        self.run_id, self._next_row = run.id, 0
        run.config.update(run_config(args, model), allow_val_change=True)
        run.define_metric(_STEP)
        run.define_metric("*", step_metric=_STEP, step_sync=True)
        watched = os.environ.get("WANDB_WATCH", "false")
        if watched in {"all", "parameters", "gradients"}:
            run.watch(model, log=watched, log_freq=max(100, state.logging_steps))
        count = num_parameters(model)
        if count is not None:
            run.config.update({"model/num_parameters": count}, allow_val_change=True)
        if self._log_model in {"checkpoint", "end"} and self._resumed is None:
            self._guarded("the model's architecture", partial(self._send_architecture, args, model))

    def _settings(self, args: Any, state: TrainerState) -> dict[str, Any]:
        settings: dict[str, Any] = {"project": os.environ.get("WANDB_PROJECT", args.project)}
        if state.is_hyper_param_search and state.trial_name is not None:
            settings |= {"name": state.trial_name, "group": args.run_name or args.output_dir}
        elif args.run_name is not None:
            settings["name"] = args.run_name
        if self.run_id is not None and "WANDB_RUN_ID" not in os.environ:
            settings |= {"id": self.run_id, "resume": "allow"}
        return settings

    def known(self, record: Record) -> Known:
        """Return what the run has: offline by the files of its earlier parts, online by what the server says."""
        run = self._wandb.run
        if self._was_open:
            return Sent(record)
        if not run.offline:
            last = number(run.summary.get(_STEP)) if run.resumed else None
            # What the client was given last before it was killed may not have reached the server.
            return Sent(record if last is None or last >= record.step else everything_up_to(record, int(last)))
        part = Path(run.dir).parent
        rows = [row for file in part.parent.glob(f"*-{run.id}/run-{run.id}.wandb") if file.parent != part
                for row in _rows(file)]  # fmt: skip
        self._next_row = max((int(row["_step"]) for row in rows if "_step" in row), default=-1) + 1
        return Stored(((int(row[_STEP]), name) for row in rows if _STEP in row for name in row), record)

    def send(self, entry: Entry) -> None:
        """Log an entry; figures of the whole training go to the summary."""
        run = self._wandb.run
        for name, value in entry.summary().items():
            run.summary[name] = value
        row, self._next_row = self._next_row, 0
        # Without `commit` a row with a number of its own would be joined with the next one.
        run.log({**entry.series(), _STEP: entry.step}, step=row or None, commit=True)

    def end_run(self, *, failed: bool) -> None:
        """Finish the run."""
        self._wandb.finish(exit_code=int(failed))

    def send_checkpoint(self, folder: Path, args: Any, state: TrainerState) -> None:
        """Log a checkpoint as an artifact."""
        if self._log_model == "checkpoint":
            epoch = round(state.epoch or 0, 2)
            names = [f"epoch_{epoch}", f"checkpoint_global_step_{state.global_step}"]
            self._send_files(folder, args, self._figures(), names)

    def send_model(self, args: Any, state: TrainerState, model: Any, processing_class: Any) -> None:
        """Log the model as an artifact."""
        if self._log_model not in {"checkpoint", "end"}:
            return
        figures = self._figures()
        if args.load_best_model_at_end:
            figures |= {f"eval/{args.metric_for_best_model}": state.best_metric, "train/total_floss": state.total_flos}
        with TemporaryDirectory() as folder:
            save_model_files(Path(folder), args, model, processing_class)
            (Path(folder) / "model_architecture.txt").write_text(f"{model}\n", encoding="utf-8")
            self._send_files(Path(folder), args, {**figures, "final_model": True}, ["final_model"])

    def _send_architecture(self, args: Any, model: Any) -> None:
        about = {"model_config": model_config(model) or None, "initial_model": True}
        with TemporaryDirectory() as folder:
            (Path(folder) / "model_architecture.txt").write_text(f"{model}\n", encoding="utf-8")
            self._send_files(Path(folder), args, {**about, "num_parameters": num_parameters(model)}, ["base_model"])

    def _send_files(self, folder: Path, args: Any, metadata: dict[str, Any], aliases: list[str]) -> None:
        run = self._wandb.run
        named = args.run_name not in {None, args.output_dir}
        artifact = self._wandb.Artifact(f"model-{run.name if named else run.id}", type="model", metadata=metadata)
        artifact.add_dir(str(folder))
        run.log_artifact(artifact, aliases=aliases)

    def _figures(self) -> dict[str, Any]:
        """Return the last value of every curve, with the size of the model."""
        run = self._wandb.run
        figures = {name: number(value) for name, value in dict(run.summary).items() if not name.startswith("_")}
        known = {name: value for name, value in figures.items() if value is not None}
        return {**known, "model/num_parameters": run.config.get("model/num_parameters")}


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of the history that a file of an offline run holds: name and JSON."""
    messages = require("wandb.proto.wandb_internal_pb2", "WandbCallback")
    for content in record_log(file):
        message = messages.Record.FromString(content)
        if message.WhichOneof("record_type") == "history":
            yield {(item.nested_key[0] if item.nested_key else item.key): item.value_json
                   for item in message.history.item}  # fmt: skip
