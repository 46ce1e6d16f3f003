"""ClearML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.describe import model_config
from surestep.callbacks.trackers.entries import Entry, number
from surestep.callbacks.trackers.reporter import is_true
from surestep.callbacks.trackers.tracker import Tracker
from surestep.logs import get_logger, warn_once
from surestep.training.state import TrainerState

_logger = get_logger(__name__)
_GROUPS = ("eval", "test")


class ClearMLCallback(Tracker):
    """Reports to ClearML: the log over steps, the arguments as hyperparameters, the model's configuration.

    A task that the script has opened is used; else one is opened in project `CLEARML_PROJECT` ("HuggingFace
    Transformers"), named `CLEARML_TASK` ("Trainer"), and closed with the training. `CLEARML_LOG_MODEL` sends the files
    of checkpoints: by default for a task opened here. `CLEARML_OFFLINE_MODE=1` writes to disk only, without
    files.

    In a task that an agent runs, values that were changed in ClearML are taken over where
    `Transformers/_ignore_hparams_ui_overrides_` is false there.
    """

    name = "clearml"
    package = "clearml"
    hint = "Run `clearml-init`, or set CLEARML_OFFLINE_MODE=1 to write to disk only."

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self._clearml = self._library
        self._clearml_task: Any = None
        self._is_own = False
        self._log_model = False
        self._models: list[Any] = []

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open a task, go on in one or use the open one; connect arguments and configuration."""
        tasks = self._clearml.Task
        current = tasks.current_task()
        self._is_own = current is None and tasks.running_locally()
        self._clearml_task = current
        if current is None or not tasks.running_locally():
            # Continued from 0: steps are reported as they are, not counted from the last one on.
            continued = {} if self.run_id is None else {"reuse_last_task_id": self.run_id, "continue_last_task": 0}
            self._clearml_task = tasks.init(
                project_name=os.environ.get("CLEARML_PROJECT", "HuggingFace Transformers"),
                task_name=self._task_name(args, state),
                auto_connect_frameworks={"tensorboard": False, "pytorch": False},
                output_uri=True,
                **continued,
            )
        self.run_id = self._clearml_task.id
        asked = "CLEARML_LOG_MODEL" in os.environ
        # Offline, the client takes no files.
        self._log_model = is_true("CLEARML_LOG_MODEL") if asked else self._is_own and not tasks.is_offline()
        self._describe(args, model)

    def _task_name(self, args: Any, state: TrainerState) -> str:
        trial = state.trial_name if state.is_hyper_param_search else None
        name = os.environ.get("CLEARML_TASK") or args.run_name or "Trainer"
        return f"{name} {trial}" if trial else name

    def _describe(self, args: Any, model: Any) -> None:
        """Write down arguments and configuration; remotely, take over what was changed, if that is wanted."""
        task, section = self._clearml_task, "Transformers"
        ignore = f"{section}/_ignore_hparams_ui_overrides_"
        if self._clearml.Task.running_locally():
            task.set_parameter(name=ignore, value=True, value_type=bool)
            task.update_parameters({f"{section}/{name}": value for name, value in args.to_dict().items()})
        elif not task.get_parameter(ignore, default=True, cast=True):
            task.connect(args, section)
        if model_config(model) and self._clearml.Task.running_locally():
            task.set_configuration_object(name="Model Configuration", config_dict=model_config(model))

    def send(self, entry: Entry) -> None:
        """Report the numbers of an entry."""
        logger = self._clearml_task.get_logger()
        single = entry.summary()
        for name, value in entry.values.items():
            figure = number(value)
            group = next((group for group in _GROUPS if name.startswith(f"{group}_")), "train")
            if figure is None:
                warn_once(_logger, f"ClearML takes numbers, which {name!r} is not: it is left out.")
            elif name in single or name == "epoch":
                logger.report_single_value(name=name, value=figure)
            else:
                series = name.removeprefix(f"{group}_") if group in _GROUPS else name
                logger.report_scalar(title=group, series=series, value=figure, iteration=entry.step)

    def end_run(self, *, failed: bool) -> None:
        """Close a task that was opened here."""
        if self._is_own:
            if failed:
                self._clearml_task.mark_failed(status_reason="The training broke off.")
            self._clearml_task.close()

    def send_checkpoint(self, folder: Path, args: Any, state: TrainerState) -> None:
        """Upload a checkpoint, and remove the uploads of checkpoints that `save_total_limit` has removed."""
        if not self._log_model:
            return
        upload = self._clearml.OutputModel(task=self._clearml_task, name=folder.name)
        upload.connect(task=self._clearml_task, name=folder.name)
        upload.update_weights_package(
            weights_path=str(folder), target_filename=folder.name, iteration=state.global_step, auto_delete_file=False
        )
        self._models.append(upload)
        while args.save_total_limit and len(self._models) > args.save_total_limit:
            oldest = self._models.pop(0)
            self._clearml.model.Model.remove(oldest, delete_weights_file=True, force=True, raise_on_errors=True)
