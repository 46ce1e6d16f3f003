"""Neptune."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from surestep.callbacks.trackers.describe import model_config
from surestep.callbacks.trackers.entries import Entry, number, rewrite_logs
from surestep.callbacks.trackers.tracker import Tracker
from surestep.errors import ArgumentError, TrackerError
from surestep.logs import get_logger, warn_once
from surestep.optional import require
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)


class NeptuneCallback(Tracker):
    """Reports to Neptune: the log over steps, arguments and model configuration, below `base_namespace`.

    Args:
        api_token: where None, the client reads `NEPTUNE_API_TOKEN`.
        project: "workspace/project"; where None, the client reads `NEPTUNE_PROJECT`.
        name: name of the run; None takes `args.run_name`.
        base_namespace: where everything is put in the run.
        run: a run of your own to use.
        log_parameters: whether arguments and model configuration are sent.
        log_checkpoints: which checkpoints to upload: "same" for each, "last", "best", or None.
        strict: whether a failure stops the run.
        **neptune_run_kwargs: for `neptune.init_run`, such as `mode="offline"`.
    """

    name = "neptune"
    package = "neptune"
    hint = "Set NEPTUNE_API_TOKEN and NEPTUNE_PROJECT, or NEPTUNE_MODE=offline to write to disk only."

    def __init__(
        self,
        *,
        api_token: str | None = None,
        project: str | None = None,
        name: str | None = None,
        base_namespace: str = "finetuning",
        run: Any = None,
        log_parameters: bool = True,
        log_checkpoints: Literal["same", "last", "best"] | None = None,
        strict: bool = False,
        **neptune_run_kwargs: Any,
    ) -> None:
        super().__init__(strict=strict)
        if log_checkpoints not in {None, "same", "last", "best"}:
            raise ArgumentError(f'log_checkpoints={log_checkpoints!r}. Write "same", "last", "best" or None.')
        self._settings = {"api_token": api_token, "project": project, "name": name, **neptune_run_kwargs}
        self._base_namespace_path = base_namespace
        self._log_parameters = log_parameters
        self._log_checkpoints = log_checkpoints
        self._run = run
        self._is_users = run is not None
        self._uploaded: Path | None = None

    @property
    def run(self) -> Any:
        """The run of Neptune, open or None."""
        return self._run

    @classmethod
    def get_run(cls, trainer: Any) -> Any:
        """Return the run of a trainer's `NeptuneCallback`."""
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, cls):
                return callback.run
        raise TrackerError("The trainer has no NeptuneCallback. Write report_to='neptune', or add one to callbacks.")

    def on_init_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check that there will be a best model to upload."""
        if self._log_checkpoints == "best" and not args.load_best_model_at_end:
            raise ArgumentError('log_checkpoints="best" needs load_best_model_at_end=True.')

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open a run, or go on in one; send arguments and configuration."""
        stringify_unsupported = require("neptune.utils", "NeptuneCallback").stringify_unsupported
        if not self._is_users:
            name = self._settings["name"] or args.run_name
            # A run that was never online has no id by which it could be continued.
            offline = (self._settings.get("mode") or os.environ.get("NEPTUNE_MODE")) == "offline"
            continued = {} if self.run_id is None or offline else {"with_id": self.run_id}
            self._run = self._library.init_run(**{**self._settings, "name": name, **continued})
        offline = "offline" in str(getattr(self._run, "_mode", "")).lower()
        self.run_id = str(self._run._id) if offline else self._run["sys/id"].fetch()
        base = self._run[self._base_namespace_path]
        if self._log_parameters:
            base["trainer_parameters"] = stringify_unsupported(args.to_sanitized_dict())
            if model_config(model):
                base["model_parameters"] = stringify_unsupported(model_config(model))
        if state.is_hyper_param_search:
            base["trial"] = state.trial_name or ""
            base["trial_params"] = stringify_unsupported(state.trial_params or {})

    def send(self, entry: Entry) -> None:
        """Append the numbers of an entry to their series; the epoch is a single value."""
        base = self._run[self._base_namespace_path]
        for name, value in rewrite_logs(entry.values).items():
            figure = number(value)
            if figure is None:
                warn_once(_logger, f"Neptune takes numbers, which {name!r} is not: it is left out.")
            elif name == "train/epoch":
                base[name] = figure
            else:
                base[name].append(figure, step=entry.step)

    def end_run(self, *, failed: bool) -> None:
        """Stop the run, once all of it is sent."""
        self._run.stop()
        self._run, self._is_users = None, False

    def send_checkpoint(self, folder: Path, args: Any, state: TrainerState) -> None:
        """Upload a checkpoint, at once because its folder may be removed; "last" and "best" keep one."""
        if self._log_checkpoints is None or (
            self._log_checkpoints == "best" and state.best_global_step != state.global_step
        ):
            return
        one = self._log_checkpoints in {"last", "best"}
        target = f"checkpoints/{self._log_checkpoints}" if one else "checkpoints"
        base = self._run[self._base_namespace_path]
        base[f"{target}/{folder.name}"].upload_files(str(folder), wait=True)
        if one and self._uploaded is not None and self._uploaded != folder:
            del base[f"{target}/{self._uploaded.name}"]
        self._uploaded = folder
